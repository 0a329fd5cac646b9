"""What the agent's daemon and its worker process say to each other, and the daemon's hold on it.

The worker is the process that imports torch; it stays warm between rounds, may be killed at any
moment without hurting the daemon, and dies with it. They speak JSON lines of typed structs over the
worker's stdin and stdout: ``Work`` and ``Halt`` go in, any number of ``Beat`` and then one ``Done`` or
``Broke`` per ``Work`` come out. ``WorkerProcess`` starts the process when the first work comes, never
blocks the daemon's loop, and turns a death into ``Broke``: that is an event, not a crash.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.messages import AffinitySums, Assign, Score

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

KILL_AFTER_S = 4.0
"""A worker that was told to halt and does not is killed after this long."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A line between daemon and worker."""


class Work(_Line, frozen=True):
    """Do this assignment: paths of the received and of the resulting weights, and the data to use.

    ``number`` tells two works on the same assignment apart; ``WorkerProcess`` gives it.
    """

    assign: Assign
    weights: str
    result: str
    clients: tuple[str, ...]
    root: str | None = None
    train_device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
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


class Broke(_Line, frozen=True):
    """The work broke; ``reason`` names the kind (cancelled, fingerprint, data, killed, ...)."""

    number: int
    reason: str
    detail: str = ""
    phases: tuple[PhaseTime, ...] = ()


Order: TypeAlias = Work | Halt
Word: TypeAlias = Beat | Done | Broke


class WorkerProcess:
    """The one warm worker of an agent."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._works: dict[int, Work] = {}  # not ended yet
        self._halted_s: dict[int, float] = {}  # of those, when they were told to stop
        self._number, self._wanted = 0, 0
        self._words = msgspec.json.Decoder(Word)

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return self._process.pid if self._process else None

    def start(self, work: Work) -> None:
        """Give it work; starts the process if there is none."""
        self._number += 1
        self._wanted = self._number
        self._works[self._number] = work = msgspec.structs.replace(work, number=self._number)
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
            self._process.kill()
        data = self._process.stdout.read()
        if data == b"":
            return self._died()
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        try:
            words = [self._words.decode(line) for line in lines if line]
        except msgspec.MsgspecError as error:
            log.warning("the worker said what is none of our lines (%s): it is killed", error)
            self._process.kill()
            return []
        for word in words:
            if not isinstance(word, Beat):
                self._works.pop(word.number, None)
                self._halted_s.pop(word.number, None)
        return words

    def close(self) -> None:
        """End the process, politely first."""
        if self._process and self._process.stdin and self._process.stdout:
            self._process.terminate()
            try:
                self._process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdin.close()
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
        assert self._process is not None  # noqa: S101 - only called with a process
        code = self._process.wait()
        works, halted = self._works, self._halted_s
        self.close()
        self._works, self._halted_s, self._rest = {}, {}, b""
        if halted:
            self._works = {number: work for number, work in works.items() if number not in halted}
            self._process = self._spawn() if self._works else None
            for work in self._works.values():
                self._tell(work)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        detail = f"the worker process ended {how}; its last words are in {self._log}"
        ended = works.keys() - self._works.keys()
        return [Broke(number=number, reason="worker-killed", detail=detail) for number in sorted(ended)]
