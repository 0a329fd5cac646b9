"""A worker that hangs, that the disk has no room for, or that is told to end: real processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.caps import Fence
from mas_edge.edge_agent.config import TrainConfig
from mas_edge.edge_agent.pulse import Patience
from mas_edge.edge_agent.trainers import Trainers
from mas_edge.models.tasks import Source
from mas_edge.profiling.meters import open_one
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker
from mas_edge.wire.messages import Assign, Caps, Declined, Failed, Key, Training

LIMIT_S = 60.0
HASTY = Patience(still_s=0.3, look_s=0.05)
KEY = Key(job="j", group="gravity", round=0, attempt=0, device="d1")
TRAINING = Training(workload="watch", network="micro", rounds=1, epochs=1, batch=8, lr=0.1, seed=1)


class Site:
    """A trainer and the assignment it is at."""

    def __init__(self, root, size_bytes: int | None = None) -> None:
        blobs = BlobStore(root / "blobs")
        ref = blobs.add(b"weights")
        if size_bytes is not None:
            ref = type(ref)(digest=ref.digest, size_bytes=size_bytes, chunk_bytes=ref.chunk_bytes)
        self.assign = Assign(key=KEY, tasks=("gravity",), training=TRAINING, weights=ref, fingerprint="f")
        meter, bus = open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1")
        self.account = Account(root / "account.json", meter, bus)
        self.account.begin(KEY)
        sources = {"watch": Source(clients=("1",))}
        self.trainer = Trainers(
            root, blobs, self.account, sources, TrainConfig(), Fence(), Caps(), patience=HASTY
        )

    @property
    def worker(self) -> int:
        return self.trainer.pids[1]

    def until_answered(self, meanwhile=lambda: None):
        end_s = time.monotonic() + LIMIT_S
        while time.monotonic() < end_s:
            for word in self.trainer.turn([self.assign]):
                return word
            meanwhile()
            time.sleep(0.01)
        raise TimeoutError(f"no answer in {LIMIT_S} s")


@contextmanager
def a_site(root, **options):
    site = Site(root, **options)
    try:
        yield site
    finally:
        site.trainer.close()
        site.account.close()


def test_a_worker_that_hangs_is_killed_and_tried_again_and_then_reported(tmp_path):
    stopped: list[int] = []
    with a_site(tmp_path) as site:

        def stop() -> None:
            if len(site.trainer.pids) > 1 and site.worker not in stopped:
                stopped.append(site.worker)
                os.kill(site.worker, signal.SIGSTOP)

        assert site.trainer.begin(0, site.assign) is None
        answer = site.until_answered(stop)
    assert isinstance(answer, Failed)
    assert answer.reason == "hung"
    assert "no sign of life" in answer.detail
    assert len(stopped) == 2
    assert {row.phase for row in answer.profile.rows} >= {"lost"}
    assert not any(psutil.pid_exists(pid) for pid in stopped)


def test_a_worker_that_hung_once_and_then_works_answers_as_any_other(tmp_path):
    with a_site(tmp_path) as site:
        site.trainer.begin(0, site.assign)
        os.kill(first := site.worker, signal.SIGSTOP)
        answer = site.until_answered()
        assert site.worker != first
    assert (answer.reason, type(answer)) == ("fingerprint", Declined)


def test_nothing_is_begun_without_room_for_what_it_brings(tmp_path):
    with a_site(tmp_path, size_bytes=1 << 60) as site:
        answer = site.trainer.begin(0, site.assign)
        assert len(site.trainer.pids) == 1, "no worker was started"
    assert (answer.reason, answer.again_s) == ("not-now", 60.0)
    assert answer.detail.startswith("disk: ")


def test_a_worker_that_is_told_to_end_goes_at_its_own_pace(tmp_path):
    with a_site(tmp_path) as site:
        site.trainer.begin(0, site.assign)
        worker = site.worker
    assert not psutil.pid_exists(worker)


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_and_hangs_is_killed(tmp_path):
    with a_site(tmp_path) as site:
        site.trainer.begin(0, site.assign)
        os.kill(worker := site.worker, signal.SIGSTOP)
    assert not psutil.pid_exists(worker)


SECONDS = st.floats(0, 1e5)


@given(SECONDS, SECONDS, SECONDS)
def test_only_long_silence_is_hanging(silent_s, still_s, longest_s):
    patience = Patience()
    lost = patience.lost(silent_s, still_s, longest_s)
    if silent_s <= patience.still_s:
        assert not lost
    if silent_s > max(patience.silent_s, patience.times * longest_s):
        assert lost
    if still_s <= patience.still_s and silent_s <= patience.times * longest_s:
        assert not lost, "a slow worker that works is left alone"
