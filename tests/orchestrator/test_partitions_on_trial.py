"""Partitions on trial: for the same energy, for long enough or not at all, and judged by how they ended."""

from __future__ import annotations

from itertools import chain

import msgspec
import pytest
from deciding import FLEET, TASKS, TRAINING, curve, declined, situation
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import trial
from mas_edge.orchestrator.cost_model import Estimate
from mas_edge.orchestrator.decision import Trial
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.spec import Budget, Participation

WHOLE, SPLIT, OTHER = (TASKS,), (("a", "b"), ("c",)), (("a",), ("b", "c"))
PRICES = {WHOLE: 1.0, SPLIT: 1.6, OTHER: 1.7}
ON_TRIAL = Trial(partitions=(WHOLE, SPLIT), groups=(TASKS, *SPLIT), rounds=(10, 6, 6))
HUNDRED = msgspec.structs.replace(TRAINING, rounds=100)

energies = st.lists(st.floats(1, 4), min_size=1, max_size=3).map(lambda finer: [1.0, *finer])


@given(energies, st.integers(1, 500), st.floats(0.05, 0.95))
def test_what_is_dropped_is_within_its_share_and_all_get_the_same_energy_up_to_half_a_round(
    given_, rounds, merged
):
    left = rounds - int(merged * rounds)
    found = trial.lengths(given_, rounds, left)
    assert all(0 <= each <= left for each in found)
    assert found[0] == max(found)
    spent = [length * energy for length, energy in zip(found, given_, strict=True)]
    dearest = spent[given_.index(max(given_))]
    assert all(abs(each - dearest) <= energy / 2 + 1e-9 for each, energy in zip(spent, given_, strict=True))
    assert dearest * (len(given_) - 1) <= trial.SHARE * rounds + 1e-6


@pytest.mark.parametrize(
    ("rounds", "tried"), [(30, 0), (63, 0), (64, 2), (271, 2), (272, 3), (400, 3)], ids=str
)
def test_so_many_partitions_are_tried_as_the_share_pays_for(rounds, tried):
    """Two need four rounds of 1.6, three need eight of 1.7 and two of them are dropped."""
    found = trial.field([WHOLE, SPLIT, OTHER], PRICES.__getitem__, rounds, rounds)
    assert (len(found.partitions) if found else 0) == tried


def test_a_group_of_two_partitions_is_trained_once_for_the_longer_of_their_trials():
    finer = (("a",), ("b",), ("c",))
    found = trial.field([WHOLE, SPLIT, finer], {**PRICES, finer: 2.2}.__getitem__, 1000, 900)
    assert found.groups == (TASKS, ("a", "b"), ("c",), ("a",), ("b",))
    assert found.rounds == (48, 30, 30, 22, 22)


def test_a_split_that_a_model_says_is_cheaper_than_none_gets_no_more_rounds():
    found = trial.field([WHOLE, SPLIT], {WHOLE: 1.0, SPLIT: 0.9}.__getitem__, 100, 90)
    assert found.rounds == (10, 10, 10)


def test_a_trial_is_judged_by_the_later_half_of_its_rounds():
    known = chain(
        curve((9.0,) * 5 + (1.0, 1.0, 1.0, 1.0, 2.0), TASKS, first=5),
        curve((9.0,) * 3 + (0.5, 0.5, 0.8), ("a", "b"), first=5),
        curve((9.0,) * 3 + (1.0, 1.0, 1.0), ("c",), first=5),
    )
    judged = dict(trial.judged(ON_TRIAL, known, 5, TASKS))
    assert judged[WHOLE] == pytest.approx(3 * 6.0 / 5)
    assert judged[SPLIT] == pytest.approx(2 * 1.8 / 3 + 1.0)


def test_rounds_that_missed_a_device_do_not_judge():
    whole = curve((1.0,) * 10, TASKS, first=5)
    split = [*curve((0.4,) * 6, ("a", "b"), first=5), *curve((0.5,) * 6, ("c",), first=5)]
    few = [msgspec.structs.replace(each, loss=9.0, count=50.0) if each.round == 9 else each for each in split]
    assert dict(trial.judged(ON_TRIAL, [*whole, *few], 5, TASKS))[SPLIT] == pytest.approx(2 * 0.4 + 0.5)


def test_a_device_that_left_before_the_trial_is_not_missed_in_it():
    merged = curve((1.0,) * 5, TASKS, first=0)
    whole, parts = curve((9.0,) * 5 + (0.1,) * 5, TASKS, first=5), (("a", "b"), ("c",))
    split = chain.from_iterable(curve((9.0,) * 3 + (0.5,) * 3, group, first=5) for group in parts)
    fewer = [msgspec.structs.replace(each, count=75.0) for each in (*whole, *split)]
    judged = dict(trial.judged(ON_TRIAL, [*merged, *fewer], 5, TASKS))
    assert (judged[WHOLE], judged[SPLIT]) == (pytest.approx(0.3), pytest.approx(1.5))


def test_a_partition_does_not_win_by_losing_a_device_in_its_trial():
    whole = curve((1.0,) * 10, TASKS, first=5)
    parts = [*curve((1.0,) * 6, ("a", "b"), first=5), *curve((1.0,) * 6, ("c",), first=5)]
    fewer = [msgspec.structs.replace(e, loss=0.5, count=75.0) if e.round > 6 else e for e in parts]
    judged = dict(trial.judged(ON_TRIAL, [*whole, *fewer], 5, TASKS))
    assert (judged[WHOLE], judged[SPLIT]) == (pytest.approx(3.0), None)


def test_tasks_that_were_stopped_do_not_count():
    known = [*curve((1.0,) * 10, TASKS, first=5), *curve((0.4,) * 6, ("a", "b"), first=5)]
    judged = dict(trial.judged(ON_TRIAL, known, 5, ["a"]))
    assert (judged[WHOLE], judged[SPLIT]) == (1.0, pytest.approx(0.4))


def test_a_group_that_did_not_get_to_its_end_leaves_its_partition_unjudged():
    known = [*curve((1.0,) * 10, TASKS, first=5), *curve((0.1,) * 5, ("a", "b"), first=5)]
    known += curve((0.1,) * 6, ("c",), first=5)
    assert dict(trial.judged(ON_TRIAL, known, 5, TASKS))[SPLIT] is None


def test_the_energy_of_a_trial_is_that_of_its_rounds_and_unknown_if_one_is():
    one = Estimate(value=2.0, u=0.5, how="measured")
    fitted = Estimate(value=1.0, u=0.5, how="fitted")
    assert trial.energy([one, fitted], (3, 4)) == Estimate(value=10.0, u=3.5, how="fitted")
    assert trial.energy([one, None], (3, 4)) is None


# --- the decisions ------------------------------------------------------------------------------------


def after_trial(evaluated, **changes):
    tried = decide(situation(policy="mas-verified", training=HUNDRED, stage="trial"))
    given = situation(
        policy="mas-verified", training=HUNDRED, decided=(tried,), evaluated=evaluated, **changes
    )
    return decide(given)


def test_a_job_of_which_no_trial_has_losses_goes_on_unsplit():
    made = after_trial(curve((0.1,) * 6, ("c",), first=5))
    assert made.groups == WHOLE
    assert made.loss is None


def test_what_did_not_get_to_its_end_is_not_chosen():
    split = [*curve((0.1,) * 6, ("a", "b"), first=5), *curve((0.1,) * 6, ("c",), first=5)]
    assert after_trial(split).groups == SPLIT
    assert after_trial(curve((9.0,) * 10, TASKS, first=5)).groups == WHOLE


def test_groups_go_on_as_they_were_tried_even_if_a_task_was_stopped_since():
    losses = [*curve((1.0,) * 10, TASKS, first=5), *curve((0.1,) * 6, ("a", "b"), first=5)]
    made = after_trial(losses, tasks=("a", "b"), affinity=None)
    assert made.groups == SPLIT
    assert made.loss == pytest.approx(0.2)


@pytest.mark.parametrize(("clients", "tries"), [(None, True), (len(FLEET), True), (1, False)])
def test_nothing_is_tried_where_each_round_would_be_judged_by_other_devices(clients, tries):
    asked = Participation(clients=clients)
    made = decide(situation(policy="mas-verified", training=HUNDRED, stage="trial", participation=asked))
    assert (made.trial is not None) is tries
    assert tries or (made.groups, f"asks {clients} of {len(FLEET)} devices" in made.why) == (WHOLE, True)


def test_where_all_tasks_together_fit_nowhere_there_is_nothing_to_compare_with():
    refused = [declined(device, 310) for device in FLEET]
    made = decide(situation(policy="mas-verified", training=HUNDRED, stage="trial", refused=refused, seen=()))
    assert made.trial is None
    assert made.groups == (("a", "b"), ("c",))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_number_of_groups_is_what_not_splitting_is_compared_with(groups):
    training = msgspec.structs.replace(TRAINING, rounds=120)
    made = decide(situation(policy="mas-verified", training=training, stage="trial", groups=groups))
    if groups == 1:
        assert (made.trial, made.groups) == (None, WHOLE)
        assert made.why == "the best partition into 1 group"
    else:
        assert [len(partition) for partition in made.trial.partitions] == [1, groups]
        assert made.trial.partitions[0] == WHOLE
        assert made.trial.groups == made.groups


def test_so_many_groups_as_fit_nowhere_are_not_tried_and_it_says_so():
    training = msgspec.structs.replace(TRAINING, rounds=120)
    less = Budget(energy_j=1.9 * 8.0 * 115)  # of the rounds that are left; three groups take 2.2 times 8 J
    made = decide(situation(policy="mas-verified", training=training, stage="trial", groups=3, budget=less))
    assert (made.trial, made.groups) == (None, WHOLE)
    assert made.why == "no partition into 3 groups that keeps to all limits could be tried: not split"
