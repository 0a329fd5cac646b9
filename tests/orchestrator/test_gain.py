"""How fast a partition lowers the losses for the same energy, against the definition and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from deciding import FLEET, SELFISH, TASKS, curve, rounds, situation
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.affinity import Affinity, pool
from mas_edge.orchestrator.gain import Gains, losses
from mas_edge.orchestrator.learning_curve import of_all, totals
from mas_edge.orchestrator.terms import settle

WHOLE, SPLIT = (TASKS,), (("a", "b"), ("c",))
ENERGY = np.array([0.0, 0.7, 0.7, 0.8, 0.8, 0.9, 0.9, 1.0])
"""By mask: an encoder of 0.6, decoders of 0.1, 0.1 and 0.2."""

numbers = st.lists(st.floats(-2, 2), min_size=9, max_size=9).map(lambda each: np.array(each).reshape(3, 3))


def gains(mean, se=0.1, loss=(1.0, 1.0, 1.0)) -> Gains:
    mean = np.array(mean, float)
    affinity = Affinity(TASKS, mean, np.full((3, 3), se), np.full((3, 3), 9))
    return Gains(affinity, np.array(loss), ENERGY)


@given(numbers, st.tuples(*[st.floats(0.01, 9)] * 3))
def test_a_rate_is_what_all_effects_within_groups_lower_the_losses_by_over_their_energy(mean, loss):
    found = gains(mean, loss=loss).of(SPLIT)
    within = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert found.rate == pytest.approx(sum(mean[i, j] * loss[j] for i, j in within) / 1.6, abs=1e-9)
    assert found.energy == pytest.approx(1.6)


@given(numbers)
def test_a_lead_is_the_difference_of_rates_and_shared_entries_cancel_in_its_error(mean):
    known = gains(mean)
    gap, se = known.lead(SPLIT, WHOLE)
    assert gap == pytest.approx(known.of(SPLIT).rate - known.of(WHOLE).rate, abs=1e-9)
    kept, cut = 5 * (1 / 1.6 - 1) ** 2, 4 * 1.0**2
    assert se == pytest.approx(0.1 * np.sqrt(kept + cut))


def test_where_tasks_do_nothing_to_each_other_splitting_makes_less_of_the_energy():
    gap, _ = gains(np.eye(3)).lead(SPLIT, WHOLE)
    assert gap == pytest.approx(3 / 1.6 - 3)


def test_enough_harm_pays_for_a_second_encoder():
    mean = np.eye(3)
    mean[2, 0] = mean[2, 1] = -0.7
    gap, se = gains(mean).lead(SPLIT, WHOLE)
    assert gap > se > 0


def test_an_effect_that_was_not_measured_counts_as_none_and_leaves_the_error_unknown():
    mean, se = np.eye(3), np.full((3, 3), 0.1)
    mean[0, 1] = se[0, 1] = np.nan
    found = Gains(Affinity(TASKS, mean, se, np.ones((3, 3))), np.ones(3), ENERGY)
    assert found.of(WHOLE).rate == pytest.approx(3.0)
    assert found.of(WHOLE).se is None
    assert found.of((("a",), ("b",), ("c",))).se is not None


def test_losses_are_the_last_known_of_all_tasks_or_one_each():
    assert losses(TASKS, curve((3.0, 2.0))).tolist() == [2.0, 2.0, 2.0]
    assert losses(TASKS, curve((3.0, 2.0))[:-1]).tolist() == [2.0, 2.0, 3.0]
    assert losses(TASKS, curve((3.0,), group=("a", "b"))).tolist() == [1.0, 1.0, 1.0]


def test_losses_from_before_another_task_left_count_on():
    before = curve((3.0, 2.0), group=("a", "b", "c", "d"))
    assert losses(TASKS, before).tolist() == [2.0, 2.0, 2.0]
    assert losses(TASKS, [*curve((1.0,), first=3), *before]).tolist() == [1.0, 1.0, 1.0]
    later = dict(totals(of_all([*before, *curve((1.0,), first=3)], TASKS), TASKS))
    assert later == {1: 9.0, 2: 6.0, 3: 3.0}


def test_energies_are_shares_of_all_tasks_by_work_until_something_tells_more():
    by_work = settle(situation(seen=())).energies()
    assert by_work[1:] == pytest.approx(ENERGY[1:])
    alone = rounds(dict.fromkeys(FLEET, 0.95), group=("c",), times=50)
    seen = settle(situation(seen=(*rounds(times=50), *alone))).energies()
    assert 0.85 < seen[0b100] < 0.95  # what is peculiar to a group on a device does not count
    assert seen[-1] == 1.0


def test_an_error_is_that_of_batches_which_scatter():
    """100 batches that scatter by 0.05: 0.005 (of 99 free) an entry, nine entries."""
    found = Gains(pool([SELFISH]), np.ones(3), ENERGY).of(WHOLE)
    assert found.rate == pytest.approx(1.8)
    assert found.se == pytest.approx(3 * 0.05 / np.sqrt(99))
