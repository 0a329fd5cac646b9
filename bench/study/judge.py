"""How good the chosen partitions are: rank, regret and correlation against the table of all partitions.

Regret is how much higher the loss of the choice is than that of the best partition into as many groups, in
percent of the latter; the regret of a random choice is the mean over all of these. ``share`` is a method's
mean regret over random's: 0 is the best partition, 1 is no better than chance. ``another seed`` takes what
was best on the mean of the other seeds: no measurement on one seed can be expected to do better where seeds
disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from study import methods
from study.sets import EVERY
from study.table import HELD_OUT
from study.train import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from mas_edge.orchestrator.affinity import Affinity
    from study.methods import Scores
    from study.table import Criterion, Partition, Table

COUNTS = (2, 3, 4)
VERIFIED = 4
"""How many partitions are tried before one is chosen."""
FIRST = (1, 4)
"""Rounds after the merge by which verification judges first; then by twice as many."""
SHORT = 4
"""Rounds after the merge by which `hoa short` judges."""


def scores(table: Table, others: Sequence[Table]) -> dict[str, Scores]:
    """Every method's score of every partition. ``others`` are the same task set's under other seeds."""
    found: dict[str, Scores] = {}
    for every in (EVERY, 1):
        for method in METHODS:
            for norm in methods.NORMS:
                measured = methods.affinity(table.measured(method, every), norm)
                found[affinity_name(method, norm, every)] = methods.by_affinity(measured)
    due = table.measured("gram", EVERY)
    for norm in ("raw", "self"):
        late = methods.affinity(due[len(due) // 2 :], norm)
        found[f"gram {norm}, later half"] = methods.by_affinity(late)
    found["tag"] = methods.by_affinity(methods.affinity(table.measured_throughout(), "raw"))
    found["hoa short"] = methods.by_pairs(table, SHORT)
    found["hoa"] = methods.by_pairs(table)
    if others:
        found["another seed"] = {p: -float(np.mean([o.loss(p) for o in others])) for p in table.partitions}
    return found


def affinity_name(method: str, norm: str, every: int) -> str:
    """What a way to measure is called."""
    return f"{method} {norm}" + (f", every {every}" if every != EVERY else "")


def picks(table: Table, scored: dict[str, Scores]) -> dict[str, dict[int, methods.Choice]]:
    """By method what is chosen for each number of groups."""
    small = [group for group in table.costs if len(group) < 3]
    span = len(table.group(table.tasks).steps)
    costs = {"tag": 1.0, "hoa": sum(table.costs[group] for group in small), "another seed": float("nan")}
    costs["hoa short"] = costs["hoa"] * min(SHORT, span) / span
    chosen = {
        name: {x: methods.Choice(methods.pick(s, x), costs.get(name, 0.0)) for x in COUNTS}
        for name, s in scored.items()
    }
    for norm in ("raw", "self"):
        of = scored[affinity_name("gram", norm, EVERY)]
        for first in FIRST:
            chosen[f"verified {first} gram {norm}"] = {
                x: methods.halving(table, methods.top(of, x, VERIFIED), first, by_energy=False)
                for x in COUNTS
            }
    return chosen


@dataclass(frozen=True)
class Standing:
    """A choice among the partitions into as many groups; ``rank`` 1 is best."""

    rank: int
    regret: float
    random_regret: float


def standing(table: Table, chosen: Partition, by: Criterion = HELD_OUT) -> Standing:
    """Where a partition stands by a criterion; regrets in percent."""
    own = table.loss(chosen, by)
    alike = [table.loss(p, by) for p in table.partitions if len(p) == len(chosen)]
    least = min(alike)
    return Standing(
        rank=1 + sum(loss < own for loss in alike),
        regret=100 * (own / least - 1),
        random_regret=100 * (float(np.mean(alike)) / least - 1),
    )


def share(table: Table, measured: Affinity) -> float:
    """The mean regret of what an affinity picks, over random's."""
    scored = methods.by_affinity(measured)
    stands = [standing(table, methods.pick(scored, groups)) for groups in COUNTS]
    return sum(s.regret for s in stands) / sum(s.random_regret for s in stands)


def correlation(table: Table, scored: Scores, groups: int | None = None) -> float:
    """Spearman's rank correlation of score and quality, over all partitions or those into so many groups."""
    among = [p for p in table.partitions if groups in {None, len(p)}]
    return spearman([scored[p] for p in among], [-table.loss(p) for p in among])


def pair_agreement(table: Table, measured: Affinity) -> float:
    """Rank correlation of an affinity's entries with the share of j's loss that i saves it, as a pair."""
    saved, entries = [], []
    for i, j in permutations(table.tasks, 2):
        pair = table.group((i, j) if table.tasks.index(i) < table.tasks.index(j) else (j, i))
        alone, both = (group.steps[-1].held_out[j][0] for group in (table.group((j,)), pair))
        saved.append(1 - both / alone)
        entries.append(measured.mean[table.tasks.index(i), table.tasks.index(j)])
    known = ~np.isnan(entries)
    return spearman(np.array(entries)[known], np.array(saved)[known])


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Rank correlation; NaN where one of them does not vary."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


@dataclass(frozen=True)
class Noise:
    """What seeds say of the partitions into equally many groups: is there a choice, beyond chance.

    ``spread`` is the deviation between the partitions' mean losses, ``noise`` the standard error of such a
    mean once what a seed does to all partitions is taken out, ``seed_sd`` the deviation of a partition's loss
    over seeds, all in percent of the mean loss; ``p`` is that of an F test of no difference, ``agreement``
    the mean rank correlation between two seeds.
    """

    groups: int
    spread: float
    noise: float
    p: float
    agreement: float
    seed_sd: float


def noise(tables: Sequence[Table], groups: int, by: Criterion = HELD_OUT) -> Noise:
    """Two-way analysis of variance, partitions by seeds, without replication; needs two seeds."""
    among = [p for p in tables[0].partitions if len(p) == groups]
    losses = np.array([[table.loss(p, by) for table in tables] for p in among])
    count, seeds = losses.shape
    mean, free = losses.mean(), (count - 1) * (seeds - 1)
    left = losses - losses.mean(1, keepdims=True) - losses.mean(0, keepdims=True) + mean
    residual = (left**2).sum() / free
    between = losses.mean(1).var(ddof=1)
    pairs = [spearman(losses[:, a], losses[:, b]) for a, b in combinations(range(seeds), 2)]
    return Noise(
        groups=groups,
        spread=100 * float(np.sqrt(between)) / mean,
        noise=100 * float(np.sqrt(residual / seeds)) / mean,
        p=float(stats.f.sf(seeds * between / residual, count - 1, free)),
        agreement=float(np.mean(pairs)),
        seed_sd=100 * float(losses.std(1, ddof=1).mean()) / mean,
    )


@dataclass(frozen=True)
class Alike:
    """Two tables of one task set and seed: rank correlation of their losses, and how far these are apart.

    ``ranks`` by number of groups; ``apart`` the mean of the absolute differences in percent, ``within`` that
    of what remains once their mean is taken out; ``same_picks`` of ``picks``, over methods and numbers.
    """

    ranks: dict[int, float]
    apart: float
    within: float
    same_picks: int
    picks: int


def alike(one: Table, other: Table) -> Alike:
    """How well a table is repeated by another one."""
    ranks = {x: correlation(other, {p: -one.loss(p) for p in one.partitions}, x) for x in COUNTS}
    apart = np.array([100 * (other.loss(p) / one.loss(p) - 1) for p in one.partitions])
    ours, theirs = (picks(table, scores(table, [])) for table in (one, other))
    same = [ours[name][x].partition == theirs[name][x].partition for name in ours for x in COUNTS]
    return Alike(
        ranks, float(np.abs(apart).mean()), float(np.abs(apart - apart.mean()).mean()), sum(same), len(same)
    )
