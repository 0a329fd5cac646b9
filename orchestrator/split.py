"""Decides from measured affinities which tasks go on together: exact, under constraints.

A partition's score is the mean over all tasks of how much their group helps them. It is a
sum over groups, so all task sets are scored at once, those that the rules forbid are struck out, and
``orchestrator.partitions`` finds the best of all partitions into exactly x groups.

Source: the score is that of MAS (ICCV 2023) as released, where the search enumerates, ignores
negative affinities and may return fewer groups than were asked for; this one does none of it. Standard
errors take the entries as independent of each other, which those of one batch are not: with gram, whose
Z[i, j] and Z[j, i] come from one product, they are up to a quarter too small (docs/decisions/0015). Nothing
here checks that affinity predicts gain.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mas_edge.orchestrator.partitions import k_best, members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mas_edge.orchestrator.affinity import Affinity

MAX_TASKS = 15
"""More tasks than this are refused: time and memory grow threefold with each."""

Group: TypeAlias = tuple[str, ...]
Matrix: TypeAlias = NDArray[np.float64]


class SplitImpossible(ValueError):
    """No partition keeps the rules; the text says which rule or number is in the way."""


@dataclass(frozen=True)
class Rules:
    """What a partition must keep to. ``fits`` and ``price`` are asked about groups in task order.

    A group for which ``fits`` is false is forbidden. ``price`` is what a group costs in units of the
    score (its energy times a weight per joule); the sum over the groups is taken off the score.
    """

    must_link: tuple[tuple[str, str], ...] = ()
    cannot_link: tuple[tuple[str, str], ...] = ()
    max_size: int | None = None
    fits: Callable[[Group], bool] | None = None
    price: Callable[[Group], float] | None = None


FREE = Rules()


@dataclass(frozen=True)
class Partition:
    """Groups in the order of their first tasks, their score, and its standard error if known."""

    groups: tuple[Group, ...]
    score: float
    se: float | None


@dataclass(frozen=True)
class Choice:
    """A chosen partition, and how far it leads the best other one that was considered.

    ``lead`` is negative where a partition into more groups scored higher, but not by more than the
    standard error. ``considered`` holds the best partition for each number of groups.
    """

    partition: Partition
    runner_up: Partition | None
    lead: float | None
    lead_se: float | None
    considered: tuple[Partition, ...]


# --- the score ------------------------------------------------------------------------------------


def _scores(mean: Matrix) -> Matrix:
    """(2**n,): for each mask the sum over its tasks j of the mean effect on j of its other tasks.

    A task alone gets the mean of all effects on it and from it, so two tasks score the same together
    and apart. The empty mask gets -inf.
    """
    score: Matrix = task_scores(mean).sum(axis=1)
    score[0] = -np.inf
    return score


def task_scores(mean: Matrix) -> Matrix:
    """(2**n, n): S_j(G), the mean effect on task j of the other tasks of group G; 0 where j is not in G."""
    n = len(mean)
    effect = np.nan_to_num(mean)
    np.fill_diagonal(effect, 0.0)
    inside = members(n).astype(np.float64)
    size = inside.sum(axis=1, keepdims=True)
    score: Matrix = (inside @ effect) * inside / np.maximum(size - 1, 1)
    alone = (effect.sum(axis=0) + effect.sum(axis=1)) / (2 * max(n - 1, 1))
    score[1 << np.arange(n), np.arange(n)] = alone
    return score


def share_of(affinity: Affinity, groups: Sequence[Group], serves: Sequence[Group] = ()) -> Matrix:
    """(n, n): the score's derivative with respect to each entry; the score is linear in them.

    Where groups overlap, each counts for the tasks that it ``serves``.
    """
    n = len(affinity.tasks)
    share = np.zeros((n, n))
    for group, served in zip(groups, serves or groups, strict=True):
        at, of = ([affinity.tasks.index(task) for task in some] for some in (group, served))
        if len(at) == 1:
            share[at, :] += 1 / (2 * max(n - 1, 1))
            share[:, at] += 1 / (2 * max(n - 1, 1))
        else:
            share[np.ix_(at, of)] += 1 / (len(at) - 1)
    np.fill_diagonal(share, 0.0)
    return share / n


def standard_error(affinity: Affinity, share: Matrix) -> float | None:
    """Standard error of a linear function of the entries, None if an entry's is unknown."""
    used = share != 0
    total = float(np.sqrt(np.sum((share[used] * affinity.se[used]) ** 2)))
    return None if math.isnan(total) else total


def lead(affinity: Affinity, a: Partition, b: Partition) -> tuple[float, float | None]:
    """By how much a scores higher than b, and the standard error of that; shared terms cancel."""
    share = share_of(affinity, a.groups) - share_of(affinity, b.groups)
    return a.score - b.score, standard_error(affinity, share)


# --- rules ----------------------------------------------------------------------------------------


def _worth(affinity: Affinity, rules: Rules) -> Matrix:
    """(2**n,): the score of each mask less n times its price, -inf where the rules forbid it."""
    tasks, n = affinity.tasks, len(affinity.tasks)
    if not 1 <= n <= MAX_TASKS:
        raise SplitImpossible(f"{n} tasks: the exact search takes 1 to {MAX_TASKS}")
    worth = np.where(_linked(tasks, rules), _scores(affinity.mean), -np.inf)
    if rules.fits or rules.price:
        for mask in map(int, np.flatnonzero(worth > -np.inf)):
            worth[mask] -= n * _cost(_names(tasks, mask), rules)
    reachable = np.any(members(n) & (worth > -np.inf)[:, None], axis=0)
    for task in itertools.compress(tasks, ~reachable):
        raise SplitImpossible(f"the rules leave no group that task {task!r} could be in")
    return worth


def _linked(tasks: Group, rules: Rules) -> NDArray[np.bool_]:
    """(2**n,): which masks keep to the largest size and to the links."""
    inside = members(len(tasks))
    kept = np.ones(len(inside), bool) if rules.max_size is None else inside.sum(axis=1) <= rules.max_size
    for a, b in rules.must_link:
        kept &= inside[:, _position(tasks, a)] == inside[:, _position(tasks, b)]
    for a, b in rules.cannot_link:
        kept &= ~(inside[:, _position(tasks, a)] & inside[:, _position(tasks, b)])
    return kept


def _cost(group: Group, rules: Rules) -> float:
    """The price of a group, infinite for one that does not fit."""
    if rules.fits and not rules.fits(group):
        return math.inf
    price = rules.price(group) if rules.price else 0.0
    if math.isnan(price) or price == -math.inf:
        raise SplitImpossible(f"the price of {'+'.join(group)} is {price}, not a number")
    return price


def _position(tasks: Group, name: str) -> int:
    if name not in tasks:
        raise SplitImpossible(f"a rule names task {name!r}; there are {', '.join(tasks)}")
    return tasks.index(name)


def _names(tasks: Group, mask: int) -> Group:
    return tuple(task for i, task in enumerate(tasks) if mask >> i & 1)


# --- the search -----------------------------------------------------------------------------------


def best(affinity: Affinity, groups: int, *, rules: Rules = FREE, k: int = 1) -> list[Partition]:
    """The k best partitions into exactly so many groups, best first; fewer where there are fewer.

    Equal scores come in a fixed order. Raises SplitImpossible if there is none.
    """
    n = len(affinity.tasks)
    if not 1 <= groups <= n:
        raise SplitImpossible(f"{n} tasks cannot be split into {groups} groups: ask for 1 to {n}")
    found = ranked(affinity, groups, rules, k)[-1]
    if found:
        return found
    possible = ", ".join(str(len(some[0].groups)) for some in ranked(affinity, n, rules, 1) if some)
    raise SplitImpossible(
        f"no partition into {groups} groups keeps the rules; possible: {possible or 'none'}"
    )


def auto(affinity: Affinity, *, rules: Rules = FREE, max_groups: int | None = None) -> Choice:
    """The fewest groups whose best partition is within one standard error of the best of all.

    Each group costs another encoder's work, so a finer partition has to be better by more than the
    measurements can be wrong; an unknown standard error vouches for nothing. This is the one-standard-
    error rule of Breiman et al., Classification and Regression Trees (1984), section 3.4.3. Raises
    SplitImpossible if the rules allow no partition.
    """
    most = len(affinity.tasks) if max_groups is None else max_groups
    found = [some for some in ranked(affinity, most, rules, 2) if some]
    if not found:
        raise SplitImpossible(f"no partition into at most {most} groups keeps the rules")
    top = max((partitions[0] for partitions in found), key=lambda p: p.score)
    least = -math.inf if top.se is None else top.score - top.se
    chosen = next(partitions[0] for partitions in found if partitions[0].score >= least)
    return _choice(affinity, chosen, found)


def _choice(affinity: Affinity, chosen: Partition, found: Sequence[Sequence[Partition]]) -> Choice:
    others = [p for partitions in found for p in partitions if p != chosen]
    runner_up = max(others, key=lambda p: p.score, default=None)
    gain, se = lead(affinity, chosen, runner_up) if runner_up else (None, None)
    return Choice(chosen, runner_up, gain, se, tuple(partitions[0] for partitions in found))


def ranked(affinity: Affinity, most: int, rules: Rules = FREE, k: int = 1) -> list[list[Partition]]:
    """For 1, 2, ..., most groups the k best partitions that keep the rules, best first.

    Raises SplitImpossible if some task is in no group that keeps them.
    """
    found = k_best(_worth(affinity, rules), most, k)
    return [[_partition(affinity, rules, masks) for masks in ranked] for ranked in found]


def _partition(affinity: Affinity, rules: Rules, masks: Sequence[int]) -> Partition:
    return scored(affinity, tuple(_names(affinity.tasks, mask) for mask in masks), rules)


def scored(affinity: Affinity, groups: tuple[Group, ...], rules: Rules = FREE) -> Partition:
    """A partition with its score and the score's standard error."""
    share = share_of(affinity, groups)
    price = math.fsum(map(rules.price, groups)) if rules.price else 0.0
    score = math.fsum((share * np.nan_to_num(affinity.mean)).flat) - price
    return Partition(groups, score, standard_error(affinity, share))
