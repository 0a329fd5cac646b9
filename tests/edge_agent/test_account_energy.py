"""What an agent's bill says of its meter: the idle power in force, readings that fail, what it rests on."""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec
import pytest

from mas_edge.edge_agent.account import Account
from mas_edge.profiling import baseline, machine
from mas_edge.profiling.meters import MeterUnavailable, Reading, open_one
from mas_edge.profiling.stopwatch import PhaseTime
from mas_edge.wire.memory import Broker
from mas_edge.wire.messages import Baseline, Key, Refusal, Sensor

SENSOR = Sensor(name="s", method="counter", scope="board", sensor_host="h")
KEY = Key(job="j", group="a", round=0, attempt=0, device="d1")
REFUSED = (Refusal(sensor="rapl", reason="not here"),)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n" + "".join(f"{k / 10},4\n" for k in range(11)))
    return path


def an_account(path, meter):
    return Account(path / "account.json", meter, Broker().connect("d1"), refused=REFUSED)


def a_bill(path, meter):
    account = an_account(path, meter)
    account.begin(KEY)
    account.train(warm=False)
    time.sleep(0.05)
    account.heard((PhaseTime(phase="step", wall_s=0.05, cpu_s=0.01),))
    made = account.bill("cpu")
    account.close()
    return made


def keep_baseline(path, meter, **settings):
    here = msgspec.structs.replace(machine.look(), **settings)
    found = Baseline(power_w=1.0, u_w=0.1, how="measured", sensor=meter.sensor, machine=here)
    baseline.store(path / "baseline.json", found)
    return found


def test_without_an_idle_power_only_the_window_is_billed(tmp_path, log):
    made = a_bill(tmp_path, open_one(f"replay:{log}"))
    assert made.idle_w is made.baseline is made.shared_gpu_j is None
    assert all(row.attributed_energy_j is None for row in made.rows)
    assert sum(row.window_energy_j for row in made.rows) > 0


def test_a_stored_baseline_is_used_and_told(tmp_path, log):
    meter = open_one(f"replay:{log}")
    kept = keep_baseline(tmp_path, meter)
    made = a_bill(tmp_path, meter)
    assert (made.idle_w, made.idle_u_w, made.baseline) == (1.0, 0.1, kept)
    step = next(row for row in made.rows if row.phase == "step")
    assert step.dynamic_energy_j == pytest.approx(3.0 / 4.0 * step.window_energy_j)
    assert made.shared_gpu_j == 0.0


def test_a_baseline_of_another_state_is_not_used(tmp_path, log, caplog):
    meter = open_one(f"replay:{log}")
    keep_baseline(tmp_path, meter, governor="jetson_clocks")
    assert a_bill(tmp_path, meter).baseline is None
    assert "does not hold: governor" in caplog.text


def test_what_a_user_states_comes_before_what_is_stored(tmp_path, log):
    meter = open_one(f"replay:{log},idle_w=2.5")
    keep_baseline(tmp_path, meter)
    assert a_bill(tmp_path, meter).idle_w == 2.5


def test_a_bill_says_what_it_rests_on(tmp_path, log):
    made = a_bill(tmp_path, open_one(f"replay:{log}"))
    assert made.refused == REFUSED
    assert made.machine.kernel == machine.look().kernel
    assert made.sampling.wall_s >= 0.05
    assert made.profiler_cpu_s > 0


def test_a_file_that_is_no_baseline_stops_the_agent_before_it_works(tmp_path, log):
    (tmp_path / "baseline.json").write_text("4.7 W")
    with pytest.raises(baseline.BaselineRefused, match="holds no baseline"):
        an_account(tmp_path, open_one(f"replay:{log}"))


class Moody:
    """A meter of 4 W that answers while it likes to."""

    sensor, idle = SENSOR, None

    def __init__(self):
        self.answers = True

    def read(self):
        if not self.answers:
            raise MeterUnavailable("s", "no answer")
        t_ns = time.monotonic_ns()
        return Reading(t_ns, 4.0 * t_ns / 1e9)

    def close(self):
        pass


class Coarse(Moody):
    """A meter of 4 W that has a sample every twentieth of a second."""

    def read(self):
        t_ns = time.monotonic_ns() // 50_000_000 * 50_000_000
        return Reading(t_ns, 4.0 * t_ns / 1e9)


def test_between_two_samples_of_the_meter_no_joule_is_lost(tmp_path):
    account = an_account(tmp_path, Coarse())
    account.begin(KEY)
    account.train(warm=False)
    start_s = last_s = time.monotonic()
    for _ in range(25):
        time.sleep(0.012)
        last_s = time.monotonic()
        account.heard((PhaseTime(phase="step", wall_s=last_s - start_s, cpu_s=0.0),))
    (step,) = (row for row in account.bill("cpu").rows if row.phase == "step")
    assert step.window_energy_j == pytest.approx(4.0 * (last_s - start_s), abs=4.0 * 0.06)
    account.close()


def test_a_reading_that_fails_loses_nothing(tmp_path):
    meter = Moody()
    account = an_account(tmp_path, meter)
    account.begin(KEY)
    account.train(warm=False)
    for k, answers in enumerate((True, False, False, True), 1):
        meter.answers = answers
        time.sleep(0.02)
        account.heard((PhaseTime(phase="step", wall_s=0.02 * k, cpu_s=0.01 * k),))
    made = account.bill("cpu")
    (step,) = (row for row in made.rows if row.phase == "step")
    assert step.cpu_s == pytest.approx(0.04)
    assert step.window_energy_j == pytest.approx(4.0 * 0.08, rel=0.2)
    assert made.trace.energy_j[-1] == pytest.approx(4.0 * (made.trace.t_ns[-1] - made.trace.t_ns[0]) / 1e9)
    account.close()


def test_a_meter_that_never_answers_again_leaves_the_energy_unknown_and_the_seconds_known(tmp_path):
    meter = Moody()
    account = an_account(tmp_path, meter)
    account.begin(KEY)
    account.train(warm=False)
    meter.answers = False
    account.heard((PhaseTime(phase="step", wall_s=0.1, cpu_s=0.1),))
    made = account.bill("cpu")
    (step,) = (row for row in made.rows if row.phase == "step")
    assert (step.wall_s, step.window_energy_j) == (0.1, None)
    assert "no_reading" in step.flags
    meter.answers = True  # and the agent goes on
    account.begin(msgspec.structs.replace(KEY, round=1))
    assert account.bill("cpu").trace
    account.close()


def test_an_agent_that_must_measure_refuses_to_start_with_an_estimate(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text(
        f'device = "d1"\nfleet = "f"\nstate = "{tmp_path / "state"}"\n[data.watch]\nclients = ["1"]\n'
        '[energy]\nmeter = "estimate"\nrequire = "measured"\n'
    )
    words = [sys.executable, "-m", "mas_edge.edge_agent.cli", "run", "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "estimate: it is an estimate, and measured is required" in done.stderr
    assert done.stderr.count("\n") == 1
