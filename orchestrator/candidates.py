"""Which partition is trained: the best score within the budget, into as many groups as pay for their energy;
and what was turned down, each with its reason.

For every number of groups the partitions are ranked by score (``orchestrator.split``), and the best that
keeps to all limits is taken (``orchestrator.budget``). Groups that too few devices can train are struck out
before, so that the ranking is exact; what a partition costs is no sum over groups where devices are left
out, so limits are checked one partition after the other: the ``DEPTH`` best ones, then those that are best
when cost counts against the score at some ``RATES``. Which of those that are left is trained says a number of
groups, or else how fast each lowers the losses for the same energy (``orchestrator.gain``): a split has to do
that faster than the fewest groups that keep to the limits, by more than the standard error
(docs/decisions/0015-a-split-has-to-pay-for-its-energy.md), unless all tasks together begin to memorise
(docs/decisions/0020-split-when-learning-stops-to-carry-over.md). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mas_edge.orchestrator import split
from mas_edge.orchestrator.budget import prices
from mas_edge.orchestrator.cost_model import figure, mask_of
from mas_edge.orchestrator.partitions import members
from mas_edge.orchestrator.split import SplitImpossible
from mas_edge.orchestrator.terms import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from mas_edge.orchestrator.affinity import Affinity
    from mas_edge.orchestrator.budget import Bid
    from mas_edge.orchestrator.decision import Groups, Progress
    from mas_edge.orchestrator.gain import Gains
    from mas_edge.orchestrator.learning_curve import Carried
    from mas_edge.orchestrator.split import Partition
    from mas_edge.orchestrator.terms import Terms

DEPTH = 4
"""Partitions into equally many groups that are looked at by their score alone."""

RATES = (0.25, 1.0, 4.0, 1000.0)
"""Of score per cost, in units of what the whole range of scores is worth in costs; the last finds the
cheapest.
"""

MEMORISED = "all tasks together begin to memorise: more rounds of them would bring less and less"
"""Why a split was taken that makes less of the energy at the moment."""


@dataclass(frozen=True)
class Candidate:
    """A partition with its score, how it would be trained, and its gain; ``why`` it was turned down."""

    partition: Partition
    bid: Bid
    progress: Progress
    why: str = ""


@dataclass(frozen=True)
class Chosen:
    """What was taken and why; ``met`` is false if nothing kept to the limits and this is the cheapest.

    ``costlier`` are the groups whose energy could be spent on more rounds instead; none if nothing is known
    to split into.
    """

    taken: Candidate
    why: str
    rejected: tuple[Candidate, ...]
    met: bool = True
    costlier: Groups = ()


@dataclass(frozen=True, eq=False)
class Market:
    """Everything that a partition is judged by."""

    terms: Terms
    affinity: Affinity
    gains: Gains
    carried: Carried | None = None

    def bid(self, partition: Partition) -> Candidate:
        """The partition as it would be trained."""
        return Candidate(partition, self.terms.bid(partition.groups), self.gains.of(partition.groups))

    def freely(self, partition: Partition) -> Candidate:
        """The partition as it would be trained if it need not keep to the limits."""
        return replace(self.bid(partition), bid=self.terms.freely(partition.groups)[0])


def possible(terms: Terms) -> NDArray[np.bool_]:
    """(2**n,): groups that enough devices can train, which together have labels for each of its tasks."""
    can = terms.can
    inside = members(len(can.tasks))
    has = (can.able.astype(np.float64) @ can.labelled.astype(np.float64)) > 0
    found: NDArray[np.bool_] = (can.able.sum(axis=1) >= terms.limits.enough) & (has | ~inside).all(axis=1)
    return found


def by_number(market: Market) -> tuple[list[Candidate | None], list[list[Partition]]]:
    """For 1, 2, ... groups the best candidate that keeps to the limits, or the best of all, and the ranking.

    Raises SplitImpossible if there is no partition of which each group has enough devices.
    """
    ranked = split.ranked(market.affinity, len(market.affinity.tasks), _rules(market), DEPTH)
    found = [_best(market, few) for few in ranked]
    if not any(found):
        raise SplitImpossible("no partition has enough devices for each of its groups")
    if any(each and not each.bid.sound for each in found):
        found = _cheaper(market, found)
    return found, ranked


def choose(market: Market, groups: int | Literal["auto"]) -> Chosen:
    """The partition to train; raises SplitImpossible if there is none with enough devices for each group."""
    found, ranked = by_number(market)
    asked = [each for each in found if each and (groups == "auto" or len(each.bid.groups) == groups)]
    forbidden = _forbidden(market)
    if groups != "auto" and not asked:
        return _nearest(market, [each for each in found if each], groups, forbidden)
    sound = [each for each in asked if each.bid.sound]
    if not sound:
        return _unmet(market, asked, forbidden)
    if groups != "auto":
        return _of_number(market, sound[0], ranked[groups - 1], forbidden)
    return _auto(market, found, sound, ranked, forbidden)


def _rules(market: Market, price: Sequence[float] | None = None) -> split.Rules:
    tasks, can_be = market.affinity.tasks, possible(market.terms)
    return split.Rules(
        fits=None if can_be[1:].all() else lambda group: bool(can_be[mask_of(group, tasks)]),
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
    costs, limits = market.terms.costs, market.terms.limits
    model = costs.energy_j if limits.energy_j is not None else costs.wall_s
    if not model.known:
        return list(found)
    price = prices(market.terms.can, model)
    scores = [each.partition.score for each in found if each]
    n = len(market.affinity.tasks)
    dear = [sum(price[mask_of(g, market.affinity.tasks)] for g in each.bid.groups) for each in found if each]
    unit = (max(scores) - min(scores) or 1.0) / (max(dear) - min(dear) or 1.0)
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
    """The fewest groups, unless a split surely lowers the losses faster for the same energy, or there is less
    and less to learn without one.
    """
    fewest, *finer = sound
    best = max(finer, key=lambda each: each.progress.rate, default=None)
    if best is None:
        taken, why = fewest, "no split keeps to the limits" if len(found) > 1 else "there is nothing to split"
    else:
        gap, se = market.gains.lead(best.bid.groups, fewest.bid.groups)
        # a step of it has to do more as well: harm is less by the unit of energy where more of that is spent
        surely = se is not None and gap > se and _of_a_step(best) > _of_a_step(fewest)
        stale = market.carried is not None and market.carried.memorising and len(fewest.bid.groups) == 1
        taken = best if surely or stale else fewest
        why = MEMORISED if stale and not surely else _weighed(best, fewest, se, surely=surely)
    second = _others(market, taken, ranked[len(taken.bid.groups) - 1])
    rest = [replace(e, why=_turned_down(e, taken)) for e in found if e and e is not taken]
    costlier = best.bid.groups if best else ()
    return Chosen(taken, why, (*rest, *second, *forbidden), costlier=costlier)


def _of_a_step(each: Candidate) -> float:
    return each.progress.rate * each.progress.energy


def _weighed(best: Candidate, fewest: Candidate, se: float | None, *, surely: bool) -> str:
    """Both rates, and the standard error of their difference, in words."""
    fast, slow = best.progress.rate, fewest.progress.rate
    error = "of unknown error" if se is None else f"\N{PLUS-MINUS SIGN}{figure(se, 2)}"
    gap = f"(difference {figure(abs(fast - slow))} {error})"
    if surely:
        as_before = "unsplit" if len(fewest.bid.groups) == 1 else f"as {named(fewest.bid.groups)}"
        return f"a unit of energy lowers the losses by {figure(fast)} so, by {figure(slow)} {as_before} {gap}"
    no_split, so = ("no split", "unsplit") if len(fewest.bid.groups) == 1 else ("no finer split", "so")
    return (
        f"{no_split} surely makes more of the energy: a unit of it lowers the losses by {figure(slow)} {so},"
        f" by {figure(fast)} as {named(best.bid.groups)} {gap}"
    )


def _turned_down(each: Candidate, taken: Candidate) -> str:
    if not each.bid.sound:
        return _broken(each)
    gap = figure(abs(each.progress.rate - taken.progress.rate), 2)
    if each.progress.rate > taken.progress.rate:
        so = "now" if len(each.bid.groups) < len(taken.bid.groups) else "not surely"
        return f"lowers the losses by {gap} more for the same energy, {so}"
    return f"lowers the losses by {gap} less for the same energy"


def _gap(gain: float) -> str:
    """How much a score is apart from another one, in words."""
    return f"{figure(abs(gain), 2)} {'more' if gain > 0 else 'less'}" if gain else "the same"


def _broken(each: Candidate) -> str:
    return "; ".join((*each.bid.lacking[:1], *each.bid.over))


def _of_number(
    market: Market, taken: Candidate, ranked: Sequence[Partition], forbidden: tuple[Candidate, ...]
) -> Chosen:
    """The best into so many groups as were asked for."""
    number = len(taken.bid.groups)
    same = tuple(each for each in forbidden if len(each.bid.groups) == number)
    why = f"the best partition into {number} group{'' if number == 1 else 's'}"
    return Chosen(taken, why, (*_others(market, taken, ranked), *same), costlier=taken.bid.groups)


def _others(market: Market, taken: Candidate, ranked: Sequence[Partition]) -> tuple[Candidate, ...]:
    """The best other partition into as many groups, and the best one if that is not what was taken."""
    bids = [market.bid(partition) for partition in ranked[:2] if partition.groups != taken.bid.groups]
    return tuple(
        replace(
            each,
            why=_broken(each) or f"scores {_gap(each.partition.score - taken.partition.score)}",
        )
        for each in bids
    )


def _nearest(
    market: Market, found: Sequence[Candidate], groups: int, forbidden: tuple[Candidate, ...]
) -> Chosen:
    """So many groups cannot be trained: as near as can be, rather finer."""
    near = min(found, key=lambda each: (abs(len(each.bid.groups) - groups), -len(each.bid.groups)))
    why = f"no partition into {groups} groups can be trained; the nearest that can"
    if near.bid.sound:
        return Chosen(near, why, forbidden)
    return Chosen(market.freely(near.partition), f"{why} ({_broken(near)})", forbidden, met=False)


def _unmet(market: Market, asked: Sequence[Candidate], forbidden: tuple[Candidate, ...]) -> Chosen:
    """Nothing keeps to the limits: the cheapest goes on for as long as they last."""

    def cost(each: Candidate) -> float:
        total = each.bid.energy_j if market.terms.limits.energy_j is not None else each.bid.time_s
        return total.value if total else 0.0

    cheapest = min(asked, key=lambda each: cost(market.freely(each.partition)))
    rejected = [replace(each, why=_broken(each)) for each in asked if each is not cheapest]
    why = f"nothing keeps to the limits ({_broken(cheapest)}); the cheapest goes on for as long as they last"
    return Chosen(market.freely(cheapest.partition), why, (*rejected, *forbidden), met=False)
