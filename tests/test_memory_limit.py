"""Real processes under the kernel's memory limit: the worker is killed, the agent lives, the job ends.

An agent runs in a cgroup of its own (v1 or v2, whichever the machine has; root). What a group of eight tasks
takes and what its tasks take alone is measured there first; the limits follow from that.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from mas_edge.models.workloads.buildings import archive
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.spec import JobSpec, check
from mas_edge.wire.host import free_port
from mas_edge.wire.messages import Training

pytestmark = pytest.mark.slow

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT_S = 200.0
VIEWS = 2048
"""Of the device: the shipped ones of a building again and again. With so many in a batch, what a group takes
more than a task is far more than a peak varies by, or than pages of files take."""
TASKS = (
    *("depth_zbuffer", "normal", "keypoints2d", "edge_texture"),
    *("edge_occlusion", "reshading", "principal_curvature", "rgb"),
)


class Group:
    """A cgroup with a memory limit; processes that are started with ``enter`` are in it."""

    def __init__(self, name):
        v1 = (V1 / "memory.limit_in_bytes").exists()
        if not v1 and not (V2 / "cgroup.controllers").exists():
            pytest.skip("needs a memory cgroup, v1 or v2")
        self.path = (V1 if v1 else V2) / name
        self._limit, self._used = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if v1 else ("memory.max", "memory.peak")
        )
        try:
            self.path.mkdir()
            self.limit(1 << 40)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            pytest.skip(f"needs root and a memory cgroup that can be divided: {error}")

    def limit(self, size):
        (self.path / self._limit).write_text(str(size))

    def enter(self):
        (self.path / "cgroup.procs").write_text("0")

    def peak_bytes(self):
        return int((self.path / self._used).read_text())

    def close(self):
        for _ in range(50):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.1)


def spec(policy) -> JobSpec:
    training = Training(
        workload="buildings",
        network="micro",
        rounds=2,
        epochs=1,
        batch=VIEWS,
        lr=0.01,
        seed=1,
        affinity_every=5,
        reproducible=True,  # one micro-batch for all: the group itself has to fit
    )
    base = JobSpec(name="job", tasks=TASKS, training=training, policy=policy, devices=("edge-1",))
    return check(base)


def run(root, job, group, late_limit=None):
    """The job's report; the agent has run under the group's limit and was alive at the end.

    ``late_limit`` becomes the limit when the agent has read another one already.
    """
    (root / "state").mkdir(parents=True)
    make_data(root / "data")
    port = free_port()
    with contextlib.closing(open_store(root / "state")) as store:
        store.add_job(job.name, msgspec.json.encode(job))
    tail = f'\n[broker]\nurl = "mqtt://127.0.0.1:{port}"\n\n[energy]\nmeter = "estimate:idle_w=1,max_w=5"\n'
    (root / "o.toml").write_text(f'fleet = "t"\nstate = {json.dumps(str(root / "state"))}\n{tail}')
    (root / "a.toml").write_text(
        f'device = "edge-1"\nfleet = "t"\nstate = {json.dumps(str(root / "agent"))}\n{tail}'
        f'\n[data.buildings]\nclients = ["1"]\nroot = {json.dumps(str(root / "data"))}\n'
    )
    with contextlib.ExitStack() as stack:
        start(stack, root, "wire.broker", "--port", str(port))
        wait_for_port(port)
        agent = start(
            stack, root, "edge_agent.cli", "run", "--config", str(root / "a.toml"), enter=group.enter
        )
        if late_limit is not None:
            wait_for_words(root / "edge_agent.cli.log")
            group.limit(late_limit)
        config = ("--config", str(root / "o.toml"), "--until-done")
        orchestrator = start(stack, root, "orchestrator.cli", "serve", *config)
        with contextlib.suppress(subprocess.TimeoutExpired):
            orchestrator.wait(LIMIT_S)
        said = "\n".join(path.read_text() for path in sorted(root.glob("*.log")))
        assert agent.poll() is None, said
        assert orchestrator.poll() is not None, said
    with contextlib.closing(open_store(root / "state")) as store:
        return report(job, [(time_s, event) for _, time_s, event in store.events(job.name)])


def make_data(root):
    root.mkdir()
    views = archive.unpack(archive.SHIPPED, "1", pixels=32)
    digests = {"1": archive.save_client(root, "1", np.resize(views, VIEWS))}
    archive.save_page(root, archive.Page(version="1", preset="demo", seed=1, pixels=32, clients=digests))


def start(stack, root, module, *arguments, enter=None):
    log = stack.enter_context((root / f"{module}.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, "-m", f"mas_edge.{module}", *arguments],
        stdout=log,
        stderr=log,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        preexec_fn=enter,  # noqa: PLW1509 - no threads here
    )
    stack.callback(end, process)
    return process


def end(process):
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=10)


def wait_for_port(port):
    for _ in range(300):
        if any(c.laddr.port == port and c.status == "LISTEN" for c in psutil.net_connections("tcp4")):
            return
        time.sleep(0.1)
    pytest.fail("the broker does not listen")


def wait_for_words(log):
    """The agent's first line says what its limits are."""
    for _ in range(300):
        if log.read_text():
            return
        time.sleep(0.1)
    pytest.fail("the agent says nothing")


@pytest.fixture(scope="module")
def peaks_bytes(tmp_path_factory):
    """What all tasks together take of a group, and what the largest of them takes alone.

    In this order: pages of files count in the cgroup that touches them first, so the tasks alone have none.
    """
    peaks = []
    for policy in ("all-in-one", "one-by-one"):
        with contextlib.closing(Group(f"mas-edge-test-{os.getpid()}-{policy}")) as group:
            assert run(tmp_path_factory.mktemp(policy) / "run", spec(policy), group).phase == "done"
            peaks.append(group.peak_bytes())
    most, least = peaks
    assert least + (200 << 20) < most
    return most, least


@pytest.fixture
def group():
    with contextlib.closing(Group(f"mas-edge-test-{os.getpid()}")) as made:
        yield made


def is_split(made):
    assert made.phase == "done", made.reason
    assert len(made.groups) > 1
    assert sorted(task for name in made.groups for task in name.split("+")) == sorted(TASKS)
    assert "fits no device" in made.replans[-1]


def test_a_group_that_is_estimated_not_to_fit_the_limit_is_split_and_the_job_ends(
    tmp_path, group, peaks_bytes
):
    group.limit(peaks_bytes[0] + (60 << 20))  # enough without room to spare: by the estimate too little
    made = run(tmp_path / "run", spec("all-in-one"), group)
    is_split(made)
    assert "killed" not in made.replans[0]


def test_a_group_that_the_kernel_kills_for_memory_is_split_and_the_job_ends(tmp_path, group, peaks_bytes):
    most, least = peaks_bytes
    made = run(tmp_path / "run", spec("all-in-one"), group, late_limit=(most + least) // 2)
    is_split(made)
    assert "killed for memory at" in made.replans[0]
