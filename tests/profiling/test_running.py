from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.running import GREATEST_W, Look, Running, advance
from mas_edge.profiling.samples import Sample, integrate

STEP_NS = 100_000_000


def after(looks, running=None):
    running = running or Running(0.1)
    for look in looks:
        running = advance(running, look)
    return running


def at_10_hz(powers, start=0):
    return [Look((start + k) * STEP_NS, power) for k, power in enumerate(powers)]


looks = st.builds(
    Look,
    t_ns=st.integers(0, 10**11),
    power_w=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(-5, 100)),
    by_rail_w=st.dictionaries(st.sampled_from("ab"), st.floats(-5, 50)),
)


@given(st.lists(looks, max_size=30))
def test_whatever_a_sensor_says_its_totals_never_fall(said):
    running, seen = Running(0.1), [Running(0.1)]
    for look in said:
        running = advance(running, look)
        seen.append(running)
    for a, b in pairwise(seen):
        assert b.energy_j >= a.energy_j
        assert b.variance_j2 >= a.variance_j2
        assert all(b.flags[flag] >= times for flag, times in a.flags.items())
        assert b.count >= a.count
    powers = [look.power_w for look in said if look.power_w is not None and 0 <= look.power_w <= GREATEST_W]
    assert running.energy_j <= max(powers, default=0.0) * 100 * (1 + 1e-9)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=40))
def test_samples_one_by_one_give_the_integral_of_them_all(powers):
    running = after(at_10_hz(powers))
    whole = integrate(
        [Sample(k * STEP_NS, power) for k, power in enumerate(powers)], 0, running.recent[-1].t_ns
    )
    assert running.energy_j == pytest.approx(whole.energy_j)
    assert running.variance_j2 == pytest.approx(whole.variance_j2)


def test_a_negative_total_is_no_sample_and_a_negative_rail_keeps_its_sign():
    rails = {"GPU": -0.4, "CPU": 2.4}
    running = after([Look(0, 2.0, rails), Look(STEP_NS, -1.0, rails), Look(2 * STEP_NS, 2.0, rails)])
    assert running.count == 2
    assert running.flags == {"failed_read": 1}
    assert running.energy_j == pytest.approx(0.4)
    assert running.by_rail_j == pytest.approx({"GPU": -0.08, "CPU": 0.48})


def test_a_rail_that_is_missing_once_is_not_known_any_more():
    first, second = {"a": 1.0, "b": 2.0}, {"a": 1.0}
    running = after([Look(0, 3.0, first), Look(STEP_NS, 3.0, second), Look(2 * STEP_NS, 3.0, first)])
    assert running.by_rail_j == pytest.approx({"a": 0.2})


def test_an_interval_of_more_than_three_is_a_gap_that_counts_and_widens():
    before = after(at_10_hz([5.0] * 20))
    gap = advance(before, Look(before.recent[-1].t_ns + 10 * STEP_NS, 9.0))
    assert gap.flags == {"gap": 1}
    assert gap.recent[-1].gap
    assert gap.energy_j - before.energy_j == pytest.approx(7.0)
    assert (gap.variance_j2 - before.variance_j2) ** 0.5 >= 4.0


def test_a_gap_that_ends_where_it_began_is_not_taken_for_certain():
    """In the ten seconds before, the power moved by watts: nobody knows that it stood still in the gap."""
    before = after(at_10_hz([4.0, 8.0] * 20))
    gap = advance(before, Look(before.recent[-1].t_ns + 10 * STEP_NS, 8.0))
    assert (gap.variance_j2 - before.variance_j2) ** 0.5 == pytest.approx(2.0, rel=0.05)


def test_a_host_that_slept_makes_a_gap_of_an_interval_that_looks_usual():
    before = after(at_10_hz([5.0] * 4))
    assert advance(before, Look(4 * STEP_NS, 5.0), slept=True).flags == {"gap": 1}
    assert advance(before, Look(4 * STEP_NS, 5.0)).flags == {}


def test_a_clock_that_goes_back_adds_nothing():
    before = after(at_10_hz([5.0] * 4))
    back = advance(before, Look(1, 5000.0))
    assert (back.energy_j, back.count, back.flags) == (before.energy_j, 4, {"failed_read": 1})


def test_the_resolution_of_a_sensor_is_in_the_uncertainty():
    running = after([Look(k * STEP_NS, 5.0, u_w=0.3) for k in range(11)])
    assert running.variance_j2 == pytest.approx(10 * (0.3 * 0.1) ** 2)


def test_slow_samples_are_as_uncertain_as_the_power_spreads():
    looks_1_hz = [Look(k * 10**9, power) for k, power in enumerate([4.0, 8.0] * 10)]
    running = after(looks_1_hz, Running(1.0))
    assert running.variance_j2 / 19 == pytest.approx(4.0, rel=0.1)


def test_a_real_log_adds_up_to_the_mean_that_the_board_printed():
    """Orin Nano, 53 lines of tegrastats --interval 100: its own mean since start is the reference."""
    path = Path(__file__).parent / "orin_nano_100ms_vdd_in.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    step_ns = round(1e9 / 9.5)
    running = Running(0.1)
    for k, (_, now_mw, mean_mw) in enumerate(rows):
        running = advance(running, Look(k * step_ns, int(now_mw) / 1000))
        if k >= 10:
            own_w = running.energy_j / (k * step_ns / 1e9)
            assert own_w == pytest.approx(int(mean_mw) / 1000, rel=0.01)
    assert running.count == 53
    assert running.flags == {}
