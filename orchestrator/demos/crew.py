"""Child processes of the demo, kept running as a service manager would keep them.

A child that a signal killed is started again, after a pause that grows while it keeps dying; a child
that ends with an exit code of its own is not: its last line says why, and that is for people. Every child
dies with this process. What children print goes to a file each and their last lines are kept in memory,
so that there is something to say even when the disk is full.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from mas_edge.wire.host import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAUSE_S = 0.2
MOST_RESTARTS = 8
STOP_S = 10.0


class CrewFailed(RuntimeError):
    """A child ended by itself, or was killed too often."""


@dataclass
class _Child:
    name: str
    argv: Sequence[str]
    process: subprocess.Popen[str]
    last: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=5))
    deaths: int = 0
    again_s: float | None = None


class Crew:
    """The processes of one run; logs go to a folder."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, _Child] = {}
        self.restarts: list[str] = []

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Start a child and keep it running."""
        child = _Child(name, argv, self._spawn(argv))
        self._children[name] = child
        self._listen(child)

    def last_words(self, name: str) -> str:
        """The last line that the child printed."""
        lines = self._children[name].last
        return lines[-1] if lines else "it printed nothing"

    def tend(self, time_s: float) -> None:
        """Start again what was killed; raises CrewFailed for what ended by itself, or is killed each time."""
        for child in self._children.values():
            code = child.process.poll()
            if code is None:
                continue
            if code >= 0:
                raise CrewFailed(f"{child.name} ended with exit code {code}: {self.last_words(child.name)}")
            if child.deaths >= MOST_RESTARTS:
                raise CrewFailed(f"{child.name} was killed {child.deaths} times (last by signal {-code})")
            if child.again_s is None:
                child.again_s = time_s + PAUSE_S * 2**child.deaths
            if time_s >= child.again_s:
                child.deaths, child.again_s = child.deaths + 1, None
                self.restarts.append(f"{child.name} (signal {-code})")
                child.process = self._spawn(child.argv)
                self._listen(child)

    def stop(self) -> None:
        """End every child, politely first, in the reverse order of their start."""
        children = list(reversed(self._children.values()))
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _spawn(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            preexec_fn=functools.partial(die_with_parent, signal.SIGTERM),  # noqa: PLW1509
        )

    def _listen(self, child: _Child) -> None:
        thread = threading.Thread(
            target=_tee,
            args=(child.process.stdout, self._logs / f"{child.name}.log", child.last),
            daemon=True,
        )
        thread.start()


def _tee(lines: IO[str], path: Path, last: collections.deque[str]) -> None:
    """Keep the last lines in memory, and all of them in a file as long as the disk takes them."""
    with lines:
        for line in lines:
            last.append(line.rstrip())
            # a full disk must not stop us from hearing why; unbuffered, so that nothing is owed at close
            with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
                file.write(line.encode())
