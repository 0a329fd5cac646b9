from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.samples import Sample, counted, cumulate, integrate


def at_hz(rate_hz, seconds, power):
    step_ns = round(1e9 / rate_hz)
    return [Sample(k * step_ns, power(k * step_ns / 1e9)) for k in range(round(seconds * rate_hz) + 1)]


def test_a_ramp_is_integrated_exactly_between_samples():
    samples = at_hz(10, 3, lambda t_s: 3 * t_s)
    whole = integrate(samples, 250_000_000, 2_730_000_000)
    assert whole.energy_j == pytest.approx(1.5 * (2.73**2 - 0.25**2), rel=1e-12)
    assert whole.flags == ()


def test_a_side_without_a_sample_is_held_and_said():
    samples = at_hz(10, 2, lambda _: 5.0)
    whole = integrate(samples, 0, 2_200_000_000)
    assert whole.energy_j == pytest.approx(11.0)
    assert whole.flags == ("edge_extrapolated",)
    assert whole.variance_j2 == pytest.approx(1.0)


def test_missing_samples_count_but_widen_the_error():
    samples = at_hz(10, 2, lambda t_s: 5.0 if t_s < 1 else 9.0)
    holed = [sample for sample in samples if not 0.55e9 < sample.t_ns < 1.45e9]
    whole, thin = (integrate(given, 0, 2_000_000_000) for given in (samples, holed))
    assert thin.flags == ("gap", "few_samples")
    assert thin.variance_j2 > whole.variance_j2 + (4.0 * 0.9) ** 2
    assert integrate(holed, 0, 500_000_000).flags == ("few_samples",)


def test_a_sample_that_stands_out_is_a_spike_of_which_others_were_missed():
    quiet, spike = [4.0] * 10, [*[4.0] * 5, 9.0, *[4.0] * 4]
    flat, high = (
        integrate(at_hz(10, 0.9, lambda t_s, p=p: p[round(t_s * 10)]), 0, 900_000_000) for p in (quiet, spike)
    )
    assert flat.variance_j2 == 0.0
    assert high.variance_j2 == pytest.approx((5.0 * 0.1) ** 2)


def test_a_window_of_no_length_has_no_energy_and_no_doubt():
    whole = integrate(at_hz(10, 3, lambda t_s: 3 * t_s), 1_234_000_000, 1_234_000_000)
    assert (whole.energy_j, whole.variance_j2) == (0.0, 0.0)


def test_a_window_between_two_samples_is_a_part_of_their_interval():
    samples = [Sample(0, 4.0), Sample(100_000_000, 6.0)]
    whole = integrate(samples, 25_000_000, 75_000_000)
    assert whole.energy_j == pytest.approx(0.25)
    assert whole.flags == ("few_samples",)


def test_one_sample_is_no_energy():
    with pytest.raises(ValueError, match="takes two"):
        integrate([Sample(0, 5.0)], 0, 10)


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=20), st.lists(st.floats(0, 1), min_size=3, max_size=3)
)
def test_adjacent_windows_add_up(powers, cuts):
    samples = [Sample(k * 100_000_000, power) for k, power in enumerate(powers)]
    a, b, c = sorted(round(cut * samples[-1].t_ns) for cut in cuts)
    parts = [integrate(samples, a, b), integrate(samples, b, c)]
    whole = integrate(samples, a, c)
    assert sum(part.energy_j for part in parts) == pytest.approx(whole.energy_j, abs=1e-9)
    assert sum(part.variance_j2 for part in parts) == pytest.approx(whole.variance_j2, abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1e3)), min_size=2, max_size=20))
def test_a_counter_is_met_at_each_of_its_readings(steps):
    times, energies = [0], [5.0]
    for interval_ns, energy_j in steps:
        times.append(times[-1] + interval_ns)
        energies.append(energies[-1] + energy_j)
    curve = counted(times, energies)
    assert [curve.at(t)[0] for t in times] == pytest.approx([energy - 5.0 for energy in energies])


@pytest.mark.parametrize(("rate_hz", "least"), [(10, 0.85), (2, 0.85)])
def test_twice_the_stated_uncertainty_covers_a_switching_load(rate_hz, least):
    """Loads of 5 and 12 W in phases of 10 to 600 ms, windows of 10 s, against the exact integral."""
    rng = random.Random(rate_hz)
    edges, level = [0.0], []
    while edges[-1] < 400:
        level.append(5.0 if len(level) % 2 else 12.0)
        edges.append(edges[-1] + rng.uniform(0.01, 0.6))
    exact = [0.0]
    for k, power_w in enumerate(level):
        exact.append(exact[-1] + power_w * (edges[k + 1] - edges[k]))

    def energy_j(t_s):
        k = max(i for i in range(len(edges)) if edges[i] <= t_s)
        return exact[k] + level[k] * (t_s - edges[k])

    def power(t_s):
        return level[max(i for i in range(len(edges)) if edges[i] <= t_s)]

    samples = at_hz(rate_hz, 390, power)
    held = 0
    for _ in range(200):
        start_s = rng.uniform(1, 370)
        k = math.floor(start_s * rate_hz)
        around = samples[k - 1 : k + 10 * rate_hz + 3]
        found = integrate(around, round(start_s * 1e9), round((start_s + 10) * 1e9))
        error_j = found.energy_j - (energy_j(start_s + 10) - energy_j(start_s))
        held += abs(error_j) <= 2 * found.variance_j2**0.5
    assert held / 200 >= least


def test_the_curve_goes_through_its_samples():
    curve = cumulate([Sample(0, 1.0), Sample(1_000_000_000, 3.0), Sample(2_000_000_000, 3.0)])
    assert [curve.at(round(t * 1e9))[0] for t in (0, 0.5, 1, 2, 3)] == pytest.approx([0, 0.75, 2, 5, 8])
