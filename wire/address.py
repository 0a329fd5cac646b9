"""Where a broker is, and whether it may be talked to in the clear.

``parse_address`` reads ``mqtt://host[:1883]`` and ``mqtts://host[:8883]``. Nothing is resolved or
connected here; certificates are read only when ``tls_context`` is called.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mas_edge.wire.messages import WireError

if TYPE_CHECKING:
    from pathlib import Path


class AddressRefused(WireError, ValueError):
    """Not the address of a broker; the text says what one looks like."""


class InsecureRefused(AddressRefused, PermissionError):
    """Plain MQTT to another machine, and nobody said that it may be."""


@dataclass(frozen=True)
class Address:
    """Where a broker is. ``ca`` None means the system's authorities; ``cert`` and ``key`` go together."""

    host: str
    port: int
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether what is sent there stays on this machine, judged by name, without asking a resolver."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check_private(self, *, insecure: bool) -> None:
        """Raise InsecureRefused for plain MQTT to another machine unless ``insecure``."""
        if not (self.tls or self.loopback or insecure):
            raise InsecureRefused(
                f"{self} is another machine, and plain MQTT shows passwords and data to the network: "
                "use mqtts://, or say insecure = true if the network is yours"
            )

    def tls_context(self) -> ssl.SSLContext:
        """What verifies the broker and identifies us; raises AddressRefused for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise AddressRefused(f"cannot use the certificates for {self} ({files}): {error}") from error
        context.sslsocket_class = TlsConnection
        return context


class TlsConnection(ssl.SSLSocket):
    """A connection that keeps the other side's verdict on our certificate, and closes if it cannot be.

    In TLS 1.3 a server judges it when our side of the handshake is done (RFC 8446, section 4.4.3): the
    alert comes with the first bytes that are read, where the MQTT library drops it.
    """

    verdict: str | None = None
    """Such as "sslv3 alert certificate revoked"; None if nothing was said."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the class above
        """As in the class above; the MQTT library would leave a connection open whose handshake failed."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As in the class above."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            reason = error.reason or ""
            if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
                self.verdict = reason.lower().replace("_", " ")
            raise


def parse_address(
    text: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> Address:
    """The address in a text; raises AddressRefused.

    >>> str(parse_address("mqtts://broker.example"))
    'mqtts://broker.example:8883'
    """
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise AddressRefused(f"broker address {text!r}: {error}") from error
    tls = url.scheme == "mqtts"
    if url.username is not None:
        raise AddressRefused("broker address with a user in it: give username and password apart from it")
    if url.scheme not in {"mqtt", "mqtts"} or not host or port == 0 or url.path not in {"", "/"} or url.query:
        raise AddressRefused(f"broker address {text!r}: write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")
    if not tls and (ca or cert or key):
        raise AddressRefused(f"broker address {text!r}: certificates need mqtts://")
    if (cert is None) != (key is None):
        raise AddressRefused(f"broker address {text!r}: a client's certificate and its key go together")
    return Address(host, (8883 if tls else 1883) if port is None else port, tls, ca, cert, key)
