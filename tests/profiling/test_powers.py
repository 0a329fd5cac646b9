"""A host's power over time, from the traces of all its agents."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.traces import Step, powers, union
from mas_edge.wire.messages import Trace

SECOND = 10**9


def trace(*points):
    t_s, energy_j = zip(*points, strict=True)
    return Trace(
        t_ns=tuple(round(t * SECOND) for t in t_s), energy_j=energy_j, variance_j2=(0.0,) * len(points)
    )


def energy_j(steps):
    return sum(step.power_w * (step.t1_ns - step.t0_ns) / SECOND for step in steps)


def test_each_step_is_the_mean_power_between_two_readings():
    assert powers([trace((0, 5.0), (2, 9.0), (3, 15.0))]) == (
        Step(0, 2 * SECOND, 2.0),
        Step(2 * SECOND, 3 * SECOND, 6.0),
    )


def test_time_that_nobody_metered_has_no_step():
    steps = powers([trace((0, 0.0), (1, 4.0), (5, 4.0), (6, 8.0))])
    assert [(step.t0_ns, step.t1_ns) for step in steps] == [(0, SECOND), (5 * SECOND, 6 * SECOND)]


def test_agents_that_saw_the_same_time_do_not_double_its_power():
    one = trace((0, 0.0), (2, 8.0), (4, 16.0))
    other = trace((1, 0.0), (3, 8.0), (6, 20.0))
    assert [step.power_w for step in powers([other, one])] == [4.0] * 3
    assert powers([]) == ()


def test_a_step_too_short_for_a_power_is_joined_with_its_neighbour():
    steps = powers([trace((0, 0.0), (1, 4.0), (1.01, 5.0), (2, 9.0))])
    assert [step.power_w for step in steps] == pytest.approx([5 / 1.01, 4 / 0.99])


stretches = st.lists(st.tuples(st.floats(0.01, 3), st.floats(0.5, 50)), min_size=1, max_size=60)


@given(st.lists(st.tuples(st.floats(0, 20), stretches), min_size=1, max_size=4), st.integers(2, 40))
def test_the_area_under_the_power_is_the_energy_of_the_union_however_few_steps(agents, most):
    traces = []
    for start_s, pieces in agents:
        points = [(start_s, 0.0)]
        for wall_s, power_w in pieces:
            points.append((points[-1][0] + wall_s, points[-1][1] + wall_s * power_w))
        traces.append(trace(*points))
    steps = powers(traces, most)
    whole = union((one, None) for one in traces)
    assert energy_j(steps) == pytest.approx(whole.energy_j, rel=1e-6)
    assert all(a.t1_ns <= b.t0_ns for a, b in pairwise(steps))
    gaps = sum(a.t1_ns < b.t0_ns for a, b in pairwise(steps))
    assert len(steps) <= most or gaps
