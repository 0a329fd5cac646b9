from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.drivers import replay
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable, begin, between, end


def recorded(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def opened(path, clock, more=""):
    return replay.open_meter(DriverOptions(argument=f"{path}{more}", clock_ns=clock))


def test_powers_are_played_with_straight_lines_between_them(tmp_path, clock):
    meter = opened(recorded(tmp_path, "t_s,power_w\n10,2\n11,4\n13,4\n"), clock, f",t0_ns={clock.t_ns}")
    energies = []
    for _ in range(4):
        energies.append(meter.read().energy_j)
        clock.pass_s(0.5)
    assert energies == pytest.approx([0, 1.25, 3, 5])
    assert meter.sensor.method == "sampled"


def test_a_recorded_counter_stays_a_counter(tmp_path, clock):
    path = recorded(tmp_path, json.dumps({"t_s": [0, 2], "energy_j": [100, 110]}), "log.json")
    meter = opened(path, clock, f",t0_ns={clock.t_ns}")
    mark = begin(meter, clock)
    clock.pass_s(1)
    assert end(mark).settle().energy_j == pytest.approx(5)
    assert meter.sensor.method == "counter"
    assert meter.samples(0, 1) is None


def test_the_recording_repeats_and_its_energy_goes_on(tmp_path, clock):
    meter = opened(recorded(tmp_path, "t_s,power_w\n0,2\n1,4\n"), clock, f",t0_ns={clock.t_ns}")
    clock.pass_s(7.5)
    assert meter.read().energy_j == pytest.approx(7 * 3 + 1.25)


def test_two_processes_of_a_host_see_the_same_energy(tmp_path, clock):
    path = recorded(tmp_path, "t_s,power_w\n0,2\n1,9\n3,1\n")
    early = opened(path, clock)
    first = early.read()
    clock.pass_s(3.3)
    late = opened(path, clock)
    clock.pass_s(1.1)
    assert late.read() == early.read()
    assert late.sensor == early.sensor
    assert between(first, early.read()).energy_j > 0


@given(st.lists(st.floats(0, 50), min_size=2, max_size=12), st.floats(0, 30), st.floats(0.001, 30))
def test_a_window_from_samples_is_the_difference_of_the_counter(tmp_path_factory, powers, start_s, length_s):
    folder = tmp_path_factory.mktemp("replay")
    rows = "".join(f"{k / 10},{power}\n" for k, power in enumerate(powers))
    t_ns = [round(start_s * 1e9)]
    meter = opened(recorded(folder, "t_s,power_w\n" + rows), lambda: t_ns[0])
    mark = begin(meter, lambda: t_ns[0])
    t_ns[0] += round(length_s * 1e9)
    pending = end(mark)
    counted = between(mark.reading, pending.reading)
    assert pending.settle().energy_j == pytest.approx(counted.energy_j, abs=1e-6)


def test_an_idle_power_can_be_stated(tmp_path, clock):
    meter = opened(recorded(tmp_path, "t_s,power_w\n0,2\n1,4\n"), clock, ",idle_w=1.5,idle_u_w=0.1")
    assert meter.idle is not None
    assert (meter.idle.power_w, meter.idle.u_w) == (1.5, 0.1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "needs one of|no recording"),
        ("t_s,power_w\n0,1\n", "two or more"),
        ("t_s,power_w\n0,1\n0,2\n", "must grow"),
        ("t_s,power_w\n0,1\n1,-2\n", "never negative"),
        ("t_s,energy_j\n0,5\n1,4\n", "never falls"),
        ("t_s,power_w\n0,1\n1,much\n", "no recording"),
        ("t_s,power_w\n0,1\n1\n", "no recording"),
        ("t_s,volts\n0,1\n1,1\n", "needs one of"),
    ],
)
def test_a_file_that_is_no_recording_is_named_with_what_is_wrong(tmp_path, clock, text, complaint):
    path = recorded(tmp_path, text)
    with pytest.raises(MeterUnavailable, match=complaint) as caught:
        opened(path, clock)
    assert "log.csv" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path, clock):
    with pytest.raises(MeterUnavailable, match=r"nothing\.csv"):
        opened(tmp_path / "nothing.csv", clock)
