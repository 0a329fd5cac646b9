"""The daemon's hold on its worker: a real process, which finds no weights where it is sent."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

from mas_edge.edge_agent.work import Broke, Work, WorkerProcess
from mas_edge.wire.messages import Assign, BlobRef, Key, Training

LIMIT_S = 60.0


def work(root) -> Work:
    key = Key(job="j", group="gravity", round=0, attempt=0, device="d1")
    training = Training(workload="watch", network="micro", rounds=1, epochs=1, batch=8, lr=0.1, seed=1)
    weights = BlobRef(digest="0" * 64, size_bytes=1, chunk_bytes=1)
    assign = Assign(key=key, tasks=("gravity",), training=training, weights=weights, fingerprint="other")
    return Work(assign=assign, weights=str(root / "none"), result=str(root / "result"), clients=("1",))


@contextmanager
def a_worker(root):
    process = WorkerProcess(root / "worker.log")
    try:
        yield process
    finally:
        process.close()


def said(process: WorkerProcess, how_many: int) -> list[tuple[str, bool]]:
    """The reasons of so many ends, and whether each was about the work that is wanted now."""
    found: list[tuple[str, bool]] = []
    end_s = time.monotonic() + LIMIT_S
    while len(found) < how_many and time.monotonic() < end_s:
        found += [(word.reason, process.means(word)) for word in process.heard() if isinstance(word, Broke)]
        time.sleep(0.01)
    return found


def test_an_assignment_that_was_halted_and_comes_again_is_done_and_not_taken_for_cancelled(tmp_path):
    with a_worker(tmp_path) as process:
        process.start(work(tmp_path))
        process.halt()
        process.start(work(tmp_path))
        (reason, first), again = said(process, 2)
        assert reason in {"cancelled", "worker-killed"}  # killed where torch takes seconds to import
        assert (first, again) == (False, ("fingerprint", True))


def test_work_that_waits_behind_a_halted_one_survives_the_worker(tmp_path):
    with a_worker(tmp_path) as process:
        process.start(work(tmp_path))
        process.halt()
        process.start(work(tmp_path))
        os.kill(process.pid, signal.SIGKILL)
        assert said(process, 2) == [("worker-killed", False), ("fingerprint", True)]


def test_a_worker_that_dies_at_work_is_an_end_of_that_work(tmp_path):
    with a_worker(tmp_path) as process:
        process.start(work(tmp_path))
        os.kill(process.pid, signal.SIGKILL)
        assert said(process, 1) == [("worker-killed", True)]
        assert process.pid is None
