"""Identities as folders of files, ready to be copied to where they belong.

A board gets ``NAME.key``, ``NAME.pem``, ``ca.pem`` and ``agent.toml``; the orchestrator the same with
``orchestrator.toml``; the broker ``mosquitto.conf``, ``acl``, ``crl.pem`` and its own key and certificate.
Private keys are readable by their owner alone from their first byte on, and are never printed. What each
file says is decided in ``board_config`` and ``broker_config``, who gets an identity in ``authority``.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mas_edge.orchestrator.fleet import authority as a
from mas_edge.orchestrator.fleet import board_config, broker_config
from mas_edge.wire.bus import parse_address
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import ORCHESTRATOR

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping
    from pathlib import Path

AGENT_TOML, ORCHESTRATOR_TOML = "agent.toml", "orchestrator.toml"


@dataclass(frozen=True)
class Board:
    """A device with its data, or the orchestrator; the folder is where its identity will lie there."""

    name: str
    url: str
    data: board_config.Data
    folder: str


@dataclass(frozen=True)
class BrokerHost:
    """Under which names and addresses a broker is found; the folder is where its files will lie there."""

    names: tuple[str, ...]
    port: int
    folder: str


def enroll(authority: a.Authority, board: Board, out: Path, now: dt.datetime, *, renew: bool) -> dt.datetime:
    """Write an identity and its configuration into ``out``; until when it is good.

    Raises what ``authority.enroll`` raises, AuthorityError for an ``out`` with an identity in it or a broker
    without TLS, and AddressRefused for what is no broker.
    """
    config, text = _configuration(authority, board)
    key, certificate = f"{board.name}.key", f"{board.name}.pem"
    for file in (key, certificate, config):
        if (out / file).exists():
            raise a.AuthorityError(f"{out} holds {file} already: remove it, or name another --out")
    with _folder(out):
        identity = a.enroll(authority, board.name, now, renew=renew)
    public = {
        certificate: identity.certificate,
        board_config.CA: authority.certificate_pem,
        config: text.encode(),
    }
    _write(out, key, identity.key, public)
    return identity.until


def _configuration(authority: a.Authority, board: Board) -> tuple[str, str]:
    """Name and text of the configuration that goes with an identity."""
    address = parse_address(board.url)
    if not address.tls:
        raise a.AuthorityError(f"--broker {board.url}: identities need TLS: say mqtts://HOST[:8883]")
    url, fleet = str(address), authority.fleet
    if board.name == ORCHESTRATOR:
        return ORCHESTRATOR_TOML, board_config.orchestrator_toml(fleet, url, board.folder)
    return AGENT_TOML, board_config.agent_toml(board.name, fleet, url, board.data, board.folder)


def configure_broker(authority: a.Authority, host: BrokerHost, out: Path, now: dt.datetime) -> dt.datetime:
    """Write what a mosquitto needs into ``out``; until when its certificate is good.

    What was written before is replaced, with a new key. Raises AuthorityError for names that no broker has.
    """
    with _folder(out):
        identity = a.broker_identity(authority, host.names, now)
    public = {
        broker_config.CONF: broker_config.mosquitto_conf(authority.fleet, host.port, host.folder).encode(),
        broker_config.ACL: broker_config.access_list(authority.fleet).encode(),
        broker_config.CA: authority.certificate_pem,
        broker_config.REVOKED: authority.revoked_pem,
        broker_config.CERTIFICATE: identity.certificate,
    }
    _write(out, broker_config.KEY, identity.key, public)
    return identity.until


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """It is there before anybody gets an identity that has to be written, and gone if nobody does."""
    made = not out.exists()
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise a.AuthorityError(f"--out {out}: {error.strerror}; name a folder that can be made") from error
    try:
        yield
    except ValueError:
        if made:
            out.rmdir()
        raise


def _write(out: Path, key_name: str, key: bytes, public: Mapping[str, bytes]) -> None:
    for name, contents in public.items():
        write_atomic(out / name, contents, mode=a.PUBLIC_MODE)
    write_atomic(out / key_name, key, mode=a.SECRET_MODE)
