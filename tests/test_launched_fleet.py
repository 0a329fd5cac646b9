"""`mas serve` with two agents, each a process, and `mas` from a shell: tasks merge, stop, and are billed."""

from __future__ import annotations

import os
import subprocess
import sys
from math import fsum

import psutil
import pytest
from serving import LIMIT_S, a_fleet

from mas_edge.orchestrator.launching.orders import Stop
from mas_edge.orchestrator.launching.remote import NobodyThere, Orchestrator

pytestmark = pytest.mark.slow


def conserve(*reports) -> None:
    """Bills of a job's tasks are the joules and seconds that all reports' rows say were for its groups."""
    rows = [row for report in reports for row in report["rows"] if row["level"] == "group"]
    for report in reports:
        costs = [row["cost"] for row in rows if row["job"] == report["report"]["name"]]
        for own, whole in (("energy_j", "attributed_energy_j"), ("wall_s", "wall_s")):
            paid = fsum(bill[own] for bill in report["task_bills"])
            assert paid == pytest.approx(fsum(cost[whole] for cost in costs), rel=1e-9)


def test_tasks_merge_run_beside_each_other_leave_and_are_billed(tmp_path):
    with a_fleet(tmp_path) as fleet:
        files = [fleet.task(name, rounds=8) for name in ("gravity", "jerk", "rotation")]
        (going,) = fleet.mas("launch", *files, "--now", "--owner", "anna")["jobs"]
        merged = going["job"]
        assert merged.endswith("-gravity-jerk-rotation-1")
        fleet.until_trains(merged)
        (later,) = fleet.mas("launch", fleet.task("exercise", rounds=8), "--now", "--owner", "bob")["jobs"]
        assert later["job"] != merged
        assert "leaves job" in fleet.mas("stop", "jerk")["text"]
        assert "was stopped already" in fleet.refused("stop", "jerk")
        fleet.until_over(merged, later["job"])

        report = fleet.mas("report", merged)
        conserve(report, fleet.mas("report", later["job"]))
        bills = {bill["task"]: bill for bill in report["task_bills"]}
        assert {bill["owner"] for bill in bills.values()} == {"anna"}
        assert 0 < bills["jerk"]["energy_j"] < bills["gravity"]["energy_j"]
        last = {point["task"]: point for point in report["report"]["curve"]}
        assert (last["gravity"]["round"], last["rotation"]["round"]) == (7, 7)
        assert last["jerk"]["round"] < 7
        assert last["gravity"]["loss"] < last["gravity"]["constant_loss"]

        told = fleet.run("logs", merged).stdout
        assert "stopped: jerk" in told
        assert told.splitlines()[-1].endswith("done")
        assert fleet.mas("export", merged, "--out", "out")["groups"]
        assert fleet.run("report", "out").returncode == 0
        assert "is done already" in fleet.refused("stop", merged)
        assert "did you mean" in fleet.refused("logs", merged[:-1] + "7")
        assert "no task 'gravty'" in fleet.refused("launch", fleet.task("gravty"))


PAIR = """
[job]
workload = "watch"
name = "pair"

[[task]]
task = "gravity"

[[task]]
task = "jerk"

[training]
preset = "tiny"
rounds = 6
reproducible = true
"""


def digests_of_a_pair(root, disturb) -> dict:
    """The final weights of a reproducible job, to which something happens in its first rounds."""
    root.mkdir()
    with a_fleet(root) as fleet:
        (root / "pair.toml").write_text(PAIR)
        assert [going["job"] for going in fleet.mas("launch", "pair.toml")["jobs"]] == ["pair-1"]
        fleet.until_trains("pair-1")
        disturb(fleet)
        fleet.until_over("pair-1")
        return fleet.mas("report", "pair-1")["final_digests"]


def all_that_can_happen(fleet) -> None:
    fleet.serve_again()
    assert "is stopped" in fleet.mas("stop", "pair-1")["text"]
    fleet.serve_again()
    assert fleet.phase("pair-1") == "stopped"
    fleet.mas("resume", "pair-1")
    below = psutil.Process(fleet.serving.pid).children()
    next(each for each in below if "mas_edge.wire.broker" in each.cmdline()).kill()


def test_a_killed_orchestrator_a_killed_broker_and_a_stop_change_no_weight_of_a_reproducible_job(tmp_path):
    undisturbed = digests_of_a_pair(tmp_path / "one", lambda _: None)
    assert digests_of_a_pair(tmp_path / "two", all_that_can_happen) == undisturbed


def test_what_waits_to_merge_survives_a_kill_and_a_client_that_hangs_hurts_nobody(tmp_path):
    with a_fleet(tmp_path) as fleet, Orchestrator(fleet.socket) as hanging:
        (going,) = fleet.mas("launch", fleet.task("gravity"), "--wait", "5")["jobs"]
        fleet.serve_again()
        (joined,) = fleet.mas("launch", fleet.task("jerk"), "--wait", "60")["jobs"]
        assert (joined["job"], joined["beside"]) == (going["job"], ["gravity"])
        fleet.until_over(going["job"])
        with pytest.raises(NobodyThere):
            hanging.ask(Stop(name="x"), object)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('fleet = "t"\nstat = "x"', "unknown key 'stat'; did you mean 'state'"),
        (
            'fleet = "t"\nstate = "s"\n[broker]\nembedded = true\nurl = "mqtt://10.0.0.1:1883"',
            "loopback only",
        ),
        ('fleet = "t"\nstate = "s"\n[broker]\nembedded = true\nurl = "mqtt://127.0.0.1:{taken}"', "in use"),
        ('fleet = "t"\nstate = "s"\n[page]\nport = {taken}', "is taken by another program"),
        ('fleet = "t"\nstate = "s"\n[page]\nhost = "0.0.0.0"', "token"),
        ('fleet = "t"\nstate = "/proc/s"', "state /proc/s cannot be used: "),
        ('fleet = "t"\nstate = "s"\n[storage]\nquota_bytes = -1', "storage.quota_bytes"),
        ('fleet = "t"\nstate = "s"\n[control]\nsocket = "/nowhere/x"', "no control socket can be made"),
    ],
)
def test_a_configuration_that_cannot_serve_is_refused_in_one_line(tmp_path, text, says):
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "o.toml"
        config.write_text(text.replace("{taken}", str(taken.getsockname()[1])))
        done = subprocess.run(
            [sys.executable, "-m", "mas_edge.orchestrator.cli", "serve", "--config", str(config)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
