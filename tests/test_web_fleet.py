"""The page of a real fleet: `mas serve` with a broker of its own, two agents, a job from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from mas_edge.wire.host import free_port

pytest.importorskip("uvicorn", reason="the web page needs uvicorn (extra orchestrator)")
pytest.importorskip("amqtt", reason="the broker of its own needs amqtt (extra demo)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

LIMIT_S = 150.0
ENVIRONMENT = {**os.environ, "PYTHONSAFEPATH": "1"}
JOB = """
[job]
workload = "watch"
name = "evening"
groups = 2
unseen = ["4"]
[[task]]
task = "gravity"
[[task]]
task = "jerk"
[[task]]
task = "rotation"
[training]
preset = "tiny"
rounds = 3
merge_rounds = 1
"""


def command(module, *arguments):
    return [sys.executable, "-m", f"mas_edge.{module}", *map(str, arguments)]


def configured(folder, name, text):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def status(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=10) as answer:
        return json.load(answer)


def until(found, what):
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        try:
            if shown := found():
                return shown
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.2)
    pytest.fail(f"waited {LIMIT_S:.0f} s for {what}")


def page(folder, port):
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    line = [CHROMIUM, *options, "--virtual-time-budget=3000", "--dump-dom", f"http://127.0.0.1:{port}/"]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def fleet(tmp_path):
    """An orchestrator that shows its page on a port, and two agents; the port and the control socket."""
    broker, port = free_port(), free_port()
    common = f'fleet = "f"\n[broker]\nurl = "mqtt://127.0.0.1:{broker}"\n'
    energy = '[energy]\nmeter = "estimate:idle_w=2,max_w=10"\n'
    text = f'state = "{tmp_path}/o"\n{common}embedded = true\n[page]\nport = {port}\n{energy}'
    lines = [command("orchestrator.cli", "serve", "--config", configured(tmp_path, "o.toml", text))]
    for n in (1, 2):
        data = f'[data.watch]\nclients = ["{n}"]\n'
        text = f'device = "edge-{n}"\nstate = "{tmp_path}/{n}"\n{common}{energy}{data}'
        lines.append(command("edge_agent.cli", "run", "--config", configured(tmp_path, f"{n}.toml", text)))
    processes = []
    with (tmp_path / "log").open("wb") as log:
        try:
            for line in lines:
                processes.append(subprocess.Popen(line, env=ENVIRONMENT, stdout=log, stderr=log))
                if len(processes) == 1:
                    until(lambda: status(port), "the page")
            until(lambda: sum(map(knows_watch, status(port)["devices"])) == 2, "both devices")
            yield port, tmp_path / "o" / "control.sock"
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in reversed(processes):
                process.wait(20)


def knows_watch(device):
    return "watch" in device["workloads"]


def test_a_job_that_is_launched_appears_on_the_page_and_so_do_its_groups(fleet, tmp_path):
    port, socket = fleet
    assert "No job yet" in page(tmp_path, port)
    file = configured(tmp_path, "job.toml", JOB)
    launch = command("orchestrator.cli", "launch", "--now", "--socket", socket, file)
    done = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (job,) = until(lambda: status(port)["jobs"], "the job")
    text = page(tmp_path, port)
    assert "No job yet" not in text
    assert job["name"] in text
    assert {"edge-1", "edge-2"} <= {device["name"] for device in status(port)["devices"]}
    until(lambda: status(port)["jobs"][0]["decision"], "the split")
    (job,) = status(port)["jobs"]
    text = page(tmp_path, port)
    heirs = [group for group in job["groups"] if group["parent"]]
    assert len(heirs) == 2
    assert all(" + ".join(group["tasks"]) in text for group in heirs)
    until(lambda: status(port)["jobs"][0]["phase"] == "done", "the end")
    (job,) = status(port)["jobs"]
    assert job["share_done"] == 1.0
    assert job["energy"]["methods"] == ["estimated"]
    assert all(task["relative"] is not None for task in job["tasks"])
