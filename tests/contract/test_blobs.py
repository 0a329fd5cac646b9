"""Blobs over every bus: published once for all readers, resumed, and right in the end whatever happens."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import settle, until

from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore, Fetcher, Publisher
from mas_edge.wire.memory import Broker, Faults

FLEET = "site"
CHUNK = 1000
DATA = random.Random(3).randbytes(7 * CHUNK + 123)


class Owner:
    """The end that has blobs: hears needs and answers them."""

    def __init__(self, bus, root, **options):
        self.bus = bus
        self.store = BlobStore(root, chunk_bytes=CHUNK)
        self.publisher = Publisher(
            bus, self.store, lambda digest, index: m.blob_topic(FLEET, m.EVERYONE, digest, index), **options
        )
        self.needs = []
        bus.subscribe(m.up_topic(FLEET))

    def turn(self, time_s):
        while delivery := self.bus.get(0):
            place = m.parse_topic(FLEET, delivery.topic)
            need = m.decode_up(delivery.payload)
            self.needs.append((place.device, need))
            self.publisher.asked(need, place.device, time_s)
        return self.publisher.pump(time_s)


class Reader:
    """The end that lacks a blob."""

    def __init__(self, name, bus, root, seed=0):
        self.name, self.bus = name, bus
        self.store = BlobStore(root)
        self.fetcher = Fetcher(
            bus,
            self.store,
            lambda source, digest: m.blob_topic(FLEET, source, digest),
            lambda _source, need: bus.publish(m.up_topic(FLEET, name), m.encode(need)),
            rng=random.Random(seed),
        )
        self.chunks = []
        self.whole = []
        self.corrupt = set()

    def turn(self, time_s):
        while delivery := self.bus.get(0):
            place = m.parse_topic(FLEET, delivery.topic)
            self.chunks.append(place.index)
            payload = delivery.payload
            if place.index in self.corrupt:
                self.corrupt.discard(place.index)
                payload = bytes(len(payload))
            if ref := self.fetcher.receive(place.digest, place.index, payload, time_s):
                self.whole.append(ref)
        return self.fetcher.pump(time_s)


def run(*ends, done, what="the blob arrived"):
    """Turn all ends in real time until it is done."""

    def turn():
        for end in ends:
            end.turn(time.monotonic())
        return done()

    until(turn, what)


def test_a_blob_reaches_two_readers_and_is_published_once(site, tmp_path):
    owner = Owner(site.connect("server"), tmp_path / "o")
    ref = owner.store.add(DATA)
    readers = [Reader(name, site.connect(name), tmp_path / name) for name in ("pi", "nano")]
    settle(owner.bus)
    owner.publisher.expect(ref.digest, frozenset({"pi", "nano"}))
    for reader in readers:
        reader.fetcher.want(ref, m.EVERYONE, time.monotonic())
    run(owner, *readers, done=lambda: all(reader.whole for reader in readers))
    for reader in readers:
        assert reader.whole == [ref]
        assert reader.store.path(ref.digest).read_bytes() == DATA
        assert sorted(reader.chunks) == list(range(ref.chunks))
    assert sorted(name for name, _ in owner.needs) == ["nano", "pi"]


def test_who_has_the_blob_or_gave_it_up_gets_no_chunk_of_it(site, tmp_path):
    owner = Owner(site.connect("server"), tmp_path / "o")
    ref = owner.store.add(DATA)
    reader, other = (Reader(name, site.connect(name), tmp_path / name) for name in ("pi", "nano"))
    settle(owner.bus)
    reader.store.add(DATA)
    other.fetcher.want(ref, m.EVERYONE, time.monotonic())
    other.fetcher.drop(ref.digest)
    third = Reader("late", site.connect("late"), tmp_path / "late")
    for each in (reader, third):
        each.fetcher.want(ref, m.EVERYONE, time.monotonic())
    run(owner, reader, other, third, done=lambda: third.whole)
    assert (reader.chunks, other.chunks) == ([], [])
    assert {name for name, _ in owner.needs} == {"late"}


def test_a_reader_that_starts_again_asks_only_for_the_rest(site, tmp_path):
    owner = Owner(site.connect("server"), tmp_path / "o")
    ref = owner.store.add(DATA)
    settle(owner.bus)
    before = BlobStore(tmp_path / "pi")
    for index in (0, 1, 5):
        before.put_chunk(ref, index, owner.store.chunk(ref.digest, index))
    reader = Reader("pi", site.connect("pi"), tmp_path / "pi")
    reader.fetcher.want(ref, m.EVERYONE, time.monotonic())
    run(owner, reader, done=lambda: reader.whole)
    assert owner.needs == [("pi", m.Need(digest=ref.digest, ranges=((2, 5), (6, 8))))]
    assert reader.chunks == [2, 3, 4, 6, 7]


def test_a_broker_that_restarts_in_the_middle_does_not_stop_a_blob(site, tmp_path):
    owner = Owner(site.connect("server"), tmp_path / "o", gather_s=0.0)
    ref = owner.store.add(random.Random(4).randbytes(400 * CHUNK))
    reader = Reader("pi", site.connect("pi"), tmp_path / "pi")
    settle(owner.bus)
    reader.fetcher.want(ref, m.EVERYONE, time.monotonic())
    reader.fetcher.pump(time.monotonic())
    until(lambda: owner.turn(time.monotonic()) or owner.needs)
    site.restart()
    until(lambda: owner.bus.connections == reader.bus.connections == 2, "both are back")
    reader.fetcher.again(time.monotonic())
    run(owner, reader, done=lambda: reader.whole)
    assert reader.store.path(ref.digest).stat().st_size == ref.size_bytes


def test_a_corrupt_chunk_is_found_out_thrown_away_and_asked_for_again(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    reader.corrupt = {3}
    reader.fetcher.want(ref, m.EVERYONE, 0.0)
    simulate([owner, reader], lambda: reader.whole)
    assert reader.store.path(ref.digest).read_bytes() == DATA
    assert [need.ranges for _, need in owner.needs] == [((0, 8),), ((0, 8),)]


# --- in memory, in simulated time ---


def small_fleet(root, *names, faults=None, seed=0, **options):
    broker = Broker(faults, random.Random(seed))
    owner = Owner(broker.connect("server"), root / "o", **options)
    readers = [Reader(name, broker.connect(name), root / name, seed) for name in names]
    for end in (owner, *readers):
        assert end.bus.get(0) is None  # the connection changed: it is there
    return broker, owner, readers


def simulate(ends, done, limit_s=86_400.0):
    """Turn all ends, going to the next moment that one of them asked for; the moment when it is done."""
    time_s = 0.0
    while not done():
        waits = [wait_s for _ in range(3) for end in ends if (wait_s := end.turn(time_s)) is not None]
        time_s += max(min(waits, default=1.0), 1e-3)
        assert time_s < limit_s
    return time_s


@given(
    lose=st.floats(0, 0.5),
    repeat=st.floats(0, 0.5),
    delay=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
    restarts=st.sets(st.integers(0, 60), max_size=3),
)
def test_a_blob_is_whole_in_the_end_whatever_the_broker_does(
    tmp_path_factory, lose, repeat, delay, seed, restarts
):
    root = tmp_path_factory.mktemp("fleet")
    faults = Faults(lose=lose, repeat=repeat, delay=delay)
    broker, owner, readers = small_fleet(root, "pi", "nano", faults=faults, seed=seed)
    ref = owner.store.add(DATA)
    turns = iter(range(10**6))

    def done():
        if next(turns) in restarts:
            broker.restart()
            for reader in readers:
                reader.fetcher.again(0.0)
        return all(reader.whole for reader in readers)

    for reader in readers:
        reader.fetcher.want(ref, m.EVERYONE, 0.0)
    simulate([owner, *readers], done)
    assert all(reader.store.path(ref.digest).read_bytes() == DATA for reader in readers)
    assert all(reader.whole == [ref] for reader in readers)


def test_needs_are_gathered_before_anything_is_published(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    reader.fetcher.want(ref, m.EVERYONE, 0.0)
    reader.fetcher.pump(0.0)
    assert owner.turn(0.0) == pytest.approx(0.2)
    owner.turn(0.19)
    reader.turn(0.19)
    assert reader.chunks == []
    assert owner.turn(0.2) is None
    reader.turn(0.2)
    assert reader.whole == [ref]


def test_nothing_is_gathered_longer_once_all_expected_readers_have_asked(tmp_path):
    _, owner, readers = small_fleet(tmp_path, "pi", "nano")
    ref = owner.store.add(DATA)
    owner.publisher.expect(ref.digest, frozenset({"pi", "nano"}))
    for reader in readers:
        reader.fetcher.want(ref, m.EVERYONE, 0.0)
        reader.turn(0.0)
    owner.turn(0.01)
    for reader in readers:
        reader.turn(0.01)
        assert reader.whole == [ref]


def test_who_asks_while_chunks_go_out_gets_the_rest_of_them_and_what_it_missed_after(far_site, tmp_path):
    owner = Owner(far_site.connect("server"), tmp_path / "o", gather_s=0.0, max_inflight=3)
    ref = owner.store.add(DATA)
    readers = [Reader(name, far_site.connect(name), tmp_path / name) for name in ("pi", "nano")]
    for end in (owner, *readers):
        settle(end.bus)
    early, late = readers
    everything = m.Need(digest=ref.digest, ranges=((0, ref.chunks),))
    until(lambda: owner.bus.inflight == 0)
    far_site.relays["server"].flowing.clear()
    early.fetcher.want(ref, m.EVERYONE, time.monotonic())
    settle(early.bus)
    owner.publisher.asked(everything, "pi", time.monotonic())
    run(early, done=lambda: owner.publisher.pump(time.monotonic()) and len(early.chunks) == 3)
    late.fetcher.want(ref, m.EVERYONE, time.monotonic())
    settle(late.bus)
    owner.publisher.asked(everything, "nano", time.monotonic())
    far_site.relays["server"].flowing.set()
    run(owner, *readers, done=lambda: early.whole and late.whole)
    assert early.chunks[:8] == list(range(8))
    assert late.chunks[:8] == [3, 4, 5, 6, 7, 0, 1, 2]


def test_no_more_than_the_window_is_under_way(far_site, tmp_path):
    owner = Owner(far_site.connect("server"), tmp_path / "o", gather_s=0.0, max_inflight=2)
    settle(owner.bus)
    ref = owner.store.add(random.Random(4).randbytes(50 * CHUNK))
    far_site.relays["server"].muted = True
    owner.publisher.asked(m.Need(digest=ref.digest, ranges=((0, 50),)), "pi", 0.0)
    for time_s in range(10):
        assert owner.publisher.pump(float(time_s)) is not None
    assert owner.bus.inflight == 2
    far_site.vanish("server")


def test_a_need_for_what_nobody_has_is_ignored(tmp_path):
    _, owner, _ = small_fleet(tmp_path)
    for digest in ("00" * 32, "../../etc/passwd"):
        owner.publisher.asked(m.Need(digest=digest, ranges=((0, 1),)), "pi", 0.0)
    ref = owner.store.add(b"x")
    owner.publisher.asked(m.Need(digest=ref.digest, ranges=((-5, -1), (7, 10**12))), "pi", 0.0)
    assert owner.turn(1.0) is None
    assert owner.bus.sent_bytes == 0


def test_a_blob_that_is_removed_while_it_goes_out_is_no_longer_offered(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    reader.fetcher.want(ref, m.EVERYONE, 0.0)
    reader.turn(0.0)
    owner.turn(0.0)
    owner.store.remove(ref.digest)
    assert owner.turn(1.0) is None


def test_a_slow_link_is_not_filled_with_repeated_needs(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(random.Random(4).randbytes(30 * CHUNK))
    reader.fetcher.want(ref, m.EVERYONE, 0.0)
    asked_s = []
    for tenth in range(1200):  # a chunk every four seconds
        time_s = tenth / 10
        if tenth % 40 == 0:
            reader.fetcher.receive(
                ref.digest, tenth // 40, owner.store.chunk(ref.digest, tenth // 40), time_s
            )
        reader.fetcher.pump(time_s)
        while owner.bus.get(0):
            asked_s.append(time_s)
    assert reader.store.has(ref.digest)
    assert len(asked_s) <= 4


def test_another_source_takes_over(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    reader.fetcher.want(ref, "nano", 0.0)
    reader.turn(0.0)
    reader.fetcher.want(ref, m.EVERYONE, 1.0)
    simulate([owner, reader], lambda: reader.whole)
    assert reader.bus.filters == set()


def test_a_blob_that_nobody_wants_is_not_stored(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    assert reader.fetcher.receive(ref.digest, 0, DATA[:CHUNK], 0.0) is None
    assert list((tmp_path / "pi").iterdir()) == []


def test_a_chunk_of_the_wrong_size_does_no_harm(tmp_path):
    _, owner, (reader,) = small_fleet(tmp_path, "pi")
    ref = owner.store.add(DATA)
    reader.fetcher.want(ref, m.EVERYONE, 0.0)
    assert reader.fetcher.receive(ref.digest, 0, b"short", 0.0) is None
    assert reader.fetcher.receive(ref.digest, 99, DATA[:CHUNK], 0.0) is None
    simulate([owner, reader], lambda: reader.whole)


def test_an_empty_blob_travels_too(site, tmp_path):
    owner = Owner(site.connect("server"), tmp_path / "o")
    ref = owner.store.add(b"")
    reader = Reader("pi", site.connect("pi"), tmp_path / "pi")
    settle(owner.bus)
    reader.fetcher.want(ref, m.EVERYONE, time.monotonic())
    run(owner, reader, done=lambda: reader.whole)
    assert reader.store.path(ref.digest).read_bytes() == b""
