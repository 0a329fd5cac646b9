"""`mas-agent doctor` as an operator runs it: real data, a real worker, and a broker that is not there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mas_edge.edge_agent.cli import main
from mas_edge.profiling.baseline import load
from mas_edge.wire.host import free_port, hold

METER = "estimate:idle_w=1,max_w=5"
STEADY = "t_s,power_w\n0,4\n1,4\n"


@pytest.fixture
def config(tmp_path):
    def write(clients='["1", "5"]', meter=METER):
        path = tmp_path / "agent.toml"
        path.write_text(f"""
device = "edge-1"
fleet = "home"
state = "{tmp_path}/state"

[broker]
url = "mqtt://127.0.0.1:{free_port()}"
wait_s = 0.2

[energy]
meter = "{meter}"

[data.watch]
clients = {clients}
""")
        return str(path)

    return write


def doctor(capsys, *words):
    code = main(["doctor", "--json", *words])
    return code, {found["about"]: found for found in json.loads(capsys.readouterr().out)}


def test_a_running_agent_is_left_alone(config, tmp_path, capsys):
    with hold(tmp_path / "state"):
        code, found = doctor(capsys, "--config", config())
    assert code == 0
    assert found["agent"]["level"] == "ok"
    assert not {"broker", "round watch"} & found.keys()


def test_data_that_are_not_there_are_an_error_with_the_names_there_are(config, tmp_path, capsys):
    with hold(tmp_path / "state"):
        code, found = doctor(capsys, "--config", config('["77"]'))
    assert code == 1
    assert found["data watch"]["level"] == "error"
    assert "'77'; there are 1, 2" in found["data watch"]["text"]


@pytest.mark.parametrize("words", [("--baseline", "2"), ("--baseline", "inf"), ("--config", "nowhere.toml")])
def test_wrong_usage_is_one_line_and_exit_code_2(config, capsys, words):
    assert main(["doctor", "--config", config(), *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_round_is_tried_and_a_broker_that_is_away_is_the_only_error(config, tmp_path):
    (tmp_path / "steady.csv").write_text(STEADY)
    meter = f"replay:{tmp_path}/steady.csv"
    command = [sys.executable, "-m", "mas_edge.edge_agent.cli", "doctor", "--json", "--baseline", "3"]
    done = subprocess.run(
        [*command, "--config", config(meter=meter)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1, done.stderr
    found = {each["about"]: each for each in json.loads(done.stdout)}
    assert [name for name, each in found.items() if each["level"] == "error"] == ["broker"]
    assert "Connection refused" in found["broker"]["text"]
    assert "W, measured over 3 s" in found["baseline"]["text"]
    assert "J of it above idle" in found["round watch"]["text"]
    assert load(tmp_path / "state/baseline.json").power_w == pytest.approx(4.0)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"lock", "baseline.json"}
