"""Who can train what, who does, what that costs, and when it is too much."""

from __future__ import annotations

import numpy as np
import pytest
from deciding import FLEET, PARAMETERS, TASKS, declined, facts, rounds
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.budget import _surely
from mas_edge.orchestrator.capacity import capacity
from mas_edge.orchestrator.cost_model import Estimate
from mas_edge.orchestrator.dealing import SLOWEST, Limits, deal
from mas_edge.orchestrator.observed import Observed, Refused
from mas_edge.wire.messages import Shortage


def can(seen=(), refused=(), known=()):
    observed = Observed(trainings=tuple(seen), refused=tuple(refused))
    return capacity(TASKS, FLEET, "watch", PARAMETERS, known, observed)


# --- who can ---------------------------------------------------------------------------------------


def test_of_devices_that_said_nothing_everything_is_expected():
    assert can().trainers(TASKS) == FLEET


def test_a_refusal_tells_by_its_numbers_which_groups_fit_the_device():
    found = can(refused=[declined("d1", 310)])
    assert found.trainers(("a", "b")) == FLEET  # 260 + 20 + 20 MB
    assert found.trainers(("b", "c")) == FLEET[1:]  # 260 + 20 + 40 MB
    assert found.why_not(("b", "c"), "d1") == "needs 320 MB, may have 310 MB"


def test_what_one_device_says_of_a_groups_needs_counts_against_smaller_ones_with_a_margin():
    for memory_mb, able in ((295, FLEET[1:]), (310, FLEET[1:]), (320, FLEET[1:])):
        found = can(refused=[declined("d1", 310)], known=facts(memory_mb=memory_mb))
        wanted = able if memory_mb * 1.1 >= 340 else ()
        assert found.trainers(TASKS) == wanted, memory_mb
    found = can(refused=[declined("d1", 310)], known=facts(memory_mb=295))
    assert found.why_not(TASKS, "d2") == "needs 340 MB as other devices say, has 295 MB"


def test_a_group_that_was_trained_fits_and_so_do_its_parts_whatever_others_say():
    known = facts(memory_mb=250)
    found = can(seen=rounds({"d2": 1.0}), refused=[declined("d1", 310)], known=known)
    assert found.trainers(TASKS) == ("d2",)
    assert found.trainers(("a",)) == ("d1", "d2")  # by its own numbers, and as a part of what it trained


def test_a_group_that_was_trained_and_then_declined_fits_no_more():
    found = can(seen=rounds({"d1": 1.0}), refused=[declined("d1", 310)])
    assert found.trainers(TASKS) == FLEET[1:]


def test_before_anything_is_said_only_weights_that_are_more_than_the_memory_count():
    assert can(known=facts(memory_mb=13)).trainers(TASKS) == FLEET  # a million parameters take 12 MB
    assert can(known=facts(memory_mb=11)).trainers(TASKS) == ()


def test_devices_without_any_label_of_a_group_do_not_train_it():
    found = can(known=facts({"d4": ("a",), "d3": ()}))
    assert found.trainers(TASKS) == ("d1", "d2", "d4")
    assert found.trainers(("b", "c")) == ("d1", "d2")
    assert found.why_not(("b",), "d4") == "has no labels for b"
    assert found.why_not(("b",), "d3") == "has no data of watch"


def test_a_group_is_covered_if_somebody_who_can_train_it_has_labels_for_each_task():
    split = {"d1": ("a",), "d2": ("b",), "d3": ("a",), "d4": ("a",)}
    found = can(known=facts(split))
    assert found.covered(("a", "b"))
    assert not found.covered(("a", "c"))


# --- who does --------------------------------------------------------------------------------------

seconds = st.integers(1, 5).flatmap(
    lambda groups: st.lists(
        st.lists(st.floats(0.1, 50.0), min_size=4, max_size=4), min_size=groups, max_size=groups
    )
)


@given(seconds, st.floats(0.5, 100.0), st.integers(1, 3))
def test_no_device_has_more_than_a_limit_leaves_and_none_could_have_another_group(costs, round_s, enough):
    each = np.array(costs)
    able = np.ones(each.shape, bool)
    dealt = deal(able, each, None, Limits(rounds=10, round_s=round_s, enough=enough))
    loads = (each * dealt.chosen).sum(axis=0)
    assert (loads <= round_s).all()
    for g, device in zip(*np.nonzero(~dealt.chosen), strict=True):
        assert loads[device] + each[g, device] > round_s
        assert (int(g), int(device)) in dealt.why


@given(seconds)
def test_without_a_limit_every_device_trains_and_every_group_is_trained(costs):
    each = np.array(costs)
    able = np.ones(each.shape, bool)
    dealt = deal(able, each, None, Limits(rounds=10))
    assert dealt.chosen.any(axis=0).all()
    assert dealt.chosen.any(axis=1).all()
    quick = each.sum(axis=0) <= SLOWEST * np.median(each.sum(axis=0))
    assert dealt.chosen[:, quick].all()


def test_small_boards_get_small_groups():
    large_and_small = np.array([[4.0, 4.0, 4.0, 16.0], [1.0, 1.0, 1.0, 4.0]])
    dealt = deal(np.ones((2, 4), bool), large_and_small, None, Limits(rounds=10))
    assert dealt.chosen.tolist() == [[True, True, True, False], [True, True, True, True]]
    assert dealt.why[0, 3].words() == "may take 20.0 s a round, 2 times the median is 10.0 s"


def test_a_group_takes_slow_devices_back_before_it_has_too_few():
    large_and_small = np.array([[4.0, 4.0, 4.0, 16.0], [1.0, 1.0, 1.0, 4.0]])
    dealt = deal(np.ones((2, 4), bool), large_and_small, None, Limits(rounds=10, enough=4))
    assert dealt.chosen.all()


def test_a_day_leaves_so_many_joules_a_round_as_rounds_fit_into_it():
    able, each_j = np.ones((1, 4), bool), np.full((1, 4), 3.0)
    quota = Limits(rounds=10, device_day_j=25.0)
    assert not deal(able, None, each_j, quota).chosen.any()  # all ten rounds may be today's: 2.5 J each
    slow = np.full((1, 4), 20_000.0)  # four rounds a day
    assert deal(able, slow, each_j, quota).chosen.all()


def test_what_a_device_has_used_of_its_day_is_gone():
    able, each_j = np.ones((1, 4), bool), np.full((1, 4), 3.0)
    used = Limits(rounds=10, device_day_j=40.0, used_j=(0.0, 9.0, 11.0, 50.0))
    dealt = deal(able, None, each_j, used)
    assert dealt.chosen.tolist() == [[True, True, False, False]]
    assert dealt.why[0, 3].words() == "would use 3.00 J a round, its day leaves 0 J"


@pytest.mark.parametrize(("time_s", "longest_s"), [(None, 9.0), (100.0, 9.0), (50.0, 4.0)])
def test_a_round_may_take_what_deadline_and_budget_leave(time_s, longest_s):
    limits = Limits(rounds=10, round_s=9.0, time_s=time_s, waiting_s=1.0)
    assert limits.longest_s == longest_s


@pytest.mark.parametrize(("left", "surely"), [(7.9, True), (8.1, False), (11.0, False), (None, False)])
def test_a_limit_is_surely_broken_only_if_it_is_by_a_cost_that_comes_out_lower_too(left, surely):
    assert _surely(Estimate(value=10.0, u=2.0, how="fitted"), left) is surely


def test_who_declined_a_group_without_numbers_is_asked_for_less_and_never_for_as_much():
    declined_it = Refused(group=("a", "b"), device="d1", shortage=Shortage(micro_batch=1))
    found = can(refused=(declined_it,))
    asked = {group: "d1" in found.trainers(group) for group in (TASKS, ("a", "b"), ("a", "c"), ("b",))}
    assert asked == {TASKS: False, ("a", "b"): False, ("a", "c"): True, ("b",): True}
