"""How `mas` asks the running orchestrator: a line to its control socket, and a line back.

The socket is the one that the command line names, else the variable MAS_SOCKET, else where the packaged
service has it. What can be asked is ``orchestrator.launching.orders``.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.launching.orders import A, Answer, Refused, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

PLACE = Path("/run/mas-edge-orchestrator/control.sock")
"""Where deploy/mas-orchestrator.service has its socket."""

WAIT_S = 90.0


class NobodyThere(ConnectionError):
    """No orchestrator answers at this socket."""


class OrderRefused(ValueError):
    """The orchestrator did not do it; its text says why."""


class OrderFailed(RuntimeError):
    """The orchestrator could not do it now; its text says why."""


def socket_path(named: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Which socket is meant."""
    said = environment.get("MAS_SOCKET")
    return named or (Path(said) if said else PLACE)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of the path for bind(2) and connect(2), which take 107 bytes at most: by its open folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Orchestrator:
    """A connection to the orchestrator; use it as a context. Raises NobodyThere."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            with short_name(path) as name:
                self._socket.connect(name)  # with a timeout it would not wait for its turn: EAGAIN, unix(7)
            self._socket.settimeout(WAIT_S)
        except OSError as error:
            self._socket.close()
            raise NobodyThere(self._nobody(error)) from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, request: Request, kind: type[A]) -> A:
        """The answer, of this kind; raises OrderRefused and OrderFailed with the orchestrator's words."""
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise NobodyThere(f"the orchestrator at {self._path} went away: {error}") from error
        if not line:
            raise NobodyThere(f"the orchestrator at {self._path} hung up; is it ending, or overrun?")
        try:
            answer = msgspec.json.decode(line, type=Answer)
        except msgspec.MsgspecError as error:
            raise OrderFailed(f"the orchestrator's answer is none of ours: {error}; update mas") from error
        if isinstance(answer, Refused):
            raise (OrderRefused if answer.code == 2 else OrderFailed)(answer.text)
        if not isinstance(answer, kind):
            raise OrderFailed(f"the orchestrator answered {type(answer).__name__}: update mas")
        return answer

    def _nobody(self, error: OSError) -> str:
        if isinstance(error, PermissionError):
            return f"no access to {self._path}: be in the group that it belongs to, or ask as root"
        return (
            f"no orchestrator listens at {self._path}: start mas serve, or name its socket"
            " with --socket or MAS_SOCKET"
        )
