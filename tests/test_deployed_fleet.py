"""`mas deploy` from a shell to two agents: models are measured, taken, refused and rolled back there."""

from __future__ import annotations

import json

import pytest
from serving import LIMIT_S, a_fleet

pytestmark = pytest.mark.slow

TASKS = ("gravity", "jerk")
GROUP = "gravity+jerk"
BOTH = ("edge-1", "edge-2")


JOB = """
[job]
workload = "watch"
name = "{name}"
policy = "all-in-one"

[[task]]
task = "gravity"

[[task]]
task = "jerk"

[training]
preset = "tiny"
rounds = {rounds}
lr = {lr}
"""


def learnt(fleet, name, **training) -> str:
    """A job of both tasks in one group that is done."""
    (fleet.root / f"{name}.toml").write_text(JOB.format(name=name, **training))
    (going,) = fleet.mas("launch", f"{name}.toml")["jobs"]
    fleet.until_over(going["job"])
    return going["job"]


def deploy(fleet, *words):
    """The exit code of a deployment, and its outcomes by device."""
    done = fleet.run("deploy", *words, "--json")
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, {each["device"]: each for each in json.loads(done.stdout)["outcomes"]}


def in_use(fleet) -> dict:
    """By device, the job and the precision of the one model that it has in use."""
    found = {}
    for device in fleet.mas("devices"):
        for used in device["in_use"]:
            found[device["name"]] = (used["model"]["job"], used["model"].get("precision", "fp32"))
    return found


def loss(profile) -> float:
    return sum(score["loss_sum"] / score["count"] for score in profile["scores"])


def test_models_are_measured_on_devices_taken_refused_rolled_back_and_asked_for_until_they_are(tmp_path):
    with a_fleet(tmp_path) as fleet:
        good = learnt(fleet, "good", rounds=8, lr=0.1)
        assert "has ever said hello" in fleet.refused("deploy", good, "--to", "edge-7")

        code, first = deploy(fleet, good, "--all")
        assert code == 0, first
        for device in BOTH:
            assert (first[device]["group"], first[device]["state"]) == (GROUP, "in use")
            profile = first[device]["answer"]["profile"]
            assert {score["task"] for score in profile["scores"]} == set(TASKS)
            assert all(score["count"] > 0 for score in profile["scores"])
            assert 0 < profile["latency_p50_s"] <= profile["latency_p95_s"] < 1
            assert profile["inputs_per_s"] > 0
            assert 20e6 < profile["peak_rss_bytes"] < 1e9
            assert profile["method"] == "estimated"
            assert profile["energy_j"] > 0
            assert first[device]["max_abs_error"] <= 1e-4
        assert in_use(fleet) == dict.fromkeys(BOTH, (good, "fp32"))

        code, second = deploy(fleet, good, "--to", "edge-1", "--int8")
        assert (code, second["edge-1"]["state"]) == (0, "in use"), second
        assert loss(second["edge-1"]["answer"]["running"]) == pytest.approx(
            loss(first["edge-1"]["answer"]["profile"])
        )
        assert second["edge-1"]["file"]["size_bytes"] < first["edge-1"]["file"]["size_bytes"]

        poor = learnt(fleet, "poor", rounds=1, lr=1e-6)
        code, worse = deploy(fleet, poor, "--all")
        assert code == 1
        for device in BOTH:
            answer = worse[device]["answer"]
            assert worse[device]["state"] == "refused"
            assert loss(answer["profile"]) > 1.05 * loss(answer["running"])
        assert in_use(fleet) == {"edge-1": (good, "int8"), "edge-2": (good, "fp32")}

        back = fleet.run("deploy", good, "--to", "edge-1", "--rollback")
        assert back.returncode == 0, back.stderr
        assert "rolled back" in back.stdout
        assert in_use(fleet) == dict.fromkeys(BOTH, (good, "fp32"))

        assert "In use" in fleet.run("devices").stdout
        rows = fleet.mas("report", good)["in_use"]
        assert [(row["device"], row["precision"], row["state"]) for row in rows] == [
            ("edge-1", "fp32", "in use"),
            ("edge-1", "int8", "replaced"),
            ("edge-2", "fp32", "in use"),
        ]
        assert fleet.run("report", good, "--html", "good.html").returncode == 0
        assert "In use" in (tmp_path / "good.html").read_text()

        agent = fleet.agents.pop()
        agent.terminate()
        agent.wait(LIMIT_S)
        code, late = deploy(fleet, good, "--to", "edge-2", "--fp16", "--wait", "0")
        assert (code, late["edge-2"]["state"]) == (1, "exporting")
        fleet.serve_again()
        fleet.process("mas_edge.edge_agent.cli", "run", "--config", "edge-2.toml")
        fleet.until(lambda: in_use(fleet)["edge-2"] == (good, "fp16"))
        assert in_use(fleet)["edge-1"] == (good, "fp32")
