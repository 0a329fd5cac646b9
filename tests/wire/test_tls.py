"""What a connection over TLS keeps, and in which words its failures are told."""

from __future__ import annotations

import datetime as dt
import gc
import socket
import ssl
import threading
from contextlib import contextmanager, suppress

import pytest

from mas_edge.orchestrator.fleet import authority as a
from mas_edge.wire import causes
from mas_edge.wire.address import Address, AddressRefused, TlsConnection

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture
def files(tmp_path):
    """A folder with the identities of a broker, of a device, and of a device of another authority."""
    for fleet, name in (("ours", "edge-1"), ("theirs", "stranger")):
        with a.open_authority(tmp_path / fleet, fleet, NOW) as authority:
            write(tmp_path, name, a.enroll(authority, name, NOW, renew=False))
            write(tmp_path, f"broker-{fleet}", a.broker_identity(authority, ("127.0.0.1",), NOW))
            (tmp_path / f"{fleet}.pem").write_bytes(authority.certificate_pem)
    return tmp_path


def write(folder, name, identity):
    (folder / f"{name}.pem").write_bytes(identity.certificate)
    (folder / f"{name}.key").write_bytes(identity.key)


@contextmanager
def served(files, version=ssl.TLSVersion.TLSv1_3):
    """The address of a server of our fleet that wants to see certificates of it and says "hello"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files / "ours.pem")
    context.load_cert_chain(files / "broker-ours.pem", files / "broker-ours.key")

    def serve():
        with suppress(OSError), listener.accept()[0] as plain:
            plain.settimeout(5)
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as safe:
                safe.sendall(b"hello")
                safe.recv(1)
            with suppress(OSError):
                plain.recv(1)  # closing with something unread would throw the alert away

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Address("127.0.0.1", listener.getsockname()[1], tls=True, ca=files / "ours.pem")
    thread.join()


def connected(files, address, name):
    me = Address(address.host, address.port, True, address.ca, files / f"{name}.pem", files / f"{name}.key")
    plain = socket.create_connection((me.host, me.port), timeout=5)
    connection = me.tls_context().wrap_socket(plain, server_hostname=me.host, do_handshake_on_connect=False)
    connection.do_handshake()
    return connection


def test_a_connection_is_read_as_always_and_has_no_verdict(files):
    with served(files) as address, connected(files, address, "edge-1") as connection:
        assert isinstance(connection, TlsConnection)
        assert connection.recv(5) == b"hello"
        assert connection.verdict is None


def test_what_the_broker_thinks_of_our_certificate_comes_after_the_handshake_and_is_kept(files):
    with served(files) as address, connected(files, address, "stranger") as connection:
        with pytest.raises(ssl.SSLError):
            connection.recv(5)
        cause = causes.hung_up(address, connection)
    assert isinstance(cause, causes.BrokerRefused)
    assert "refused our certificate: tlsv1 alert unknown ca; check [broker] cert and key" in str(cause)


def test_in_tls_1_2_it_comes_within_the_handshake(files):
    with served(files, ssl.TLSVersion.TLSv1_2) as address, pytest.raises(ssl.SSLError) as caught:
        connected(files, address, "stranger")
    assert "alert unknown ca" in str(causes.failed(address, caught.value))


def test_a_connection_whose_handshake_fails_is_closed(files, recwarn):
    with served(files) as address, pytest.raises(ssl.SSLCertVerificationError) as caught:
        connected(files, Address(address.host, address.port, True, files / "theirs.pem"), "edge-1")
    words = str(causes.failed(address, caught.value))
    assert words.startswith(f"{address} is not the broker that we trust: certificate verify failed: ")
    assert "check [broker] ca" in words
    del caught
    gc.collect()
    assert [str(w.message) for w in recwarn if w.category is ResourceWarning] == []


def test_a_key_that_is_not_the_certificates_is_named(files):
    address = Address("h", 1, True, files / "ours.pem", files / "edge-1.pem", files / "stranger.key")
    with pytest.raises(AddressRefused, match=r"cannot use the certificates .*stranger\.key.*: .*mismatch"):
        address.tls_context()
