"""Which partition is trained: the best score within the budget, and what was turned down, each with its
reason.

For every number of groups the partitions are ranked by score (``orchestrator.split``), and the best that
keeps to all limits is taken (``orchestrator.budget``). Groups that too few devices can train are struck out
before, so that the ranking is exact; what a partition costs is no sum over groups where devices are left
out, so limits are checked one partition after the other: the ``DEPTH`` best ones, then those that are best
when cost counts against the score at some ``RATES``. Of those that are left, the fewest groups within one
standard error of the best score win (docs/decisions/0006-how-many-groups.md). Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mas_edge.orchestrator import split
from mas_edge.orchestrator.budget import bid, prices
from mas_edge.orchestrator.cost_model import figure, mask_of
from mas_edge.orchestrator.partitions import members

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mas_edge.orchestrator.affinity import Affinity
    from mas_edge.orchestrator.budget import Bid, Costs
    from mas_edge.orchestrator.capacity import Capacity
    from mas_edge.orchestrator.dealing import Limits
    from mas_edge.orchestrator.split import Partition

DEPTH = 4
"""Partitions into equally many groups that are looked at by their score alone."""

RATES = (0.25, 1.0, 4.0, 1000.0)
"""Of score per cost, in units of what the whole range of scores is worth in costs; the last finds the
cheapest.
"""


@dataclass(frozen=True)
class Candidate:
    """A partition with its score, and how it would be trained; ``why`` it was turned down."""

    partition: Partition
    bid: Bid
    why: str = ""


@dataclass(frozen=True)
class Chosen:
    """What was taken and why; ``met`` is false if nothing kept to the limits and this is the cheapest."""

    taken: Candidate
    why: str
    rejected: tuple[Candidate, ...]
    met: bool = True


@dataclass(frozen=True, eq=False)
class Market:
    """Everything that a partition is judged by."""

    affinity: Affinity
    can: Capacity
    costs: Costs
    limits: Limits

    def bid(self, partition: Partition) -> Candidate:
        """The partition as it would be trained."""
        return Candidate(partition, bid(partition.groups, self.can, self.costs, self.limits))


def choose(market: Market, groups: int | Literal["auto"]) -> Chosen:
    """The partition to train; raises SplitImpossible if too few devices can train some task in any group."""
    n = len(market.affinity.tasks)
    ranked = split.ranked(market.affinity, n, _rules(market), DEPTH)
    found = [_best(market, few) for few in ranked]
    if any(each and not each.bid.sound for each in found):
        found = _cheaper(market, found)
    asked = [each for each in found if each and (groups == "auto" or len(each.bid.groups) == groups)]
    forbidden = _forbidden(market)
    if groups != "auto" and not asked:  # so many groups cannot be trained: as near as can be, rather finer
        near = min(
            (e for e in found if e), key=lambda e: (abs(len(e.bid.groups) - groups), -len(e.bid.groups))
        )
        why = f"no partition into {groups} groups can be trained; the nearest that can"
        return Chosen(near, why, forbidden, met=near.bid.sound)
    sound = [each for each in asked if each.bid.sound]
    if not sound:
        return _unmet(market, asked, forbidden)
    if groups != "auto":
        return _of_number(market, sound[0], ranked[groups - 1], forbidden)
    return _auto(market, found, sound, ranked, forbidden)


def _rules(market: Market, price: Sequence[float] | None = None) -> split.Rules:
    """Groups that enough devices can train, which together have labels for each of its tasks."""
    can, tasks = market.can, market.affinity.tasks
    inside = members(len(tasks))
    has = (can.able.astype(np.float64) @ can.labelled.astype(np.float64)) > 0
    possible = (can.able.sum(axis=1) >= market.limits.enough) & (has | ~inside).all(axis=1)
    return split.Rules(
        fits=None if possible[1:].all() else lambda group: bool(possible[mask_of(group, tasks)]),
        price=None if price is None else lambda group: price[mask_of(group, tasks)],
    )


def _best(market: Market, partitions: Iterable[Partition]) -> Candidate | None:
    """The first that keeps to all limits, or the first of all with what it breaks; None of none."""
    first: Candidate | None = None
    for partition in partitions:
        candidate = market.bid(partition)
        if candidate.bid.sound:
            return candidate
        first = first or candidate
    return first


def _cheaper(market: Market, found: Sequence[Candidate | None]) -> list[Candidate | None]:
    """For each number of groups what keeps to the limits, looked for where cost counts against the score."""
    model = market.costs.energy_j if market.limits.energy_j is not None else market.costs.wall_s
    if not model.known:
        return list(found)
    price = prices(market.can, model)
    scores = [each.partition.score for each in found if each]
    n = len(market.affinity.tasks)
    costs = [sum(price[mask_of(g, market.affinity.tasks)] for g in each.bid.groups) for each in found if each]
    unit = (max(scores) - min(scores) or 1.0) / (max(costs) - min(costs) or 1.0)
    better = list(found)
    for rate in RATES:
        rules = _rules(market, tuple(price * unit * rate))
        for x, few in enumerate(split.ranked(market.affinity, n, rules, 1)):
            known = better[x]
            if known is None or known.bid.sound or not few:
                continue
            cheap = market.bid(split.scored(market.affinity, few[0].groups))
            if cheap.bid.sound or rate == RATES[-1]:
                better[x] = cheap
    return better


def _forbidden(market: Market) -> tuple[Candidate, ...]:
    """The best partitions that would be, were there enough devices for each of their groups."""
    rules = _rules(market)
    if rules.fits is None:
        return ()
    free = split.ranked(market.affinity, len(market.affinity.tasks))
    bids = [market.bid(few[0]) for few in free if few]
    return tuple(
        replace(each, why=each.bid.lacking[0])
        for each in bids
        if not all(map(rules.fits, each.bid.groups)) and each.bid.lacking
    )


def _auto(
    market: Market,
    found: Sequence[Candidate | None],
    sound: Sequence[Candidate],
    ranked: Sequence[Sequence[Partition]],
    forbidden: tuple[Candidate, ...],
) -> Chosen:
    """The fewest groups within one standard error of the best score, of what keeps to the limits."""
    top = max(sound, key=lambda each: each.partition.score)
    se = top.partition.se
    least = -math.inf if se is None else top.partition.score - se
    taken = next(each for each in sound if each.partition.score >= least)
    second = _others(market, taken, ranked[len(taken.bid.groups) - 1])
    rest = [replace(e, why=_turned_down(e, taken, top)) for e in found if e and e is not taken]
    why = "the fewest groups within one standard error of the best"
    return Chosen(taken, why, (*rest, *second, *forbidden))


def _turned_down(each: Candidate, taken: Candidate, top: Candidate) -> str:
    if not each.bid.sound:
        return _broken(each)
    se, more = top.partition.se, len(each.bid.groups) > len(taken.bid.groups)
    gain = each.partition.score - (taken if more else top).partition.score
    if not more:
        return f"scores {_gap(gain)} than the best, by more than its standard error"
    if gain <= 0:
        return f"scores {_gap(gain)}, with more groups"
    known = "unknown" if se is None else figure(se, 2)
    return f"scores {_gap(gain)}, not surely better: the standard error is {known}"


def _gap(gain: float) -> str:
    """How much a score is apart from another one, in words."""
    return f"{figure(abs(gain), 2)} {'more' if gain > 0 else 'less'}" if gain else "the same"


def _broken(each: Candidate) -> str:
    return "; ".join((*each.bid.lacking[:1], *each.bid.over))


def _of_number(
    market: Market, taken: Candidate, ranked: Sequence[Partition], forbidden: tuple[Candidate, ...]
) -> Chosen:
    """The best into so many groups as were asked for."""
    same = tuple(each for each in forbidden if len(each.bid.groups) == len(taken.bid.groups))
    why = f"the best partition into {_count(len(taken.bid.groups), 'group')}"
    return Chosen(taken, why, (*_others(market, taken, ranked), *same))


def _others(market: Market, taken: Candidate, ranked: Sequence[Partition]) -> tuple[Candidate, ...]:
    """The best other partition into as many groups, and the best one if that is not what was taken."""
    others = [partition for partition in ranked[:2] if partition.groups != taken.bid.groups]
    bids = [market.bid(partition) for partition in others]
    return tuple(
        replace(
            each,
            why=_broken(each) or f"scores {_gap(each.partition.score - taken.partition.score)}",
        )
        for each in bids
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _unmet(market: Market, asked: Sequence[Candidate], forbidden: tuple[Candidate, ...]) -> Chosen:
    """Nothing keeps to the limits: the cheapest goes on for as long as they last."""

    def cost(each: Candidate) -> float:
        total = each.bid.energy_j if market.limits.energy_j is not None else each.bid.time_s
        return total.value if total else 0.0

    # with nothing to keep to, no device is left out for want of it
    free = replace(market, limits=replace(market.limits, time_s=None, energy_j=None))
    cheapest = min(asked, key=lambda each: cost(free.bid(each.partition)))
    needed = _broken(cheapest)
    rejected = [replace(each, why=_broken(each)) for each in asked if each is not cheapest]
    why = f"nothing keeps to the limits ({needed}); the cheapest goes on for as long as they last"
    return Chosen(free.bid(cheapest.partition), why, (*rejected, *forbidden), met=False)
