"""The cost model: what it learns from rounds, how sure it is, and that it never pretends."""

from __future__ import annotations

import math
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator.cost_model import DEVICE_SD, cells, fit, mask_of

TASKS = ("a", "b", "c")
DEVICES = ("d1", "d2", "d3")
PARAMETERS = {"encoder": 500, "decoder.a": 100, "decoder.b": 150, "decoder.c": 250}
GROUPS = tuple(chain.from_iterable(combinations(TASKS, size) for size in (1, 2, 3)))

seen_rounds = st.lists(
    st.tuples(st.sampled_from(GROUPS), st.sampled_from(DEVICES), st.floats(1e-3, 1e3)), max_size=12
)


def model(costs):
    return fit(TASKS, DEVICES, PARAMETERS, cells(costs))


def spread(fitted, group, device) -> float:
    """The standard deviation of the logarithm of a cost."""
    _, variance = fitted.logs(np.array([mask_of(group, TASKS)]))
    return math.sqrt(variance[0, DEVICES.index(device)])


@given(seen_rounds, st.sampled_from(GROUPS), st.sampled_from(DEVICES), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_another_round_of_anything_widens_no_interval(seen, group, device, cost):
    before, after = model(seen), model([*seen, (group, device, cost)])
    for other in GROUPS:
        for any_device in DEVICES:
            assert spread(after, other, any_device) <= spread(before, other, any_device) + 1e-9


@given(st.sampled_from(GROUPS), st.sampled_from(DEVICES), st.floats(1e-2, 1e4))
def test_the_cost_of_a_group_that_is_trained_again_and_again_is_what_was_observed(group, device, cost):
    noisy = [cost * factor for factor in (0.8, 1.25)] * 200
    found = model([(group, device, each) for each in noisy]).cost(group, device)
    assert found.value == pytest.approx(cost, rel=0.01)  # the geometric mean
    assert found.how == "measured"
    assert found.u < 0.03 * cost


@given(st.permutations([(GROUPS[i % 7], DEVICES[i % 3], 1.0 + i) for i in range(9)]))
def test_the_order_of_the_rounds_decides_nothing(order):
    first = model(sorted(order))
    assert model(order).cost(("a",), "d2").value == pytest.approx(first.cost(("a",), "d2").value)


@given(st.floats(1e-3, 1e3))
def test_costs_follow_their_unit(unit):
    seen = [(TASKS, "d1", 3.0), (("a",), "d2", 1.0)]
    one, other = model(seen), model([(g, d, c * unit) for g, d, c in seen])
    ratio = other.cost(("b", "c"), "d2").value / one.cost(("b", "c"), "d2").value
    assert ratio == pytest.approx(unit, rel=0.05)  # but for the pull of the level's wide prior


def test_without_a_round_there_is_no_unit():
    empty = model([])
    assert not empty.known
    assert empty.cost(("a",), "d1") is None


def test_after_rounds_of_all_tasks_a_part_costs_its_share_of_parameters_and_is_less_sure():
    fitted = model([(TASKS, device, 10.0) for device in DEVICES for _ in range(20)])
    whole, part = fitted.cost(TASKS, "d1"), fitted.cost(("a",), "d1")
    assert part.value == pytest.approx(6.0, rel=0.02)  # 500 + 100 of 1000
    assert part.how == "fitted"
    assert part.u / part.value > 3 * whole.u / whole.value
    assert fitted.shares(TASKS).how == "static"


def test_parts_are_told_apart_once_groups_of_them_were_trained():
    truth = {"a": 3.0, "b": 3.0, "c": 0.5}
    groups = [group for group in GROUPS if len(group) < 3]
    seen = [(g, d, 8.0 + sum(truth[t] for t in g)) for g in groups for d in DEVICES for _ in range(10)]
    fitted = model(seen)
    assert fitted.cost(TASKS, "d1").value == pytest.approx(14.5, rel=0.1)
    shares = fitted.shares(TASKS)
    assert shares.how == "fitted"
    assert shares.common > 0.5  # as the parameters say, 0.5, and the rounds, 0.55
    assert shares.of["c"] < 0.25  # a quarter of the parameters, a thirtieth of the cost


@given(seen_rounds.filter(bool), st.sampled_from(GROUPS))
def test_shares_of_a_group_sum_to_one(seen, group):
    shares = model(seen).shares(group)
    assert shares.common + math.fsum(shares.of.values()) == pytest.approx(1.0)
    assert set(shares.of) == set(group)
    assert all(share > 0 for share in (shares.common, *shares.of.values()))


def test_a_slow_device_is_slow_for_every_group():
    fitted = model([(TASKS, "d1", 10.0), (TASKS, "d2", 40.0)] * 10)
    assert fitted.cost(("a",), "d2").value / fitted.cost(("a",), "d1").value == pytest.approx(4.0, rel=0.1)


def test_a_device_that_trained_nothing_is_as_uncertain_as_devices_differ():
    fitted = model([(TASKS, "d1", 10.0), (TASKS, "d2", 10.0)] * 10)
    assert spread(fitted, TASKS, "d3") >= DEVICE_SD
    assert spread(fitted, TASKS, "d1") < 0.15


def test_joules_that_are_not_positive_are_left_out():
    assert cells([(TASKS, "d1", 0.0), (TASKS, "d1", -1.0), (TASKS, "d1", math.nan)]) == ()
    assert cells([(TASKS, "d1", 2.0), (TASKS, "d1", -1.0)])[0].rounds == 1


def test_rounds_of_other_tasks_and_devices_are_left_out():
    assert not fit(TASKS, DEVICES, PARAMETERS, cells([(("z",), "d1", 1.0), (TASKS, "d9", 1.0)])).known


def test_parameters_that_are_not_known_count_all_parts_the_same():
    fitted = fit(TASKS, DEVICES, {}, cells([(TASKS, "d1", 4.0)] * 20))
    assert fitted.cost(("a",), "d1").value == pytest.approx(2.0, rel=0.02)
