"""A program that prints lines until it is told to end, read without ever waiting for it in vain.

The child runs in a session of its own, so that its whole family can be ended: SIGTERM, a moment, SIGKILL.
Its output comes through a pipe, or for a program that holds lines back on a pipe through a terminal, which
libc flushes line by line; there the terminal is also named as its ``--logfile``, the other way of tegrastats
to give lines one by one. Should this process be killed, the kernel kills the child: a few lines of Python
set PR_SET_PDEATHSIG (prctl(2)) and then become the program, because code that subprocess runs between fork
and exec may hang in a process with threads. The signal comes when the *thread* ends that started the child,
so the thread that reads it has to start it, too.

Lines are whole, without their end, in whatever encoding: what is not ASCII is replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from mas_edge.profiling.cpu import process_cpu_ns

TERM_S = 1.0
"""How long the child may take to end after SIGTERM."""
LONGEST_BYTES = 1 << 16
"""What has no end after so much is no line; also the most that is read at once."""

_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the program would inherit that
if os.getppid() == int(sys.argv[1]):  # else the parent died before the signal was ordered
    os.execv(sys.argv[2], sys.argv[2:])
"""


def find_program(name: str, root: Path, places: Sequence[str]) -> Path | None:
    """A program by its name or path: on PATH if ``root`` is the host's own, then in the places below it."""
    folders = [str(root / place) for place in places]
    if root == Path("/"):
        folders.insert(0, os.environ.get("PATH", os.defpath))
    found = shutil.which(name, path=os.pathsep.join(folders))
    return None if found is None else Path(found).absolute()


class Stoppable(Protocol):
    """What can wait for a descriptor and yet be told to end."""

    def wait(self, seconds: float, descriptor: int | None = None) -> bool:
        """True once it is to end; False after the time, or when the descriptor can be read."""
        ...


class Child:
    """The program of an absolute path with its arguments, started by ``with`` and ended after it."""

    def __init__(self, command: Sequence[str], *, terminal: bool) -> None:
        self._command, self._terminal = command, terminal
        self._rest = b""

    def __enter__(self) -> Child:  # noqa: PYI034 - typing has Self from Python 3.11 on
        self._output, theirs = os.openpty() if self._terminal else os.pipe()
        try:
            self._process = self._start(theirs)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self._output, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._output)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_S)
        self._signal(signal.SIGKILL)  # also its family, which may have stayed
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in the kernel, and we would, too
            self._process.wait(TERM_S)

    def lines(self, stop: Stoppable, seconds: float) -> list[str] | None:
        """The next lines, as many as came at once, none in time. None: it has ended, or we are to."""
        deadline_s = time.monotonic() + seconds
        while not stop.wait(deadline_s - time.monotonic(), self._output):
            try:
                read = os.read(self._output, LONGEST_BYTES)
            except BlockingIOError:
                return []
            except OSError:  # EIO: nobody has the terminal open any more
                return None
            if not read:
                return None
            *lines, self._rest = (self._rest + read).split(b"\n")
            if len(self._rest) > LONGEST_BYTES:
                self._rest = b""
                lines.append(b"")
            if lines or time.monotonic() > deadline_s:
                return [line.rstrip(b"\r").decode("ascii", "replace") for line in lines]
        return None

    def cpu_s(self) -> float:
        """Processor time that it has used; of its family, only of those that it has waited for."""
        return (process_cpu_ns(self._process.pid) or 0) / 1e9

    def end(self) -> str:
        """How it ended, if it has."""
        try:
            code = self._process.wait(TERM_S)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        command = list(self._command)
        if self._terminal:
            tty.setraw(output)
            command += ["--logfile", os.ttyname(output)]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )

    def _signal(self, which: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, which)
