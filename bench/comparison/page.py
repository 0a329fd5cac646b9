"""The comparison's tables in markdown: the goals, every policy, the map of regimes, real fleets, what lacks.

Percentages of losses are negative where the policy is better. Energy is CPU time of computing, all-in-one's
for the point's rounds being 1, unless a fleet's table says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letters import SHORT

from comparison.judge import ahead, ahead_at_equal_energy, over, share_to_reach, spread, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comparison.fleet import Run
    from comparison.judge import Outcome
    from comparison.points import Point
    from comparison.table import Table

ALL, ONE, TWO, AUTO = "all-in-one", "one-by-one", "mas 2", "mas auto"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def lengths_of(point: Point, policy: str) -> list[str]:
    """The arms that are this one for some number of rounds."""
    return [arm.name for arm in point.arms if arm.name.split(" x")[0] == policy]


def relative_energy(found: Table, name: str) -> list[float]:
    """By seed, the energy of an arm, all-in-one's for the point's rounds being 1."""
    return over(found.arms, name, lambda _, outcome: outcome.energy / found.point.rounds)


def energy_over(found: Table, name: str, other: str) -> list[float]:
    """By seed, the energy of an arm over another's."""
    rivals = found.arms.get(other, {})
    return over(found.arms, name, lambda s, own: own.energy / rivals[s].energy if s in rivals else None)


def policies(found: Table) -> str:
    """Every arm at equal rounds, and against all-in-one that was trained for the arm's own energy."""
    point = found.point
    longer = lengths_of(point, ALL)
    costs = ("policy", "groups, by seed", "rounds", "energy", "/ one-by-one")
    losses = ("held-out loss", "of constant", "vs one-by-one", "vs all-in-one, equal energy")
    strangers = ("unseen loss", "vs one-by-one", "vs all-in-one, equal energy")
    rows = []
    for arm in point.arms:
        name = arm.name
        if name not in found.arms:
            continue
        n = len(found.arms[name])
        rows.append(
            (
                name,
                "; ".join(_groups(outcome.groups) for _, outcome in sorted(found.arms[name].items())),
                str(round(arm.factor * point.rounds)),
                spread(relative_energy(found, name), ".2f"),
                spread(energy_over(found, name, ONE), ".2f", n),
                spread(over(found.arms, name, lambda _, outcome: outcome.loss)),
                spread(over(found.arms, name, lambda _, outcome: outcome.relative)),
                _percent(ahead(found.arms, name, ONE), n),
                "" if arm.policy == ALL else _percent(ahead_at_equal_energy(found.arms, name, longer), n),
                spread(over(found.arms, name, lambda _, outcome: outcome.unseen)),
                _percent(ahead(found.arms, name, ONE, unseen), n),
                ""
                if arm.policy == ALL
                else _percent(ahead_at_equal_energy(found.arms, name, longer, unseen), n),
            )
        )
    return markdown((*costs, *losses, *strangers), rows)


def tasks(found: Table) -> str:
    """Held-out loss of each task under the arms of the point's own rounds."""
    names = [arm.name for arm in found.point.arms if arm.factor == 1 and arm.name in found.arms]
    every = next(iter(found.arms[names[0]].values())).by_task if names else ()

    def loss(name: str, task: str) -> str:
        return spread(over(found.arms, name, lambda _, outcome: outcome.by_task[task]))

    rows = [(task, *(loss(name, task) for name in names)) for task in every]
    return markdown(("task", *names), rows)


def goals(tables: Sequence[Table], policy: str) -> str:
    """A policy that splits against one-by-one and all-in-one, beside what it should do."""
    heads = (
        "point",
        "seeds",
        "energy / one-by-one (≤ 0.5)",
        "loss vs one-by-one, equal rounds (< 0)",
        "and equal energy (< 0)",
        "one-by-one's loss for this share of its energy (≤ 0.5)",
        "by all-in-one",
        "loss vs all-in-one, equal rounds (< 0)",
        "and equal energy",
    )
    rows = []
    for found in tables:
        point, arms = found.point, found.arms
        if policy not in arms:
            continue
        n, own = len(arms[policy]), lengths_of(point, ONE)
        two, whole = lengths_of(point, policy), lengths_of(point, ALL)
        alone = [-100 * value / (100 + value) for value in ahead_at_equal_energy(arms, ONE, two)]
        rows.append(
            (
                point.name,
                str(n),
                spread(energy_over(found, policy, ONE), ".2f", n),
                _percent(ahead(arms, policy, ONE), n),
                _percent(alone, n),
                spread(share_to_reach(arms, ONE, own, two), ".2f", n),
                spread(share_to_reach(arms, ONE, own, whole), ".2f", n),
                _percent(ahead(arms, policy, ALL), n),
                _percent(ahead_at_equal_energy(arms, policy, whole), n),
            )
        )
    return markdown(heads, rows)


def carrying(tables: Sequence[Table]) -> str:
    """Every length of two groups by how much of what was learnt carried over at the merge, least first."""
    heads = ("two groups", "seeds", "rounds", "merged", "carried over at the merge", "loss, equal energy")
    rows: list[tuple[float, tuple[str, ...]]] = []
    for found in tables:
        whole = lengths_of(found.point, ALL)
        for name in lengths_of(found.point, TWO):
            shares = over(found.arms, name, lambda _, outcome: outcome.carried)
            arm = next(arm for arm in found.point.arms if arm.name == name)
            rounds, merged = (
                str(round(arm.factor * n)) for n in (found.point.rounds, found.point.merge_rounds)
            )
            paid = _percent(ahead_at_equal_energy(found.arms, name, whole), len(shares))
            if shares:
                row = (found.point.name, str(len(shares)), rounds, merged, spread(shares, ".2f"), paid)
                rows.append((sum(shares) / len(shares), row))
    return markdown(heads, [row for _, row in sorted(rows)])


def regimes(tables: Sequence[Table]) -> str:
    """The map: what a split and one-by-one bring at equal rounds, and what the same energy brings merged."""
    heads = (
        "point",
        "what differs",
        "seeds",
        "one-by-one's energy",
        "all-in-one, of constant",
        "two groups, equal rounds",
        "one-by-one, equal rounds",
        "two groups, equal energy",
        "one-by-one, equal energy",
        "unseen: two groups, equal rounds",
        "and equal energy",
        "what `auto` does",
    )
    rows = []
    for found in tables:
        point, arms = found.point, found.arms
        if ALL not in arms:
            continue
        n, whole = len(arms[ALL]), lengths_of(point, ALL)
        rows.append(
            (
                point.name,
                point.what or f"{len(point.tasks)} tasks",
                str(n),
                spread(relative_energy(found, ONE), ".2f", n),
                spread(over(arms, ALL, lambda _, outcome: outcome.relative)),
                _percent(ahead(arms, TWO, ALL), n),
                _percent(ahead(arms, ONE, ALL), n),
                _percent(ahead_at_equal_energy(arms, TWO, whole), n),
                _percent(ahead_at_equal_energy(arms, ONE, whole), n),
                _percent(ahead(arms, TWO, ALL, unseen), n),
                _percent(ahead_at_equal_energy(arms, TWO, whole, unseen), n),
                "; ".join(_decided(o) for _, o in sorted(arms.get(AUTO, {}).items())) or "–",
            )
        )
    return markdown(heads, rows)


def fleets(point: Point, measured: Sequence[Run]) -> str:
    """Runs of real processes, and whether they ended with the weights of those in one process."""
    from comparison import fleet  # noqa: PLC0415 - rich, and all of mas demo

    shown = fleet.table(measured)
    said = {None: "not trained there", True: "yes", False: "NO"}
    rows = [*shown.rows, ("weights as in one process", *(said[run.same] for run in measured))]
    return markdown((point.name, *shown.headers[1:]), [tuple(cell.strip() for cell in row) for row in rows])


def missing(tables: Sequence[Table]) -> str:
    """What is not trained yet, by point: arms, with the seeds that they lack."""
    lines = [
        f"- {found.point.name}: "
        + "; ".join(f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in found.missing.items())
        for found in tables
        if found.missing
    ]
    return "\n".join(lines) or "Nothing."


def _decided(outcome: Outcome) -> str:
    """The groups, and after how many rounds they were split."""
    after = f" after {outcome.merged_rounds}" if len(outcome.groups) > 1 else ""
    return _groups(outcome.groups) + after


def _groups(groups: Sequence[str]) -> str:
    return " ".join("".join(SHORT[task] for task in group.split("+")) for group in groups)


def _percent(values: Sequence[float], seeds: int) -> str:
    return spread(values, "+.1f", seeds, " %")
