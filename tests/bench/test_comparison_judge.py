"""Loss at equal energy, and the energy that reaches a loss: on lengths for which the answers are known."""

from __future__ import annotations

import math

import pytest
from comparison import judge
from comparison.judge import Outcome
from hypothesis import given
from hypothesis import strategies as st

HALVED = [(1.0, 4.0), (2.0, 3.0), (4.0, 2.0)]
"""A loss that falls by one whenever energy doubles."""

falling = st.lists(st.tuples(st.floats(1.05, 3.0), st.floats(0.01, 2.0)), min_size=2, max_size=6).map(
    lambda steps: list(_falling(steps))
)


def _falling(steps):
    """Lengths of growing energy and falling loss."""
    energy, loss = 1.0, 20.0
    for factor, gain in steps:
        yield energy, loss
        energy, loss = energy * factor, loss - gain


def ended(energy, loss):
    return Outcome(
        energy=energy,
        loss=loss,
        relative=loss / 10,
        unseen=2 * loss,
        unseen_relative=loss / 5,
        by_task={"a": loss},
        groups=("a",),
    )


ARMS = {
    "all-in-one": {1: ended(1, 4.0), 2: ended(1, 5.0)},
    "all-in-one x2": {1: ended(2, 3.0), 2: ended(2, 4.0)},
    "all-in-one x4": {1: ended(4, 2.0), 2: ended(4, 3.0)},
    "mas 2": {1: ended(math.sqrt(2), 3.0)},
    "one-by-one": {1: ended(4, 3.5), 2: ended(5, 2.0)},
}
WHOLE = ["all-in-one", "all-in-one x2", "all-in-one x4"]


@given(falling)
def test_a_length_that_was_trained_has_its_own_loss(lengths):
    for energy, loss in lengths:
        assert judge.loss_at(reversed(lengths), energy) == pytest.approx(loss)


@given(falling, st.floats(0.0, 1.0))
def test_the_energy_that_reaches_a_loss_has_this_loss(lengths, share):
    loss = lengths[0][1] + share * (lengths[-1][1] - lengths[0][1])
    energy = judge.energy_to(lengths, loss)
    assert lengths[0][0] <= energy <= lengths[-1][0] * (1 + 1e-9)
    assert judge.loss_at(lengths, energy) == pytest.approx(loss)


@given(falling, st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_more_energy_never_brings_more_loss_where_the_lengths_say_so(lengths, one, other):
    less, more = (judge.loss_at(lengths, energy) for energy in sorted((one, other)))
    assert less is None or more is None or more <= less + 1e-9


def test_between_two_lengths_loss_is_linear_in_the_logarithm_of_energy():
    assert judge.loss_at(HALVED, math.sqrt(2)) == pytest.approx(3.5)
    assert judge.energy_to(HALVED, 2.5) == pytest.approx(2 * math.sqrt(2))


@pytest.mark.parametrize("energy", [0.9, 4.5])
def test_nothing_is_said_outside_of_the_lengths_that_were_trained(energy):
    assert judge.loss_at(HALVED, energy) is None


def test_whole_rounds_may_miss_an_energy_by_a_little():
    assert judge.loss_at(HALVED, 4.1) == 2.0
    assert judge.loss_at(HALVED, 0.98) == 4.0


def test_a_loss_that_no_length_reaches_has_no_energy():
    assert judge.energy_to(HALVED, 1.9) is None
    assert judge.energy_to([], 1.0) is None


def test_a_loss_that_the_shortest_length_reaches_takes_that_one_at_most():
    assert judge.energy_to(HALVED, 5.0) == 1.0


def test_a_loss_that_rises_again_is_reached_the_first_time():
    assert judge.energy_to([(1, 4.0), (2, 2.0), (4, 3.0), (8, 1.0)], 2.0) == 2.0


def test_each_seed_is_compared_with_itself():
    assert judge.ahead(ARMS, "mas 2", "all-in-one") == pytest.approx([-25.0])
    assert judge.ahead(ARMS, "one-by-one", "all-in-one") == pytest.approx([-12.5, -60.0])


def test_at_equal_energy_the_rival_has_trained_for_longer():
    assert judge.ahead_at_equal_energy(ARMS, "mas 2", WHOLE) == pytest.approx([100 * (3 / 3.5 - 1)])
    assert judge.ahead_at_equal_energy(ARMS, "one-by-one", WHOLE) == pytest.approx([75.0])


def test_the_share_that_reaches_an_arms_loss_is_of_its_own_energy():
    shares = judge.share_to_reach(ARMS, "one-by-one", ["one-by-one"], WHOLE)
    assert shares == pytest.approx([math.sqrt(2) / 4])


def test_what_a_shorter_training_reaches_as_well_counts_as_what_the_arm_needs():
    shorter = {**ARMS, "one-by-one x0.5": {1: ended(2, 3.5), 2: ended(2.5, 2.1)}}
    shares = judge.share_to_reach(shorter, "one-by-one", ["one-by-one x0.5", "one-by-one"], WHOLE)
    assert shares == pytest.approx([math.sqrt(2) / 2])


def test_who_ends_worse_for_more_energy_need_not_spend_it():
    assert judge.loss_at([(1, 4.0), (2, 2.0), (4, 3.0)], 3.5) == 2.0
    assert judge.loss_at([(1, 4.0), (2, 2.0), (4, 3.0), (8, 1.0)], 8.0) == 1.0


def test_an_arm_that_nobody_trained_is_compared_with_nothing():
    assert judge.ahead(ARMS, "tag 2", "all-in-one") == []
    assert judge.ahead(ARMS, "all-in-one", "tag 2") == []
    assert judge.spread([]) == "–"


def test_a_deviation_is_shown_where_there_are_several_seeds():
    assert judge.spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"
    assert judge.spread([-1.0, -3.0], "+.1f") == "-2.0 ± 1.4"
    assert judge.spread([1.0], ".2f") == "1.00"


def test_it_is_said_of_how_many_seeds_a_figure_is():
    assert judge.spread([1.0, 3.0], ".1f", 3, " %") == "2.0 ± 1.4 % (2 of 3)"
    assert judge.spread([1.0, 3.0], ".1f", 2) == "2.0 ± 1.4"
