"""Groups that may overlap: as good as looking at every choice of groups, and no group for nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator.overlap import by_pairs, covers
from mas_edge.orchestrator.partitions import members
from mas_edge.orchestrator.split import task_scores


def matrices(n: int):
    entries = st.lists(st.integers(-20, 20), min_size=n * n, max_size=n * n)
    return entries.map(lambda values: np.array(values, float).reshape(n, n))


def looked_at_all(score, possible, most: int) -> float:
    """The best total of any choice of at most so many groups, each task served by its best one."""
    n = score.shape[1]
    value = np.where(members(n) & possible[:, None], score, -np.inf)
    best = -np.inf
    for number in range(1, most + 1):
        for groups in combinations(range(1, 1 << n), number):
            best = max(best, float(value[list(groups)].max(axis=0).sum()))
    return best


@given(matrices(4), st.sets(st.integers(1, 14)))
@settings(deadline=None, max_examples=25)
def test_no_choice_of_so_many_groups_does_more_for_all_tasks(mean, forbidden):
    score, possible = task_scores(mean), np.ones(16, bool)
    possible[sorted(forbidden)] = False
    found = covers(score, possible)
    for most in (1, 2, 3):
        totals = [cover.total for cover in found if len(cover.groups) <= most]
        expected = looked_at_all(score, possible, most)
        assert max(totals, default=-np.inf) == pytest.approx(expected)


def test_neither_does_one_of_six_tasks():
    mean = np.random.default_rng(3).normal(size=(6, 6))
    score, possible = task_scores(mean), np.ones(64, bool)
    found = covers(score, possible)
    for most in (1, 2, 3):
        total = next(c.total for c in reversed(found) if len(c.groups) <= most)
        assert total == pytest.approx(looked_at_all(score, possible, most))


@given(matrices(5))
@settings(deadline=None, max_examples=40)
def test_every_task_is_served_once_by_a_possible_group_that_has_it_and_groups_differ(mean):
    possible = np.ones(32, bool)
    possible[[3, 21, 31]] = False
    for most, cover in enumerate(covers(task_scores(mean), possible), start=1):
        assert sum(cover.serves) == 31
        assert all(group & served == served and served for group, served in zip(*parts(cover), strict=True))
        assert len(set(cover.groups)) == len(cover.groups) <= most + 1
        assert possible[list(cover.groups)].all()


def parts(cover):
    return cover.groups, cover.serves


@given(matrices(5))
@settings(deadline=None, max_examples=40)
def test_more_groups_never_do_less(mean):
    totals = [cover.total for cover in covers(task_scores(mean), np.ones(32, bool))]
    assert totals == sorted(totals)


def test_a_task_that_helps_another_group_is_trained_there_and_served_elsewhere():
    a_helps_b_and_c_helps_a = np.array([[0, 9, 0], [-5, 0, 0], [4, 0, 0]], float)
    cover = covers(task_scores(a_helps_b_and_c_helps_a), np.ones(8, bool))[1]
    assert dict(zip(*parts(cover), strict=True)) == {0b011: 0b010, 0b101: 0b101}


def test_where_no_group_with_a_task_is_possible_there_is_nothing():
    possible = ~members(3)[:, 1]
    assert covers(task_scores(np.ones((3, 3))), possible) == []


def test_without_help_or_harm_no_group_is_larger_than_what_it_serves():
    for cover in covers(task_scores(np.zeros((4, 4))), np.ones(16, bool)):
        assert cover.groups == cover.serves


# --- what pairs foretell ----------------------------------------------------------------------------

PAIRS = {
    frozenset({0}): {0: 2.0},
    frozenset({1}): {1: 1.0},
    frozenset({2}): {2: 10.0},
    frozenset({0, 1}): {0: 1.0, 1: 1.2},
    frozenset({0, 2}): {0: 3.0, 2: 9.0},
    frozenset({1, 2}): {1: 0.8, 2: 7.0},
}


def test_a_group_is_foretold_by_the_mean_of_its_tasks_pairs_over_their_single_losses():
    score = by_pairs(PAIRS, 3)
    assert score[0b111] == pytest.approx([-(0.5 + 1.5) / 2, -(1.2 + 0.8) / 2, -(0.9 + 0.7) / 2])
    assert score[0b011, :2] == pytest.approx([-0.5, -1.2])
    assert [score[1 << j, j] for j in range(3)] == [-1.0] * 3


def test_units_of_a_loss_do_not_count():
    scaled = {pair: {j: loss * (1, 100, 0.01)[j] for j, loss in of.items()} for pair, of in PAIRS.items()}
    assert by_pairs(scaled, 3) == pytest.approx(by_pairs(PAIRS, 3))


def test_a_group_with_a_pair_that_was_not_trained_cannot_be_chosen_and_others_can():
    score = by_pairs({pair: of for pair, of in PAIRS.items() if pair != frozenset({0, 1})}, 3)
    assert np.isinf(score[0b011, :2]).all()
    assert np.isinf(score[0b111, :2]).all()
    assert covers(score, np.ones(8, bool))[-1].total == pytest.approx(-1.0 - 0.8 - 0.7)


def test_without_the_losses_of_single_tasks_they_stay_alone():
    found = covers(by_pairs({frozenset({0, 1}): {0: 1.0, 1: 1.0}}, 2), np.ones(4, bool))
    assert found[-1].groups == (0b01, 0b10)
