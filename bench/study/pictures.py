"""The study's three pictures: does splitting pay, who chooses well, is it more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from study.judge import COUNTS
from study.markdown import short
from study.table import HELD_OUT
from study.train import LONGER

if TYPE_CHECKING:
    from pathlib import Path

    from study.choices import Choices
    from study.table import Table

    Tables = dict[str, list[Table]]

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7")
"""Of Okabe and Ito, by the number of groups, and for task sets."""

SHOWN = (
    "gram raw",
    "gram raw, later half",
    "gram self",
    "gram self, later half",
    "gram z",
    "gram-full raw",
    "lookahead raw",
    "lookahead self",
    "tag",
)
TRIED = (
    "hoa short",
    "hoa",
    "verified 1 gram raw",
    "verified 4 gram raw",
    "verified 4 gram self",
    "another seed",
)


def frontier(found: Tables) -> Figure:
    """Every partition by energy and loss, beside not splitting for longer."""
    figure = Figure(figsize=(4.6 * len(found), 4.4), layout="constrained")
    for axes, (name, seeds) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        whole = (seeds[0].tasks,)
        at = np.geomspace(1, LONGER[-1], 40)
        together = [np.mean([one.together(cost) for one in seeds]) for cost in at]
        axes.plot(at, together, color="black", label="not split, trained for longer")
        axes.plot(1, together[0], "o", color="black", markersize=8, label="not split")
        for groups in range(2, 6):
            among = [p for p in seeds[0].partitions if len(p) == groups]
            cost = [np.mean([one.cost(p) for one in seeds]) for p in among]
            loss = [np.mean([one.loss(p) for one in seeds]) for p in among]
            label = f"{groups} groups" if groups < len(whole[0]) else "one by one"
            axes.scatter(cost, loss, s=22, color=COLOURS[groups - 1], label=label, zorder=3)
            best = int(np.argmin(loss))
            axes.annotate(
                short(among[best]),
                (cost[best], loss[best]),
                (0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        axes.set(title=name, xlabel="CPU time after the merge / all-in-one's", ylabel="total held-out loss")
        axes.grid(alpha=0.25)
        axes.margins(x=0.12)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=len(labels))
    figure.suptitle("Every dot is a partition. Below the line, splitting beats more rounds of all-in-one.")
    return figure


def regret(choices: Choices) -> Figure:
    """Each method's share of random's regret: a dot per task set and seed, a bar for the mean over sets."""
    names = [name for name in (*SHOWN, *TRIED) if name in choices.names]
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    labels: set[str] = set()
    for place, name in enumerate(names):
        values = choices.share(name)
        mean = np.mean([np.nanmean(some) for some in choices.by_set(values)])
        axes.barh(place, mean, 0.7, color="0.85", zorder=1)
        for (of, _), value in zip(choices.tables, values, strict=True):
            label = None if of in labels else of
            labels.add(of)
            colour = COLOURS[1 + choices.sets.index(of)]
            axes.plot(value, place, "o", color=colour, markersize=5, label=label, zorder=3)
    axes.axvline(1, color="black", linestyle="--", zorder=2)
    for share, text in ((0, "the best partition"), (1, "a random partition")):
        at = {"transform": axes.get_xaxis_transform(), "ha": "left" if share == 0 else "center"}
        axes.text(share, 1.015, text, fontsize="small", **at)
    axes.axhline(sum(name in SHOWN for name in names) - 0.5, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="regret over random's (mean of 2, 3 and 4 groups)", xlim=(-0.03, None))
    axes.invert_yaxis()
    axes.legend(fontsize="small", loc="lower right")
    return figure


def noise(found: Tables) -> Figure:
    """Partitions in the order of their mean loss, with each seed's loss less that seed's mean."""
    figure = Figure(figsize=(12, 2.7 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), len(COUNTS), squeeze=False, width_ratios=(15, 25, 10))
    for row, (name, seeds) in zip(grid, found.items(), strict=True):
        for axes, groups in zip(row, COUNTS, strict=True):
            among = [p for p in seeds[0].partitions if len(p) == groups]
            losses = np.array([[one.loss(p, HELD_OUT) for one in seeds] for p in among])
            losses = 100 * (losses / losses.mean(0) - 1)
            order = np.argsort(losses.mean(1))
            axes.plot(losses[order], "o", color=COLOURS[groups - 1], markersize=4)
            axes.plot(losses[order].mean(1), color="black", linewidth=1)
            axes.set_xticks(range(len(among)), [short(among[at]) for at in order], rotation=90, fontsize=6)
            axes.set_title(f"{name}, {groups} groups", fontsize="medium")
            axes.grid(axis="y", alpha=0.25)
        row[0].set_ylabel("loss against the mean, %")
    figure.suptitle("Each dot is a partition under one seed: is the order more than noise?")
    return figure


def draw(found: Tables, choices: Choices, folder: Path) -> None:
    """Write all three."""
    made = {"frontier": frontier(found), "regret": regret(choices), "noise": noise(found)}
    for name, figure in made.items():
        figure.savefig(folder / f"affinity_{name}.png", dpi=110)
