"""The terms on which a job's groups are trained: who can, what it costs, which limits hold.

``settle`` makes them from a ``Situation``; ``decided`` says a partition on these terms, with its devices and
costs, as a ``Decision``; ``as_given`` does so for groups that nothing was weighed for, and divides what too
few devices have the memory for into the coarsest parts that enough have. A reproducible job goes by what its
devices declined alone: never by clocks, sensors, or who has said hello already. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.orchestrator import cost_model
from mas_edge.orchestrator.budget import Costs, bid, listed, over, surely_over
from mas_edge.orchestrator.capacity import Capacity, capacity
from mas_edge.orchestrator.cost_model import mask_of
from mas_edge.orchestrator.dealing import Limits
from mas_edge.orchestrator.decision import Decision, Groups, Situation
from mas_edge.orchestrator.partitions import k_best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.orchestrator.budget import Bid
    from mas_edge.orchestrator.spec import JobSpec


@dataclass(frozen=True, eq=False)
class Terms:
    """On which groups are trained in a situation."""

    given: Situation
    can: Capacity
    costs: Costs
    limits: Limits

    def bid(self, groups: Groups) -> Bid:
        """How these groups would be trained beside each other."""
        return bid(groups, self.can, self.costs, self.limits)

    def freely(self, groups: Groups) -> tuple[Bid, tuple[str, ...]]:
        """How these groups would be trained with no regard to the job's budget.

        Nor to a round's deadline and a device's day, where these leave a group too few devices: then also
        which groups that are, in words.
        """
        free = replace(self.limits, time_s=None, energy_j=None)
        found = bid(groups, self.can, self.costs, free)
        most = bid(groups, self.can, self.costs, replace(free, round_s=None, device_day_j=None))
        pairs = zip(found.devices, most.devices, strict=True)
        if any(len(few) < min(len(all_), found.enough) for few, all_ in pairs):
            return most, tuple(f"would not keep to all limits: {each}" for each in found.lacking)
        return found, ()

    def offer(self, groups: Groups) -> tuple[Bid, tuple[str, ...]]:
        """How groups are trained to which there is no choice, and which limits they break, in words.

        These are kept by ending early; who is left out for want of them helps nobody.
        """
        asked = self.bid(groups)
        if asked.sound:
            return asked, ()
        found, lacking = self.freely(groups)
        return found, (*over(found, self.limits), *lacking)

    def energies(self) -> NDArray[np.float64]:
        """(2**n,): what a step of each group takes on any device, by mask, a step of all tasks taking 1.

        By the joules that were measured, else by the seconds, else by how much work the parts are.
        """
        model = self.costs.energy_j if self.costs.energy_j.known else self.costs.wall_s
        found = np.zeros(len(self.can.able))
        found[1:] = model.factors(np.arange(1, len(found)))[0]
        relative: NDArray[np.float64] = found / found[-1]
        return relative


def settle(given: Situation) -> Terms:
    """The terms of a situation."""
    if given.spec.training.reproducible:
        blind = msgspec.structs.replace(given.seen, trainings=(), waiting_s=None)
        given = replace(given, seen=blind, facts=())
    spec = given.spec
    can = capacity(
        spec.tasks, spec.devices, spec.training.workload, given.parameters, given.facts, given.seen
    )
    return Terms(given, can, _costs(given), _limits(given))


def enough(spec: JobSpec) -> int:
    """Of how many devices a group needs at least: a round's quorum."""
    wanted = min(spec.participation.clients or len(spec.devices), len(spec.devices))
    return 1 if spec.training.reproducible else max(1, math.ceil(spec.participation.quorum * wanted))


def _costs(given: Situation) -> Costs:
    """Both models, fitted; a device's first training starts its process, and counts if it is all there is."""
    tasks, devices, seen = given.spec.tasks, given.spec.devices, given.seen.trainings
    work = given.flops or given.parameters
    warm = [each for each in seen if not each.first] or list(seen)
    wall = cost_model.cells((each.group, each.device, each.wall_s) for each in warm)
    energy = cost_model.cells((e.group, e.device, e.energy_j) for e in warm if e.energy_j is not None)
    return Costs(
        cost_model.fit(tasks, devices, work, wall),
        cost_model.fit(tasks, devices, work, energy),
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


def decided(
    terms: Terms,
    found: Bid,
    why: str,
    *,
    serves: Groups = (),
    notes: Sequence[str] = (),
    refused: str = "",
) -> Decision:
    """A bid as a decision."""
    return Decision(
        groups=found.groups,
        serves=serves,
        why=why,
        devices=found.devices if any(d != terms.given.spec.devices for d in found.devices) else (),
        costs=found.costs,
        left_out=found.left_out,
        rounds=terms.limits.rounds,
        energy_j=found.energy_j,
        time_s=found.time_s,
        energy_left_j=terms.limits.energy_j,
        time_left_s=terms.limits.time_s,
        notes=tuple(notes),
        refused=refused,
    )


# --- groups that are given -------------------------------------------------------------------------


def as_given(terms: Terms, groups: Groups, why: str, *, serves: Groups = ()) -> Decision:
    """The groups as given, each in the coarsest parts that enough devices have the memory for.

    Where a group is divided, ``serves`` no longer says anything and is left out.
    """
    can, limits = terms.can, terms.limits
    divided = tuple(_divided(group, can, limits.enough) for group in groups)
    if impossible := next(
        (group[0] for parts in divided for group in parts if not can.trainers(group)), None
    ):
        return Decision(groups=groups, why=why, refused=_nowhere(impossible, can))
    parted = tuple(dict.fromkeys(chain.from_iterable(divided)))
    if parted != groups:
        why = f"{named(groups)} would have too few devices: the coarsest parts that have enough"
        serves = ()
    found, notes = terms.offer(parted)
    refused = ""
    if terms.given.stage == "start" and (terms.bid(parted).over_surely or surely_over(found, limits)):
        refused = f"the budget cannot be met: {named(parted)} {'; '.join(notes)}"
    refused = refused or _blind(terms.given)
    return decided(terms, found, why, serves=serves, notes=notes, refused=refused)


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


def named(groups: Groups) -> str:
    """A partition as one writes it."""
    return " | ".join("+".join(group) for group in groups)
