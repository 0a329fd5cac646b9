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
import psutil
import pytest

from mas_edge.models.tasks import find
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.spec import JobSpec, check
from mas_edge.wire.host import free_port
from mas_edge.wire.messages import Training

pytestmark = pytest.mark.slow

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT_S = 200.0
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
        network="small",
        rounds=2,
        epochs=1,
        batch=200,
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
    port = free_port()
    with contextlib.closing(open_store(root / "state")) as store:
        store.add_job(job.name, msgspec.json.encode(job))
    workload = find("buildings")
    clients = [client for client in workload.clients if client not in workload.unseen]
    tail = f'\n[broker]\nurl = "mqtt://127.0.0.1:{port}"\n\n[energy]\nmeter = "estimate:idle_w=1,max_w=5"\n'
    (root / "o.toml").write_text(f'fleet = "t"\nstate = {json.dumps(str(root / "state"))}\n{tail}')
    (root / "a.toml").write_text(
        f'device = "edge-1"\nfleet = "t"\nstate = {json.dumps(str(root / "agent"))}\n{tail}'
        f"\n[data.buildings]\nclients = {json.dumps(clients)}\n"
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
        orchestrator.wait(LIMIT_S)
        assert agent.poll() is None, (root / "edge_agent.cli.log").read_text()
    with contextlib.closing(open_store(root / "state")) as store:
        return report(job, [(time_s, event) for _, time_s, event in store.events(job.name)])


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

    The first run is not measured: pages of files count in the group that touches them first, and the kernel
    would rather drop them than kill anybody.
    """
    peaks = []
    for policy in ("one-by-one", "all-in-one", "one-by-one"):
        with contextlib.closing(Group(f"mas-edge-test-{os.getpid()}-{policy}")) as group:
            assert run(tmp_path_factory.mktemp(policy) / "run", spec(policy), group).phase == "done"
            peaks.append(group.peak_bytes())
    _, most, least = peaks
    assert least + (30 << 20) < most
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
    limit = least + (most - least) // 4  # well below the peak, of which pages of files are dropped first
    made = run(tmp_path / "run", spec("all-in-one"), group, late_limit=limit)
    is_split(made)
    assert "killed for memory at" in made.replans[0]
