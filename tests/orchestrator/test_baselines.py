"""TAG and HOA as decisions: every task served once, by groups that devices can train; what is new is said."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import msgspec
import pytest
from deciding import AB_APART_FROM_C, FLEET, TASKS, TRAINING, affinities, declined, situation
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator.learning_curve import Evaluated
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.spec import Budget, first_groups

PAIRS = [*((task,) for task in TASKS), *combinations(TASKS, 2)]
REPRODUCIBLE = msgspec.structs.replace(TRAINING, reproducible=True)

effects = st.fixed_dictionaries({pair: st.floats(-0.5, 0.5) for pair in combinations(TASKS, 2)})
pair_losses = st.lists(st.floats(0.1, 5), min_size=9, max_size=9)
numbers = st.one_of(st.just("auto"), st.integers(1, 3))


def evaluated(losses) -> tuple[Evaluated, ...]:
    places = [(group, task) for group in PAIRS for task in group]
    return tuple(
        Evaluated(group=group, round=15, task=task, loss=loss, count=9.0)
        for (group, task), loss in zip(places, losses, strict=True)
    )


def made(policy, **changes):
    return decide(situation(policy=policy, merge_rounds=0, **changes))


def check_served(decision, most) -> None:
    serves = decision.serves or decision.groups
    assert sorted(chain(*serves)) == sorted(TASKS)
    assert all(set(served) <= set(group) for served, group in zip(serves, decision.groups, strict=True))
    assert len(set(decision.groups)) == len(decision.groups) <= most


@given(effects, numbers)
@settings(deadline=None, max_examples=40)
def test_tag_serves_every_task_once_by_at_most_so_many_groups(helps, groups):
    decision = made("tag", affinity=affinities(helps), groups=groups)
    check_served(decision, 3 if groups == "auto" else groups)
    assert decision.rounds == TRAINING.rounds


@given(pair_losses, numbers)
@settings(deadline=None, max_examples=40)
def test_hoa_serves_every_task_once_and_says_what_is_left_to_train(losses, groups):
    decision = made("hoa", evaluated=evaluated(losses), groups=groups)
    check_served(decision, 3 if groups == "auto" else groups)
    assert (decision.rounds == 0) == (TASKS not in decision.groups)
    assert (decision.energy_j is None) == (TASKS not in decision.groups)


@given(pair_losses)
@settings(deadline=None, max_examples=40)
def test_hoa_without_a_number_gives_each_task_its_best_pair_or_itself(losses):
    known = {(each.group, each.task): each.loss for each in evaluated(losses)}
    best = sum(
        max(-known[group, task] / known[(task,), task] for group in PAIRS if task in group) for task in TASKS
    )
    assert made("hoa", evaluated=evaluated(losses)).score == pytest.approx(best / 3)


def test_hoa_begins_with_all_single_tasks_and_all_pairs():
    decision = decide(situation(policy="hoa", merge_rounds=0, stage="start"))
    assert decision.groups == first_groups(situation(policy="hoa").spec) == tuple(PAIRS)


def test_tag_without_affinities_keeps_all_tasks_together_and_says_why():
    bare = replace(situation(policy="tag", merge_rounds=0), affinities=())
    assert decide(bare).groups == (TASKS,)
    assert decide(bare).why == "affinity has no say: no affinities were measured"


@pytest.mark.parametrize(("policy", "groups"), [("tag", 1), ("hoa", 16)])
def test_of_more_tasks_than_the_exact_search_takes_nothing_is_chosen(policy, groups):
    tasks = tuple("abcdefghijklmnop")
    decision = made(policy, tasks=tasks, affinity=affinities({}, tasks), seen=(), known=())
    assert "the exact search takes 1 to 15" in decision.why
    assert len(decision.groups) == groups


def test_tag_takes_the_fewest_groups_where_the_error_is_unknown():
    once = msgspec.structs.replace(AB_APART_FROM_C, batches=(1,) * 9, ww=(1e4,) * 9)
    assert made("tag", affinity=once).groups == (TASKS,)
    assert len(made("tag").groups) > 1


@pytest.mark.parametrize("policy", ["tag", "hoa"])
def test_no_group_is_chosen_that_too_few_devices_can_train(policy):
    refused = [declined(device, 305) for device in FLEET]
    decision = made(policy, refused=refused, seen=(), groups=1, evaluated=evaluated([1.0] * 9))
    assert TASKS not in decision.groups
    assert ("b", "c") not in decision.groups


@pytest.mark.parametrize("known", [(), evaluated([1.0] * 9)[3:]], ids=["nothing", "no single task"])
def test_hoa_without_losses_leaves_every_task_alone(known):
    decision = made("hoa", evaluated=known)
    assert decision.groups == (("a",), ("b",), ("c",))
    assert decision.why == "too few losses are known: every task stays alone"


def test_a_task_whose_own_loss_says_nothing_stays_alone_and_hoa_groups_the_others():
    losses = [0.5] * 9
    losses[0] = 0.0  # a alone
    assert made("hoa", evaluated=evaluated(losses)).groups == (("a",), ("b", "c"))


def test_a_pair_that_never_was_evaluated_is_not_chosen():
    best_pair_missing = [each for each in evaluated([1.0] * 9) if each.group != ("a", "b")]
    decision = made("hoa", evaluated=best_pair_missing, groups=1)
    assert not any({"a", "b"} <= set(group) for group in decision.groups)


def test_what_is_trained_already_counts_against_no_budget():
    spent = {"budget": Budget(energy_j=100.0), "spent_j": 99.0}
    assert made("hoa", evaluated=evaluated([1.0] * 9), **spent).notes == ()
    whole = made("hoa", evaluated=evaluated([1.0] * 3 + [2.0, 0.1] * 3), groups=1, **spent)
    assert whole.groups == (TASKS,)
    assert whole.notes == ("would take 120 ±13 J, 1.00 J are left",)


def test_nothing_that_a_clock_says_moves_a_reproducible_job():
    plain = made("tag", training=REPRODUCIBLE)
    assert made("tag", training=REPRODUCIBLE, spent_s=1e6, known=()) == plain
