"""What training a partition will cost, on which devices, and whether that is within what is left of the
budget.

A ``Bid`` is a partition as it would be trained: its devices (``orchestrator.dealing``), what a round of
each group is expected to cost (``orchestrator.cost_model``), the sum over the rounds that are left, and in
words the limits that it breaks. It keeps to a limit if its cost and one standard uncertainty do.
Uncertainties are added up as if all were wrong in the same direction, for most of them, the level and the
parts, are.

Pure. Which partition is the best is ``orchestrator.decision``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.orchestrator.cost_model import Estimate, figure, mask_of
from mas_edge.orchestrator.dealing import deal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.orchestrator.capacity import Capacity
    from mas_edge.orchestrator.cost_model import CostModel, Method
    from mas_edge.orchestrator.dealing import Choice, Dealt, Limits, Matrix

FLOAT_BYTES = 4

NAMED = 3
"""Devices that are named in a line."""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A device that does not train a group, and why."""

    device: str
    group: tuple[str, ...]
    why: str


class GroupCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a round of a group is expected to cost: joules of all its devices, seconds of the slowest.

    ``traffic_bytes`` go down to its devices and up again, by numbers of parameters. None is unknown.
    """

    energy_j: Estimate | None
    wall_s: Estimate | None
    traffic_bytes: int


@dataclass(frozen=True, eq=False)
class Bid:
    """A partition as it would be trained. Joules and seconds are of all rounds that are left.

    None is unknown: nothing was measured yet, or some group has nobody to train it. ``over`` says which
    limits are broken, ``over_surely`` whether one is even if all costs come out lower by their standard
    uncertainty; of ``enough`` devices each group needs at least so many.
    """

    groups: tuple[tuple[str, ...], ...]
    devices: tuple[tuple[str, ...], ...]
    costs: tuple[GroupCost, ...]
    energy_j: Estimate | None
    time_s: Estimate | None
    over: tuple[str, ...]
    over_surely: bool
    enough: int
    _can: Capacity
    _dealt: Dealt

    @property
    def sound(self) -> bool:
        """Whether it can be trained within all limits."""
        return not self.over and all(len(devices) >= self.enough for devices in self.devices)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Who does not train what, and why."""
        names = self._can.devices
        return tuple(
            LeftOut(device=names[d], group=group, why=self._why(g, d))
            for g, group in enumerate(self.groups)
            for d in map(int, np.flatnonzero(~self._dealt.chosen[g]))
        )

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which groups have too few devices, in words."""
        few = [(g, len(names)) for g, names in enumerate(self.devices) if len(names) < self.enough]
        return tuple(
            f"{'+'.join(self.groups[g])} has {count} of the {self.enough} devices that it needs ("
            + listed([f"{each.device} {each.why}" for each in self.left_out if each.group == self.groups[g]])
            + ")"
            for g, count in few
        )

    def _why(self, g: int, d: int) -> str:
        denied = self._dealt.why.get((g, d))
        return denied.words() if denied else self._can.why_not(self.groups[g], self._can.devices[d])


@dataclass(frozen=True, eq=False)
class Costs:
    """The fitted models of a job, of seconds and joules a round; ``parameters`` are counted by part."""

    wall_s: CostModel
    energy_j: CostModel
    parameters: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Table:
    """(groups, devices): expected costs of a round, their uncertainty, and which are measured."""

    value: Matrix
    u: Matrix
    measured: Choice


def bid(groups: tuple[tuple[str, ...], ...], can: Capacity, costs: Costs, limits: Limits) -> Bid:
    """How a partition would be trained under these limits, and what it would cost."""
    masks = np.array([mask_of(group, can.tasks) for group in groups], np.int64)
    wall, energy = _table(costs.wall_s, masks), _table(costs.energy_j, masks)
    careful = 0.0 if limits.longest_s is None else 1.0  # a limit is kept with the uncertainty too
    seconds_each = None if wall is None else wall.value + careful * wall.u
    joules_each = None if energy is None else energy.value
    dealt = deal(can.able[masks], seconds_each, joules_each, limits)
    chosen = dealt.chosen
    whole = bool(chosen.any(axis=1).all())  # a group that nobody trains has no cost that could be added up
    joules = _times(_all(energy, chosen), limits.rounds) if whole else None
    seconds = _times(_slowest(wall, chosen, limits.waiting_s), limits.rounds) if whole else None
    return Bid(
        groups=groups,
        devices=tuple(_named(can.devices, row) for row in chosen),
        costs=tuple(_group_cost(g, group, chosen, wall, energy, costs) for g, group in enumerate(groups)),
        energy_j=joules,
        time_s=seconds,
        over=_over("J", joules, limits.energy_j) + _over("s", seconds, limits.time_s),
        over_surely=_surely(joules, limits.energy_j) or _surely_late(wall, can.able[masks], limits),
        enough=limits.enough,
        _can=can,
        _dealt=dealt,
    )


def over(found: Bid, limits: Limits) -> tuple[str, ...]:
    """The limits that a bid made without them would break, in words."""
    return _over("J", found.energy_j, limits.energy_j) + _over("s", found.time_s, limits.time_s)


def surely_over(found: Bid, limits: Limits) -> bool:
    """Whether a bid made without them breaks the limit in joules even if it comes out lower."""
    return _surely(found.energy_j, limits.energy_j)


def prices(can: Capacity, model: CostModel) -> NDArray[np.float64]:
    """(2**n,): a round of each group on all devices that can train it, summed, for a search to go by.

    Without what is peculiar to a group on a device: ``bid`` has the whole of it.
    """
    by_group, by_device = model.factors(np.arange(1, len(can.able)))
    total = np.zeros(len(can.able))
    total[1:] = by_group * (can.able[1:] @ by_device)
    return total


def _table(model: CostModel, masks: NDArray[np.int64]) -> _Table | None:
    if not model.known:
        return None
    mean, variance = model.logs(masks)
    value = np.exp(mean)
    return _Table(value, value * np.expm1(np.sqrt(variance)), model.seen(masks))


def listed(words: Sequence[str]) -> str:
    """As many as fit a line, and the number of the others."""
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _group_cost(
    g: int, group: Sequence[str], chosen: Choice, wall: _Table | None, energy: _Table | None, costs: Costs
) -> GroupCost:
    only = np.zeros_like(chosen)
    only[g] = chosen[g]
    names = ["encoder", *(f"decoder.{task}" for task in group)]
    weights = FLOAT_BYTES * sum(costs.parameters.get(name, 0) for name in names)
    return GroupCost(
        energy_j=_all(energy, only),
        wall_s=_slowest(wall, only, 0.0),
        traffic_bytes=2 * weights * int(chosen[g].sum()),
    )


def _all(table: _Table | None, chosen: Choice) -> Estimate | None:
    """The sum over all that is trained; None if nothing is."""
    if table is None or not chosen.any():
        return None
    value, u = ((part * chosen).sum() for part in (table.value, table.u))
    return Estimate(value=float(value), u=float(u), how=_how(table, chosen))


def _slowest(table: _Table | None, chosen: Choice, waiting_s: float) -> Estimate | None:
    """Of the device that takes longest for its groups, with what a round takes beyond; None if none does."""
    if table is None or not chosen.any():
        return None
    loads = (table.value * chosen).sum(axis=0)
    at = int(loads.argmax())
    u = float((table.u * chosen)[:, at].sum())
    return Estimate(value=float(loads[at]) + waiting_s, u=u, how=_how(table, chosen))


def _how(table: _Table, chosen: Choice) -> Method:
    """Measured only if every cost in it is."""
    return "measured" if table.measured[chosen].all() else "fitted"


def _named(devices: Sequence[str], row: Choice) -> tuple[str, ...]:
    return tuple(device for device, yes in zip(devices, row, strict=True) if yes)


def _times(cost: Estimate | None, factor: float) -> Estimate | None:
    if cost is None:
        return None
    return msgspec.structs.replace(cost, value=cost.value * factor, u=cost.u * factor)


def _over(unit: str, cost: Estimate | None, left: float | None) -> tuple[str, ...]:
    """In words if a cost, with its uncertainty, is not within what is left."""
    if cost is None or left is None or cost.upper <= left:
        return ()
    return (f"would take {cost.words(unit)}, {figure(max(left, 0.0))} {unit} are left",)


def _surely(cost: Estimate | None, left: float | None) -> bool:
    return cost is not None and left is not None and cost.value - cost.u > left


def _surely_late(wall: _Table | None, able: Choice, limits: Limits) -> bool:
    """Whether too few devices could keep to the job's time even if all of them were quicker than expected."""
    if wall is None or limits.time_s is None or not limits.rounds:
        return False
    loads = ((wall.value - wall.u) * able).sum(axis=0)[able.all(axis=0)]
    quick = loads + limits.waiting_s <= limits.time_s / limits.rounds
    return int(quick.sum()) < min(limits.enough, len(loads))
