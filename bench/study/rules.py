"""How many groups: rules that weigh a split against not splitting, and what their choices come to.

``1 SE``: ``orchestrator.split.auto``, by which the product chose at first; it knows no energy.
``progress``: of first order, a step of group G lowers L_j by D_j(G) = Σ_{i∈G} Z[i, j] of it, j's effect on
itself included. A partition's progress Σ_j w_j D_j(G(j)) over its energy Σ_G cost(G) is compared with that of
all tasks together; it splits where the best partition's is greater by more than the standard error.
``trial``: the best two groups by affinity are trained for some rounds, all tasks together for as much energy,
and the lower loss over the later half of both is kept (``methods.halving`` with two candidates).
``verified``: ``methods.halving`` of the best partition into each number of groups.
``gain_of_rounds`` is no rule yet: it foretells what more rounds would bring.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from mas_edge.orchestrator import split
from study import methods
from study.judge import FIRST, affinity_name
from study.sets import EVERY
from study.table import HELD_OUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mas_edge.orchestrator.affinity import Affinity
    from study.methods import Choice, Scores
    from study.table import Criterion, Partition, Table

    Matrix = NDArray[np.float64]

Weigh = Literal["alike", "by loss"]
WEIGHS: tuple[Weigh, ...] = ("alike", "by loss")
RULED: tuple[tuple[str, methods.Norm], ...] = (
    ("gram", "raw"),
    ("gram", "self"),
    ("gram", "z"),
    ("lookahead", "raw"),
    ("lookahead", "self"),
)
"""Affinities that the one-standard-error rule is tried on."""
TRIALS = (4, 8)
"""Rounds of a trial; and as many as ``SHARE`` pays, at least one."""
SHARE = 0.1
"""Of the energy of a job that never splits, that a trial may waste."""


def progress(table: Table, measured: Affinity, weigh: Weigh) -> tuple[Partition, dict[Partition, float]]:
    """What the rule chooses, and each partition's progress per energy over that of not splitting.

    ``weigh``: all tasks count alike, or each as much as its held-out loss when the merge ends.
    """
    last = table.merged.steps[-1].held_out
    weights = np.array([last[task][0] if weigh == "by loss" else 1.0 for task in table.tasks])
    known, whole = np.nan_to_num(measured.mean), (table.tasks,)
    shares = {p: _share(table, p) * weights for p in table.partitions}
    rates = {p: float((share * known).sum()) for p, share in shares.items()}
    best = max(rates, key=rates.__getitem__)
    se = float(np.sqrt(np.nansum(((shares[best] - shares[whole]) * measured.se) ** 2)))
    chosen = best if rates[best] - rates[whole] > se else whole
    return chosen, {p: rate / rates[whole] for p, rate in rates.items()}


def _share(table: Table, partition: Partition) -> Matrix:
    """(n, n): 1 where i and j are in one group, over the partition's energy."""
    group = {task: at for at, tasks in enumerate(partition) for task in tasks}
    own = np.array([group[task] for task in table.tasks])
    return (own[:, None] == own) / table.cost(partition)


def trial(table: Table, candidate: Partition, rounds: int | None) -> Choice:
    """The better of a partition and not splitting after so many rounds; None: as many as the share pays."""
    span, merged = len(table.group(table.tasks).steps), len(table.merged.steps)
    paid = SHARE * (merged + span) / table.cost(candidate)
    return methods.halving(table, [candidate, (table.tasks,)], rounds or max(1, int(paid)), by_energy=True)


def gain_of_rounds(table: Table, cost: float) -> float:
    """By which share more rounds would lower the loss, for so much energy: told when the merge ends.

    Between half of the merged rounds and all of them the loss fell like a power of the energy; the same power
    is taken to hold when all tasks go on together for ``cost`` times as long as was planned.
    """
    losses = [HELD_OUT.of(step.held_out) for step in table.merged.steps]
    half = len(losses) // 2
    power = float(np.log(losses[half - 1] / losses[-1]) / np.log(len(losses) / half))
    return 1 - float(cost**-power)


@dataclass(frozen=True)
class Outcome:
    """A number of groups that was chosen, and what it came to.

    ``loss`` and ``energy`` against not splitting (percent and ratio, after equal rounds, trainings that were
    only for choosing included in the energy), ``even`` against not splitting with the same energy (percent);
    negative percentages are better.
    """

    partition: Partition
    energy: float
    loss: float
    even: float


def outcome(table: Table, partition: Partition, wasted: float = 0.0, by: Criterion = HELD_OUT) -> Outcome:
    """What a choice comes to."""
    energy, loss = table.cost(partition) + wasted, table.loss(partition, by)
    together, even = table.loss((table.tasks,), by), table.together(energy, by)
    return Outcome(partition, energy, 100 * (loss / together - 1), 100 * (loss / even - 1))


def choices(table: Table, scored: dict[str, Scores]) -> dict[str, Choice]:
    """What every rule chooses; the oracles know all losses."""
    found = {name: methods.Choice(p, 0.0) for name, p in _at_the_merge(table).items()}
    for norm in ("raw", "self"):
        of = scored[affinity_name("gram", norm, EVERY)]
        for x in (2, 3):
            found[f"always {x}, gram {norm}"] = methods.Choice(methods.pick(of, x), 0.0)
        for by_energy, first in product((False, True), FIRST):
            name = f"verified gram {norm}, from {first} rounds, equal {'energy' if by_energy else 'rounds'}"
            found[name] = methods.halving(table, methods.top(of, None, 0), first, by_energy=by_energy)
    two = methods.pick(scored[affinity_name("gram", "raw", EVERY)], 2)
    for rounds in (None, *TRIALS):
        long = f"{rounds} rounds" if rounds else f"{SHARE:.0%} of the energy"
        found[f"trial gram raw, {long}"] = trial(table, two, rounds)
    even = min(table.partitions, key=lambda p: outcome(table, p).even)
    return found | {
        "oracle, equal rounds": methods.Choice(min(table.partitions, key=table.loss), 0.0),
        "oracle, equal energy": methods.Choice(even, 0.0),
    }


def _at_the_merge(table: Table) -> dict[str, Partition]:
    """What is chosen without any further training."""
    found = {"never split": (table.tasks,), "one by one": tuple((task,) for task in table.tasks)}
    for method, norm in RULED:
        measured = methods.affinity(table.measured(method, EVERY), norm)
        found[f"1 SE, {method} {norm}"] = split.auto(measured).partition.groups
    for method in ("gram", "lookahead"):
        measured = methods.affinity(table.measured(method, EVERY), "raw")
        for weigh in WEIGHS:
            found[f"progress, {method}, tasks {weigh}"] = progress(table, measured, weigh)[0]
    return found
