"""X.509 as a fleet needs it: its own authority, certificates for clients and brokers, a revocation list.

Keys are EC P-256, which every TLS library on a board speaks. A certificate has one purpose (a board's cannot
play the broker, the broker's cannot log in), carries the key identifiers that Python 3.13 insists on
(``VERIFY_X509_STRICT``), and is valid from a day ago, since a fresh board may take its local time, up to 14
hours off, for UTC. The time is an argument; keys and serial numbers come from the system's generator.

Source: RFC 5280; the primitives are those of the library ``cryptography``. No files in here.
"""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

Key = ec.EllipticCurvePrivateKey

SKEW = dt.timedelta(days=1)
AUTHORITY_LIFE = dt.timedelta(days=3653)
"""Ten years: longer than boards last, since renewing it means to visit each of them."""
LEAF_LIFE = dt.timedelta(days=731)
"""Two years: a stolen key is revoked, not waited for; this only ends boards that everybody has forgotten."""


def new_key() -> Key:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """The private key as unencrypted PKCS #8: daemons start without anyone to type a password."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def pem(signed: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """A certificate or revocation list as PEM."""
    return signed.public_bytes(serialization.Encoding.PEM)


def name_of(certificate: x509.Certificate) -> str:
    """The common name of who a certificate is about."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def authority_certificate(key: Key, name: str, now: dt.datetime) -> x509.Certificate:
    """The certificate with which an authority vouches for itself; it can sign no further authorities."""
    subject = _subject(name)
    return (
        _certificate(subject, subject, key.public_key(), now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issued_by(key), critical=False)
        .sign(key, hashes.SHA256())
    )


def client_certificate(
    authority: x509.Certificate, signer: Key, key: Key, name: str, now: dt.datetime
) -> x509.Certificate:
    """A certificate with which its holder may log in as ``name``, which is all of the subject."""
    return _leaf(authority, signer, key, (name,), ExtendedKeyUsageOID.CLIENT_AUTH, now)


def broker_certificate(
    authority: x509.Certificate, signer: Key, key: Key, names: tuple[str, ...], now: dt.datetime
) -> x509.Certificate:
    """A certificate with which its holder is believed to be the broker at these host names and addresses."""
    return _leaf(authority, signer, key, names, ExtendedKeyUsageOID.SERVER_AUTH, now)


def revocation_list(
    authority: x509.Certificate,
    signer: Key,
    before: x509.CertificateRevocationList | None,
    serials: Iterable[int],
    now: dt.datetime,
) -> x509.CertificateRevocationList:
    """What was revoked before, and these serial numbers too.

    It stays in force as long as the authority, since a broker that finds its list out of date lets nobody
    in. Its date is later than that of the list before: a broker that reads its files again has both in
    memory, and OpenSSL takes the later (``get_crl_sk`` in crypto/x509/x509_vfy.c).
    """
    last = now - SKEW
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    if before is not None:
        last = max(last, before.last_update_utc + dt.timedelta(seconds=1))
        for entry in before:
            builder = builder.add_revoked_certificate(entry)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return (
        builder.last_update(last)
        .next_update(authority.not_valid_after_utc)
        .add_extension(_issued_by(signer), critical=False)
        .add_extension(x509.CRLNumber(_number(before) + 1), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _number(before: x509.CertificateRevocationList | None) -> int:
    return 0 if before is None else before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _leaf(
    authority: x509.Certificate,
    signer: Key,
    key: Key,
    names: tuple[str, ...],
    purpose: x509.ObjectIdentifier,
    now: dt.datetime,
) -> x509.Certificate:
    end = min(now + LEAF_LIFE, authority.not_valid_after_utc)
    # A common name has at most 64 characters, a host name more; clients look at the alternative names.
    subject = _subject(names[0] if purpose == ExtendedKeyUsageOID.CLIENT_AUTH else "broker")
    return (
        _certificate(subject, authority.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issued_by(signer), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificateIssuerPublicKeyTypes,
    now: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(end)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issued_by(signer: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )
