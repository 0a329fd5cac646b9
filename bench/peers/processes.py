"""The processes of an arm: started with a log each, killed with all that they started, as a crash would."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STOP_S = 10.0


class Processes:
    """Processes by name; logs go to a folder."""

    def __init__(self, logs: Path, env: Mapping[str, str] | None = None) -> None:
        self._logs, self._env = logs, {**os.environ, **(env or {})}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, Sequence[str]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a process, or without a command the one of this name once more."""
        self._commands[name] = command or self._commands[name]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._commands[name], stdout=log, stderr=log, env=self._env
            )

    def code(self, name: str) -> int | None:
        """With which code it ended, None while it runs."""
        return self._running[name].poll()

    def kill(self, name: str) -> None:
        """SIGKILL for the process and all below it, as when its machine fails."""
        process = psutil.Process(self._running[name].pid)
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                each.kill()
        self._running[name].wait()

    def log(self, name: str) -> str:
        """What it printed so far."""
        path = self._logs / f"{name}.log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def ask(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a short command in the same environment."""
        return subprocess.run(
            command, capture_output=True, text=True, env=self._env, timeout=timeout_s, check=False
        )

    def close(self) -> None:
        """End all, politely first; nothing of this arm is left running."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        for left in psutil.Process().children(recursive=True):  # orphans are ours: see bench/overhead.py
            with contextlib.suppress(psutil.Error):
                left.kill()
        for process in self._running.values():
            process.wait()


def await_port(port: int, within_s: float = 60.0) -> None:
    """Return when somebody listens there; ends the benchmark if nobody does."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port} after {within_s:.0f} s: see the logs")
