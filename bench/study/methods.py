"""How a partition is chosen: each method's score of every partition, higher being better.

``affinity``: the product's score (``orchestrator.split``) of what was measured in the merged rounds, by one
of three methods, raw, ``self`` (each column over the task's effect on itself, clipped) or ``z`` (in every
round each column's entries less their mean, over their deviation; then the mean over rounds).
``tag``: raw lookahead over a whole run that never splits (TAG, arXiv 2109.04617).
``hoa``: all pairs and single tasks trained, a task's loss in a group is the mean over its pairs there
(Standley et al., ICML 2020, section 5); ``hoa short`` from their first rounds after the merge only.
``verified``: the best few by affinity are trained for some rounds, the better half of them for twice as
many, and so on (successive halving, Jamieson and Talwalkar 2016); groups that several partitions share are
trained once. TAG and HOA train their groups from scratch; here all methods choose among the same groups,
which go on from the merged weights, and only the choice is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from mas_edge.orchestrator import split
from mas_edge.orchestrator.affinity import Affinity, normalise, pool
from study.sets import EVERY, SPARSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.wire.messages import AffinitySums
    from study.table import Partition, Table

    Rounds = Sequence[tuple[AffinitySums, ...]]
    Scores = dict[Partition, float]

Norm = Literal["raw", "self", "z"]
NORMS: tuple[Norm, ...] = ("raw", "self", "z")


def affinity(rounds: Rounds, norm: Norm) -> Affinity:
    """What was measured in these rounds by all devices, normalised."""
    if norm != "z":
        return normalise(pool(chain.from_iterable(rounds)), norm)
    return _standardised([pool(sums) for sums in rounds])


def _standardised(each: Sequence[Affinity]) -> Affinity:
    """Each column's entries off the diagonal, less their mean, over their deviation; the mean over rounds."""
    other = ~np.eye(len(each[0].tasks), dtype=bool)
    by_column = np.stack([one.mean.T[other].reshape(len(other), -1) for one in each])
    z = (by_column - by_column.mean(2, keepdims=True)) / by_column.std(2, keepdims=True)
    mean, se = np.ones(other.shape), np.zeros(other.shape)
    mean[other], se[other] = z.mean(0).ravel(), (z.std(0) / np.sqrt(max(len(each) - 1, 1))).ravel()
    return Affinity(each[0].tasks, mean.T, se.T, np.sum([one.batches for one in each], 0))


def batches(rounds: Rounds) -> int:
    """How many batches were measured."""
    return sum(sums.batches[0] for each in rounds for sums in each)


def windows(table: Table) -> dict[str, list[Rounds]]:
    """Parts of what was measured, less and later; several where there are several ways to take so much.

    By gram in the merged rounds; by lookahead (``whole run``) in those of a run that never splits too.
    """
    due, whole = table.measured("gram", EVERY), table.measured_throughout()
    half, middle = len(due) // 2, (len(due) + len(whole)) // 2
    found = {"every batch": [table.measured("gram", 1)], "every 10th": [due]}
    if ("gram", SPARSE) in table.ways:
        found["every 30th, one a round at least"] = [table.measured("gram", SPARSE)]
    return found | {
        "every 10th of every third round": [due[at::3] for at in range(3)],
        "every 10th, first round": [due[:1]],
        "every 10th, first half": [due[:half]],
        "every batch, later half": [table.measured("gram", 1)[half:]],
        "every 10th, later half": [due[half:]],
        "every 10th of every third round, later half": [due[half:][at::3] for at in range(3)],
        "every 10th, last third": [due[-(len(due) // 3) :]],
        "every 10th, last round": [due[-1:]],
        "lookahead, every 10th": [table.measured("lookahead", EVERY)],
        "lookahead, whole run (tag)": [whole],
        "lookahead, first half after the merge": [whole[len(due) : middle]],
        "lookahead, later half after the merge": [whole[middle:]],
    }


def by_affinity(measured: Affinity) -> Scores:
    """The product's score of every partition."""
    n = len(measured.tasks)
    return {p.groups: p.score for x in range(1, n + 1) for p in split.best(measured, x, k=60)}


def by_pairs(table: Table, rounds: int | None = None) -> Scores:
    """Less the loss that pairs and single tasks predict, from theirs after so many rounds or at the end."""
    span = len(table.group(table.tasks).steps)
    at = min(rounds or span, span) - 1

    def loss(task: str, group: tuple[str, ...]) -> float:
        pairs = [tuple(sorted((task, other), key=table.tasks.index)) for other in group if other != task]
        return float(np.mean([table.group(p).steps[at].held_out[task][0] for p in pairs or [(task,)]]))

    return {p: -sum(loss(task, group) for group in p for task in group) for p in table.partitions}


def pick(scores: Scores, groups: int) -> Partition:
    """The partition of greatest score among those into so many groups."""
    return max((p for p in scores if len(p) == groups), key=lambda p: scores[p])


@dataclass(frozen=True)
class Choice:
    """A partition, and the CPU time of trainings that were needed to choose it and do not go into it.

    The unit is what all tasks together take after the merge.
    """

    partition: Partition
    wasted: float


def halving(table: Table, candidates: Sequence[Partition], first: int = 1, *, by_energy: bool) -> Choice:
    """The winner of successive halving, beginning with so many rounds after the merge.

    ``by_energy``: a partition is judged by its loss after the rounds that the dearest candidate's energy
    would pay, else after equal rounds.
    """
    left, rounds, span = list(candidates), first, len(table.group(table.tasks).steps)
    trained: dict[tuple[str, ...], int] = {}
    while len(left) > 1:
        dearest = max(map(table.cost, left)) if by_energy else None
        paid = {p: min(span, round(rounds * (dearest / table.cost(p) if dearest else 1))) for p in left}
        for group, partition in ((group, p) for p in left for group in p):
            trained[group] = max(trained.get(group, 0), paid[partition])
        left = sorted(left, key=lambda p: table.loss_after(p, paid[p]))[: len(left) // 2]
        rounds = min(2 * rounds, span)
    unused = (table.costs[group] * n / span for group, n in trained.items() if group not in left[0])
    return Choice(left[0], sum(unused))


def top(scores: Scores, groups: int | None, k: int) -> list[Partition]:
    """The k best into so many groups; for None the best into each number of groups, 1 included."""
    if groups is None:
        return [pick(scores, x) for x in range(1, max(map(len, scores)) + 1)]
    return sorted((p for p in scores if len(p) == groups), key=lambda p: -scores[p])[:k]
