"""Losses over rounds, and what more of them are foretold to bring."""

from __future__ import annotations

import math

import pytest
from deciding import TASKS, curve
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.learning_curve import Evaluated, foretold, last_losses, totals


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
