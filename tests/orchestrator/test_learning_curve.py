"""Losses over rounds: what more of them would bring, and how much of what is learnt carries over."""

from __future__ import annotations

import math

import pytest
from deciding import TASKS, curve
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.learning_curve import Evaluated, carried_over, foretold, last_losses, totals


@given(st.floats(0.01, 2), st.floats(0.1, 100), st.integers(3, 60), st.floats(1, 4))
def test_a_power_law_is_continued_as_it_is(power, scale, rounds, factor):
    falling = {n: scale * n**-power for n in range(1, rounds + 1)}
    assert foretold(falling, factor) == pytest.approx(1 - factor**-power)


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=20), st.floats(1, 5))
def test_what_is_foretold_is_a_share_and_more_rounds_never_do_harm(losses, factor):
    found = foretold(dict(enumerate(losses, start=1)), factor)
    assert 0 <= found < 1
    assert found <= foretold(dict(enumerate(losses, start=1)), factor + 1)


@pytest.mark.parametrize(
    "known",
    [{}, {1: 1.0, 2: 0.9}, {0: 2.0, 4: 1.0}, {3: 0.0, 4: 0.0}],
    ids=["nothing", "two rounds", "one of the later half", "no loss is left"],
)
def test_of_too_little_nothing_is_foretold(known):
    assert foretold(known, 2.0) is None


def test_the_first_rounds_have_no_say():
    assert foretold({1: 99.0, 2: 4.0, 3: 8 / 3, 4: 2.0}, 2.0) == pytest.approx(0.5)
    assert foretold({2: 4.0, 4: 2.0}, 2.0) == pytest.approx(0.5)


def test_a_loss_that_rises_foretells_nothing_from_more_rounds():
    assert foretold({2: 1.0, 3: 1.1, 4: 1.2}, 2.0) == 0.0


def test_a_total_needs_every_task():
    known = (*curve((2.0, 1.0)), Evaluated(group=TASKS, round=3, task="a", loss=0.1, count=1.0))
    assert totals(known, TASKS) == {1: 6.0, 2: 3.0}
    assert totals(known, TASKS, ["a"]) == {1: 2.0, 2: 1.0, 3: 0.1}
    assert totals(known, ("a", "b")) == {}


def test_a_loss_that_is_no_number_is_not_known():
    broken = (*curve((2.0,)), Evaluated(group=TASKS, round=2, task="a", loss=math.nan, count=1.0))
    assert last_losses(broken, TASKS) == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert totals(broken, TASKS, ["a"]) == {1: 2.0}


@given(st.lists(st.floats(0.5, 1), min_size=6, max_size=30), st.floats(-2, 2))
def test_a_held_out_loss_that_moves_with_the_one_trained_on_carries_over_by_that_share(steps, share):
    trained = {n: 100.0 - math.fsum(steps[:n]) for n in range(len(steps))}
    held_out = {n: 7.0 + share * loss for n, loss in trained.items()}
    found = carried_over(trained, held_out)
    assert found.share == pytest.approx(share, abs=1e-6)


def test_only_the_last_third_of_the_rounds_says_how_much_carries_over():
    trained = {n: 30.0 - n for n in range(30)}
    held_out = {n: 30.0 - min(n, 20) for n in range(30)}
    found = carried_over(trained, held_out)
    assert (found.share, found.se, found.memorising) == (0.0, 0.0, True)
    assert carried_over(trained, {n: 30.0 - n for n in range(30)}).share == pytest.approx(1.0)


def test_what_scatters_is_not_surely_memorised():
    trained = {n: 30.0 - n for n in range(12)}
    held_out = {n: 30.0 - 0.7 * n for n in range(12)}
    assert carried_over(trained, held_out).memorising
    noisy = {n: loss + 0.5 * (-1) ** n for n, loss in held_out.items()}
    assert not carried_over(trained, noisy).memorising


def test_a_share_that_scatters_too_much_to_be_known_is_no_sign_of_memorising():
    trained = {n: 30.0 - n for n in range(12)}
    risen = {n: 30.0 + n + 2.0 * (-1) ** n for n in range(12)}  # as if other clients were asked in each round
    found = carried_over(trained, risen)
    assert found.share + found.se < 0.0
    assert not found.memorising


def test_rounds_of_which_too_little_is_known_do_not_reach_back_to_the_first_ones():
    trained = {n: 30.0 - n for n in (1, 2, 3, 4, 5, 6, 7, 20, 29)}
    assert carried_over(trained, trained) is None


def test_one_loss_that_cannot_be_decides_nothing():
    trained = {n: 30.0 - n for n in range(24)}
    assert carried_over({**trained, 20: 1e4}, trained) is None
    assert carried_over({**trained, 20: 1e160}, trained) is None
    assert (
        carried_over(trained, {**trained, 20: 1e160}) is None
        or not carried_over(trained, {**trained, 20: 1e160}).memorising
    )


@pytest.mark.parametrize(
    ("trained", "held_out"),
    [
        ({}, {}),
        ({n: 9.0 - n for n in range(5)}, {n: 9.0 - n for n in range(5)}),
        (dict.fromkeys(range(9), 1.0), {n: 9.0 - n for n in range(9)}),
        ({n: 9.0 - n for n in range(9)}, dict.fromkeys(range(9, 18), 1.0)),
    ],
    ids=["nothing", "five rounds", "nothing was learnt", "no round of both"],
)
def test_of_too_little_nothing_is_said_to_carry_over(trained, held_out):
    assert carried_over(trained, held_out) is None
