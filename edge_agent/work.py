"""What the agent's daemon and its worker process say to each other, and the daemon's hold on it.

The worker is the process that imports torch; it stays warm between rounds, may be killed at any
moment without hurting the daemon, and dies with it. They speak JSON lines of typed structs over the
worker's stdin and stdout: ``Work`` and ``Halt`` go in, any number of ``Beat`` and then one ``Done`` or
``Broke`` per ``Work`` come out. ``WorkerProcess`` starts the process when the first work comes, never
blocks the daemon's loop, and turns a death into ``Broke``: that is an event, not a crash.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.messages import AffinitySums, Assign, Key, Score

if TYPE_CHECKING:
    from pathlib import Path

KILL_AFTER_S = 4.0
"""A worker that was told to halt and does not is killed after this long."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A line between daemon and worker."""


class Work(_Line, frozen=True):
    """Do this assignment: paths of the received and of the resulting weights, and the data to use."""

    assign: Assign
    weights: str
    result: str
    clients: tuple[str, ...]
    root: str | None = None
    train_device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1


class Halt(_Line, frozen=True):
    """Stop working on this key at the next micro-batch."""

    key: Key


class Beat(_Line, frozen=True):
    """A sign of life; ``phases`` are cumulated over the worker's life."""

    key: Key
    phases: tuple[PhaseTime, ...]
    phase: str
    step: int
    steps: int


class Done(_Line, frozen=True):
    """What the work brought. The resulting weights are on disk if it trained."""

    key: Key
    phases: tuple[PhaseTime, ...]
    examples: int
    trained: tuple[Score, ...]
    scores: tuple[Score, ...]
    affinity: AffinitySums | None
    peak_rss_bytes: int | None
    train_device: str


class Broke(_Line, frozen=True):
    """The work broke; ``reason`` names the kind (cancelled, fingerprint, data, killed, ...)."""

    key: Key
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
        self._works: list[Key] = []
        self._halted_s: float | None = None
        self._words = msgspec.json.Decoder(Word)

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return self._process.pid if self._process else None

    def start(self, work: Work) -> None:
        """Give it work; starts the process if there is none."""
        self._works.append(work.assign.key)
        if self._process is None:
            self._process = self._spawn()
        self._tell(work)

    def halt(self, key: Key) -> None:
        """Stop that work soon; the worker stays warm unless it does not listen."""
        if key in self._works and self._process:
            self._tell(Halt(key=key))
            self._halted_s = time.monotonic()

    def heard(self) -> list[Word]:
        """What the worker said since the last call, ended by a Broke for everything if it died."""
        if self._process is None or self._process.stdout is None:
            return []
        if self._halted_s is not None and time.monotonic() - self._halted_s > KILL_AFTER_S:
            self._process.kill()
        data = self._process.stdout.read()
        if data == b"":
            return self._died()
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        words = [self._words.decode(line) for line in lines if line]
        for word in words:
            if not isinstance(word, Beat) and word.key in self._works:
                self._works.remove(word.key)
                self._halted_s = None
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
        assert self._process is not None  # noqa: S101 - only called with a process
        code = self._process.wait()
        works, self._works = self._works, []
        self.close()
        self._rest = b""
        self._halted_s = None
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        detail = f"the worker process ended {how}; its last words are in {self._log}"
        return [Broke(key=key, reason="worker-killed", detail=detail) for key in works]
