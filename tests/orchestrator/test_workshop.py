"""The workshop's torch child: killed, it begins anew; stopped, it leaves nothing."""

from __future__ import annotations

import time
from contextlib import contextmanager

import psutil

from mas_edge.orchestrator.job import Abandoned, Init, Job
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.orchestrator.workshop import MOST_KILLS, Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.messages import Training

TRAINING = Training(workload="watch", network="micro", rounds=1, epochs=1, batch=8, lr=0.1, seed=1)
JOB = Job(spec=JobSpec(name="j", tasks=("a",), training=TRAINING, policy="all-in-one", devices=("d1",)))
INIT = Init(tasks=("a",))


@contextmanager
def a_workshop(root):
    meter = open_one("estimate:idle_w=2,max_w=10")
    workshop = Workshop(BlobStore(root / "blobs"), root, meter)
    try:
        yield workshop
    finally:
        workshop.close()
        meter.close()


def torch_child() -> psutil.Process:
    for _ in range(500):  # for a moment after it was started a process has no command line yet
        for child in psutil.Process().children():
            if "mas_edge.models.job" in child.cmdline():
                return child
        time.sleep(0.01)
    raise TimeoutError("there is no torch child")


def killed(workshop: Workshop) -> list:
    """What the workshop says of a child that was killed."""
    workshop.undertake(JOB, INIT)
    torch_child().kill()
    for _ in range(500):
        if (brought := workshop.poll()) or not workshop.busy:
            return brought
        time.sleep(0.01)
    raise TimeoutError("the child did not end")


def test_a_torch_child_that_was_killed_begins_anew_but_not_for_ever(tmp_path):
    with a_workshop(tmp_path) as workshop:
        assert [killed(workshop) for _ in range(MOST_KILLS - 1)] == [[]] * (MOST_KILLS - 1)
        ((name, event),) = killed(workshop)
    assert name == "j"
    assert isinstance(event, Abandoned)


def test_a_workshop_that_closes_ends_its_child(tmp_path):
    with a_workshop(tmp_path) as workshop:
        workshop.undertake(JOB, INIT)
        child = torch_child()
    assert not child.is_running()
    assert not workshop.busy
