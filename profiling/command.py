"""A command under a meter: started, followed to its end, and cut into slices.

``follow`` reads the meter four times a second until the command ends. A slice is settled when the next one
is over, so that a sampled sensor's edges are interpolated; a reading that fails makes the slice longer, and
one that fails at the end leaves the last slice unknown. A thread waits for the command, so that its end is
noticed at once; its processor time and that of all that it started is the kernel's (wait4(2)) when it has
ended, and read from /proc until then. What the command leaves running when it ends is not waited for.
What the slices cost is ``runs``'s to say.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from mas_edge.profiling import ledger as books
from mas_edge.profiling.cpu import host_time, tree_cpu_ns
from mas_edge.profiling.ledger import Slice, Use
from mas_edge.profiling.meters import Mark, MeterError, MeterUnavailable, Pending, begin
from mas_edge.profiling.runs import Course

if TYPE_CHECKING:
    from types import FrameType

    from mas_edge.profiling.meters import Energy, Meter

SLICE_S = 0.25
SLICES = 4096
"""After so many slices they get twice as long, so that a run of days keeps as little as one of minutes."""


class CommandRefused(MeterError, ValueError):
    """There is no command to measure, or it cannot be started."""


def follow(meter: Meter, command: Sequence[str]) -> Course:
    """Runs the command to its end under the meter; raises CommandRefused, and MeterUnavailable before it.

    SIGINT is the command's own business (a terminal sends it to both) and SIGTERM is handed on to it;
    either is told as ``interrupted``.
    """
    edges, slices, lost = [first := _edge(meter, 0.0)], list[Slice](), None
    child, over = _Child(), False
    with _signals(child) as caught:  # first, or a signal might come between
        child.start(command)
        while not over:
            over = child.ended.wait(SLICE_S * 2 ** (len(slices) // SLICES))
            try:
                edges.append(_edge(meter, child.cpu_s()))
                lost = None
            except MeterUnavailable as error:
                lost = error  # perhaps it answers again: the slice goes on
            if len(edges) > 2:
                slices.append(_slice(edges.pop(0), edges[0]))
    slices += [_slice(a, b) for a, b in pairwise(edges)]
    whole = _settled(first, edges[-1])
    if lost:
        slices.append(_unknown(edges[-1], time.monotonic_ns(), child.cpu_s()))
    return Course(
        whole=whole,
        slices=tuple(slices),
        exit_code=child.exit_code,
        cpu_s=child.cpu_s(),
        interrupted=bool(caught),
        lost=str(lost) if lost else None,
    )


@dataclass(frozen=True)
class _Edge:
    """A moment between two slices: the meter, and the processor time of host, command and ourselves."""

    mark: Mark
    busy_s: float | None
    cpu_s: float
    own_s: float


class _Child:
    """The running command; a thread waits for it, so that its end is noticed at once."""

    def __init__(self) -> None:
        self.ended, self.exit_code = threading.Event(), 0
        self._seen_s, self._used_s = 0.0, 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> None:
        """Starts the command; raises CommandRefused."""
        try:
            self._process = process = subprocess.Popen(command)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CommandRefused(f"cannot run {command[0]!r}: {reason}") from error
        threading.Thread(target=self._wait, args=(process,), name="command", daemon=True).start()

    def cpu_s(self) -> float:
        """Processor time of the command and all that it started, as far as waited for; never falls."""
        if self._process and not self.ended.is_set():
            self._seen_s = max(self._seen_s, (tree_cpu_ns(self._process.pid) or 0) / 1e9)
        return max(self._seen_s, self._used_s)

    def send(self, number: int) -> None:
        """Hand a signal on."""
        if self._process and not self.ended.is_set():
            self._process.send_signal(number)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)  # or Popen would wait once more
        self.exit_code = code if code >= 0 else 128 - code
        self._used_s = used.ru_utime + used.ru_stime
        self.ended.set()


@contextmanager
def _signals(child: _Child) -> Iterator[list[int]]:
    """The signals that came meanwhile, which do not end us."""
    caught: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        if number == signal.SIGTERM:
            child.send(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _edge(meter: Meter, cpu_s: float) -> _Edge:
    return _Edge(begin(meter), _busy_s(), cpu_s, time.thread_time())


def _slice(a: _Edge, b: _Edge) -> Slice:
    energy = _settled(a, b)
    if energy is None:
        return _unknown(a, b.mark.t_ns, b.cpu_s)
    busy_s = None if a.busy_s is None or b.busy_s is None else b.busy_s - a.busy_s
    return books.metered(energy, busy_s, (_use(energy.wall_s, b.cpu_s - a.cpu_s),), b.own_s - a.own_s)


def _settled(a: _Edge, b: _Edge) -> Energy | None:
    """The energy between two edges, by our own clock: a driver's may jump."""
    try:
        energy = Pending(a.mark, b.mark.reading, b.mark.t_ns).settle()
    except MeterUnavailable:
        return None
    return replace(energy, t0_ns=a.mark.t_ns, t1_ns=b.mark.t_ns)


def _unknown(a: _Edge, t1_ns: int, cpu_s: float) -> Slice:
    t0_ns = min(a.mark.t_ns, t1_ns)
    use = _use((t1_ns - t0_ns) / 1e9, cpu_s - a.cpu_s)
    return Slice(t0_ns=t0_ns, t1_ns=t1_ns, energy_j=None, uses=(use,), flags=("no_reading",))


def _use(wall_s: float, cpu_s: float) -> Use:
    return Use(job="", group="command", round=0, phase="run", wall_s=wall_s, cpu_s=max(cpu_s, 0.0))


def _busy_s() -> float | None:
    try:
        return host_time().busy_s
    except OSError:
        return None
