"""Rules for the number of groups, on tables that were made up so that the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from study import rules
from tables_made_up import ONE_BY_ONE, TABLE, TASKS, in_group, made_up, merged_like, merged_on

from mas_edge.orchestrator.affinity import Affinity


def test_the_gain_of_more_rounds_is_that_of_a_power_law():
    one = merged_like([dict.fromkeys(TASKS, (at + 1) ** -0.5) for at in range(8)])
    assert rules.gain_of_rounds(one, 4.0) == pytest.approx(0.5)
    assert rules.gain_of_rounds(one, 1.0) == 0


def test_a_rule_is_judged_against_as_much_energy_without_a_split():
    found = rules.outcome(TABLE, ONE_BY_ONE, wasted=0.5)
    assert found.energy == pytest.approx(15 / 7 + 0.5)
    assert found.even == pytest.approx(100 * (TABLE.loss(ONE_BY_ONE) / TABLE.together(found.energy) - 1))


def effects(entries, se=0.001):
    """Measured effects, each as sure as the others."""
    return Affinity(TASKS, np.array(entries, float), np.full((5, 5), se), np.ones((5, 5), np.int64))


EVEN = merged_like([dict.fromkeys(TASKS, 1.0)])
APART = (TASKS[:2], TASKS[2:])


def at_war(harm):
    """Two camps: tasks help themselves by 1, their own camp by a half, and harm the other one."""
    camp = np.array([task in APART[0] for task in TASKS])
    entries = np.where(camp[:, None] == camp, 0.5, -harm)
    np.fill_diagonal(entries, 1.0)
    return entries


@pytest.mark.parametrize(("harm", "chosen"), [(1.0, APART), (0.0, (TASKS,))])
def test_only_camps_that_harm_each_other_are_worth_the_energy_of_a_split(harm, chosen):
    assert rules.progress(EVEN, effects(at_war(harm)), "alike")[0] == chosen


def test_no_split_follows_from_effects_that_chance_might_have_made():
    assert rules.progress(EVEN, effects(at_war(1.0), se=10.0), "alike")[0] == (TASKS,)


def test_progress_per_energy_is_that_of_all_steps_over_their_cost():
    entries = at_war(1.0)
    _, rates = rules.progress(EVEN, effects(entries), "alike")
    assert rates[(TASKS,)] == 1
    assert rates[ONE_BY_ONE] == pytest.approx(np.trace(entries) / TABLE.cost(ONE_BY_ONE) / entries.sum())


def test_a_task_counts_by_the_loss_that_it_has_left():
    """The first task is harmed by all others: as its loss is great, it goes on alone."""
    entries = np.full((5, 5), 0.3)
    np.fill_diagonal(entries, 1.0)
    entries[1:, 0] = -0.2
    losses = dict.fromkeys(TASKS, 0.01) | {TASKS[0]: 100.0}
    (chosen, _), (alike, _) = (
        rules.progress(merged_like([losses]), effects(entries), weigh) for weigh in ("by loss", "alike")
    )
    assert (TASKS[0],) in chosen
    assert alike == (TASKS,)


def test_a_trial_gives_not_splitting_the_rounds_that_its_rival_energy_pays():
    """In 2 of 4 rounds one by one costs as much as all tasks in all 4, and these end lower."""
    lower = made_up(lambda t, g: in_group(t, g) * (1.1 if len(g) == 1 else 1.0))
    found = rules.trial(merged_on(lower), ONE_BY_ONE, 2)
    assert found.partition == (TASKS,)
    assert found.wasted == pytest.approx(2 / 4 * TABLE.cost(ONE_BY_ONE))


def test_a_trial_wastes_no_more_than_its_share():
    one = merged_on(TABLE, merged=60)
    for chosen in (rules.trial(one, p, None) for p in one.partitions[1:]):
        assert chosen.wasted <= rules.SHARE * (60 + 4) / 4
