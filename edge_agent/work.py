"""What the agent's daemon and its worker process say to each other, and the daemon's hold on it.

The worker is the process that imports torch; it stays warm between rounds, may be killed at any
moment without hurting the daemon, and dies with it. They speak JSON lines of typed structs over the
worker's stdin and stdout: ``Work`` and ``Halt`` go in, perhaps ``Fitted``, any number of ``Beat`` and then
one ``Done`` or ``Broke`` per ``Work`` come out. ``WorkerProcess`` starts the process with the first work,
never blocks the daemon's loop, and turns a death into ``Broke``: that is an event, not a crash. A death is
one for memory if the kernel counts one more of them (/proc/vmstat) than when the work began, or if the worker
could not get any and ended with ``NO_MEMORY``: what its libraries were at is not to be gone on with.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.profiling.cpu import memory_kills
from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.messages import AffinitySums, Assign, Fit, Score, Shortage

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

KILL_AFTER_S = 4.0
"""A worker that was told to halt and does not is killed after this long."""


NO_MEMORY = errno.ENOMEM
"""Exit code of a worker that could get no memory."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A line between daemon and worker."""


class Work(_Line, frozen=True):
    """Do this assignment: paths of the received and of the resulting weights, and the data to use.

    ``memory_bytes`` is what the worker may have resident, None without a limit; ``killed`` is how an earlier
    attempt trained that was killed for memory. ``number`` tells two works on the same assignment apart;
    ``WorkerProcess`` gives it.
    """

    assign: Assign
    weights: str
    result: str
    clients: tuple[str, ...]
    root: str | None = None
    train_device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    memory_bytes: int | None = None
    killed: Fit | None = None
    number: int = 0


class Halt(_Line, frozen=True):
    """Stop the work of this number at the next micro-batch."""

    number: int


class Beat(_Line, frozen=True):
    """A sign of life; ``phases`` are cumulated over the worker's life."""

    number: int
    phases: tuple[PhaseTime, ...]
    phase: str
    step: int
    steps: int


class Fitted(_Line, frozen=True):
    """It will be done so; ``shortage`` holds the same in numbers, for the case that it is killed."""

    number: int
    fit: Fit
    shortage: Shortage
    phases: tuple[PhaseTime, ...] = ()


class Done(_Line, frozen=True):
    """What the work brought. The resulting weights are on disk if it trained."""

    number: int
    phases: tuple[PhaseTime, ...]
    examples: int
    trained: tuple[Score, ...]
    scores: tuple[Score, ...]
    affinity: AffinitySums | None
    peak_rss_bytes: int | None
    train_device: str
    fit: Fit | None = None


class Broke(_Line, frozen=True):
    """The work broke; ``reason`` names the kind (cancelled, fingerprint, data, memory, ...).

    ``peak_rss_bytes`` is what the worker had resident when it died of ``memory``; ``shortage`` says why it
    did not even begin.
    """

    number: int
    reason: str
    detail: str = ""
    phases: tuple[PhaseTime, ...] = ()
    shortage: Shortage | None = None
    peak_rss_bytes: int | None = None


Order: TypeAlias = Work | Halt
Word: TypeAlias = Beat | Fitted | Done | Broke


class WorkerProcess:
    """The one warm worker of an agent."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._works: dict[int, Work] = {}  # not ended yet
        self._halted_s: dict[int, float] = {}  # of those, when they were told to stop
        self._number, self._wanted = 0, 0
        self._memory_kills: int | None = None  # of the host, when the last work began
        self._words = msgspec.json.Decoder(Word)

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return self._process.pid if self._process else None

    @property
    def working(self) -> bool:
        """Whether there is work that has not ended."""
        return bool(self._works)

    def start(self, work: Work) -> None:
        """Give it work; starts the process if there is none."""
        self._number += 1
        self._wanted = self._number
        self._works[self._number] = work = msgspec.structs.replace(work, number=self._number)
        self._memory_kills = memory_kills()
        if self._process is None:
            self._process = self._spawn()
        self._tell(work)

    def halt(self) -> None:
        """Stop all work soon; the worker stays warm unless it does not listen."""
        self._wanted = 0
        for number in self._works.keys() - self._halted_s.keys():
            self._tell(Halt(number=number))
            self._halted_s[number] = time.monotonic()

    def means(self, word: Word) -> bool:
        """Whether a word is about the last work that was started; what is said of halted ones is late."""
        return word.number == self._wanted

    def heard(self) -> list[Word]:
        """What the worker said since the last call, ended by a Broke for everything if it died."""
        if self._process is None or self._process.stdout is None:
            return []
        if self._halted_s and time.monotonic() - min(self._halted_s.values()) > KILL_AFTER_S:
            self.kill()
        data = self._process.stdout.read()
        if data == b"":
            return self._died()
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        try:
            words = [self._words.decode(line) for line in lines if line]
        except msgspec.MsgspecError as error:
            log.warning("the worker said what is none of our lines (%s): it is killed", error)
            self.kill()
            return []
        for word in words:
            if isinstance(word, Done | Broke):
                self._works.pop(word.number, None)
                self._halted_s.pop(word.number, None)
        return words

    def close(self) -> None:
        """End the process, politely first: it ends when nobody tells it anything any more."""
        if self._process and self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            try:
                self._process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        self._process = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mas_edge.edge_agent.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                bufsize=0,
            )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _tell(self, order: Order) -> None:
        if self._process and self._process.stdin:
            try:
                self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            except BrokenPipeError:
                return  # it died; heard() says so

    def _died(self) -> list[Word]:
        """A Broke for what it was at; what waited behind halted work had no part in it and begins anew."""
        code, peak_rss_bytes = self._buried()
        works, halted = self._works, self._halted_s
        self._works, self._halted_s, self._rest = {}, {}, b""
        if halted:
            self._works = {number: work for number, work in works.items() if number not in halted}
            self._process = self._spawn() if self._works else None
            for work in self._works.values():
                self._tell(work)
        before, now = self._memory_kills, memory_kills()
        killed = code == -signal.SIGKILL and before is not None and now is not None and now > before
        reason = "memory" if killed or code == NO_MEMORY else "worker-killed"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        detail = f"the worker process ended {how}; its last words are in {self._log}"
        return [
            Broke(number=number, reason=reason, detail=detail, peak_rss_bytes=peak_rss_bytes)
            for number in sorted(works.keys() - self._works.keys())
        ]

    def kill(self) -> None:
        """End the process at once: all work ends as broken.

        Popen.kill would bury a process that is dead already, and what it used with it.
        """
        if self._process:
            os.kill(self._process.pid, signal.SIGKILL)

    def _buried(self) -> tuple[int, int]:
        """The dead process' exit code and the peak of its resident memory, as getrusage(2) counts it."""
        assert self._process is not None  # noqa: S101 - only called with a process
        _, status, used = os.wait4(self._process.pid, 0)  # Popen.wait does not tell what it used
        self._process.returncode = os.waitstatus_to_exitcode(status)
        code = self._process.returncode
        self.close()
        return code, used.ru_maxrss * 1024
