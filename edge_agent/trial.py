"""What the agent's daemon and the process that tries a model say to each other, and the daemon's hold on it.

``python -m mas_edge.edge_agent.inference`` loads one ONNX file in a process of its own, is capped there, and
may die there. They speak JSON lines of typed structs: ``Try`` goes in; ``Ready`` comes out when the network
is loaded and warm, ``Go`` goes in when the meter was read, ``Timed`` comes out when it was run for some
seconds (the daemon reads the meter again), and ``Tried`` when it was run on the held-out examples; or
``Unfit``, at any time. A process that dies, or takes longer than ``LONGEST_S``, is ``Unfit`` too: an event,
not a crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.profiling.cpu import memory_kills
from mas_edge.wire.messages import Score

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_S = 900.0
"""A trial that takes longer is given up: trainings wait for it."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """A line between the daemon and the process."""


class Try(_Line, frozen=True):
    """Run the model in this file, on the held-out examples of this data.

    ``digest`` is what its SHA-256 must be; ``held_out_share`` None: that of the job that trained it. One
    input at a time is run for ``timed_s``, and batches for a third of that.
    """

    path: str
    digest: str
    workload: str
    tasks: tuple[str, ...]
    clients: tuple[str, ...]
    root: str | None = None
    threads: int = 1
    held_out_share: float | None = None
    timed_s: float = 3.0


class Go(_Line, frozen=True):
    """The meter was read: begin."""


class Ready(_Line, frozen=True):
    """The network is loaded and warm."""


class Timed(_Line, frozen=True):
    """So many inputs were run one at a time since ``Go``, with this processor time of all threads."""

    inputs: int
    wall_s: float
    cpu_s: float
    latency_p50_s: float
    latency_p95_s: float


class Tried(_Line, frozen=True):
    """All that there is to know; ``peak_rss_bytes`` is from before the held-out examples were loaded."""

    scores: tuple[Score, ...]
    held_out_share: float
    inputs_per_s: float
    batch: int
    peak_rss_bytes: int | None


class Unfit(_Line, frozen=True):
    """The model cannot be run here."""

    why: str


Order: TypeAlias = Try | Go
Word: TypeAlias = Ready | Timed | Tried | Unfit


class TrialProcess:
    """The process of one trial, from ``Try`` to ``Tried`` or ``Unfit``."""

    def __init__(self, order: Try, log: Path) -> None:
        self._log, self._began_s, self._memory_kills = log, time.monotonic(), memory_kills()
        self._rest = b""
        self._words = msgspec.json.Decoder(Word)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mas_edge.edge_agent.inference"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                bufsize=0,
            )
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        os.set_blocking(self._process.stdout.fileno(), False)
        self._tell(order)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def go(self) -> None:
        """The meter was read."""
        self._tell(Go())

    def heard(self) -> list[Word]:
        """What the process said since the last call; after ``Tried`` or ``Unfit`` it is to be closed."""
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        if time.monotonic() - self._began_s > LONGEST_S:
            self._process.kill()
            return [Unfit(why=f"trying it took longer than {LONGEST_S:.0f} s")]
        data = self._process.stdout.read()
        if data == b"":
            return [Unfit(why=self._death())]
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        try:
            return [self._words.decode(line) for line in lines if line]
        except msgspec.MsgspecError as error:
            return [Unfit(why=f"the process that tried it said what is none of our lines: {error}")]

    def close(self) -> None:
        """End the process, at once if it is still at work."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _tell(self, order: Order) -> None:
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        except BrokenPipeError:
            return  # it died; heard() says so

    def _death(self) -> str:
        code = self._process.wait()
        before, now = self._memory_kills, memory_kills()
        if code == -signal.SIGKILL and before is not None and now is not None and now > before:
            return "the kernel killed the process that tried it, for want of memory"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"the process that tried it ended {how}; its last words are in {self._log}"
