"""The certificate authority of one fleet: a folder that only its owner can read.

It makes identities for devices, the orchestrator and the broker, and takes them back. The folder is all
there is to it, and worth a backup: ``ca.key`` and ``ca.pem`` (whose common name is the fleet's), every
client certificate that was given out as ``issued/NAME.SERIAL.pem`` (their private keys leave and are not
kept), and ``crl.pem``, the list of those that were taken back. A certificate is written down before anyone
gets it, so that there is none that could not be revoked; whoever changes the folder holds it alone.

The broker's certificates are not written down: boards ask for no list that would tell them of a revocation.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mas_edge.orchestrator.fleet import certificates as certs
from mas_edge.wire.host import hold, write_atomic
from mas_edge.wire.messages import ORCHESTRATOR, check_name

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

SECRET_MODE, PUBLIC_MODE = 0o600, 0o644
_KEY, _CERTIFICATE, _REVOKED, _ISSUED = "ca.key", "ca.pem", "crl.pem", "issued"
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class AuthorityError(ValueError):
    """An identity that cannot be given or taken back; the text says what to do."""


@dataclass(frozen=True)
class Identity:
    """What proves who one is: a private key and a certificate, as PEM, good until ``until``."""

    key: bytes = field(repr=False)
    certificate: bytes
    until: dt.datetime


@dataclass(frozen=True)
class Authority:
    """An open authority; ``open_authority`` makes them."""

    folder: Path
    certificate: x509.Certificate
    key: certs.Key = field(repr=False)

    @property
    def fleet(self) -> str:
        """Whose authority this is."""
        return certs.name_of(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        """What everybody in the fleet trusts."""
        return certs.pem(self.certificate)

    @property
    def revoked_pem(self) -> bytes:
        """The certificates that no broker shall accept any more."""
        return certs.pem(_revoked(self))


@contextmanager
def open_authority(folder: Path, fleet: str | None, now: dt.datetime) -> Iterator[Authority]:
    """The authority of a folder, held alone; made if there is none and its fleet is named.

    Raises AuthorityError for a folder that others can read, that belongs to another fleet, or is damaged,
    NameRefused for a fleet that cannot be one, and FolderInUse.
    """
    if fleet is not None:
        check_name(fleet, "fleet")
    if not (folder / _CERTIFICATE).exists():
        if fleet is None:
            raise AuthorityError(
                f"no authority in {folder}: name its folder, or say --fleet NAME to make one there"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        raise AuthorityError(f"others can read {folder}, and it holds the fleet's key: chmod 700 {folder}")
    with hold(folder):
        if not (folder / _CERTIFICATE).exists() and fleet is not None:
            _make(folder, fleet, now)
        authority = _load(folder)
        if fleet not in {None, authority.fleet}:
            raise AuthorityError(f"{folder} is the authority of fleet {authority.fleet!r}, not of {fleet!r}")
        if authority.certificate.not_valid_after_utc <= now:
            raise AuthorityError(
                f"the authority in {folder} has expired: make a new one, and enroll every board"
            )
        yield authority


def enroll(authority: Authority, name: str, now: dt.datetime, *, renew: bool) -> Identity:
    """A new identity for a device, or for the orchestrator under its reserved name.

    With ``renew`` also for a name that has one, which stays good, and for one that was revoked. Raises
    AuthorityError for those otherwise, and NameRefused for what no device can be called.
    """
    if name != ORCHESTRATOR:
        check_name(name)
    if not renew:
        _check_free(authority, name, now)
    key = certs.new_key()
    certificate = certs.client_certificate(authority.certificate, authority.key, key, name, now)
    (authority.folder / _ISSUED).mkdir(mode=0o700, exist_ok=True)
    record = authority.folder / _ISSUED / f"{name}.{certificate.serial_number:x}.pem"
    write_atomic(record, certs.pem(certificate), mode=PUBLIC_MODE)
    return Identity(certs.key_pem(key), certs.pem(certificate), certificate.not_valid_after_utc)


def _check_free(authority: Authority, name: str, now: dt.datetime) -> None:
    revoked, good = _known(authority, name)
    until = max((certificate.not_valid_after_utc for certificate in good), default=now)
    if until > now:
        raise AuthorityError(
            f"{name} is enrolled until {until:%Y-%m-%d}: "
            "take another name, or say --renew to give it a second certificate"
        )
    if revoked:
        raise AuthorityError(f"{name} was revoked: take another name, or say --renew to let it in again")


def broker_identity(authority: Authority, names: tuple[str, ...], now: dt.datetime) -> Identity:
    """A new identity for the broker at these host names and addresses; raises AuthorityError for others."""
    for name in names:
        if not (_is_address(name) or (_HOST.fullmatch(name) and len(name) < 254)):
            raise AuthorityError(
                f"broker name {name!r}: write a host name such as broker.example, or an address"
            )
    key = certs.new_key()
    certificate = certs.broker_certificate(authority.certificate, authority.key, key, names, now)
    return Identity(certs.key_pem(key), certs.pem(certificate), certificate.not_valid_after_utc)


def revoke(authority: Authority, name: str, now: dt.datetime) -> int:
    """How many certificates of this name were taken back: all that still were good.

    Brokers know when they have read the new list. Raises AuthorityError if there was none to take back.
    """
    revoked, good = _known(authority, name)
    if not revoked and not good:
        known = sorted({path.name.split(".")[0] for path in (authority.folder / _ISSUED).glob("*.pem")})
        raise AuthorityError(f"{name!r} was never enrolled; there are: {', '.join(known) or 'none'}")
    if not good:
        raise AuthorityError(
            f"{name} is revoked already: see that the broker has {authority.folder / _REVOKED}"
        )
    serials = [certificate.serial_number for certificate in good]
    before = _revoked(authority)
    longer = certs.revocation_list(authority.certificate, authority.key, before, serials, now)
    write_atomic(authority.folder / _REVOKED, certs.pem(longer), mode=PUBLIC_MODE)
    return len(serials)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _make(folder: Path, fleet: str, now: dt.datetime) -> None:
    """Make an authority; the certificate comes last, since an authority is there when that is."""
    if (folder / _ISSUED).exists():  # there was one, and its key may still be here
        raise _damaged(folder, f"{_CERTIFICATE} is missing")
    key = certs.new_key()
    certificate = certs.authority_certificate(key, fleet, now)
    nothing = certs.revocation_list(certificate, key, None, (), now)
    write_atomic(folder / _KEY, certs.key_pem(key), mode=SECRET_MODE)
    write_atomic(folder / _REVOKED, certs.pem(nothing), mode=PUBLIC_MODE)
    write_atomic(folder / _CERTIFICATE, certs.pem(certificate), mode=PUBLIC_MODE)


def _load(folder: Path) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
        key = load_pem_private_key((folder / _KEY).read_bytes(), password=None)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise _damaged(folder, error) from error
    if not isinstance(key, certs.Key) or key.public_key() != certificate.public_key():
        raise _damaged(folder, f"{_KEY} is not the key of {_CERTIFICATE}")
    return Authority(folder, certificate, key)


def _known(
    authority: Authority, name: str
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """Every certificate that this name was ever given: those that were taken back, and the others."""
    # A name from the command line may hold wildcards; those of certificates never do.
    files = (path for path in (authority.folder / _ISSUED).glob("*.pem") if path.name.split(".")[0] == name)
    try:
        given = [x509.load_pem_x509_certificate(path.read_bytes()) for path in files]
    except ValueError as error:
        raise _damaged(authority.folder, error) from error
    serials = {entry.serial_number for entry in _revoked(authority)}
    return (
        tuple(certificate for certificate in given if certificate.serial_number in serials),
        tuple(certificate for certificate in given if certificate.serial_number not in serials),
    )


def _revoked(authority: Authority) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl((authority.folder / _REVOKED).read_bytes())
    except (ValueError, FileNotFoundError) as error:
        raise _damaged(authority.folder, error) from error


def _damaged(folder: Path, reason: object) -> AuthorityError:
    return AuthorityError(f"the authority in {folder} is damaged ({reason}): restore it from a backup")
