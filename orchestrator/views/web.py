"""The web page of a running orchestrator: jobs, devices, losses, joules, affinities, the tree of groups.

``serve_page`` binds the address before anything else happens, so that a taken port is found at once, then
answers from a thread of its own, which reads the store and can write nothing. There are three files
(``web_files/``), which load nothing from elsewhere, and ``/api/status``: the JSON of `mas ps --json`. That
is made at most twice a second however many look on, and has an ETag: a page that asks every second is told
"not modified" as long as nothing happens. ``/healthz`` says ok. Who may look, ``web_guard`` decides.

starlette and uvicorn are loaded where the page is switched on and nowhere else.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import socket
import threading
import time
from contextlib import asynccontextmanager, closing, contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

import msgspec

from mas_edge.orchestrator.store import StoreError
from mas_edge.orchestrator.views.follow import Follower
from mas_edge.orchestrator.views.status import recent
from mas_edge.orchestrator.views.web_guard import HEADERS, PageRefused, Visit, check, cookie_of, judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mas_edge.orchestrator.job import Event
    from mas_edge.orchestrator.store import Store

log = logging.getLogger(__name__)

FRESH_S = 0.5
"""A status is not made again before it is so old."""
STOP_S = 5.0

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class PageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[page]`` table; port 0 takes a free one. An address beyond this machine needs a token."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8765
    token: str = ""


@contextmanager
def serve_page(
    config: PageConfig, reader: Callable[[], Store[Event]], full: Callable[[], str | None] = lambda: None
) -> Iterator[str]:
    """Serve the page while the context is open; its address. ``reader`` opens the store, in our thread.

    ``full`` says why nothing can be written now, None if it can.
    Raises PageRefused for an address that needs a token, is taken or is not ours, or without the extra.
    """
    check(config.host, config.token)
    try:
        import uvicorn  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PageRefused(
            "[page] needs starlette and uvicorn: pip install 'mas-edge[orchestrator]'"
        ) from error
    with closing(_listen(config.host, config.port)) as listening:
        port = listening.getsockname()[1]
        settings = uvicorn.Config(
            page(config.token, reader, full),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listening],), name="page", daemon=True)
        thread.start()
        shown = f"[{config.host}]" if ":" in config.host else config.host
        log.info("page: http://%s:%d/", shown, port)
        try:
            yield f"http://{shown}:{port}/"
        finally:
            server.should_exit = True
            thread.join(STOP_S)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise PageRefused(
            f"[page] host {host!r}: {error.strerror}; name an address of this machine"
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(64)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        why = (
            "is taken by another program: choose another port"
            if taken
            else f"cannot be had: {error.strerror}"
        )
        raise PageRefused(f"[page] port {port} of {host} {why}") from error
    return listening


def page(
    token: str, reader: Callable[[], Store[Event]], full: Callable[[], str | None] = lambda: None
) -> ASGIApp:
    """The page as an ASGI application, guarded by a token if that is not empty."""
    from starlette.applications import Starlette  # noqa: PLC0415 - an extra
    from starlette.responses import PlainTextResponse, Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    looker = _Looker(reader, full)

    async def status(asked: Request) -> Response:
        try:
            body, tag = looker.look()
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503)
        if asked.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type="application/json", headers={"ETag": tag})

    async def file(asked: Request) -> Response:
        body, kind = contents[asked.url.path]
        return Response(body, media_type=kind)

    async def health(_asked: Request) -> Response:
        return PlainTextResponse("ok\n")

    folder = files(__package__) / "web_files"
    contents = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
    routes = [Route("/api/status", status), Route("/healthz", health), *(Route(path, file) for path in FILES)]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        looker.close()

    return _guarded(Starlette(routes=routes, lifespan=lifespan), token)


class _Looker:
    """Says the present status as JSON, and its tag; all in one thread, in which it opens the store."""

    def __init__(self, reader: Callable[[], Store[Event]], full: Callable[[], str | None]) -> None:
        self._reader, self._full = reader, full
        self._store: Store[Event] | None = None
        self._follower: Follower | None = None
        self._made_s = -math.inf
        self._found = b"", ""

    def look(self) -> tuple[bytes, str]:
        """Raises StoreError if the store cannot be read."""
        if self._follower is None:
            self._store = self._reader()
            self._follower = Follower(self._store)
        if time.monotonic() - self._made_s >= FRESH_S:
            status = recent(self._follower.status(time.time()))
            body = msgspec.json.encode(msgspec.structs.replace(status, full=self._full() or ""))
            self._found = body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            self._made_s = time.monotonic()
        return self._found

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()


def _guarded(inner: Starlette, token: str) -> ASGIApp:
    """The application behind the guard, which adds the headers to each of its answers."""
    from starlette.datastructures import Headers, MutableHeaders  # noqa: PLC0415 - an extra
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import PlainTextResponse  # noqa: PLC0415

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        asked, headers = Request(scope), Headers(scope=scope)
        verdict = judge(
            Visit(
                method=scope["method"],
                host=headers.get("host", ""),
                authorization=headers.get("authorization", ""),
                cookie=cookie_of(headers),
                token=asked.query_params.get("token", ""),
            ),
            token,
        )
        if verdict.status == 200:
            await inner(scope, receive, sending)
            return
        answer = PlainTextResponse(verdict.text + "\n", verdict.status, headers=verdict.headers)
        await answer(scope, receive, sending)

    return outer
