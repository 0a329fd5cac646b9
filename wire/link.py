"""How a process of ours gets onto the bus as its configuration says: the ``[broker]`` table.

Agent and orchestrator share it. The password is read from a file of its own, so that the configuration
can be shown to anyone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.wire.bus import Bus, connect, parse_address
from mas_edge.wire.host import ConfigError

if TYPE_CHECKING:
    import random

    from mas_edge.wire.bus import Address


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[broker]`` table. ``wait_s`` is how long a start waits for a broker before it gives up."""

    url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool = False
    wait_s: float = 10.0


def address(broker: BrokerConfig) -> Address:
    """Where the broker is; raises AddressRefused."""
    ca, cert, key = (Path(text) if text else None for text in (broker.ca, broker.cert, broker.key))
    return parse_address(broker.url, ca=ca, cert=cert, key=key)


def join(
    broker: BrokerConfig, client_id: str, rng: random.Random, will: tuple[str, bytes] | None = None
) -> Bus:
    """A bus to the configured broker that has accepted us.

    Raises ConfigError for a password file that cannot be read, and what ``connect`` raises.
    """
    return connect(
        address(broker),
        client_id=client_id,
        rng=rng,
        will=will,
        username=broker.username,
        password=_password(broker),
        insecure=broker.insecure,
        timeout_s=broker.wait_s,
    )


def _password(broker: BrokerConfig) -> str | None:
    if broker.password_file is None:
        return None
    try:
        return Path(broker.password_file).read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise ConfigError(f"[broker] password_file {broker.password_file}: {error.strerror}") from error
