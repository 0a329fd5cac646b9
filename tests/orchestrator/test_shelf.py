"""What the orchestrator keeps of weights, and a disk that is full: on real small file systems."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import subprocess
import time
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from mas_edge.orchestrator.job import Initialised, Job, referenced
from mas_edge.orchestrator.launching import orders
from mas_edge.orchestrator.launching.looks import Looker
from mas_edge.orchestrator.rounds import Contribution, Heard, Merged, Run
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.service import OrchestratorConfig, open_store
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.orchestrator.storage.shelf import NoRoom, Shelf, StorageConfig, spare
from mas_edge.orchestrator.views import status_tables
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)
SPEC = JobSpec(name="j", tasks=("a",), training=TRAINING, policy="all-in-one", devices=("d1", "d2"))
SMALL_BYTES, MODEL_NUMBERS = 8 << 20, 100_000


def ref(letter: str) -> m.BlobRef:
    return m.BlobRef(digest=letter * 64, size_bytes=1, chunk_bytes=1)


def a_job(name: str, digests: str, phase: str = "done") -> Job:
    """A job that ended with these weights; what is heard of a device keeps an update in a running one."""
    run = Run(job=name, group="a", tasks=("a",), devices=("d",), round=1, past=1, source=ref(digests[0]))
    heard = tuple(
        Contribution(device=letter, weights=ref(letter), examples=1, trained=()) for letter in digests[1:]
    )
    run = msgspec.structs.replace(run, heard=heard)
    return Job(spec=msgspec.structs.replace(SPEC, name=name), phase=phase, runs=(run,))


jobs_ = st.lists(
    st.tuples(st.text("abcdef", min_size=1, max_size=3), st.sampled_from(["done", "first", "failed"])),
    max_size=6,
).map(lambda found: [a_job(f"j{i}", digests, phase) for i, (digests, phase) in enumerate(found)])


@given(jobs_, st.integers(0, 3))
def test_only_old_done_jobs_lose_what_nobody_else_refers_to_the_oldest_first(found, keep):
    gone = spare(found, keep)
    done = [job for job in found if job.phase == "done"]
    old = done[: max(0, len(done) - keep)]
    others = [job for job in found if job not in old]
    assert len(gone) == len(old)
    for job, digests in zip(old, gone, strict=True):
        assert digests == referenced(job) - {d for each in others for d in referenced(each)}


@given(jobs_)
def test_nothing_is_spare_unless_somebody_said_so(found):
    assert spare(found, None) == ()


def filled(blobs: BlobStore, *sizes: int) -> list[m.BlobRef]:
    return [blobs.add(os.urandom(size)) for size in sizes]


def done_job(name: str, weights: m.BlobRef) -> Job:
    run = Run(job=name, group="a", tasks=("a",), devices=("d",), round=1, past=1, source=weights)
    return Job(spec=msgspec.structs.replace(SPEC, name=name), phase="done", runs=(run,))


def test_above_the_quota_the_oldest_done_jobs_lose_their_weights_until_it_is_kept(tmp_path):
    blobs = BlobStore(tmp_path)
    refs = filled(blobs, 100, 100, 100)
    jobs = [done_job(f"j{i}", each) for i, each in enumerate(refs)]
    shelf = Shelf(blobs, StorageConfig(quota_bytes=250, keep_jobs=1))
    with pytest.raises(NoRoom):
        shelf.admit()
    shelf.sweep(jobs, ())
    assert blobs.digests() == {refs[1].digest, refs[2].digest}
    shelf.admit()


def test_at_the_quota_no_job_is_taken_and_one_line_says_what_to_do(tmp_path):
    blobs = BlobStore(tmp_path)
    (only,) = filled(blobs, 2_000_000)
    shelf = Shelf(blobs, StorageConfig(quota_bytes=1_000_000))
    shelf.sweep([done_job("j", only)], ())
    with pytest.raises(NoRoom, match=r"2\.0 MB in .*, the quota is 1\.0 MB: raise .* keep_jobs"):
        shelf.admit()
    assert blobs.has(only.digest)


def test_a_part_goes_when_it_is_awaited_no_longer_and_one_of_a_former_life_when_all_is_over(tmp_path):
    blobs = BlobStore(tmp_path, chunk_bytes=4)
    shelf = Shelf(blobs)
    for letter in "ef":
        blobs.put_chunk(m.BlobRef(digest=letter * 64, size_bytes=8, chunk_bytes=4), 0, b"1234")
    running = a_job("j", "a", "first")
    shelf.sweep([running], {"e" * 64})
    assert blobs.unfinished() == {"e" * 64, "f" * 64}
    shelf.sweep([running], ())
    assert blobs.unfinished() == {"f" * 64}
    shelf.sweep([a_job("j", "a")], ())
    assert blobs.unfinished() == set()


def test_the_configuration_has_a_table_for_it():
    text = b'{"fleet": "f", "state": "s", "storage": {"quota_bytes": 5, "keep_jobs": 2}}'
    found = msgspec.json.decode(text, type=OrchestratorConfig).storage
    assert found == StorageConfig(quota_bytes=5, keep_jobs=2)


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A file system for some models of ours."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """A file that takes all the room there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def weights(value: float) -> bytes:
    return save(
        {"encoder.w": np.full(MODEL_NUMBERS, value, np.float32), "decoder.a.w": np.zeros(2, np.float32)}
    )


class Site:
    """A server whose state is on a small disk; two devices that answer what they are asked, and repeat it."""

    def __init__(self, root) -> None:
        self.broker, self.clock_s = Broker(), time.monotonic()
        self.store, self.meter = open_store(root), open_one("estimate:idle_w=2,max_w=10")
        self.blobs = BlobStore(root / "blobs")
        self.store.add_job("j", msgspec.json.encode(SPEC))
        self.store.append(
            "j", 0.0, Initialised(weights=self.blobs.add(weights(0.0)), fingerprint="f", parameters={})
        )
        self.workshop = Workshop(self.blobs, root, self.meter)
        self.server = Server(
            "f",
            self.broker.connect("orchestrator"),
            self.store,
            self.blobs,
            self.workshop,
            rng=random.Random(1),
            clock_s=lambda: self.clock_s,
        )
        self.devices = {name: self.broker.connect(name) for name in SPEC.devices}
        for name, bus in self.devices.items():
            bus.subscribe(m.down_topic("f", name))
        versions = m.Versions(mas_edge="0", python="3")
        offer = m.Offer(workload="watch", tasks=("a",))
        self.unanswered: dict[str, m.Up] = {
            name: m.Hello(device=name, boot_id="b", versions=versions, workloads=(offer,))
            for name in self.devices
        }

    def say(self, name: str, message: m.Up) -> None:
        self.devices[name].publish(m.up_topic("f", name), m.encode(message))

    def turn(self) -> None:
        """Two seconds pass; the server turns, the devices answer, and repeat what nobody confirmed."""
        self.clock_s += 2.0
        self.server.turn(0.0)
        for name, bus in self.devices.items():
            while delivery := bus.get(0.0):
                self._heard(name, m.decode_down(delivery.payload))
            if name in self.unanswered:
                self.say(name, self.unanswered[name])

    def _heard(self, name: str, message: m.Down) -> None:
        match message:
            case m.Assign():
                value = float(message.key.round + 1)
                data = weights(value) if message.train else b""
                chunked = BlobStore(self.blobs.root.parent.parent / name)
                ref_ = chunked.add(data) if message.train else None
                score = m.Score(task="a", count=1, loss_sum=1.0)
                self.unanswered[name] = m.Update(key=message.key, weights=ref_, examples=8, trained=(score,))
            case m.Need(digest=digest, ranges=ranges):
                chunked = BlobStore(self.blobs.root.parent.parent / name)
                for index in (i for first, past in ranges for i in range(first, past)):
                    self.devices[name].publish(
                        m.blob_topic("f", name, digest, index), chunked.chunk(digest, index)
                    )
            case m.Welcome():
                self.unanswered.pop(name, None)
            case m.Stored(key=key) | m.Cancel(key=key):
                if getattr(self.unanswered.get(name), "key", None) == key:
                    del self.unanswered[name]

    def events(self, kind: type) -> list:
        return [event for _, _, event in self.store.events("j") if isinstance(event, kind)]

    def close(self) -> None:
        self.workshop.close()
        self.store.close()
        self.meter.close()


@pytest.fixture
def site(small):
    made = Site(small)
    yield made
    made.close()


def test_a_job_waits_on_a_full_disk_says_why_and_ends_as_if_it_had_not_been(site, small, caplog):
    caplog.set_level(logging.INFO)
    ballast = fill(small)
    for _ in range(20):
        site.turn()
    assert site.server.shelf.full.startswith("the disk is full: no room in ")
    with Looker(small, lambda: site.server.shelf.full) as look:
        seen = look(orders.Look())
    assert seen.status.full == site.server.shelf.full
    assert status_tables.jobs(seen.status).notes[0] == site.server.shelf.full
    assert not site.server.jobs[0].over
    assert not site.events(Merged)
    with pytest.raises(NoRoom, match="no new job: the disk is full"):
        site.server.shelf.admit()
    ballast.unlink()
    for _ in range(40):
        site.turn()
    assert site.server.shelf.full is None
    assert site.server.jobs[0].phase == "done"
    keys = [event.update.key for event in site.events(Heard)]
    assert len(keys) == len(set(keys)) == 2 * 3
    assert len(site.events(Merged)) == 2
    about = [record.getMessage() for record in caplog.records if record.name.endswith("room")]
    assert [line.split(" in ")[0] for line in about] == ["no room", "there is room"]


@pytest.mark.parametrize("turns", range(1, 13, 2))
def test_whenever_the_disk_fills_the_job_ends_with_the_same_weights(site, small, turns):
    for _ in range(turns):
        site.turn()
    ballast = fill(small)
    for _ in range(10):
        site.turn()
    ballast.unlink()
    for _ in range(40):
        site.turn()
    (run,) = site.server.jobs[0].runs
    assert site.server.jobs[0].phase == "done"
    assert run.weights.digest == hashlib.sha256(weights(2.0)).hexdigest()
    assert site.blobs.digests() == referenced(site.server.jobs[0])
