"""`mas demo` as a user runs it: real processes, a real broker, and kill -9 of each of them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mas_edge.orchestrator.demos.demo import STATE
from mas_edge.orchestrator.rounds import Heard
from mas_edge.orchestrator.service import read_store
from mas_edge.orchestrator.store import StoreError

pytestmark = pytest.mark.slow

TINY = ("--preset", "tiny", "--seed", "7", "--json")
LIMIT_S = 240


def demo(out, *options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mas_edge.orchestrator.cli", "demo", *TINY, "--out", str(out), *options]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(process) -> dict:
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    return json.loads(out)


def wait_for_answers(out, how_many: int) -> None:
    """Until so many updates are in: the job is in the middle of a round."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(StoreError), contextlib.closing(read_store(out / STATE)) as store:
            if sum(isinstance(event, Heard) for _, _, event in store.events("demo")) >= how_many:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no {how_many} updates in {LIMIT_S} s")


def child(process, words: str) -> psutil.Process:
    """The first process below the demo whose command line holds these words."""
    for found in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if words in " ".join(found.cmdline()):
                return found
    raise LookupError(words)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return finished(demo(out)), out


def test_a_run_leaves_everything_that_it_promises(undisturbed):
    report, out = undisturbed
    for name in ("report.html", "report.json", "profile.csv", "manifest.json", "affinity.png", "losses.png"):
        assert (out / name).stat().st_size > 0
    assert sorted(path.stem for path in (out / "weights").iterdir()) == sorted(report["final_digests"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["devices"]["edge-1"]["sensor"]["method"] in {"estimated", "counter"}
    with (out / "profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} >= {"edge-1", "edge-2", "edge-3", "edge-4"}
    assert abs(report["bill"]["closing_error_j"]) <= 1e-9 * report["bill"]["total_j"]


def test_the_same_seed_gives_the_same_weights_and_replaces_the_finished_run(undisturbed):
    report, out = undisturbed
    assert finished(demo(out))["final_digests"] == report["final_digests"]


@pytest.mark.parametrize(
    "words",
    ["edge_agent.cli run", "edge_agent.worker", "wire.broker", "orchestrator.cli serve"],
    ids=["an agent", "a worker", "the broker", "the orchestrator"],
)
def test_a_process_killed_in_a_round_is_started_again_and_changes_no_weight(words, undisturbed, tmp_path):
    process = demo(tmp_path / "run")
    wait_for_answers(tmp_path / "run", 5)
    child(process, words).send_signal(signal.SIGKILL)
    assert finished(process)["final_digests"] == undisturbed[0]["final_digests"]


def kill(process, device: str, whom: str) -> bool:
    """kill -9 of a device's daemon, of its worker, or of both at once; whether they were there."""
    try:
        daemon = child(process, f"{device}.toml")
        workers = [p for p in daemon.children() if "edge_agent.worker" in " ".join(p.cmdline())]
        victims = {"daemon": [daemon], "worker": workers, "both": [daemon, *workers]}[whom]
        if not workers:
            return False
        for victim in victims:
            victim.kill()
    except (psutil.Error, LookupError):
        return False
    return True


def test_ten_kills_at_random_moments_change_no_weight(undisturbed, tmp_path):
    chance = random.Random(20261122)
    process = demo(tmp_path / "run")
    wait_for_answers(tmp_path / "run", 1)
    kills = 0
    while kills < 10 and process.poll() is None:
        time.sleep(chance.uniform(0.0, 1.5))
        device, whom = f"edge-{kills % 4 + 1}", ("daemon", "worker", "both")[kills % 3]
        kills += kill(process, device, whom)
    assert finished(process)["final_digests"] == undisturbed[0]["final_digests"]
    assert kills == 10, "the job was over before"


def events(out) -> int:
    """How many events the run's store holds."""
    with contextlib.suppress(StoreError), contextlib.closing(read_store(out / STATE)) as store:
        return sum(1 for _ in store.events("demo"))
    return 0


@pytest.mark.parametrize("run", range(5))
def test_the_orchestrator_killed_at_random_events_ends_with_the_same_weights(run, undisturbed, tmp_path):
    chance = random.Random(run)
    there = events(undisturbed[1])
    victims = sorted(chance.sample(range(1, there - 1), 5))  # 25 in all
    out = tmp_path / "run"
    process = demo(out)
    for victim in victims:
        while events(out) < victim and process.poll() is None:
            time.sleep(0.005)
        child(process, "orchestrator.cli serve").kill()
    report = finished(process)
    assert report["final_digests"] == undisturbed[0]["final_digests"]
    assert sum("orchestrator" in restart for restart in report["restarts"]) == 5
    assert events(out) == there, "an event was lost, or stored twice"


def test_a_demo_that_was_itself_killed_goes_on_when_it_is_run_again(undisturbed, tmp_path):
    out = tmp_path / "run"
    process = demo(out)
    wait_for_answers(out, 6)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(below, timeout=20)[1], "children outlived the demo"
    with contextlib.closing(read_store(out / STATE)) as store:
        before = sum(isinstance(event, Heard) for _, _, event in store.events("demo"))
    assert finished(demo(out))["final_digests"] == undisturbed[0]["final_digests"]
    assert before >= 6


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    other = finished(demo(tmp_path / "run", "--seed", "8"))
    assert other["final_digests"] != undisturbed[0]["final_digests"]


def test_policies_are_compared_on_the_same_data_in_one_go(tmp_path):
    options = ("--compare", "all-in-one,one-by-one", "--tasks", "gravity,jerk", "--rounds", "1")
    arms = finished(demo(tmp_path / "run", *options))["arms"]
    assert [arm["policy"] for arm in arms] == ["all-in-one", "one-by-one"]
    assert [len(arm["final_digests"]) for arm in arms] == [1, 2]
    begun = [tmp_path / "run" / arm["policy"] / "plan.json" for arm in arms]
    times = [path.stat().st_mtime_ns for path in begun]
    (begun[1].parent / "report.json").unlink()  # as if it had been killed there
    again = finished(demo(tmp_path / "run", *options))["arms"]
    assert [arm["final_digests"] for arm in again] == [arm["final_digests"] for arm in arms]
    assert [path.stat().st_mtime_ns for path in begun] == times  # neither was begun anew


def test_a_full_disk_is_named_and_ends_the_run(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        process = demo(small / "run")
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 1
        assert "disk" in err.splitlines()[-1]
        assert "Traceback" not in err
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
