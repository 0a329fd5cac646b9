"""Into which groups a job's tasks go, and which devices train each: one decision under affinity and budget.

It is taken twice. At the *start* nothing was measured: the policy's groups begin, and what too few devices
have the memory for begins in the coarsest parts that fit. At the *split*, after the merged rounds,
affinities and costs are known: policy mas takes the best score that keeps to the budget
(``orchestrator.candidates``), a given partition is trained as given, and all policies say who trains what
and what that will cost.

``decide`` is pure and everything that it goes by is in its ``Situation``; the shell takes the decision once
and stores it, so that a replay repeats it. A reproducible job goes by affinities and by what its devices
declined alone: never by clocks, sensors, or who has said hello already. Words for people are made in
``orchestrator.explain``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from mas_edge.orchestrator import cost_model, split
from mas_edge.orchestrator.affinity import AffinityRefused, pool
from mas_edge.orchestrator.budget import Costs, GroupCost, LeftOut, bid, listed, over
from mas_edge.orchestrator.candidates import Chosen, Market, choose
from mas_edge.orchestrator.capacity import Capacity, capacity
from mas_edge.orchestrator.cost_model import Estimate, mask_of
from mas_edge.orchestrator.dealing import Limits
from mas_edge.orchestrator.observed import Observed
from mas_edge.orchestrator.partitions import k_best
from mas_edge.orchestrator.spec import first_groups
from mas_edge.orchestrator.split import SplitImpossible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.orchestrator.affinity import Affinity
    from mas_edge.orchestrator.budget import Bid
    from mas_edge.orchestrator.candidates import Candidate
    from mas_edge.orchestrator.roster import DeviceFacts
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import AffinitySums

Groups = tuple[tuple[str, ...], ...]

NOTHING = Observed()


class Alternative(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A partition that was turned down, and why. Joules and seconds are of all rounds that were left."""

    groups: tuple[tuple[str, ...], ...]
    why: str
    score: float | None = None
    se: float | None = None
    energy_j: Estimate | None = None
    time_s: Estimate | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the tasks go on, who trains them, and by how much the choice won over the runner-up.

    ``score`` None: affinity had no say in it. ``devices`` and ``costs`` (of a round) are parallel to
    ``groups``; no devices means all of the job's. ``energy_j`` and ``time_s`` are expected for the
    ``rounds`` that are left, of which the budget leaves ``energy_left_j`` and ``time_left_s``. ``refused``,
    in words: the job cannot be done.
    """

    groups: tuple[tuple[str, ...], ...]
    score: float | None = None
    runner_up: tuple[tuple[str, ...], ...] = ()
    runner_up_score: float | None = None
    lead_se: float | None = None
    why: str = ""
    se: float | None = None
    devices: tuple[tuple[str, ...], ...] = ()
    costs: tuple[GroupCost, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    rounds: int = 0
    energy_j: Estimate | None = None
    time_s: Estimate | None = None
    energy_left_j: float | None = None
    time_left_s: float | None = None
    rejected: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that a decision depends on; ``spec`` has the tasks that are left.

    ``rounds`` are to be trained still. ``spent_j`` and ``spent_s`` are what the job has used of its budget,
    ``used_j`` what each device has used of its day.
    """

    spec: JobSpec
    stage: Literal["start", "split"]
    parameters: dict[str, int]
    rounds: int
    affinities: tuple[AffinitySums, ...] = ()
    seen: Observed = NOTHING
    facts: tuple[DeviceFacts, ...] = ()
    spent_j: float = 0.0
    spent_s: float = 0.0
    used_j: tuple[tuple[str, float], ...] = ()


def decide(given: Situation) -> Decision:
    """The decision; never raises: where nothing can be done, ``refused`` says what would be needed."""
    if given.spec.training.reproducible:
        blind = msgspec.structs.replace(given.seen, trainings=(), waiting_s=None)
        given = replace(given, seen=blind, facts=())
    spec = given.spec
    can = capacity(
        spec.tasks, spec.devices, spec.training.workload, given.parameters, given.facts, given.seen
    )
    costs, limits = _costs(given), _limits(given)
    if given.stage == "split" and spec.policy == "mas":
        try:
            market = Market(pool(given.affinities), can, costs, limits)
            return _mas(given, market)
        except (SplitImpossible, AffinityRefused) as error:
            return _given(given, can, costs, limits, (spec.tasks,), f"affinity has no say: {error}")
    groups = first_groups(spec) if given.stage == "start" else spec.partition
    why = (
        "the partition was given"
        if spec.policy == "fixed" and groups == spec.partition
        else f"policy {spec.policy}"
    )
    return _given(given, can, costs, limits, groups, why)


def enough(spec: JobSpec) -> int:
    """Of how many devices a group needs at least: a round's quorum."""
    wanted = min(spec.participation.clients or len(spec.devices), len(spec.devices))
    return 1 if spec.training.reproducible else max(1, math.ceil(spec.participation.quorum * wanted))


def _costs(given: Situation) -> Costs:
    """Both models, fitted; a device's first training starts its process, and counts if it is all there is."""
    tasks, devices, seen = given.spec.tasks, given.spec.devices, given.seen.trainings
    warm = [each for each in seen if not each.first] or list(seen)
    wall = cost_model.cells((each.group, each.device, each.wall_s) for each in warm)
    energy = cost_model.cells((e.group, e.device, e.energy_j) for e in warm if e.energy_j is not None)
    return Costs(
        cost_model.fit(tasks, devices, given.parameters, wall),
        cost_model.fit(tasks, devices, given.parameters, energy),
        given.parameters,
    )


def _limits(given: Situation) -> Limits:
    budget, deadline_s = given.spec.budget, given.spec.participation.deadline_s
    used = dict(given.used_j)
    return Limits(
        rounds=given.rounds,
        enough=enough(given.spec),
        time_s=None if budget.time_s is None else budget.time_s - given.spent_s,
        energy_j=None if budget.energy_j is None else budget.energy_j - given.spent_j,
        round_s=deadline_s if isinstance(deadline_s, (int, float)) else None,
        device_day_j=budget.device_energy_j_per_day,
        used_j=tuple(used.get(device, 0.0) for device in given.spec.devices),
        waiting_s=given.seen.waiting_s or 0.0,
    )


# --- groups that are given -------------------------------------------------------------------------


def _given(
    given: Situation, can: Capacity, costs: Costs, limits: Limits, groups: Groups, why: str
) -> Decision:
    """The groups as given, each in the coarsest parts that enough devices have the memory for."""
    divided = tuple(_divided(group, can, limits.enough) for group in groups)
    if impossible := next(
        (group[0] for parts in divided for group in parts if not can.trainers(group)), None
    ):
        return Decision(groups=groups, why=why, refused=_nowhere(impossible, can))
    parted = tuple(chain.from_iterable(divided))
    if parted != groups:
        why = f"{_named(groups)} would have too few devices: the coarsest parts that have enough"
    asked = bid(parted, can, costs, limits)
    # nothing else is offered: the limits are kept by ending early, and who is left out for them helps nobody
    free = replace(limits, time_s=None, energy_j=None)
    found = asked if asked.sound else bid(parted, can, costs, free)
    notes = over(found, limits)
    refused = ""
    if given.stage == "start" and asked.over_surely:
        refused = f"the budget cannot be met: {_named(parted)} {'; '.join(notes)}"
    return _decision(given, limits, found, why, notes=notes, refused=refused or _blind(given))


def _divided(group: tuple[str, ...], can: Capacity, least: int) -> Groups:
    """The coarsest parts of a group that enough devices can train, the most even ones; else its tasks."""
    if len(can.trainers(group)) >= least and can.covered(group):
        return (group,)
    n = len(group)
    subs = [tuple(task for i, task in enumerate(group) if mask >> i & 1) for mask in range(1 << n)]
    worth = np.full(1 << n, -np.inf)
    for mask, sub in enumerate(subs[1:-1], start=1):
        if len(can.trainers(sub)) >= least and can.covered(sub):
            worth[mask] = -(float(can.needs.size(mask_of(sub, can.tasks))) ** 2)
    found = next((some[0] for some in k_best(worth, n, 1) if some), None) if n > 1 else None
    if found:
        return tuple(subs[mask] for mask in found)
    return _divided(group, can, 1) if least > 1 else tuple((task,) for task in group)


def _nowhere(task: str, can: Capacity) -> str:
    """Why a job cannot go on: a task that no device can train."""
    said = [f"{device}: {can.why_not((task,), device)}" for device in can.devices]
    if not can.labelled[:, can.tasks.index(task)].any():
        return f"no device has labels for {task}: leave it out, or add a device that has"
    remedy = "raise the memory limit, lower the batch or the network, or add a device"
    return f"{task} alone fits no device ({listed(said)}): {remedy}"


def _blind(given: Situation) -> str:
    """Why a budget in joules cannot be kept: every device is known, and none has a sensor."""
    asked = given.spec.budget.energy_j is not None or given.spec.budget.device_energy_j_per_day is not None
    sensors = [each.sensor for each in given.facts if each.name in given.spec.devices]
    if not asked or any(sensors) or len(sensors) < len(given.spec.devices):
        return ""
    return "the budget in joules cannot be kept: no device has a sensor (mas-agent doctor on one says why)"


# --- groups by affinity ----------------------------------------------------------------------------


def _mas(given: Situation, market: Market) -> Decision:
    found = choose(market, given.spec.groups)
    return _from_choice(given, market.affinity, market.limits, found)


def _from_choice(given: Situation, affinity: Affinity, limits: Limits, found: Chosen) -> Decision:
    taken = found.taken
    others = [each for each in found.rejected if each.bid.sound]
    runner = max(others, key=lambda each: each.partition.score, default=None)
    made = _decision(given, limits, taken.bid, found.why)
    return msgspec.structs.replace(
        made,
        score=taken.partition.score,
        se=taken.partition.se,
        runner_up=runner.bid.groups if runner else (),
        runner_up_score=runner.partition.score if runner else None,
        lead_se=split.lead(affinity, taken.partition, runner.partition)[1] if runner else None,
        rejected=tuple(_alternative(each) for each in found.rejected),
    )


def _alternative(each: Candidate) -> Alternative:
    return Alternative(
        groups=each.bid.groups,
        why=each.why,
        score=each.partition.score,
        se=each.partition.se,
        energy_j=each.bid.energy_j,
        time_s=each.bid.time_s,
    )


def _decision(
    given: Situation, limits: Limits, found: Bid, why: str, *, notes: Sequence[str] = (), refused: str = ""
) -> Decision:
    return Decision(
        groups=found.groups,
        why=why,
        devices=found.devices if any(d != given.spec.devices for d in found.devices) else (),
        costs=found.costs,
        left_out=found.left_out,
        rounds=limits.rounds,
        energy_j=found.energy_j,
        time_s=found.time_s,
        energy_left_j=limits.energy_j,
        time_left_s=limits.time_s,
        notes=tuple(notes),
        refused=refused,
    )


def _named(groups: Groups) -> str:
    return " | ".join("+".join(group) for group in groups)
