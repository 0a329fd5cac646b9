"""The study's tables on whether to split at all, in markdown; and what was trained, all partitions."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from study import methods, rules
from study.markdown import short, slashed, spread, table
from study.sets import EVERY
from study.table import CRITERIA, HELD_OUT
from study.train import LONGER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study.choices import Choices
    from study.table import Table

    Tables = dict[str, list[Table]]


def settings(found: Tables) -> str:
    """What was trained, and the held-out loss of all tasks together: merged, at the end, and for longer."""
    rows = []
    for name, seeds in found.items():
        spec, training = seeds[0].spec, seeds[0].spec.training
        merged = [one.merged for one in seeds]
        whole = [one.loss((spec.tasks,)) for one in seeds]
        relative = [one.loss((spec.tasks,), CRITERIA["held-out, relative"]) for one in seeds]
        rows.append(
            [
                name,
                ", ".join(str(one.setting.seed) for one in seeds),
                f"{spec.merge_rounds} of {training.rounds}",
                f"{training.batch}, {training.lr:g}",
                spread([HELD_OUT.of(one.steps[-1].held_out) for one in merged], 3),
                spread(whole, 3),
                f"{np.mean(relative) / len(spec.tasks):.2f}",
                *(spread([one.together(factor) for one in seeds], 3) for factor in LONGER),
            ]
        )
    longer = [f"× {factor:g}" for factor in LONGER]
    return table(
        ("set", "seeds", "merged", "batch, lr", "after the merge", "at the end", "of constant", *longer), rows
    )


def rounds(found: Tables) -> str:
    """What the energy of the best two groups brings: as that split, and as more rounds without one."""
    rows = []
    for name, one in ((name, one) for name, seeds in found.items() for one in seeds):
        best = min((p for p in one.partitions if len(p) == 2), key=one.loss)
        whole, cost = one.loss((one.tasks,)), one.cost(best)
        split, real = 1 - one.loss(best) / whole, 1 - one.together(cost) / whole
        foretold = rules.gain_of_rounds(one, cost)
        gains = (f"{100 * gain:.1f}" for gain in (split, real, foretold))
        rows.append([f"{name}, seed {one.setting.seed}", short(best), f"{cost:.2f}", *gains])
    heads = (
        "",
        "best two groups",
        "energy",
        "split gains %",
        "more rounds gain %",
        "foretold at the merge %",
    )
    return table(heads, rows)


def progress(found: Tables) -> str:
    """By task set the progress per energy of the best split over that of not splitting; above 1 it splits."""
    rows = []
    for name, seeds in found.items():
        cells = defaultdict(list)
        for one in seeds:
            whole = one.measured_throughout()
            late = (one.spec.merge_rounds + len(whole)) // 2
            measured = {
                "gram": one.measured("gram", EVERY),
                "lookahead": one.measured("lookahead", EVERY),
                "lookahead, late": whole[late:],
            }
            for method, sums in measured.items():
                for weigh in rules.WEIGHS:
                    _, rates = rules.progress(one, methods.affinity(sums, "raw"), weigh)
                    cells[f"{method}, tasks {weigh}"].append(max(rates[p] for p in rates if len(p) > 1))
        rows.append([name, *map(spread, cells.values())])
    return table(("", *cells), rows)


def chosen(choices: Choices) -> str:
    """Every rule for the number of groups: of each table the groups, then the means by task set."""
    groups, wasted, values = (defaultdict(lambda: defaultdict(list)) for _ in range(3))
    for (name, one), scored in zip(choices.tables, choices.scores, strict=True):
        for rule, choice in rules.choices(one, scored).items():
            views = (HELD_OUT, CRITERIA["unseen"])
            held_out, unseen = (rules.outcome(one, choice.partition, choice.wasted, by) for by in views)
            groups[rule][name].append(str(len(choice.partition)))
            wasted[rule][name].append(choice.wasted)
            values[rule][name].append(
                (held_out.energy, held_out.loss, held_out.even, unseen.loss, unseen.even)
            )
    rows = []
    for rule, by_set in values.items():
        columns = [[[each[at] for each in found] for found in by_set.values()] for at in range(5)]
        cells = [" ".join(map("".join, groups[rule].values())), slashed(list(wasted[rule].values()), 2)]
        digits = (2, 1, 1, 1, 1)
        rows.append([rule, *cells, *(slashed(column, d) for column, d in zip(columns, digits, strict=True))])
    heads = ("groups", "wasted", "energy", "equal rounds %", "equal energy %")
    return table(("", *heads, "unseen: rounds %", "unseen: energy %"), rows)


def everything(name: str, seeds: Sequence[Table]) -> str:
    """All partitions of a task set, the best first among those with as many groups."""
    rows = []
    for p in sorted(seeds[0].partitions, key=lambda p: (len(p), np.mean([one.loss(p) for one in seeds]))):
        auto = [rules.outcome(one, p) for one in seeds]
        losses = [spread([one.loss(p, by) for one in seeds], 4) for by in (HELD_OUT, CRITERIA["unseen"])]
        cells = [f"{np.mean([a.energy for a in auto]):.2f}", spread([a.even for a in auto], 1)]
        rows.append([f"{len(p)}: {short(p)}", *losses, *cells])
    return table(
        (name, "held-out loss", "unseen loss", "energy", "against all-in-one at equal energy %"), rows
    )
