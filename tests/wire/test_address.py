"""Addresses of brokers, and topic filters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from mas_edge.wire.address import Address, AddressRefused, InsecureRefused, parse_address
from mas_edge.wire.inbox import matches


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtt://127.0.0.1:5000", "127.0.0.1", 5000, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtts://[::1]:99/", "::1", 99, True),
    ],
)
def test_an_address_is_read_and_written(text, host, port, tls):
    address = parse_address(text)
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write mqtt://HOST:PORT"),
        ("localhost:1883", "write mqtt://HOST:PORT"),
        ("http://host", "write mqtt://HOST:PORT"),
        ("mqtt://", "write mqtt://HOST:PORT"),
        ("mqtt://host:0", "write mqtt://HOST:PORT"),
        ("mqtt://host/topic", "write mqtt://HOST:PORT"),
        ("mqtt://host:70000", "'mqtt://host:70000': Port out of range"),
        ("mqtt://host:x", "'mqtt://host:x': Port could not"),
        ("mqtt://[::1", "Invalid IPv6"),
    ],
)
def test_what_is_no_address_is_refused_with_a_remedy(text, why):
    with pytest.raises(AddressRefused, match=why):
        parse_address(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(AddressRefused, match="apart") as caught:
        parse_address("mqtt://me:secret@host")
    assert "secret" not in str(caught.value)


def test_certificates_need_tls_and_each_other():
    with pytest.raises(AddressRefused, match="mqtts"):
        parse_address("mqtt://host", ca=Path("ca.pem"))
    with pytest.raises(AddressRefused, match="together"):
        parse_address("mqtts://host", cert=Path("me.pem"))


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AddressRefused, match=r"mqtts://host:8883 .*ca\.pem.*No such file"):
        parse_address("mqtts://host", ca=tmp_path / "ca.pem").tls_context()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_may_be_spoken_to_in_the_clear(host):
    Address(host, 1883).check_private(insecure=False)


@pytest.mark.parametrize("host", ["192.168.0.2", "0.0.0.0", "broker.example", "localhost.example", "::"])
def test_another_machine_only_with_tls_or_on_demand(host):
    with pytest.raises(InsecureRefused, match="insecure = true") as caught:
        Address(host, 1883).check_private(insecure=False)
    assert isinstance(caught.value, PermissionError)
    Address(host, 1883).check_private(insecure=True)
    Address(host, 8883, tls=True).check_private(insecure=False)


LEVELS = st.sampled_from(["", "a", "b", "$s"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join(levels + tail),
    st.lists(LEVELS | st.just("+"), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(topic_filter=FILTERS | st.just("#"), topic=TOPICS)
def test_filters_match_as_the_standard_says(topic_filter, topic):
    assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)
