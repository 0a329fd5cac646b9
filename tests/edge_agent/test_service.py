"""The agent as a process: what systemd hears, what signals do, what a broker that is away is."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.config import AgentConfig, TrainConfig, reloaded
from mas_edge.profiling.meters import open_one
from mas_edge.wire import broker as embedded
from mas_edge.wire import messages as m
from mas_edge.wire.bus import connect
from mas_edge.wire.host import load_config

LIMIT_S = 60.0
WATCHDOG_S = 0.4
METER = "estimate:idle_w=2,max_w=10"
CONFIG = """
device = "edge-1"
fleet = "f"
state = "{state}"
[broker]
url = "mqtt://{host}:{port}"
[energy]
meter = "estimate:idle_w=2,max_w=10"
[data.watch]
clients = ["1"]
"""


@pytest.fixture(scope="module")
def address():
    process, found = embedded.start()
    yield found
    process.terminate()
    process.wait()


class Daemon:
    """`mas-agent run`, as systemd starts it."""

    def __init__(self, root, address) -> None:
        self.config, self._log = root / "agent.toml", root / "log"
        self.base = CONFIG.format(state=root / "state", host=address.host, port=address.port)
        self.config.write_text(self.base)
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(root / "notify"))
        self._channel.settimeout(0.02)
        self._said = ""
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(root / "notify"),
            "WATCHDOG_USEC": f"{WATCHDOG_S * 1e6:.0f}",
        }
        environment.pop("WATCHDOG_PID", None)
        environment["PYTHONSAFEPATH"] = "1"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mas_edge.edge_agent.cli", "run", "--config", str(self.config)],
                stderr=log,
                env=environment,
            )

    def log(self) -> list[str]:
        return [json.loads(line)["text"] for line in self._log.read_text().splitlines()]

    def until_said(self, text: str) -> None:
        """Return when systemd has heard it; what it had heard until then is forgotten."""
        end_s = time.monotonic() + LIMIT_S
        while text not in self._said:
            assert time.monotonic() < end_s, (text, self._said, self._log.read_text())
            self._said += self.heard_in(0.05)
        self._said = self._said.partition(text)[2]

    def heard_in(self, seconds: float) -> str:
        """All that systemd hears in so long."""
        end_s, said = time.monotonic() + seconds, ""
        while time.monotonic() < end_s:
            with suppress(TimeoutError):
                said += self._channel.recv(4096).decode() + "\n"
        return said

    def reload(self, config: str) -> None:
        self.config.write_text(config)
        self.process.send_signal(signal.SIGHUP)
        self.until_said("RELOADING=1")
        self.until_said("READY=1")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._channel.close()


@pytest.fixture
def daemon(tmp_path, address):
    made = Daemon(tmp_path, address)
    yield made
    made.end()


def test_a_daemon_says_that_it_is_ready_alive_reloaded_and_stopping(daemon):
    daemon.until_said("READY=1")
    daemon.until_said("STATUS=idle")
    daemon.until_said("WATCHDOG=1\nWATCHDOG=1")
    daemon.reload(daemon.base + '[conditions]\nhours = ["00:00-00:00"]\n')
    daemon.reload(daemon.base.replace('"edge-1"', '"edge-2"') + "[conditions]\nmain = true\n")
    daemon.reload(daemon.base.replace('"edge-1"', '"edge-2"'))
    daemon.process.send_signal(signal.SIGTERM)
    daemon.until_said("STOPPING=1")
    assert daemon.process.wait(LIMIT_S) == 0
    said = " ".join(daemon.log())
    assert "unknown key 'conditions.main'; did you mean 'conditions.mains'?" in said
    assert "the configuration stays as it was" in said
    assert "changed with the next start only: device" in said


def test_a_hung_daemon_gives_no_sign_of_life(daemon):
    daemon.until_said("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGSTOP)
    daemon.heard_in(0.1)  # what was on its way
    assert daemon.heard_in(2 * WATCHDOG_S) == ""
    daemon.process.send_signal(signal.SIGCONT)
    daemon.until_said("WATCHDOG=1")


def test_only_what_is_safe_changes_without_a_restart(tmp_path):
    def config(text):
        (tmp_path / "a.toml").write_text(text)
        return load_config(tmp_path / "a.toml", AgentConfig)

    base = CONFIG.format(state="/s", host="h", port=1)
    running = config(base)
    read = config(
        'log = "DEBUG"\n' + base.replace("/s", "/other") + "[conditions]\nmains = true\n[caps]\ncpus = 0.5\n"
    )
    now, later = reloaded(running, read)
    assert (now.conditions, now.caps, now.log) == (read.conditions, read.caps, "DEBUG")
    assert (now.state, later) == ("/s", ("state",))
    assert reloaded(running, running) == (running, ())


# --- a broker that comes and goes -----------------------------------------------------------------

FASTER = 2000.0
"""How many seconds of waiting one second of the test stands for."""


class Hurried(random.Random):
    """Chance whose waits are shortened, and added up as they would have been."""

    waited_s = 0.0

    def uniform(self, a: float, b: float) -> float:
        drawn_s = super().uniform(a, b)
        self.waited_s += drawn_s
        return drawn_s / FASTER


@contextmanager
def an_agent(root, address, rng, repeats=None):
    offline = m.encode(m.Alive(online=False, boot_id="b"))
    bus = connect(address, client_id="edge-1", rng=rng, will=(m.alive_topic("f", "edge-1"), offline))
    about = m.Hello(device="edge-1", boot_id="b", versions=m.Versions(mas_edge="0", python="3"), workloads=())
    account = Account(root / "account.json", open_one(METER), bus)
    repeats = repeats or random.Random(1)
    agent = Agent(about, "f", bus, root, account, {}, rng=repeats, train=TrainConfig())
    try:
        yield agent
    finally:
        agent.close()


def until(agent, condition) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s
        agent.turn(0.01)


def test_an_agent_that_nobody_answers_says_so_until_somebody_does(tmp_path, address):
    with an_agent(tmp_path, address, random.Random(1), Hurried(1)) as agent:
        until(agent, lambda: agent.status == "no orchestrator answers; idle")
        orchestrator = connect(address, client_id="orchestrator-f", rng=random.Random(2))
        welcome = m.encode(m.Welcome(boot_id="b", store="s"))
        orchestrator.publish(m.down_topic("f", "edge-1"), welcome)
        until(agent, lambda: agent.status == "idle")
        orchestrator.close()


def test_a_broker_that_was_away_for_an_hour_is_two_lines_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mas_edge")
    process, address = embedded.start()
    rng = Hurried(1)
    with an_agent(tmp_path, address, rng) as agent:
        until(agent, lambda: agent.status == "idle")
        process.kill()
        process.wait()
        rng.waited_s = 0.0
        until(agent, lambda: rng.waited_s > 3600)
        assert agent.status == "no broker; idle"
        process, _ = embedded.start(address.port)
        with_new = connect(address, client_id="orchestrator-f", rng=random.Random(2))
        with_new.subscribe(m.up_topic("f"))
        heard = []
        until(agent, lambda: heard.extend(filter(None, [with_new.get(0.0)])) or heard)
        assert isinstance(m.decode_up(heard[0].payload), m.Hello)
        with_new.close()
    process.terminate()
    process.wait()
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == [
        "connected to the broker",
        "the broker is away, it is tried until it is back",
        "connected to the broker",
    ]
