"""The agent under systemd on a board: it is ready, trains, keeps to its limits, and comes back."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time

import msgspec
import pytest

from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.spec import JobSpec, check
from mas_edge.wire.messages import Training

pytestmark = pytest.mark.slow

AGENT, ORCHESTRATOR = "mas-agent.service", "mas-orchestrator.service"
STATE = "/var/lib/mas-edge-orchestrator"
SIGNALS = ("gravity", "jerk", "rotation")
PICTURES = (
    *("segment_semantic", "depth_zbuffer", "normal", "keypoints2d", "edge_texture"),
    *("edge_occlusion", "reshading", "principal_curvature", "rgb"),
)


def job(workload, tasks, **training):
    how = {"network": "micro", "rounds": 1, "epochs": 1, "batch": 64, "lr": 0.05, "seed": 1}
    given = Training(workload=workload, reproducible=True, **{**how, **training})
    return check(JobSpec(name="job", tasks=tasks, training=given, policy="all-in-one", devices=("edge-1",)))


def launch(board, spec):
    """The fleet's orchestrator begins anew, with this one job."""
    board.run("systemctl", "stop", ORCHESTRATOR)
    state = board.path(STATE)
    shutil.rmtree(state)
    board.run("install", "-d", "-o", "mas-orchestrator", "-g", "mas-orchestrator", "-m", "700", STATE)
    board.run("runuser", "-u", "mas-orchestrator", "--", "touch", f"{STATE}/store.db")
    with contextlib.closing(open_store(state)) as store:
        store.add_job(spec.name, msgspec.json.encode(spec))
    board.run("systemctl", "start", ORCHESTRATOR)


def so_far(board, spec):
    with contextlib.closing(read_store(board.path(STATE))) as store:
        return report(spec, [(time_s, event) for _, time_s, event in store.events(spec.name)])


def finished(board, spec, until, limit_s):
    """The report of the job, which is over."""

    def ended():
        made = so_far(board, spec)
        return made if made.phase in {"done", "failed"} else None

    return until(ended, limit_s, board.journal)


def progress(board):
    with contextlib.closing(read_store(board.path(STATE))) as store:
        return next((each for each in store.live() if each.step), None)


def training(board, until):
    """Wait until the agent trains."""
    return until(lambda: progress(board), 60, board.journal)


def share(board, wall_s):
    """Processors' worth of time that the agent with its worker takes meanwhile."""
    before_s, began_s = board.cpu_s(), time.monotonic()
    time.sleep(wall_s)
    return (board.cpu_s() - before_s) / (time.monotonic() - began_s)


@pytest.fixture
def agent(fleet):
    """The board, its agent with the unit's own limits and idle."""
    fleet.run("systemctl", "stop", ORCHESTRATOR)
    fleet.drop_in()
    return fleet


def test_a_round_trains_inside_the_hardened_unit(agent, until):
    assert (agent.show("ActiveState"), agent.show("SubState")) == ("active", "running")  # READY was sent
    spec = job("watch", SIGNALS)
    launch(agent, spec)
    made = finished(agent, spec, until, 90)
    assert made.phase == "done", made.reason
    assert made.final_digests
    assert agent.show("NRestarts") == "0"


@pytest.fixture
def watching(agent):
    """The same with one workload; those of pictures describe themselves with numpy, 13 MB."""
    config = agent.path("/etc/mas-edge/agent.toml")
    text = config.read_text()
    config.write_text(text.partition("[data.buildings]")[0])
    agent.run("systemctl", "restart", AGENT)
    yield agent
    config.write_text(text)


def test_an_idle_agent_takes_45_mb_and_half_a_percent_of_a_processor(watching):
    time.sleep(3)  # of starting
    used = share(watching, 20)
    resident_kib = int(watching.run("ps", "-o", "rss=", watching.show("MainPID")))
    print(f"{resident_kib * 1024 / 1e6:.1f} MB, {100 * used:.2f} % of a processor")
    assert resident_kib * 1024 <= 45e6
    assert used <= 0.005


def test_the_processor_time_of_a_round_keeps_to_the_quota(agent, until):
    agent.drop_in(CPUQuota="50%", CPUWeight="10000")  # the quota is to be the limit, not the neighbours,
    agent.run("systemctl", "set-property", "--runtime", "system.slice", "CPUWeight=10000")  # nor the host's
    launch(agent, job("watch", SIGNALS, epochs=400))
    training(agent, until)
    used = share(agent, 15)
    print(f"{100 * used:.2f} % of a processor")
    latest = progress(agent)
    assert latest.step < latest.steps, "the round was over before"
    assert used == pytest.approx(0.5, rel=0.05)


def test_a_group_that_does_not_fit_the_limit_is_split_and_the_agent_stays(agent, until):
    agent.drop_in(MemoryMax="480M")  # all nine take 500 MB resident, torch's shared files included
    spec = job("buildings", PICTURES, network="small", batch=200, lr=0.01)
    launch(agent, spec)
    made = finished(agent, spec, until, 200)
    assert made.phase == "done", made.reason
    assert len(made.groups) > 1
    assert sorted(task for group in made.groups for task in group.split("+")) == sorted(PICTURES)
    assert (agent.show("ActiveState"), agent.show("NRestarts")) == ("active", "0")


def test_the_doctor_finds_a_board_in_order(agent):
    agent.run("systemctl", "stop", AGENT)
    done = agent.call("runuser", "-u", "mas-agent", "--", "mas-agent", "doctor", "--json")
    found = {each["about"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 0, found
    assert "let edge-1 in" in found["broker"]["text"]
    assert found["caps"]["level"] == "ok"
    assert "MemoryMax of mas-agent.service" in found["caps"]["text"]
    assert {name for name in found if name.startswith(("data ", "round "))} == {
        *("data watch", "data buildings"),
        *("round watch", "round buildings"),
    }
    assert re.search(r"all tasks: [\d.]+ s, [\d.]+ .*J \(estimated", found["round watch"]["text"])


def test_the_doctor_leaves_a_running_agent_alone(agent):
    before = agent.show("MainPID")
    done = agent.call("runuser", "-u", "mas-agent", "--", "mas-agent", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broker, idle power and rounds were left to it" in done.stdout
    assert "lost the broker" not in agent.journal()
    assert agent.show("MainPID") == before


def test_a_hung_agent_is_restarted_by_the_watchdog(agent, until):
    agent.drop_in(WatchdogSec="4", RestartSec="1")
    hung = agent.show("MainPID")
    agent.run("kill", "-STOP", hung)
    until(lambda: agent.show("NRestarts") == "1" and agent.show("ActiveState") == "active", 30, agent.journal)
    assert agent.show("MainPID") not in {"0", hung}
    time.sleep(6)  # one that turns is left alone
    assert agent.show("NRestarts") == "1"
