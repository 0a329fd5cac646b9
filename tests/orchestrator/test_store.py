"""The store keeps what was committed, all of it and in order, whatever happens to its process."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator.storage.store_file import APPLICATION, SCHEMAS, VERSION
from mas_edge.orchestrator.store import (
    JobExists,
    Store,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreRefused,
    UnknownJob,
)
from mas_edge.wire.messages import Alive, Hello, Key, Progress, Versions


class Began(msgspec.Struct, frozen=True, tag_field="kind", tag="began"):
    who: str


class Ended(msgspec.Struct, frozen=True, tag_field="kind", tag="ended"):
    energy_j: float
    groups: tuple[str, ...] = ()


Event = Began | Ended
began = st.builds(Began, who=st.text())
ended = st.builds(
    Ended, energy_j=st.floats(allow_nan=False, allow_infinity=False), groups=st.tuples(st.text())
)
happened = st.tuples(st.sampled_from(["one", "two"]), st.floats(0, 1e6), began | ended)
numbers = itertools.count()


def opened(path, **options):
    return closing(Store(path, Event, **options))


def reading(path):
    return closing(Store.reader(path, Event))


def hello(device, **changes):
    return Hello(
        device=device, boot_id="b", versions=Versions(mas_edge="0", python="3"), workloads=(), **changes
    )


def progress(device, step):
    key = Key(job="one", group="a", round=0, attempt=0, device=device)
    return Progress(key=key, phase="train", step=step, steps=9)


# --- what was appended is what is replayed --------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(history=st.lists(happened, max_size=12), past=st.integers(0, 12))
def test_a_replay_is_what_was_appended_in_order(tmp_path, history, past):
    path = tmp_path / f"{next(numbers)}.db"
    with opened(path) as store:
        for job in ("one", "two"):
            store.add_job(job, job.encode())
        seqs = [store.append(*row) for row in history]
    assert seqs == sorted(set(seqs))
    with opened(path) as store:
        for job in ("one", "two"):
            expected = [(s, t, e) for s, (j, t, e) in zip(seqs, history, strict=True) if j == job]
            assert list(store.events(job)) == expected
            assert list(store.events(job, after=past)) == [row for row in expected if row[0] > past]
        assert store.jobs() == (("one", b"one"), ("two", b"two"))


def test_an_event_goes_to_a_job_that_is_known(tmp_path):
    with opened(tmp_path / "s.db") as store, pytest.raises(UnknownJob, match="job 'one' is not in"):
        store.append("one", 0.0, Began("x"))


def test_what_happened_to_deployments_is_read_in_order_and_stands_apart_from_the_job(tmp_path):
    with opened(tmp_path / "s.db") as store:
        store.add_job("one", b"first")
        numbers_ = [store.add_deployment("one", body) for body in (b"a", b"b")]
        with pytest.raises(UnknownJob, match="job 'two' is not in"):
            store.add_deployment("two", b"c")
    with opened(tmp_path / "s.db") as store:
        found = store.deployments()
        assert [(number, job, body) for number, job, body, _ in found] == [
            (numbers_[0], "one", b"a"),
            (numbers_[1], "one", b"b"),
        ]
        assert store.deployments(numbers_[0]) == found[1:]
        assert list(store.events("one")) == []


def test_a_job_is_added_once(tmp_path):
    with opened(tmp_path / "s.db") as store:
        store.add_job("one", b"first")
        with pytest.raises(JobExists, match="job 'one' is already in"):
            store.add_job("one", b"second")
        assert store.jobs() == (("one", b"first"),)


def test_what_a_device_said_last_is_remembered(tmp_path):
    with opened(tmp_path / "s.db") as store:
        for said in (hello("b"), hello("a", cpus=1), hello("a", cpus=2)):
            store.remember_device(said)
        for step in (1, 2):
            store.set_live("a", progress("a", step))
    with opened(tmp_path / "s.db") as store:
        assert store.devices() == {"a": hello("a", cpus=2), "b": hello("b")}
        assert store.live() == (progress("a", 2),)


def test_launches_wait_in_their_order_until_they_are_withdrawn_or_their_job_begins(tmp_path):
    with opened(tmp_path / "s.db", wall_s=lambda: 9.0) as store:
        numbers = [store.add_launch(job, job.encode()) for job in ("one", "two", "one")]
        store.add_job("one", b"")
        for number in numbers:
            store.withdraw(number)
    with reading(tmp_path / "s.db") as store:
        assert store.launches() == ((numbers[0], "one", b"one", 9.0), (numbers[2], "one", b"one", 9.0))


def test_whether_a_device_is_there_is_kept_with_the_time_at_which_it_was_said(tmp_path):
    now_s = itertools.count(5)
    with opened(tmp_path / "s.db", wall_s=lambda: float(next(now_s))) as store:
        for online in (True, False):
            store.set_presence("a", Alive(online=online, boot_id="b"))
    with reading(tmp_path / "s.db") as store:
        assert store.presence() == {"a": (Alive(online=False, boot_id="b"), 6.0)}


def test_each_row_carries_its_kind_and_the_wall_clock_for_people(tmp_path):
    with opened(tmp_path / "s.db", wall_s=lambda: 1234.5) as store:
        store.add_job("one", b"")
        store.append("one", 0.25, Began("x"))
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        row = db.execute("SELECT time_s, wall_s, kind, body FROM events").fetchone()
    assert row == (0.25, 1234.5, "began", b'{"kind":"began","who":"x"}')


# --- other processes ------------------------------------------------------------------------------


def test_a_store_has_an_identity_of_its_own_that_it_keeps(tmp_path):
    found = []
    for name in ("a.db", "a.db", "b.db"):
        with closing(Store(tmp_path / name, Event)) as store:
            found.append(store.identity)
    assert found[0] == found[1] != found[2]
    assert all(len(identity) == 32 for identity in found)


def test_a_reader_sees_each_event_as_soon_as_it_is_committed(tmp_path):
    with opened(tmp_path / "s.db") as store:
        store.add_job("one", b"")
        with reading(tmp_path / "s.db") as reader:
            for n in range(3):
                store.append("one", float(n), Began(str(n)))
                assert [event.who for *_, event in reader.events("one")] == [str(i) for i in range(n + 1)]


def test_a_reader_in_the_middle_of_a_replay_does_not_hold_up_the_writer(tmp_path):
    with opened(tmp_path / "s.db") as store, reading(tmp_path / "s.db") as reader:
        store.add_job("one", b"")
        for n in range(3):
            store.append("one", float(n), Began(str(n)))
        replay = reader.events("one")
        assert next(replay)[2] == Began("0")
        store.append("one", 3.0, Began("3"))
        assert [event.who for *_, event in replay] == ["1", "2"]


def test_a_reader_changes_nothing(tmp_path):
    with opened(tmp_path / "s.db") as store, reading(tmp_path / "s.db") as reader:
        store.add_job("one", b"")
        with pytest.raises(StoreError, match="readonly"):
            reader.append("one", 0.0, Began("x"))


WRITER = """
import msgspec, sys
from pathlib import Path
from mas_edge.orchestrator.store import Store

class Began(msgspec.Struct, frozen=True, tag_field="kind", tag="began"):
    who: str

store = Store(Path(sys.argv[1]), Began)
store.add_job("one", b"")
for n in range(1 << 30):
    store.append("one", float(n), Began(f"{n} " * 2000))
    print(n, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40])
def test_a_killed_writer_loses_nothing_it_had_committed_and_leaves_no_half_event(tmp_path, after):
    command = [sys.executable, "-c", WRITER, tmp_path / "s.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = after + len(writer.stdout.read().splitlines())
    with opened(tmp_path / "s.db") as store:
        replayed = list(store.events("one"))
        assert len(replayed) in {said, said + 1}  # killed between the commit and the word about it
        assert [(t, event.who) for _, t, event in replayed] == [
            (float(n), f"{n} " * 2000) for n in range(len(replayed))
        ]
        assert store.append("one", 1e9, Began("after")) == len(replayed) + 1


# --- refusals -------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path):
    with opened(tmp_path / "s.db") as store:
        store.add_job("one", b"")
        store.append("one", 0.0, Began("before"))
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to run out of room
        with pytest.raises(StoreFull, match="free some space") as caught:
            store.append("one", 1.0, Began("x" * 100_000))
        assert isinstance(caught.value, OSError)
        assert caught.value.filename == str(tmp_path / "s.db")
        assert [event for *_, event in store.events("one")] == [Began("before")]


def test_a_newer_store_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "s.db"
    Store(path, Event).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    for opening in (opened, reading):
        with pytest.raises(
            StoreRefused, match=rf"s\.db: store version {VERSION + 1}; .* reads up to {VERSION}"
        ):
            opening(path)
    assert path.read_bytes() == before


@pytest.fixture
def first_version(tmp_path):
    """A store as version 1 left it, with a job and an event."""
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        db.executescript(f"{SCHEMAS[0]} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;")
        db.execute("INSERT INTO jobs VALUES ('one', x'00', 1.0)")
        db.execute(
            """INSERT INTO events VALUES (7, 'one', 0.5, 1.0, 'began', '{"kind":"began","who":"x"}')"""
        )
        db.commit()
    return tmp_path / "s.db"


def test_an_older_store_is_brought_up_when_it_is_written_and_keeps_what_it_had(first_version):
    for _ in range(2):
        with opened(first_version) as store:
            assert list(store.events("one")) == [(7, 0.5, Began("x"))]
            store.add_launch("two", b"later")
            assert len(store.identity) == 32
    with reading(first_version) as store:
        assert [row[1:3] for row in store.launches()] == [("two", b"later")] * 2


def test_an_older_store_is_not_read_before_it_is_brought_up(first_version):
    before = first_version.read_bytes()
    with pytest.raises(StoreRefused, match=rf"store version 1: `mas serve` brings it to {VERSION}"):
        reading(first_version)
    assert first_version.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(b"exercise,gravity\n" * 1000)
    for opening in (opened, reading):
        with pytest.raises(StoreRefused, match=r"s\.db: file is not a database"):
            opening(path)
    assert path.read_bytes() == b"exercise,gravity\n" * 1000


def test_someone_elses_database_is_refused_and_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    before = (tmp_path / "s.db").read_bytes()
    with pytest.raises(StoreRefused, match="not a store of ours"):
        opened(tmp_path / "s.db")
    assert (tmp_path / "s.db").read_bytes() == before


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_store_that_is_cut_short_is_refused_in_one_line(tmp_path, share):
    path = tmp_path / "s.db"
    with opened(path) as store:
        store.add_job("one", b"")
        for n in range(50):
            store.append("one", float(n), Began("x" * 2000))
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StoreRefused, match="restore a copy or move it away") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_a_store_with_a_page_overwritten_is_refused_in_one_line(tmp_path):
    path = tmp_path / "s.db"
    with opened(path) as store:
        store.add_job("one", b"")
        for n in range(50):
            store.append("one", float(n), Began("x" * 2000))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 * 3 // 4 * 4096)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreRefused, match="restore a copy or move it away") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_an_event_of_another_version_is_refused_by_its_number(tmp_path):
    with opened(tmp_path / "s.db") as store:
        store.add_job("one", b"")
        store.append("one", 0.0, Began("x"))
    with (
        closing(Store(tmp_path / "s.db", Ended)) as store,
        pytest.raises(StoreRefused, match="event 1 of job 'one' cannot be read by this version"),
    ):
        list(store.events("one"))


def test_nothing_to_read_is_said_so(tmp_path):
    with pytest.raises(StoreMissing, match="no store is here"):
        reading(tmp_path / "s.db")
    (tmp_path / "s.db").touch()
    with pytest.raises(StoreMissing, match="the store is empty"):
        reading(tmp_path / "s.db")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere/s\.db: unable to open"):
        opened(tmp_path / "nowhere" / "s.db")
