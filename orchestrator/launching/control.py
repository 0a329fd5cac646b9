"""The orchestrator's end of the control socket: many clients, one deciding loop.

A Unix socket of mode 0660: whoever may open it may order anything, nobody else can. Each client has a thread,
which reads lines, answers questions itself, and queues orders; the loop takes those between its turns with
``orders`` and answers them. So a slow, silent or broken client holds up nobody. A socket that a killed
orchestrator left behind is replaced; one on which somebody listens is not. See unix(7).

What is said is ``orchestrator.launching.orders``, what it comes to ``orchestrator.launching.desk``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import socket
import socketserver
import threading
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator.launching.orders import LONGEST_BYTES, Answer, Order, Question, Refused, Request
from mas_edge.orchestrator.launching.remote import short_name
from mas_edge.wire.messages import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Self

    Looking: TypeAlias = Callable[[], AbstractContextManager[Callable[[Question], Answer]]]

log = logging.getLogger(__name__)

MODE = 0o660
MOST_CLIENTS = 64
IDLE_S = 300.0
"""A client that says nothing for so long is hung up on."""
PATIENCE_S = 60.0
"""An order waits so long for the loop."""


class SocketRefused(WireError, ValueError):
    """A place where no control socket can be made; the text says why, and what to do."""


@dataclass(frozen=True)
class Ordered:
    """An order that waits for its answer."""

    order: Order
    answer: futures.Future[Answer] = field(default_factory=futures.Future)


class Control:
    """The socket at a path, from entering to leaving; raises SocketRefused.

    ``looker`` gives each client, in its thread, what answers its questions as long as it stays.
    """

    def __init__(self, path: Path, looker: Looking) -> None:
        self._path = path
        self._queue: queue.Queue[Ordered] = queue.Queue()
        self._server = _Listener(path, self._queue, looker)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)
        for each in self.orders():
            each.answer.set_result(Refused(text="the orchestrator is ending: ask again when it runs", code=1))

    def orders(self) -> Iterator[Ordered]:
        """The orders that wait now; each wants its answer."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()


class _Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CLIENTS

    def __init__(self, path: Path, orders: queue.Queue[Ordered], looker: Looking) -> None:
        self._orders, self.looker = orders, looker
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        before = os.umask(0o177)
        try:
            with short_name(path) as name:
                _make_way(path, name)
                super().__init__(name, _Client)
            path.chmod(MODE)
        except OSError as error:
            raise SocketRefused(f"no control socket can be made at {path}: {error.strerror}") from error
        finally:
            os.umask(before)

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002 - the base's
        """Whether there is a thread left for one more client."""
        return self._free.acquire(blocking=False)

    def hung_up(self) -> None:
        """A client has gone."""
        self._free.release()

    def reply(self, line: bytes, look: Callable[[Question], Answer]) -> Answer:
        """The answer to a line; ``look`` has it if it is a question."""
        try:
            request = _DECODER.decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            return Refused(text=f"the orchestrator does not understand this: {error}; is it of our version?")
        if not isinstance(request, Order):
            return look(request)
        ordered = Ordered(request)
        self._orders.put(ordered)
        try:
            return ordered.answer.result(PATIENCE_S)
        except futures.TimeoutError:  # the built-in one only from Python 3.11 on
            return Refused(text="the orchestrator is busy, and may still do it: look with mas ps", code=1)


class _Client(socketserver.StreamRequestHandler):
    timeout = IDLE_S
    server: _Listener

    def handle(self) -> None:
        """Answer line by line until the client goes."""
        with (
            contextlib.suppress(OSError),
            self.server.looker() as look,
        ):  # it went, or said nothing for too long
            while line := self.rfile.readline(LONGEST_BYTES + 1):
                too_long = len(line) > LONGEST_BYTES
                said = Refused(text=f"a request has at most {LONGEST_BYTES} bytes") if too_long else None
                answer = said or self.server.reply(line, look)
                self.wfile.write(msgspec.json.encode(answer) + b"\n")
                if too_long:
                    return

    def finish(self) -> None:
        """The client's place is free again."""
        with contextlib.suppress(OSError):
            super().finish()
        self.server.hung_up()


_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def _make_way(path: Path, name: str) -> None:
    """Remove what a dead orchestrator left; raises SocketRefused if the path is taken, or no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise SocketRefused(f"{path} is no socket: move it away, or name another place")
    with socket.socket(socket.AF_UNIX) as probe:
        found = probe.connect_ex(name)
    if found != errno.ECONNREFUSED:
        raise SocketRefused(f"{path}: another orchestrator listens there; stop it, or name another place")
    path.unlink(missing_ok=True)
