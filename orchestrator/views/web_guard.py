"""Who may look at the web page, decided request by request: a pure function.

The page is read-only: whatever is no GET or HEAD is refused. Without a token it is for people on this
machine: the server binds loopback, and a request must name loopback as its host, because a page elsewhere
can make a browser resolve its own name to 127.0.0.1 and then read our answer (DNS rebinding). With one, a
request shows it as ``Authorization: Bearer``, or once in the query, for which a browser gets a cookie and is
sent to the page without it. Tokens are compared in constant time; the cookie holds a digest, not the token.

Source: RFC 6750 (bearer tokens); https://owasp.org/www-project-secure-headers for the headers.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

COOKIE = "mas-edge-page"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Go with every answer, refusals included."""


class PageRefused(ValueError):
    """A ``[page]`` table that would show the fleet to strangers, or an address that cannot be had."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of a request; texts are empty where it had none."""

    method: str
    host: str
    authorization: str = ""
    cookie: str = ""
    token: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The status of the answer, 200 to let it through, its text, and headers besides the usual ones."""

    status: int
    text: str = ""
    headers: dict[str, str] = {}


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine alone."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost"


def check(host: str, token: str) -> None:
    """Raises PageRefused for an address that others reach and no token."""
    if not token and not is_loopback(host):
        raise PageRefused(
            f'[page] host {host!r} is reached from elsewhere: set a token in [page], or host = "127.0.0.1"'
        )


def judge(asked: Visit, token: str) -> Verdict:
    """What becomes of a request where this token is configured; the empty one is none."""
    if asked.method not in {"GET", "HEAD"}:
        text = "this page is read-only: GET"
        return Verdict(status=405, text=text, headers={"Allow": "GET, HEAD"})
    if not token:
        local = is_loopback(_name(asked.host))
        text = "ask for this page as localhost, or configure a token"
        return Verdict(status=200) if local else Verdict(status=403, text=text)
    scheme, _, shown = asked.authorization.partition(" ")
    bearer = scheme.lower() == "bearer" and _same(shown.strip(), token)
    if bearer or _same(asked.cookie, _digest(token)):
        return Verdict(status=200)
    if _same(asked.token, token):
        cookie = f"{COOKIE}={_digest(token)}; Path=/; HttpOnly; SameSite=Strict"
        return Verdict(status=303, headers={"Set-Cookie": cookie, "Location": "/"})
    text = "this page needs its token: Authorization: Bearer TOKEN, or ?token=TOKEN once"
    return Verdict(status=401, text=text, headers={"WWW-Authenticate": "Bearer"})


def cookie_of(headers: Mapping[str, str]) -> str:
    """Our cookie among those of a request; empty if it is not there."""
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _name(host: str) -> str:
    """The host of a Host header, without its port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _same(shown: str, expected: str) -> bool:
    return bool(shown) and hmac.compare_digest(shown.encode(), expected.encode())


def _digest(token: str) -> str:
    return hashlib.sha256(b"mas-edge page\0" + token.encode()).hexdigest()
