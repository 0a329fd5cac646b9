"""The wire contract, to the byte: whoever changes these bytes breaks every device in the field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from goldens import GOLDEN, KEY, REF
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.wire import messages as m

CLASSES = (*get_args(m.Up), *get_args(m.Down), m.Alive)


def decoder(kind):
    if kind is m.Alive:
        return m.decode_alive
    return m.decode_up if kind in get_args(m.Up) else m.decode_down


def test_what_is_nested_without_end_or_longer_than_any_message_is_refused():
    nested = b'{"kind":"accepted","later":' + b"[" * 200_000
    for payload in (nested, b" " * (m.LONGEST_BYTES + 1)):
        with pytest.raises(m.MessageRefused):
            m.decode_up(payload)


def test_every_message_has_its_bytes_pinned():
    assert {type(message) for message in GOLDEN} == set(CLASSES)


@pytest.mark.parametrize("message", GOLDEN, ids=lambda message: type(message).__name__)
def test_a_message_is_these_bytes_and_comes_back_from_them(message):
    assert m.encode(message) == GOLDEN[message]
    assert decoder(type(message))(GOLDEN[message]) == message


@pytest.mark.parametrize("message", GOLDEN, ids=lambda message: type(message).__name__)
def test_fields_of_a_later_version_are_ignored(message):
    later = GOLDEN[message][:-1] + b',"of_a_later_version":[1,{"a":null}]}'
    assert decoder(type(message))(later) == message


@pytest.mark.parametrize("kind", CLASSES)
@given(data=st.data())
def test_whatever_a_message_holds_survives_the_wire(kind, data):
    message = data.draw(messages(kind))
    assert decoder(kind)(m.encode(message)) == message


def messages(kind):
    """Instances of one class, from its golden with its plain fields drawn anew."""
    plain = {
        str: st.text(),
        int: st.integers(-(2**53), 2**53),
        bool: st.booleans(),
        float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
        str | None: st.none() | st.text(),
        int | None: st.none() | st.integers(0, 2**53),
    }
    example = next(message for message in GOLDEN if type(message) is kind)
    drawn = {f.name: plain[f.type] for f in msgspec.structs.fields(kind) if f.type in plain}
    return st.fixed_dictionaries(drawn).map(lambda values: msgspec.structs.replace(example, **values))


@given(payload=st.binary())
@pytest.mark.parametrize("decode", [m.decode_up, m.decode_down, m.decode_alive])
def test_noise_is_refused_and_nothing_else_happens(decode, payload):
    with pytest.raises(m.MessageRefused):
        decode(payload)


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (m.decode_up, b'{"kind":"assign"}'),  # a device does not assign
        (m.decode_down, GOLDEN[m.Accepted(key=KEY)]),
        (m.decode_down, b'{"kind":"stored"}'),
        (m.decode_down, b'{"kind":"stored","key":"j1"}'),
        (m.decode_up, b'{"kind":"need","digest":"ab","ranges":[[0]]}'),
        (m.decode_up, GOLDEN[m.Accepted(key=KEY)].replace(b'"round":3', b'"round":"3"')),
        (m.decode_alive, b'{"kind":"alive","online":1,"boot_id":"b7"}'),
        (m.decode_alive, b"\x80\x04K\x01."),  # a pickle is noise like any other
    ],
)
def test_what_does_not_fit_the_contract_is_refused_with_the_reason(decode, payload):
    with pytest.raises(m.MessageRefused, match=r"protocol 1: .+"):
        decode(payload)


@pytest.mark.parametrize("field", ["size_bytes", "chunk_bytes"])
def test_a_blob_that_is_smaller_than_nothing_is_refused(field):
    update = m.Update(key=KEY, weights=msgspec.structs.replace(REF, **{field: -1}))
    with pytest.raises(m.MessageRefused, match=field):
        m.decode_up(m.encode(update))


@given(size_bytes=st.integers(0, 10**12), chunk_bytes=st.integers(1, 10**7))
def test_the_chunks_of_a_blob_cover_it_without_an_empty_one(size_bytes, chunk_bytes):
    chunks = m.BlobRef(digest="", size_bytes=size_bytes, chunk_bytes=chunk_bytes).chunks
    assert (chunks - 1) * chunk_bytes < max(size_bytes, 1) <= chunks * chunk_bytes


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,47}", fullmatch=True).filter(lambda name: name != m.EVERYONE)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@given(fleet=NAMES, device=NAMES, digest=DIGESTS, index=st.integers(0, 10**9 - 1))
def test_a_topic_says_who_and_what(fleet, device, digest, index):
    assert m.parse_topic(fleet, m.up_topic(fleet, device)) == m.Place(device=device, leaf="up")
    assert m.parse_topic(fleet, m.down_topic(fleet, device)) == m.Place(device=device, leaf="down")
    assert m.parse_topic(fleet, m.alive_topic(fleet, device)) == m.Place(device=device, leaf="alive")
    place = m.Place(device=device, leaf="blob", digest=digest, index=index)
    assert m.parse_topic(fleet, m.blob_topic(fleet, device, digest, index)) == place


@given(fleet=NAMES, other=NAMES, device=NAMES)
def test_the_topic_of_another_fleet_means_nothing(fleet, other, device):
    assert (m.parse_topic(fleet, m.up_topic(other, device)) is None) == (fleet != other)


@given(topic=st.text())
@pytest.mark.parametrize(
    "prefix", ["", "mas/1/", "mas/1/site/", "mas/1/site/pi/", "mas/1/site/pi/blob/", "mas/2/site/pi/up"]
)
def test_a_foreign_topic_means_nothing(prefix, topic):
    place = m.parse_topic("site", prefix + topic)
    assert place is None or place.leaf in {"up", "down", "alive"}


@pytest.mark.parametrize("index", ["-1", "1e3", "٣", "1000000000", ""])
def test_a_chunk_whose_index_is_no_small_number_means_nothing(index):
    assert m.parse_topic("site", m.blob_topic("site", "pi", "ab" * 32, index)) is None


@given(name=NAMES)
def test_a_good_name_is_taken(name):
    assert m.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a" * 49, "a/b", "a+", "#", "ä", "a b", "a\n", "all"])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(name):
    with pytest.raises(m.NameRefused, match=r"device name .*: use 1 to 48"):
        m.check_name(name)


SCRIPT = Path(__file__).parents[2] / "scripts" / "protocol"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the scripts are in the checkout only")
def test_the_page_about_the_protocol_is_up_to_date():
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
