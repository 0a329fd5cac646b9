"""Energy counters that are read now and then -> a meter: what rapl and nvml have in common.

Each counter is a source of microjoules with limits (see ``profiling.counter``). A thread reads all of them
often enough that no two wraps hide in one interval, a window reads them afresh at both of its edges, and
both count on into the same totals, under one lock: there is no second count that could be read at the wrong
moment. A read that fails is a missing sample, counted and named (``failed_read:package-0:EIO``), and never a
zero; if the counter belongs to the total, so is the reading. A host that slept (CLOCK_BOOTTIME ran ahead of
CLOCK_MONOTONIC, see clock_gettime(2)) may have lost its counters, so that this interval is a ``gap``.

The thread ends, and the sources are closed, with ``close``, when the meter is forgotten, or with the process.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mas_edge.profiling.counter import Count, Limits, advance, edges_j2, safe_interval_s
from mas_edge.profiling.meters import Idle, MeterUnavailable, Reading
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

SLOWEST_S, FASTEST_S = 30.0, 0.05
"""The longest and the shortest time between two looks of the thread."""
SLEPT_NS = 500_000_000
"""More than this between two clocks that are read one after the other is a suspended host."""


class Source(Protocol):
    """Where one counter is read."""

    def read_uj(self) -> int:
        """The counter in microjoules; raises OSError."""
        ...

    def close(self) -> None:
        """Gives back what is held."""
        ...


class FileSource:
    """A counter in a file of sysfs, which stays open: a read takes 1 us instead of 20.

    After a driver was loaded anew the old descriptor is dead (ENODEV), so a failed read opens the file
    once more. Raises OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)

    def read_uj(self) -> int:
        """The number in the file; raises OSError, also where there is none."""
        try:
            return self._read()
        except OSError:
            again = os.open(self._path, os.O_RDONLY)
            os.dup2(again, self._descriptor, inheritable=False)
            os.close(again)
            return self._read()

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def _read(self) -> int:
        if not os.fstat(self._descriptor).st_nlink:  # removed; outside of sysfs it would still answer
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))
        try:
            return number(os.pread(self._descriptor, 64, 0), self._path)
        except OSError as error:
            error.filename = str(self._path)
            raise


def number(text: bytes, path: Path) -> int:
    """The whole number that a file of sysfs holds; raises OSError (EINVAL) if it holds none."""
    try:
        return int(text)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{text[:20]!r} is no number", str(path)) from error


def why(error: OSError) -> str:
    """The error's name in the kernel's language (``EIO``)."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def slept_ns() -> int:
    """How long this host was suspended since it was started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


@dataclass(eq=False)
class Tally:
    """One counter with what was counted so far; ``counted``: it belongs to the total."""

    rail: str
    counted: bool
    source: Source
    limits: Limits
    count: Count

    def look(self, clock_ns: Callable[[], int], *, slept: bool) -> str | None:
        """Counts on, stamped with the middle of the read; says what is doubtful. Raises OSError."""
        before_ns = clock_ns()
        value_uj = self.source.read_uj()
        t_ns = (before_ns + clock_ns()) // 2
        self.count, doubt = advance(self.count, value_uj, t_ns, self.limits, slept=slept)
        return doubt


def tally(rail: str, source: Source, limits: Limits, clock_ns: Callable[[], int], *, counted: bool) -> Tally:
    """A counter that begins now; raises OSError, and then has closed the source."""
    try:
        before_ns = clock_ns()
        value_uj = source.read_uj()
    except OSError:
        source.close()
        raise
    return Tally(rail, counted, source, limits, Count(value_uj, (before_ns + clock_ns()) // 2))


class CounterMeter:
    """The meter over one or more counters; takes over their sources. See ``profiling.meters.Meter``.

    ``late_ns`` is how old a value may be when it is read.
    """

    def __init__(
        self,
        sensor: Sensor,
        idle: Idle | None,
        tallies: Sequence[Tally],
        clock_ns: Callable[[], int],
        late_ns: int,
        slept_ns: Callable[[], int] = slept_ns,
    ) -> None:
        self.sensor, self.idle = sensor, idle
        self._totals = _Totals(sensor.name, tallies, clock_ns, late_ns, slept_ns)
        self._release = weakref.finalize(self, self._totals.close)

    def read(self) -> Reading:
        """A fresh look at every counter; raises MeterUnavailable if one of the total's does not answer."""
        return self._totals.read()

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:  # noqa: ARG002 - Meter's signature
        """None: these are counters."""
        return None

    def close(self) -> None:
        """Ends the thread and closes the sources."""
        self._release()


class _Totals:
    """What a meter and its thread share, so that a meter that is forgotten leaves no thread behind."""

    def __init__(
        self,
        name: str,
        tallies: Sequence[Tally],
        clock_ns: Callable[[], int],
        late_ns: int,
        slept_ns: Callable[[], int],
    ) -> None:
        self._name, self._tallies = name, tallies
        self._clock_ns, self._slept_ns = clock_ns, slept_ns
        self._asleep_ns, self._cpu_s, self._variance_j2 = slept_ns(), 0.0, 0.0
        self._flags: Counter[str] = Counter()
        self._late_ns, self._last = late_ns, (clock_ns(), 0.0)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self._thread.start()

    def read(self) -> Reading:
        with self._lock:
            if self._stop.is_set():
                raise MeterUnavailable(self._name, "it is closed")
            before_ns = self._clock_ns()
            failed = self._look()
            t_ns = (before_ns + self._clock_ns()) // 2
            if lost := [f"{one.rail} ({reason})" for one, reason in failed if one.counted]:
                raise MeterUnavailable(self._name, f"no answer from {', '.join(lost)}")
            unknown = {one.rail for one, _ in failed}
            rails = {one.rail: one.count.total_uj / 1e6 for one in self._tallies if one.rail not in unknown}
            energy_j = sum(one.count.total_uj for one in self._tallies if one.counted) / 1e6
            last_ns, last_j = self._last
            self._variance_j2 += edges_j2(energy_j - last_j, t_ns - last_ns, self._late_ns)
            self._last = t_ns, energy_j
            return Reading(t_ns, energy_j, self._variance_j2, rails, dict(self._flags), cpu_s=self._cpu_s)

    def close(self) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _look(self) -> list[tuple[Tally, str]]:
        """Counts everything on; the counters that did not answer, and why."""
        failed = []
        asleep_ns = self._slept_ns()
        slept = asleep_ns - self._asleep_ns > SLEPT_NS
        self._asleep_ns = max(asleep_ns, self._asleep_ns)
        for one in self._tallies:
            try:
                doubt = one.look(self._clock_ns, slept=slept)
            except OSError as error:
                failed.append((one, why(error)))
                self._flags["failed_read"] += 1
                self._flags[f"failed_read:{one.rail}:{why(error)}"] += 1
                continue
            if doubt:
                self._flags[doubt if one.counted else f"{doubt}:{one.rail}"] += 1
        return failed

    def _watch(self) -> None:
        every_s = min(safe_interval_s(one.limits, SLOWEST_S) for one in self._tallies)
        while not self._stop.wait(max(every_s, FASTEST_S)):
            with self._lock:
                self._look()
                self._cpu_s = time.thread_time()
        with self._lock:
            for one in self._tallies:
                one.source.close()
