"""The decision as a whole: it keeps to what it is given, and is as good as looking at everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import msgspec
import numpy as np
import pytest
from deciding import (
    AB_APART_FROM_C,
    FALLING,
    FLEET,
    PARAMETERS,
    SELFISH,
    TASKS,
    TRAINING,
    affinities,
    declined,
    facts,
    rounds,
    situation,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator import split
from mas_edge.orchestrator.affinity import pool
from mas_edge.orchestrator.gain import Gains
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.spec import Budget, Participation, SpecRefused, check
from mas_edge.orchestrator.terms import enough, settle

PARTITIONS = (
    (("a", "b", "c"),),
    (("a", "b"), ("c",)),
    (("a", "c"), ("b",)),
    (("a",), ("b", "c")),
    (("a",), ("b",), ("c",)),
)

effects = st.fixed_dictionaries({pair: st.floats(-0.5, 0.5) for pair in [("a", "b"), ("a", "c"), ("b", "c")]})
memories = st.dictionaries(st.sampled_from(FLEET), st.integers(255, 345))


@given(effects, st.one_of(st.none(), st.floats(20, 300)), st.one_of(st.none(), st.floats(5, 40)), memories)
@settings(deadline=None, max_examples=40)
def test_a_decision_holds_every_task_once_on_devices_that_can_and_keeps_to_the_budget(
    helps, energy_j, time_s, memory_mb
):
    refused = [declined(device, mb) for device, mb in memory_mb.items()]
    seen = rounds({device: 1.0 for device in FLEET if device not in memory_mb})
    made = decide(
        situation(
            affinity=affinities(helps),
            budget=Budget(energy_j=energy_j, time_s=time_s),
            refused=refused,
            seen=seen,
        )
    )
    if made.refused:
        assert "fits no device" in made.refused
        return
    assert sorted(chain(*made.groups)) == sorted(TASKS)
    assert len(made.costs) == len(made.groups)
    needs = {"a": 20, "b": 20, "c": 40}
    for group, devices in zip(made.groups, made.devices or (FLEET,) * len(made.groups), strict=True):
        assert all(260 + sum(needs[t] for t in group) <= memory_mb.get(device, 999) for device in devices)
    if "nothing keeps to the limits" not in made.why and not made.notes:
        assert made.energy_j is None or energy_j is None or made.energy_j.upper <= energy_j
        assert made.time_s is None or time_s is None or made.time_s.upper <= time_s


@given(effects, st.floats(20, 300), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_within_a_budget_no_partition_of_better_score_into_as_many_groups_is_passed_over(
    helps, energy_j, number
):
    """Three tasks have five partitions: each is asked for by itself, and all of them are compared."""
    affinity = affinities(helps)
    made = decide(situation(affinity=affinity, budget=Budget(energy_j=energy_j), groups=number))
    pooled = pool([affinity])
    within = []
    for groups in PARTITIONS:
        if len(groups) != number:
            continue
        given_so = situation(policy="fixed", partition=groups, budget=Budget(energy_j=energy_j))
        if not decide(given_so).notes:
            within.append(split.scored(pooled, groups))
    if not within:
        assert "nothing keeps to the limits" in made.why
        return
    top = max(within, key=lambda partition: partition.score)
    assert made.groups in [partition.groups for partition in within]
    assert made.score >= top.score - 1e-12


@given(effects, st.floats(0.0, 1.0), st.one_of(st.none(), st.floats(60, 300)))
@settings(deadline=None, max_examples=60)
def test_auto_splits_just_where_that_surely_makes_more_of_the_energy(helps, own, energy_j):
    """A split is expected to pay for itself; without one, none of those that were looked at surely would."""
    affinity = affinities(helps, own=own)
    made = decide(situation(affinity=affinity, budget=Budget(energy_j=energy_j)))
    if "nothing keeps to the limits" in made.why:
        return
    rates = Gains(pool([affinity]), np.ones(3), settle(situation()).energies())
    if len(made.groups) > 1:
        gap, se = rates.lead(made.groups, (TASKS,))
        assert gap > se
        return
    within = [each.groups for each in made.rejected if each.progress and "would take" not in each.why]
    best = max(within, key=lambda groups: rates.of(groups).rate, default=(TASKS,))
    gap, se = rates.lead(best, (TASKS,))
    split, whole = rates.of(best), rates.of((TASKS,))
    assert not gap > se or split.rate * split.energy <= whole.rate * whole.energy


def test_a_split_that_does_the_same_harm_for_more_energy_is_not_progress():
    harm = affinities({}, own=-0.5)
    rates = Gains(pool([harm]), np.ones(3), settle(situation()).energies())
    gap, se = rates.lead((("a",), ("b",), ("c",)), (TASKS,))
    assert gap > se
    assert decide(situation(affinity=harm)).groups == (TASKS,)
    cured = affinities({("b", "c"): -0.5}, own=0.0)
    assert len(decide(situation(affinity=cured)).groups) == 2


def test_auto_does_not_split_where_the_error_of_a_self_effect_is_unknown():
    once = msgspec.structs.replace(AB_APART_FROM_C, batches=(1,) * 9, ww=(1e4,) * 9)
    made = decide(situation(affinity=once))
    assert made.groups == (TASKS,)
    assert "of unknown error" in made.why


def test_where_a_split_was_cheaper_than_none_there_is_no_energy_for_more_rounds():
    cheap = dict.fromkeys(FLEET, 0.1)
    seen = (*rounds(), *rounds(cheap, group=("a", "b")), *rounds(cheap, group=("c",)))
    made = decide(situation(seen=seen, groups=2, evaluated=FALLING))
    assert made.progress.energy < 1.0
    assert made.more_rounds is None
    assert decide(situation(groups=2, evaluated=FALLING)).more_rounds is not None


def test_a_split_that_is_not_worth_its_energy_is_made_if_it_is_asked_for():
    assert decide(situation(affinity=SELFISH)).groups == (TASKS,)
    assert decide(situation(affinity=SELFISH, groups=2)).groups == (("a", "b"), ("c",))


def test_flops_count_before_parameters_where_nothing_was_measured():
    """An encoder that computes nearly everything makes any split cost twice as much."""
    training = msgspec.structs.replace(TRAINING, reproducible=True)
    heavy = {"encoder": 10_000_000, "decoder.a": 1, "decoder.b": 1, "decoder.c": 1}
    by_parameters = decide(situation(training=training, groups=2))
    by_flops = decide(replace(situation(training=training, groups=2), flops=heavy))
    assert by_parameters.progress.energy == pytest.approx(1.6)
    assert by_flops.progress.energy == pytest.approx(2.0, abs=0.01)
    assert by_flops.costs[0].traffic_bytes == by_parameters.costs[0].traffic_bytes


@given(st.permutations(FLEET), st.booleans())
@settings(deadline=None, max_examples=40)
def test_nothing_that_a_clock_or_a_sensor_says_moves_a_reproducible_job(order, online):
    training = msgspec.structs.replace(TRAINING, reproducible=True)
    plain = decide(situation(training=training))
    noisy = decide(
        situation(
            training=training,
            seen=rounds({device: 1.0 + n for n, device in enumerate(order)}),
            known=facts(memory_mb=11) if online else (),
            spent_s=1e6,
        )
    )
    assert noisy == plain


def test_a_device_that_declined_leaves_a_reproducible_job_too():
    training = msgspec.structs.replace(TRAINING, reproducible=True)
    made = decide(situation(training=training, refused=[declined("d1", 310)], groups=1))
    assert made.devices == (FLEET[1:],)


@pytest.mark.parametrize(
    ("participation", "least"),
    [({}, 2), ({"quorum": 1.0}, 4), ({"clients": 2}, 1), ({"clients": 9}, 2), ({"quorum": 0.01}, 1)],
)
def test_a_group_needs_a_rounds_quorum_of_devices(participation, least):
    assert enough(situation(participation=Participation(**participation)).spec) == least


def test_so_many_groups_as_were_asked_for_that_do_not_fit_are_as_many_as_do():
    refused = [declined(device, 285) for device in FLEET]
    alone = [declined(device, 305) for device in FLEET]
    assert decide(situation(refused=alone, seen=(), groups=1)).groups == (("a", "b"), ("c",))
    made = decide(situation(refused=refused, seen=(), groups=2))
    assert made.refused == "" or "c alone" in made.refused


def test_where_no_affinity_was_measured_all_tasks_stay_together_and_it_says_so():
    made = decide(replace(situation(), affinities=()))
    assert made.groups == (TASKS,)
    assert made.why == "affinity has no say: no affinities were measured"


def test_costs_of_a_job_that_trained_alike_tell_at_the_start_whether_it_can_be_done():
    made = decide(situation(stage="start", seen=rounds(), budget=Budget(time_s=5.0)))
    assert made.refused == "the budget cannot be met: a+b+c would take 15.0 ±1.6 s, 5.00 s are left"
    assert decide(situation(stage="start", seen=rounds(), budget=Budget(time_s=15.0))).refused == ""


def test_first_trainings_count_only_where_there_is_nothing_else():
    slow = tuple(msgspec.structs.replace(each, first=True, wall_s=9.0) for each in rounds(times=1))
    assert decide(situation(seen=(*slow, *rounds()), groups=1)).costs[0].wall_s.value == pytest.approx(
        1.0, 0.05
    )
    assert decide(situation(seen=slow, groups=1)).costs[0].wall_s.value == pytest.approx(9.0, 0.05)


@pytest.mark.parametrize(
    ("budget", "reproducible", "says"),
    [
        ({"energy_j": 0.0}, False, "budget energy_j must be more than 0, not 0"),
        ({"time_s": -1.0}, False, "budget time_s must be more than 0"),
        ({"device_energy_j_per_day": float("nan")}, False, "must be more than 0, not nan"),
        ({"time_s": 9.0}, True, "a reproducible job can have no budget"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_before_anything_starts(budget, reproducible, says):
    training = msgspec.structs.replace(TRAINING, reproducible=reproducible)
    asked = situation(training=training, budget=Budget(**budget)).spec
    with pytest.raises(SpecRefused, match=says):
        check(asked)


def test_traffic_is_what_the_groups_weights_are_down_and_up_for_each_device():
    made = decide(situation(groups=2, affinity=AB_APART_FROM_C))
    assert made.costs[0].traffic_bytes == 2 * 4 * 4 * (PARAMETERS["encoder"] + 200_000)


@pytest.mark.parametrize("policy", ["mas", "mas-verified"])
@pytest.mark.parametrize("groups", ["auto", 2])
def test_where_no_partition_has_a_device_for_each_group_the_tasks_are_parted_as_far_as_needed(policy, groups):
    """Each device has labels of one task, and d3 no memory for more than c."""
    fleet = FLEET[:3]
    labels = dict(zip(fleet, zip(TASKS, strict=True), strict=True))
    made = decide(
        situation(
            stage="trial" if policy == "mas-verified" else "split",
            policy=policy,
            devices=fleet,
            groups=groups,
            known=tuple(each for each in facts(labels) if each.name in fleet),
            seen=rounds({"d1": 1.0, "d2": 1.0}),
            refused=(declined("d3", 330),),
        )
    )
    assert (made.refused, sorted(chain(*made.groups))) == ("", list(TASKS))


@pytest.mark.parametrize(
    "limits",
    [
        {"budget": Budget(device_energy_j_per_day=12.0), "used_j": tuple(dict.fromkeys(FLEET, 12.0).items())},
        {"participation": Participation(deadline_s=0.1)},
    ],
)
@pytest.mark.parametrize("policy", ["mas", "all-in-one", "fixed"])
def test_limits_that_shut_out_every_device_leave_no_group_without_one(limits, policy):
    given_ = {"partition": (("a", "b"), ("c",))} if policy == "fixed" else {}
    stage = "start" if policy == "all-in-one" else "split"
    made = decide(situation(stage=stage, policy=policy, affinity=SELFISH, seen=rounds(), **given_, **limits))
    assert made.groups
    assert not made.devices or all(made.devices)


def test_the_nearest_number_of_groups_has_devices_though_no_limit_is_kept():
    refused = tuple(declined(device, 330) for device in FLEET)  # all tasks together fit nowhere
    budget, used = Budget(device_energy_j_per_day=12.0), tuple(dict.fromkeys(FLEET, 12.0).items())
    seen = rounds(group=("a", "b"))
    made = decide(situation(groups=1, seen=seen, refused=refused, budget=budget, used_j=used))
    assert len(made.groups) == 2
    assert not made.devices or all(made.devices)
