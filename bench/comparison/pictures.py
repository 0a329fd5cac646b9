"""The comparison's pictures: loss by energy and time beside the published figure, and the map of regimes."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from comparison.judge import ahead, ahead_at_equal_energy, over
from comparison.page import ALL, AUTO, ONE, TWO, lengths_of, relative_energy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from comparison.fleet import Run
    from comparison.table import Table

STYLES = {
    ALL: ("#000000", "o"),
    ONE: ("#e69f00", "o"),
    TWO: ("#009e73", "o"),
    "mas 3": ("#009e73", "s"),
    "mas 4": ("#009e73", "D"),
    AUTO: ("#0072b2", "*"),
    "mas-verified": ("#56b4e9", "P"),
    "tag 2": ("#cc79a7", "o"),
    "tag 3": ("#cc79a7", "s"),
    "tag 4": ("#cc79a7", "D"),
    "hoa 2": ("#d55e00", "o"),
    "hoa 3": ("#d55e00", "s"),
    "hoa 4": ("#d55e00", "D"),
}
"""Colour (of Okabe and Ito) and marker of each arm."""

PUBLISHED = (
    (ONE, (16.9, 0.603)),
    (ALL, (7.3, 0.677)),
    (ALL, (7.8, 0.691)),
    (ALL, (7.7, 0.711)),
    ("tag 2", (17.4, 0.624)),
    ("tag 3", (20.5, 0.613)),
    ("tag 4", (25.2, 0.603)),
    ("hoa 2", (63.0, 0.651)),
    ("hoa 3", (63.0, 0.597)),
    ("hoa 4", (63.0, 0.597)),
    (TWO, (8.8, 0.578)),
    ("mas 3", (9.7, 0.555)),
    ("mas 4", (12.8, 0.548)),
)
"""GPU hours and total test loss, read off the official figure of MAS (ICCV 2023) within 0.1 h and 0.001.
All-in-one by FedAvg, GradNorm, FedProx."""

COLUMNS = 4


def draw(
    headline: Sequence[Table], regimes: Sequence[Table], fleets: Mapping[str, Sequence[Run]], out: Path
) -> None:
    """Write headline.png and headline_map.png into a folder."""
    losses(headline, fleets).savefig(out / "headline.png", dpi=110)
    map_of(regimes).savefig(out / "headline_map.png", dpi=110)


def losses(headline: Sequence[Table], fleets: Mapping[str, Sequence[Run]]) -> Figure:
    """The published points, then each task set by energy, then real fleets by time; one legend for all."""
    timed = {name: runs for name, runs in fleets.items() if runs}
    count = 1 + len(headline) + len(timed)
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(3.6 * COLUMNS, 3.3 * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    panels = iter(grid)
    _published(next(panels))
    for found in headline:
        _by_energy(next(panels), found)
    for name, runs in timed.items():
        _by_time(next(panels), name, runs)
    for axes in panels:
        axes.set_axis_off()
    known = {label: mark for axes in grid for label, mark in _labelled(axes) if label}
    labels = [label for label in (*STYLES, LONGER_ALL, LONGER_TWO) if label in known]
    handles = [known[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)
    return figure


LONGER_ALL, LONGER_TWO = f"{ALL}, other lengths", f"{TWO}, other lengths"


def _labelled(axes: Axes) -> Iterable[tuple[str, Artist]]:
    marks, labels = axes.get_legend_handles_labels()
    return zip(labels, marks, strict=True)


def _published(axes: Axes) -> None:
    for name, (hours, loss) in PUBLISHED:
        _mark(axes, name, hours, loss)
    _logarithmic(axes, (8, 16, 32, 64))
    axes.set(xlabel="GPU hours", ylabel="total test loss", title="published (MAS, ICCV 2023)")


def _by_energy(axes: Axes, found: Table) -> None:
    for policy, label in ((ALL, LONGER_ALL), (TWO, LONGER_TWO)):
        names = [name for name in lengths_of(found.point, policy) if name in found.arms]
        at = sorted(_middle(found, name) for name in names)
        if len(at) > 1:
            axes.plot(*zip(*at, strict=True), "-", color=STYLES[policy][0], linewidth=1, label=label)
    for arm in found.point.arms:
        if arm.factor == 1 and arm.name in found.arms:
            x, middle = _middle(found, arm.name)
            every = over(found.arms, arm.name, lambda _, outcome: outcome.loss)
            ends = [[middle - min(every)], [max(every) - middle]]
            axes.errorbar(x, middle, ends, fmt="none", ecolor=STYLES[arm.name][0], capsize=3, linewidth=1)
            _mark(axes, arm.name, x, middle)
    _logarithmic(axes, (1, 2, 4))
    axes.set(xlabel="energy (CPU time, all-in-one = 1)", ylabel="held-out loss", title=found.point.name)


def _by_time(axes: Axes, name: str, runs: Sequence[Run]) -> None:
    for run in runs:
        loss = run.report.report.held_out_total
        if loss is not None:
            _mark(axes, run.arm, run.report.wall_s, loss)
    axes.set(xlabel="seconds", ylabel="held-out loss, seed 1", title=f"{name}, a real fleet")
    axes.set_xlim(left=0)


def _mark(axes: Axes, name: str, x: float, y: float) -> None:
    colour, marker = STYLES[name]
    size = 11 if marker == "*" else 7
    axes.plot(x, y, marker, color=colour, markersize=size, markeredgecolor="white", label=name, zorder=3)


def _logarithmic(axes: Axes, ticks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _middle(found: Table, name: str) -> tuple[float, float]:
    """Mean energy and loss over seeds."""
    return mean(relative_energy(found, name)), mean(over(found.arms, name, lambda _, o: o.loss))


SHOWN = ((TWO, -0.2), (AUTO, 0.0), (ONE, 0.2))
"""What the map shows of a point, and how far from its line."""


def map_of(tables: Sequence[Table]) -> Figure:
    """At every point, by how much two groups, auto and one-by-one differ from all-in-one, both ways."""
    there = [found for found in tables if ALL in found.arms]
    figure = Figure(figsize=(9.0, 1.2 + 0.38 * len(there)), layout="constrained")
    halves = figure.subplots(1, 2, sharey=True)
    for axes, title in zip(halves, ("equal rounds", "equal energy"), strict=True):
        for row, found in enumerate(there):
            for name, shift in SHOWN:
                whole = lengths_of(found.point, ALL)
                equal = title == "equal rounds"
                values = (
                    ahead(found.arms, name, ALL) if equal else ahead_at_equal_energy(found.arms, name, whole)
                )
                if values:
                    for value in values:
                        _mark(axes, name, value, row + shift)
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set(title=title, xlabel="loss against all-in-one, %", yticks=range(len(there)))
        axes.set_yticklabels([f"{found.point.name}" for found in there])
    halves[0].invert_yaxis()
    known = dict(each for axes in halves for each in _labelled(axes))
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=3, frameon=False)
    return figure
