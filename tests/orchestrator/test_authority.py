"""The fleet's authority: whom its certificates let in, and what its folder keeps."""

from __future__ import annotations

import datetime as dt
import os
import ssl

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.fleet import authority as a
from mas_edge.orchestrator.fleet import certificates as certs
from mas_edge.wire.host import FolderInUse
from mas_edge.wire.messages import NameRefused, is_name

NOW = dt.datetime.now(dt.timezone.utc)
YEAR = dt.timedelta(days=366)
HOST = "broker.example"


def opened(folder, now=NOW, fleet="home"):
    return a.open_authority(folder, fleet, now)


@pytest.fixture
def authority(tmp_path):
    with opened(tmp_path / "ca") as it:
        yield it


# --- what TLS makes of the certificates, without a socket -----------------------------------------


def context(purpose, folder, identity, trusted, *revoked):
    """A TLS context as strict as one can be, for one side."""
    it = ssl.SSLContext(purpose)
    it.verify_mode = ssl.CERT_REQUIRED
    it.verify_flags |= ssl.VERIFY_X509_STRICT
    it.load_verify_locations(cadata=trusted.decode())
    for number, pem in enumerate(revoked):
        it.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        path = folder / f"crl-{number}"
        path.write_bytes(pem)
        it.load_verify_locations(path)
    path = folder / "identity"
    path.write_bytes(identity.key + identity.certificate)
    it.load_cert_chain(path)
    return it


def shake_hands(server, client, host=HOST):
    """Let two contexts speak to each other; raises what the one that refuses raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    assert not sides


def handshake(folder, authority, client, *, broker=None, trusted=None, revoked=(), host=HOST):
    """What happens when this client meets the authority's broker."""
    broker = broker or a.broker_identity(authority, (HOST, "192.0.2.7"), NOW)
    trusted = trusted or authority.certificate_pem
    server = context(ssl.PROTOCOL_TLS_SERVER, folder, broker, authority.certificate_pem, *revoked)
    shake_hands(server, context(ssl.PROTOCOL_TLS_CLIENT, folder, client, trusted), host)


@pytest.mark.parametrize("host", [HOST, "192.0.2.7"])
def test_a_device_and_the_broker_believe_each_other_by_name_and_by_address(tmp_path, authority, host):
    handshake(tmp_path, authority, a.enroll(authority, "edge-1", NOW, renew=False), host=host)


def test_a_broker_under_another_name_is_not_believed(tmp_path, authority):
    device = a.enroll(authority, "edge-1", NOW, renew=False)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path, authority, device, host="other.example")


def test_a_device_cannot_play_the_broker_nor_the_broker_log_in(tmp_path, authority):
    device = a.enroll(authority, "edge-1", NOW, renew=False)
    broker = a.broker_identity(authority, (HOST,), NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(tmp_path, authority, device, broker=device, host="edge-1")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(tmp_path, authority, broker)


def test_a_device_of_another_authority_of_the_same_fleet_is_refused(tmp_path, authority):
    with opened(tmp_path / "other") as other:
        stranger = a.enroll(other, "edge-1", NOW, renew=False)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get|signature|self.signed"):
        handshake(tmp_path, authority, stranger)


def test_an_identity_ends_after_two_years_and_the_authority_after_ten(tmp_path):
    with opened(tmp_path / "ca", NOW - 3 * YEAR) as authority:
        old = a.enroll(authority, "edge-1", NOW - 3 * YEAR, renew=False)
        assert old.until < NOW
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            handshake(tmp_path, authority, old)
        a.enroll(authority, "edge-1", NOW, renew=False)  # an identity that is over is in nobody's way
        assert a.enroll(authority, "edge-2", NOW + 6 * YEAR, renew=False).until < NOW + 7.1 * YEAR
    with (
        pytest.raises(a.AuthorityError, match="has expired: make a new one"),
        opened(tmp_path / "ca", NOW + 8 * YEAR),
    ):
        pass


def test_a_board_whose_clock_shows_local_time_believes_its_new_certificates(authority):
    device = a.enroll(authority, "edge-1", NOW, renew=False).certificate
    broker = a.broker_identity(authority, (HOST,), NOW).certificate
    for pem in (device, broker, authority.certificate_pem):
        assert x509.load_pem_x509_certificate(pem).not_valid_before_utc <= NOW - dt.timedelta(hours=14)


def test_a_revoked_identity_is_refused_and_the_others_are_not(tmp_path, authority):
    one, two = (a.enroll(authority, name, NOW, renew=False) for name in ("edge-1", "edge-2"))
    before = authority.revoked_pem
    handshake(tmp_path, authority, one, revoked=[before])
    assert a.revoke(authority, "edge-1", NOW) == 1
    handshake(tmp_path, authority, two, revoked=[authority.revoked_pem])
    for lists in ([authority.revoked_pem], [before, authority.revoked_pem], [authority.revoked_pem, before]):
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            handshake(tmp_path, authority, one, revoked=lists)


def test_who_is_let_in_again_has_a_new_identity_and_the_old_one_stays_out(tmp_path, authority):
    old = a.enroll(authority, "edge-1", NOW, renew=False)
    a.revoke(authority, "edge-1", NOW)
    with pytest.raises(a.AuthorityError, match="edge-1 was revoked: take another name, or say --renew"):
        a.enroll(authority, "edge-1", NOW, renew=False)
    new = a.enroll(authority, "edge-1", NOW, renew=True)
    handshake(tmp_path, authority, new, revoked=[authority.revoked_pem])
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        handshake(tmp_path, authority, old, revoked=[authority.revoked_pem])


def test_revoking_a_name_takes_back_every_certificate_that_it_has(tmp_path, authority):
    both = [a.enroll(authority, "edge-1", NOW, renew=True) for _ in range(2)]
    assert a.revoke(authority, "edge-1", NOW) == 2
    for identity in both:
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            handshake(tmp_path, authority, identity, revoked=[authority.revoked_pem])


@given(
    st.lists(
        st.tuples(st.integers(1, 1 << 150), st.integers(-(10**8), 10**8)),
        max_size=8,
        unique_by=lambda x: x[0],
    )
)
def test_each_list_is_later_than_the_one_before_and_holds_all_of_it_whatever_the_clock_does(steps):
    key = certs.new_key()
    certificate = certs.authority_certificate(key, "home", NOW - 5 * YEAR)
    lists = [certs.revocation_list(certificate, key, None, (), NOW)]
    for serial, jump_s in steps:
        now = NOW + dt.timedelta(seconds=jump_s)
        lists.append(certs.revocation_list(certificate, key, lists[-1], (serial,), now))
    dates = [each.last_update_utc for each in lists]
    assert dates == sorted(set(dates))
    assert {entry.serial_number for entry in lists[-1]} == {serial for serial, _ in steps}
    assert all(each.next_update_utc == certificate.not_valid_after_utc for each in lists)


# --- the folder -----------------------------------------------------------------------------------


def test_keys_are_readable_by_their_owner_alone_even_if_nothing_else_is_protected(tmp_path):
    before = os.umask(0)
    try:
        with opened(tmp_path / "ca") as authority:
            a.enroll(authority, "edge-1", NOW, renew=False)
    finally:
        os.umask(before)
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca/ca.key").stat().st_mode & 0o777 == 0o600
    private = [p for p in (tmp_path / "ca").rglob("*") if p.is_file() and b"PRIVATE" in p.read_bytes()]
    assert private == [tmp_path / "ca/ca.key"]


def test_a_folder_that_others_can_read_is_not_used(tmp_path):
    with opened(tmp_path / "ca"):
        pass
    (tmp_path / "ca").chmod(0o750)
    with pytest.raises(a.AuthorityError, match=r"others can read .*: chmod 700"), opened(tmp_path / "ca"):
        pass


def test_an_authority_is_made_only_where_a_fleet_is_named_and_keeps_it(tmp_path):
    with (
        pytest.raises(a.AuthorityError, match=r"no authority in .*say --fleet NAME"),
        opened(tmp_path / "ca", fleet=None),
    ):
        pass
    assert not (tmp_path / "ca").exists()
    with opened(tmp_path / "ca"):
        pass
    with opened(tmp_path / "ca", fleet=None) as authority:
        assert authority.fleet == "home"
    with (
        pytest.raises(a.AuthorityError, match="of fleet 'home', not of 'away'"),
        opened(tmp_path / "ca", fleet="away"),
    ):
        pass
    with pytest.raises(NameRefused, match="fleet name 'Home'"), opened(tmp_path / "new", fleet="Home"):
        pass


def test_making_that_was_interrupted_is_done_again(tmp_path):
    with opened(tmp_path / "ca"):
        pass
    (tmp_path / "ca/ca.pem").unlink()
    with opened(tmp_path / "ca") as authority:
        handshake(tmp_path, authority, a.enroll(authority, "edge-1", NOW, renew=False))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        *(
            (name, text)
            for name in ("ca.key", "ca.pem", "crl.pem", "issued/edge-1.1.pem")
            for text in (b"", b"x")
        ),
        *((name, None) for name in ("ca.key", "ca.pem", "crl.pem")),
    ],
)
def test_damage_is_named_and_nothing_is_given_out(tmp_path, name, contents):
    with opened(tmp_path / "ca") as authority:
        a.enroll(authority, "edge-2", NOW, renew=False)
    path = tmp_path / "ca" / name
    path.unlink(missing_ok=True)
    if contents is not None:
        path.write_bytes(contents)
    before = (tmp_path / "ca/ca.key").exists() and (tmp_path / "ca/ca.key").read_bytes()
    with pytest.raises(a.AuthorityError, match=r"is damaged .*restore it from a backup"):  # noqa: SIM117
        with opened(tmp_path / "ca") as authority:
            a.enroll(authority, "edge-1", NOW, renew=False)
    assert sorted(p.name[:7] for p in (tmp_path / "ca/issued").iterdir() if p != path) == ["edge-2."]
    assert before is False or (tmp_path / "ca/ca.key").read_bytes() == before


def test_a_key_of_another_authority_is_damage(tmp_path):
    for name in ("ca", "other"):
        with opened(tmp_path / name):
            pass
    (tmp_path / "other/ca.key").replace(tmp_path / "ca/ca.key")
    with pytest.raises(a.AuthorityError, match=r"ca\.key is not the key of ca\.pem"), opened(tmp_path / "ca"):
        pass


def test_one_process_at_a_time_changes_an_authority(authority):
    with pytest.raises(FolderInUse), opened(authority.folder):
        pass


# --- names ----------------------------------------------------------------------------------------


@given(name=st.text(max_size=60).filter(lambda name: not is_name(name) and name != "orchestrator"))
def test_what_is_no_device_name_gets_no_identity(tmp_path_factory, name):
    with opened(tmp_path_factory.mktemp("names") / "ca") as authority:
        with pytest.raises(NameRefused):
            a.enroll(authority, name, NOW, renew=True)
        assert not (authority.folder / "issued").exists()


@pytest.mark.parametrize("name", ["edge-9", "*", "../ca", ""])
def test_who_was_never_enrolled_cannot_be_revoked(authority, name):
    a.enroll(authority, "edge-1", NOW, renew=False)
    before = authority.revoked_pem
    with pytest.raises(a.AuthorityError, match="was never enrolled; there are: edge-1"):
        a.revoke(authority, name, NOW)
    assert authority.revoked_pem == before


def test_a_name_that_is_taken_or_revoked_twice_says_since_when_and_what_to_do(authority):
    until = a.enroll(authority, "edge-1", NOW, renew=False).until
    with pytest.raises(a.AuthorityError, match=rf"edge-1 is enrolled until {until:%Y-%m-%d}: .*--renew"):
        a.enroll(authority, "edge-1", NOW, renew=False)
    a.revoke(authority, "edge-1", NOW)
    with pytest.raises(a.AuthorityError, match=r"revoked already: see that the broker has .*crl\.pem"):
        a.revoke(authority, "edge-1", NOW)


@pytest.mark.parametrize("names", [("",), ("ü.example",), (HOST, "a b"), ("*.example",), ("a." * 130,)])
def test_what_is_no_host_is_no_name_of_a_broker(authority, names):
    with pytest.raises(a.AuthorityError, match=r"broker name .*: write a host name"):
        a.broker_identity(authority, names, NOW)


def test_a_private_key_is_not_in_what_an_identity_or_authority_prints(authority):
    identity = a.enroll(authority, "edge-1", NOW, renew=False)
    assert "PRIVATE" not in repr(identity) + repr(authority)
