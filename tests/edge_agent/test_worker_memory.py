"""A real training process within a limit: what it chooses, what it says, and what its peak is."""

from __future__ import annotations

import resource
import time

import msgspec
import pytest

from mas_edge.edge_agent.work import Broke, Done, Fitted, Work, WorkerProcess
from mas_edge.models import net as nets
from mas_edge.models import weights
from mas_edge.models.fingerprint import fingerprint
from mas_edge.models.tasks import find
from mas_edge.profiling.cpu import rss_bytes
from mas_edge.wire.messages import Assign, BlobRef, Key, Training

LIMIT_S = 120.0
MB = 10**6
WATCH = find("watch")
TASKS = tuple(task.name for task in WATCH.choose(None))
TRAINING = Training(workload="watch", network="small", rounds=2, epochs=1, batch=512, lr=0.01, seed=1)


class Bench:
    """One warm worker, and works for it."""

    def __init__(self, root):
        self.process, self._root = WorkerProcess(root / "worker.log"), root
        weights.save(root / "given", nets.state(nets.build(WATCH, "small", TASKS, seed=1)))
        self._fingerprint = fingerprint(WATCH, "small")

    def does(self, training=TRAINING, **change):
        """The words about a work on all tasks, the last of them its end."""
        key = Key(job="j", group="g", round=1, attempt=0, device="d")
        assign = Assign(
            key=key,
            tasks=TASKS,
            training=training,
            weights=BlobRef(digest="0" * 64, size_bytes=1, chunk_bytes=1),
            fingerprint=self._fingerprint,
            evaluate=True,
        )
        paths = {"weights": str(self._root / "given"), "result": str(self._root / "result")}
        self.process.start(Work(assign=assign, clients=("1", "2", "3"), **paths, **change))
        words, end_s = [], time.monotonic() + LIMIT_S
        while not (words and isinstance(words[-1], Done | Broke)) and time.monotonic() < end_s:
            words += self.process.heard()
            time.sleep(0.01)
        return words

    def limit(self, spare_bytes):
        """A limit that leaves so much beside what the least way to train needs."""
        short = self.does(memory_bytes=100 * MB)[-1].shortage
        return short.needed_bytes + spare_bytes - (short.allowed_bytes - 100 * MB)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("worker"))
    made.does(msgspec.structs.replace(TRAINING, batch=8))  # warm
    yield made
    made.process.close()


def peak(words):
    assert isinstance(words[-1], Done), words[-1]
    return words[-1].peak_rss_bytes


def test_the_peak_is_that_of_the_group_and_not_of_a_larger_one_before_it(bench):
    small = msgspec.structs.replace(TRAINING, batch=8)
    before = peak(bench.does(small))
    large = peak(bench.does())
    after = peak(bench.does(small))
    assert large > before + 40 * MB
    assert after < before + 20 * MB


def test_without_a_limit_nothing_is_estimated(bench):
    done = bench.does(msgspec.structs.replace(TRAINING, batch=8))[-1]
    assert (done.fit.micro_batch, done.fit.estimated_bytes, done.fit.allowed_bytes) == (8, None, None)


def test_a_group_that_fits_in_no_way_is_declined_with_numbers_by_part(bench):
    broke = bench.does(memory_bytes=100 * MB)[-1]
    assert broke.reason == "memory", broke.detail
    short = broke.shortage
    assert short.micro_batch == 1
    assert 100 * MB <= short.allowed_bytes < short.needed_bytes  # what the kernel can drop comes on top
    assert short.needed_bytes == short.encoder_bytes + sum(each.bytes for each in short.decoders)
    assert tuple(each.task for each in short.decoders) == TASKS
    assert f"allowed {short.allowed_bytes / MB:.0f} MB" in broke.detail


def test_a_limit_is_kept_by_smaller_micro_batches_and_said_before_training(bench):
    anew = msgspec.structs.replace(TRAINING, seed=2)  # not what was trained, and so proven, before
    fitted, *_, done = bench.does(anew, memory_bytes=bench.limit(25 * MB))
    assert isinstance(fitted, Fitted)
    assert fitted.fit == done.fit
    assert done.fit.micro_batch < TRAINING.batch or done.fit.checkpointing
    assert done.fit.estimated_bytes <= done.fit.allowed_bytes
    assert fitted.shortage.needed_bytes == done.fit.estimated_bytes
    assert done.peak_rss_bytes <= 1.06 * done.fit.allowed_bytes  # docs/results/memory.md


def test_a_group_that_was_trained_is_trained_so_again_by_its_measured_peak(bench):
    limit = bench.limit(25 * MB)
    first = bench.does(memory_bytes=limit)[-1]
    again = bench.does(memory_bytes=limit + MB)[-1]
    way = first.fit.micro_batch, first.fit.checkpointing
    assert (again.fit.micro_batch, again.fit.checkpointing) == way
    if first.peak_rss_bytes <= again.fit.allowed_bytes:
        assert again.fit.estimated_bytes == first.peak_rss_bytes


def test_a_reproducible_job_is_not_cut(bench):
    limit = bench.limit(10 * MB)
    fixed = msgspec.structs.replace(TRAINING, reproducible=True)
    broke = bench.does(fixed, memory_bytes=limit)[-1]
    assert broke.shortage.micro_batch == TRAINING.batch
    assert isinstance(bench.does(memory_bytes=limit)[-1], Done)


def test_a_worker_that_gets_no_memory_ends_with_its_peak_and_the_next_one_is_sound(bench):
    pid = bench.process.pid
    resource.prlimit(pid, resource.RLIMIT_DATA, (rss_bytes(pid), resource.RLIM_INFINITY))
    broke = bench.does()[-1]
    assert isinstance(broke, Broke)
    assert broke.reason == "memory", broke.detail
    assert broke.shortage is None
    assert broke.peak_rss_bytes > 100 * MB
    assert bench.process.pid is None
    assert isinstance(bench.does(msgspec.structs.replace(TRAINING, batch=8))[-1], Done)
