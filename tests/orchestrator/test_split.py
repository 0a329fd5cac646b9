"""The choice of task groups: against the published formula and against trying all partitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mas_edge.orchestrator.affinity import Affinity
from mas_edge.orchestrator.split import MAX_TASKS, Rules, SplitImpossible, auto, best, lead

LETTERS = "abcdefghijklmnop"
effects = st.integers(-8, 8).map(lambda eighths: eighths / 8)  # exact in binary, and ties are frequent


def affinity(mean, se=0.0):
    mean = np.array(mean, float)
    return Affinity(tuple(LETTERS[: len(mean)]), mean, np.full(mean.shape, se), np.ones(mean.shape, int))


@st.composite
def affinities(draw, least=1, most=7, entries=effects):
    n = draw(st.integers(least, most))
    row = st.lists(entries, min_size=n, max_size=n)
    return affinity(draw(st.lists(row, min_size=n, max_size=n)), se=0.25)


def published(measured, groups):
    """The score as it is written down: the mean over tasks j of the mean effect on j of j's group."""
    at, a, n = measured.tasks.index, measured.mean, len(measured.tasks)
    total = 0.0
    for group in groups:
        for j in map(at, group):
            others = [i for i in map(at, group) if i != j]
            if others:
                total += sum(a[i, j] for i in others) / len(others)
            elif n > 1:
                total += sum(a[i, j] + a[j, i] for i in range(n) if i != j) / (2 * (n - 1))
    return total / n


def all_partitions(tasks):
    """Every way to cut the tasks into groups, groups and tasks in order."""
    if not tasks:
        yield ()
        return
    for rest in all_partitions(tasks[1:]):
        yield ((tasks[0],), *rest)
        for i, group in enumerate(rest):
            yield ((tasks[0], *group), *rest[:i], *rest[i + 1 :])


def brute(measured, x, keeps=lambda _: True, price=lambda _: 0.0):
    """The scores of all partitions into x groups that keep to a rule, greatest first."""
    found = [p for p in all_partitions(measured.tasks) if len(p) == x and all(map(keeps, p))]
    return sorted((published(measured, p) - sum(map(price, p)) for p in found), reverse=True)


# --- the score ------------------------------------------------------------------------------------


def test_three_tasks_by_hand():
    measured = affinity([[9, 0.6, -0.2], [0.4, 9, 0.0], [0.2, -0.4, 9]])
    (partition,) = best(measured, 2)
    # a|b: on a 0.4, on b 0.6; c alone: (0.2 - 0.4 - 0.2 + 0.0) / 4
    assert partition.groups == (("a", "b"), ("c",))
    assert partition.score == pytest.approx((0.4 + 0.6 - 0.1) / 3)


@given(effects, effects)
def test_two_tasks_score_the_same_together_and_apart(on_b, on_a):
    measured = affinity([[0, on_b], [on_a, 0]])
    assert best(measured, 1)[0].score == pytest.approx(best(measured, 2)[0].score)
    assert auto(measured).partition.groups == (("a", "b"),)


@given(affinities(least=2))
def test_a_partition_carries_its_published_score(measured):
    for found in auto(measured).considered:
        assert found.score == pytest.approx(published(measured, found.groups))


def test_harm_keeps_tasks_apart():
    mean = np.full((4, 4), 0.1)
    mean[0, 1] = mean[1, 0] = -0.9
    (partition,) = best(affinity(mean), 2)
    assert not any({"a", "b"} <= set(group) for group in partition.groups)


def test_what_was_not_measured_counts_as_no_effect_and_leaves_the_error_unknown():
    holes, zeros = affinity([[0, np.nan, 0.5]] * 3, se=0.1), affinity([[0, 0, 0.5]] * 3, se=0.1)
    holes.se[np.isnan(holes.mean)] = np.nan
    assert holes.missing == (("a", "b"), ("c", "b"))
    found, expected = best(holes, 1)[0], best(zeros, 1)[0]
    assert (found.groups, found.score) == (expected.groups, expected.score)
    assert (found.se, expected.se is None) == (None, False)


# --- the search against all partitions ------------------------------------------------------------


@given(affinities())
def test_the_best_is_the_best_of_all_partitions(measured):
    for x in range(1, len(measured.tasks) + 1):
        (partition,) = best(measured, x)
        assert partition.score == pytest.approx(brute(measured, x)[0])


@given(affinities(entries=st.floats(-1, 1)), st.data())
def test_exactly_as_many_groups_as_asked(measured, data):
    x = data.draw(st.integers(1, len(measured.tasks)))
    (partition,) = best(measured, x)
    assert len(partition.groups) == x
    assert sorted(task for group in partition.groups for task in group) == list(measured.tasks)
    firsts = [group[0] for group in partition.groups]
    assert firsts == sorted(firsts)
    assert all(list(group) == sorted(group) for group in partition.groups)


@given(affinities(most=6), st.data())
def test_the_k_best_are_the_k_best_of_all_partitions(measured, data):
    x, k = data.draw(st.integers(1, len(measured.tasks))), data.draw(st.integers(1, 12))
    found = best(measured, x, k=k)
    assert len({partition.groups for partition in found}) == len(found)
    assert [p.score for p in found] == pytest.approx(brute(measured, x)[:k])


@st.composite
def ruled(draw):
    measured = draw(affinities(least=2))
    pairs = st.lists(
        st.tuples(*[st.sampled_from(measured.tasks)] * 2).filter(lambda p: p[0] != p[1]), max_size=2
    )
    size = draw(st.none() | st.integers(1, len(measured.tasks)))
    weight = {task: draw(st.integers(0, 4)) for task in measured.tasks}
    cap = draw(st.none() | st.integers(1, 12))
    fits = None if cap is None else (lambda group: sum(weight[t] for t in group) <= cap)
    price = draw(st.sampled_from([None, lambda group: sum(weight[t] for t in group) ** 2 / 64]))
    return measured, Rules(tuple(draw(pairs)), tuple(draw(pairs)), size, fits, price)


def keeper(rules):
    return lambda group: (
        all((a in group) == (b in group) for a, b in rules.must_link)
        and not any(a in group and b in group for a, b in rules.cannot_link)
        and (rules.max_size is None or len(group) <= rules.max_size)
        and (rules.fits is None or rules.fits(group))
    )


@given(ruled())
def test_under_rules_the_best_is_the_best_that_keeps_them(case):
    measured, rules = case
    for x in range(1, len(measured.tasks) + 1):
        expected = brute(measured, x, keeper(rules), rules.price or (lambda _: 0.0))[:3]
        if expected:
            assert [p.score for p in best(measured, x, rules=rules, k=3)] == pytest.approx(expected)
        else:
            with pytest.raises(SplitImpossible):
                best(measured, x, rules=rules)


# --- invariances ----------------------------------------------------------------------------------


@given(affinities(least=2, entries=st.floats(-1, 1)), st.data())
def test_the_order_of_tasks_does_not_change_the_best_score(measured, data):
    order = data.draw(st.permutations(range(len(measured.tasks))))
    turned = affinity(measured.mean[np.ix_(order, order)])
    for x in range(1, len(order) + 1):
        assert best(turned, x)[0].score == pytest.approx(best(measured, x)[0].score)


@given(affinities(least=2), st.integers(-4, 4), st.sampled_from([0.5, 2.0, 4.0]))
def test_a_shift_or_scale_of_all_effects_moves_scores_and_no_task(measured, shift, scale):
    moved = affinity(measured.mean * scale + shift)
    for x in range(1, len(measured.tasks) + 1):
        before, after = best(measured, x)[0], best(moved, x)[0]
        assert after.score == pytest.approx(before.score * scale + shift)


def test_equal_scores_give_the_same_groups_each_time():
    measured = affinity(np.zeros((5, 5)))
    assert best(measured, 2, k=3) == best(measured, 2, k=3)
    assert best(measured, 2)[0].groups == (("a",), ("b", "c", "d", "e"))


# --- standard errors and the number of groups -----------------------------------------------------


@given(affinities(least=2, most=5), st.data())
def test_the_error_of_a_lead_adds_up_what_each_entry_does_to_it(measured, data):
    found = best(measured, data.draw(st.integers(1, len(measured.tasks))), k=2)
    other = best(measured, data.draw(st.integers(1, len(measured.tasks))))[0]
    gain, se = lead(measured, found[-1], other)
    squares = 0.0
    for at in np.ndindex(measured.mean.shape):
        moved = affinity(measured.mean)
        moved.mean[at] += measured.se[at]
        there = published(moved, found[-1].groups) - published(moved, other.groups)
        squares += (there - gain) ** 2
    assert se == pytest.approx(math.sqrt(squares), abs=1e-9)


def two_camps(gap):
    """a, b help each other, so do c, d; each camp harms the other."""
    same = np.kron(np.eye(2), np.ones((2, 2)))
    return gap * (2 * same - 1)


def test_auto_finds_two_camps_and_no_more():
    choice = auto(affinity(two_camps(0.3), se=0.05))
    assert choice.partition.groups == (("a", "b"), ("c", "d"))
    assert [len(p.groups) for p in choice.considered] == [1, 2, 3, 4]
    assert choice.lead > choice.lead_se > 0


def test_auto_does_not_split_on_noise():
    choice = auto(affinity(two_camps(0.3), se=1.0))
    assert choice.partition.groups == (("a", "b", "c", "d"),)
    assert choice.runner_up.groups == (("a", "b"), ("c", "d"))
    assert choice.lead < 0 < -choice.lead < choice.lead_se


def test_auto_does_not_split_where_the_error_is_unknown():
    assert len(auto(affinity(two_camps(0.3), se=np.nan)).partition.groups) == 1


def test_auto_starts_from_the_fewest_groups_that_the_rules_allow():
    choice = auto(affinity(np.zeros((5, 5)), se=1.0), rules=Rules(max_size=2))
    assert len(choice.partition.groups) == 3


@given(affinities(least=2))
def test_auto_takes_the_fewest_groups_within_one_standard_error_of_the_best(measured):
    choice = auto(measured)
    top = max(choice.considered, key=lambda p: p.score)
    least = -np.inf if top.se is None else top.score - top.se
    assert choice.partition == next(p for p in choice.considered if p.score >= least)


def test_a_single_task_is_one_group():
    choice = auto(affinity([[0.5]]))
    assert (choice.partition.groups, choice.partition.score) == ((("a",),), 0.0)
    assert (choice.runner_up, choice.lead, choice.lead_se) == (None, None, None)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "rules", "words"),
    [
        (5, Rules(), "4 tasks cannot be split into 5 groups"),
        (0, Rules(), "ask for 1 to 4"),
        (1, Rules(max_size=2), "possible: 2, 3, 4"),
        (2, Rules((("a", "b"),), (("b", "a"),)), "no group that task 'a' could be in"),
        (2, Rules(fits=lambda group: "c" not in group), "no group that task 'c' could be in"),
        (2, Rules(cannot_link=(("a", "x"),)), "names task 'x'; there are a, b, c, d"),
        (2, Rules(price=lambda _: math.nan), "the price of a is nan"),
    ],
)
def test_what_is_impossible_is_said_to_be_so_and_why(x, rules, words):
    with pytest.raises(SplitImpossible, match=words):
        best(affinity(np.zeros((4, 4))), x, rules=rules)


def test_too_many_tasks_are_refused_by_number():
    with pytest.raises(SplitImpossible, match=f"16 tasks: the exact search takes 1 to {MAX_TASKS}"):
        best(affinity(np.zeros((16, 16))), 2)


@given(affinities(least=3, most=5))
def test_an_infinite_price_forbids_a_group(measured):
    assume(len(best(measured, 2)) == 1)
    pair = best(measured, 2)[0].groups[0]
    rules = Rules(price=lambda group: math.inf if group == pair else 0.0)
    assert pair not in best(measured, 2, rules=rules)[0].groups
