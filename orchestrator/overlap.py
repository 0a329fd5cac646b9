"""Task groups that may overlap: which groups to train, and for the sake of which of their tasks.

A task may help a group without being served by it: its decoder is trained there too, but another group
does better for it. So with S_j(G), what the group G does for its task j, the groups G_1 ... G_x are wanted
that maximise the sum over all tasks j of the greatest S_j(G) among the groups with j. Whatever is chosen, the
tasks that each group serves are a partition, and a part P is best served by its own best group:

    worth[P] = max over G that contain P of sum over j in P of S_j(G)

so the exact search over partitions (``orchestrator.partitions``) with these worths finds the groups. Making
the worths takes 3**n additions. Two parts that share their best group are one part: then fewer groups do as
well, and fewer are returned.

Source of the problem: Standley et al., Which Tasks Should Be Learned Together in Multi-task Learning? (2020),
and TAG (Fifty et al., Efficiently Identifying Task Groupings for Multi-Task Learning, 2021), which search it
by branch and bound; this reduction is our own. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mas_edge.orchestrator.partitions import k_best, members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mas_edge.orchestrator.split import Matrix

    Possible: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Cover:
    """Groups and the tasks that each serves, parallel, as masks; ``total`` is what they do for all."""

    groups: tuple[int, ...]
    serves: tuple[int, ...]
    total: float


def covers(score: Matrix, possible: Possible) -> list[Cover]:
    """The best cover with at most 1, 2, ..., n groups; none where no groups serve every task.

    ``score`` (2**n, n) has S_j(G) at [G, j] and may be -inf; ``possible`` (2**n,) says which groups may be
    trained. Among equals a group has the fewest tasks.
    """
    n = score.shape[1]
    worth, by = _worths(score, possible)
    found: list[Cover] = []
    for parts in k_best(worth, n, 1):
        if parts:
            cover = _cover(parts[0], worth, by)
            better = found[-1] if found and found[-1].total >= cover.total else cover
            found.append(better)
    return found


def _worths(score: Matrix, possible: Possible) -> tuple[Matrix, NDArray[np.int64]]:
    """(2**n,): the worth of serving each set of tasks by one group, and the group that does it best."""
    n = score.shape[1]
    worth: Matrix = np.full(1 << n, -np.inf)
    by = np.zeros(1 << n, np.int64)
    sizes = members(n).sum(axis=1)
    for group in map(int, np.argsort(sizes, kind="stable")):  # small ones first: they stay among equals
        if not group or not possible[group]:
            continue
        parts, totals = np.zeros(1, np.int64), np.zeros(1)
        for task in range(n):
            if group >> task & 1:
                parts = np.concatenate([parts, parts | 1 << task])
                totals = np.concatenate([totals, totals + score[group, task]])
        better = totals > worth[parts]
        better[0] = False  # nothing is served for nothing
        worth[parts[better]], by[parts[better]] = totals[better], group
    return worth, by


def _cover(parts: list[int], worth: Matrix, by: Mapping[int, int] | NDArray[np.int64]) -> Cover:
    """The groups of these parts; parts with the same group become one."""
    served: dict[int, int] = {}
    for part in parts:
        group = int(by[part])
        served[group] = served.get(group, 0) | part
    return Cover(tuple(served), tuple(served.values()), float(sum(worth[part] for part in parts)))


def by_pairs(losses: Mapping[frozenset[int], Mapping[int, float]], n: int) -> Matrix:
    """(2**n, n): S_j(G) as Standley et al. approximate it, "higher-order": from what pairs of tasks reach.

    -mean over i in G, i not j, of the loss of j trained with i over that of j trained alone; alone: -1. A
    loss is divided by the task's own so that tasks weigh alike, whatever their units. ``losses`` has the loss
    of each task of each pair and of each single task; where one that is needed is missing, or nothing can be
    divided by it, the score is -inf.
    """
    ratio = np.full((n, n), np.inf)
    np.fill_diagonal(ratio, 1.0)
    for j in range(n):
        alone = losses.get(frozenset({j}), {}).get(j)
        if not alone or not alone > 0:
            continue
        for i in range(n):
            together = losses.get(frozenset({i, j}), {}).get(j)
            if i != j and together is not None:
                ratio[i, j] = together / alone
    score: Matrix = np.full((1 << n, n), -np.inf)
    for mask, row in enumerate(members(n)):
        at = np.flatnonzero(row)
        for j in map(int, at):
            others = at[at != j] if len(at) > 1 else at
            score[mask, j] = -ratio[others, j].mean()
    return score
