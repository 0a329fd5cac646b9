from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.ledger import Slice, Use
from mas_edge.profiling.meters import Energy
from mas_edge.profiling.runs import Course, bill, measured, spread, together
from mas_edge.wire.messages import Baseline, Machine, Rail, Sensor

SENSOR = Sensor(name="s", method="sampled", scope="board", sensor_host="h", gain_u=0.05)
COUNTER = Sensor(name="s", method="counter", scope="package", sensor_host="h")
IDLE = Baseline(power_w=2.0, u_w=0.1, how="measured")


def course(*powers_w, slice_s=0.25, cpu_s=0.2, busy_s=0.4, exit_code=0, variance_j2=0.0, flags=(), lost=None):
    step_ns = round(slice_s * 1e9)
    slices = tuple(
        Slice(
            t0_ns=k * step_ns,
            t1_ns=(k + 1) * step_ns,
            energy_j=None if power_w is None else power_w * slice_s,
            busy_s=busy_s,
            uses=(Use(job="", group="command", round=0, phase="run", wall_s=slice_s, cpu_s=cpu_s),),
        )
        for k, power_w in enumerate(powers_w)
    )
    whole = Energy(0, len(powers_w) * step_ns, sum(map(bool, powers_w)), variance_j2, {}, flags)
    return Course(
        slices=slices,
        whole=whole,
        exit_code=exit_code,
        cpu_s=cpu_s * len(slices),
        interrupted=False,
        lost=lost,
    )


def test_the_four_figures_of_a_run():
    run = bill(course(6.0, 10.0, 6.0, 10.0), SENSOR, IDLE)
    assert (run.wall_s, run.energy_j, run.mean_w, run.peak_w) == (1.0, 8.0, 8.0, 10.0)
    assert run.window_energy_j == run.energy_j
    assert run.dynamic_energy_j == pytest.approx(6.0)
    assert run.attributed_energy_j == pytest.approx(3.0)
    assert run.idle_j + run.background_j + run.attributed_energy_j == pytest.approx(run.energy_j)
    assert run.exclusive_fraction == 1.0
    assert (run.cpu_s, run.busy_s) == pytest.approx((0.8, 1.6))


def test_without_a_baseline_only_the_window_is_known():
    run = bill(course(6.0, 10.0), SENSOR)
    assert run.energy_j == 4.0
    assert run.dynamic_energy_j is run.attributed_energy_j is run.idle_j is run.background_j is None


def test_the_uncertainty_is_that_of_the_whole_window_and_of_the_gain():
    run = bill(course(8.0, 8.0, variance_j2=0.09), SENSOR)
    assert run.energy_u_j == pytest.approx((0.09 + (0.05 * 4.0) ** 2) ** 0.5)


def test_flags_of_the_whole_window_are_the_runs():
    assert bill(course(8.0, flags=("few_samples",)), SENSOR).flags == ("few_samples",)


def test_a_meter_that_was_lost_leaves_energy_and_power_unknown():
    run = bill(course(8.0, None, lost="s: gone"), SENSOR, IDLE)
    assert run.energy_j is run.mean_w is run.attributed_energy_j is None
    assert "sensor_lost" in run.flags


def test_a_window_of_no_time_has_no_power():
    run = bill(course(8.0, slice_s=0.0), SENSOR, IDLE)
    assert (run.wall_s, run.mean_w, run.peak_w) == (0.0, None, None)
    assert "short_window" in run.flags


def test_a_counter_says_nothing_about_less_than_ten_milliseconds():
    short, longer = (
        bill(course(8.0, slice_s=0.009), COUNTER, IDLE),
        bill(course(8.0, slice_s=0.02), COUNTER, IDLE),
    )
    assert short.energy_j is short.dynamic_energy_j is short.mean_w is None
    assert longer.energy_j == pytest.approx(0.16)
    assert "short_window" in longer.flags


def test_what_says_nothing_of_the_total_says_nothing_of_its_parts():
    rails = [
        bill(replace(made, whole=replace(made.whole, by_rail_j={"dram": 0.1})), COUNTER).rails
        for made in (course(8.0, slice_s=0.009), course(8.0, slice_s=0.02))
    ]
    assert rails == [(), (Rail(name="dram", energy_j=0.1),)]


def test_a_counter_that_counts_nothing_is_named():
    assert bill(course(0.0), COUNTER).flags == ("not_counting",)


def test_one_run_is_its_own_mean():
    run = bill(course(8.0), SENSOR)
    assert together([run], 0.05) is run


def test_the_mean_of_runs_counts_their_spread():
    runs = [bill(course(power_w), SENSOR, IDLE) for power_w in (7.0, 8.0, 9.0)]
    mean = together(runs, SENSOR.gain_u)
    assert mean.energy_j == pytest.approx(2.0)
    assert mean.energy_u_j == pytest.approx((0.25**2 / 3 + (0.05 * 2.0) ** 2) ** 0.5)
    assert mean.peak_w == 9.0
    assert mean.mean_u_w == pytest.approx((1 / 3 + (0.05 * 8.0) ** 2) ** 0.5)
    assert mean.attributed_energy_j == pytest.approx(0.75)


def test_the_common_gain_of_equal_runs_does_not_average_away():
    runs = [bill(course(8.0), SENSOR)] * 100
    assert together(runs, SENSOR.gain_u).energy_u_j == pytest.approx(0.05 * 2.0)


def test_one_run_of_unknown_energy_makes_the_mean_unknown():
    runs = [bill(course(8.0), SENSOR), bill(course(None, lost="gone"), SENSOR)]
    mean = together(runs, 0.05)
    assert mean.energy_j is mean.energy_u_j is None
    assert mean.wall_s == 0.25


def test_the_first_exit_code_that_is_not_0_is_handed_on():
    runs = [bill(course(8.0, exit_code=code), SENSOR) for code in (0, 3, 4)]
    assert together(runs, 0.05).exit_code == 3


def test_what_a_report_rests_on_stands_in_it():
    runs = [bill(course(power_w), SENSOR, IDLE) for power_w in (7.0, 9.0)]
    made = measured(
        runs,
        command=("make",),
        sensor=SENSOR,
        baseline=IDLE,
        machine=Machine(),
        refused=(),
        flags={"throttled"},
    )
    assert (made.method, made.sensor, made.scope, made.about) == ("sampled", "s", "board", SENSOR)
    assert made.repeats == tuple(runs)
    assert made.energy_sd_j == pytest.approx(spread([1.75, 2.25]))
    assert made.flags == ("throttled",)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0, 20), st.floats(0, 1), st.floats(0, 1)
)
def test_a_runs_parts_are_its_whole(powers_w, idle_w, cpu_s, busy_s):
    idle = Baseline(power_w=idle_w, u_w=0.0, how="measured")
    run = bill(course(*powers_w, cpu_s=cpu_s, busy_s=busy_s), SENSOR, idle)
    assert run.attributed_energy_j + run.background_j + run.idle_j == pytest.approx(run.energy_j, abs=1e-9)
