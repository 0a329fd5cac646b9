"""A small job over TLS, each a process: enrolled by `mas enroll`, on a mosquitto from `mas broker-config`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager

import msgspec
import pytest

from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.plan import DemoOptions, demo_plan
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.wire.host import free_port

pytestmark = pytest.mark.slow

LIMIT_S = 120


@contextmanager
def running(*command):
    """A process that is ended with the block."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def python(module, *arguments):
    return running(sys.executable, "-m", module, *arguments)


def agent(folder):
    return python("mas_edge.edge_agent.cli", "run", "--config", str(folder / "agent.toml"))


@contextmanager
def broker(folder):
    """mosquitto with the configuration that was made for it, but on loopback, and as root where we are."""
    conf = folder / "loopback.conf"
    text = (folder / "mosquitto.conf").read_text()
    conf.write_text("user root\n" + re.sub(r"(?m)^listener (\d+)$", r"listener \1 127.0.0.1", text))
    with running("mosquitto", "-c", str(conf)) as process:
        yield process


@pytest.fixture
def fleet(tmp_path):
    """A folder in which two devices, the orchestrator and the broker have their identities; and a job."""
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    plan = demo_plan(DemoOptions(preset="tiny", clients=2, rounds=2, merge_rounds=1, groups="2"))
    port = free_port()

    def mas(command, name, *words):
        place = ("--out", str(tmp_path / name), "--target", str(tmp_path / name))
        assert main([command, *words, *place, "--authority", str(tmp_path / "ca"), "--fleet", "home"]) == 0

    mas("broker-config", "broker", "--name", "127.0.0.1", "--port", str(port))
    url = ("--broker", f"mqtts://127.0.0.1:{port}")
    for device, clients in plan.clients.items():
        mas("enroll", device, device, *url, "--data", f"watch={','.join(clients)}")
    mas("enroll", "orchestrator", "orchestrator", *url)
    for toml in tmp_path.glob("*/*.toml"):
        text = toml.read_text()
        text = re.sub(r"(?m)^state = .*$", f'state = "{toml.parent}/state"', text)
        toml.write_text(text.replace("# port = 8765", "port = 0     "))
    (tmp_path / "orchestrator/state").mkdir()
    with closing(open_store(tmp_path / "orchestrator/state")) as store:
        store.add_job(plan.spec.name, msgspec.json.encode(plan.spec))
    return tmp_path, plan


def test_enrolled_devices_train_a_job_over_tls(fleet):
    folder, plan = fleet
    config = str(folder / "orchestrator/orchestrator.toml")
    with ExitStack() as stack:
        stack.enter_context(broker(folder / "broker"))
        agents = [stack.enter_context(agent(folder / device)) for device in plan.clients]
        serve = python("mas_edge.orchestrator.cli", "serve", "--config", config, "--until-done")
        server = stack.enter_context(serve)
        assert server.wait(LIMIT_S) == 0
        assert [each.poll() for each in agents] == [None, None]
    with closing(read_store(folder / "orchestrator/state")) as store:
        events = [(time_s, event) for _, time_s, event in store.events(plan.spec.name)]
    made = report(plan.spec, events)
    assert made.phase == "done", made.reason
    assert sorted(task for group in made.groups for task in group.split("+")) == sorted(plan.spec.tasks)


def test_an_agent_whose_identity_was_taken_back_ends_with_the_reason_in_one_line(fleet):
    folder, _ = fleet
    assert main(["revoke", "edge-1", "--authority", str(folder / "ca")]) == 0
    shutil.copy(folder / "ca/crl.pem", folder / "broker/crl.pem")
    with broker(folder / "broker"), agent(folder / "edge-1") as process:
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    line = errors.splitlines()[-1]
    assert re.match(r"mas-agent: the broker at mqtts://127.* refused our certificate: .*revoked; check", line)
    assert "Traceback" not in errors
