"""The comparison's pictures: loss against energy beside the published figure, and the map of regimes."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from comparison.judge import ahead, ahead_at_equal_energy, over
from comparison.page import ALL, ONE, TWO, lengths_of, relative_energy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from comparison.fleet import Run
    from comparison.table import Table

COLOURS = {
    ALL: "#000000",
    ONE: "#e69f00",
    "mas": "#009e73",
    "mas-verified": "#56b4e9",
    "tag": "#cc79a7",
    "hoa": "#d55e00",
}
"""Of Okabe and Ito, by policy."""

PUBLISHED = {
    ONE: ((16.9, 0.603),),
    ALL: ((7.3, 0.677), (7.8, 0.691), (7.7, 0.711)),
    "tag": ((17.4, 0.624), (20.5, 0.613), (25.2, 0.603)),
    "hoa": ((63.0, 0.651), (63.0, 0.597), (63.0, 0.597)),
    "mas": ((8.8, 0.578), (9.7, 0.555), (12.8, 0.548)),
}
"""GPU hours and total test loss, read off the official figure of MAS (ICCV 2023) within 0.1 h and 0.001.
tag, hoa and mas in two, three and four groups; all-in-one by FedAvg, GradNorm, FedProx."""


def draw(
    headline: Sequence[Table], regimes: Sequence[Table], fleets: Sequence[Sequence[Run]], out: Path
) -> None:
    """Write headline.png and headline_map.png into a folder."""
    energies(headline, fleets).savefig(out / "headline.png", dpi=110)
    map_of(regimes).savefig(out / "headline_map.png", dpi=110)


def energies(headline: Sequence[Table], fleets: Sequence[Sequence[Run]]) -> Figure:
    """The published points, then each task set by energy, then real fleets by time."""
    timed = [runs for runs in fleets if runs]
    columns, rows = 1 + max(len(headline), len(timed)), 2 if timed else 1
    figure = Figure(figsize=(3.8 * columns, 3.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    _published(grid[0][0])
    for axes, found in zip(grid[0][1:], headline, strict=False):
        _by_energy(axes, found)
    for axes, runs in zip(grid[-1][1:] if timed else (), timed, strict=False):
        _by_time(axes, runs)
    return figure


def _published(axes: Axes) -> None:
    axes.set_axis_on()
    for policy, points in PUBLISHED.items():
        axes.plot(*zip(*points, strict=True), "o-" if policy == "mas" else "o", color=COLOURS[policy])
        _name(axes, policy, points[0])
    _logarithmic(axes, (8, 16, 32, 64))
    axes.set(xlabel="GPU hours", ylabel="total test loss", title="published (MAS, ICCV 2023)")


def _by_energy(axes: Axes, found: Table) -> None:
    axes.set_axis_on()
    for policy in (ALL, TWO):
        names = [name for name in lengths_of(found.point, policy) if name in found.arms]
        at = sorted(_middle(found, name) for name in names)
        if len(at) > 1:
            axes.plot(*zip(*at, strict=True), "-", color=_colour(policy))
            _name(axes, f"{policy}, longer", at[-1], below=True)
    shown: dict[tuple[float, float], list[str]] = {}  # one that does not split is all-in-one, and measuring
    for arm in found.point.arms:
        if arm.factor == 1 and arm.name in found.arms:
            x, middle = _middle(found, arm.name)
            shown.setdefault((round(x, 1), middle), []).append(arm.name)
    for (x, middle), names in shown.items():
        losses = over(found.arms, names[0], lambda _, outcome: outcome.loss)
        ends = [[middle - min(losses)], [max(losses) - middle]]
        axes.errorbar(x, middle, ends, fmt="o", color=_colour(names[0]), capsize=3)
        _name(axes, " = ".join(names), (x, middle))
    _logarithmic(axes, (1, 2, 4, 8))
    axes.set(xlabel="energy (CPU time, all-in-one = 1)", ylabel="held-out loss", title=found.point.name)


def _by_time(axes: Axes, runs: Sequence[Run]) -> None:
    axes.set_axis_on()
    for run in runs:
        loss = run.report.report.held_out_total
        if loss is not None:
            axes.plot(run.report.wall_s, loss, "o", color=_colour(run.arm))
            _name(axes, run.arm, (run.report.wall_s, loss))
    axes.set(xlabel="seconds of a fleet of four", ylabel="held-out loss, seed 1")


def _logarithmic(axes: Axes, ticks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _name(axes: Axes, text: str, at: tuple[float, float], *, below: bool = False) -> None:
    axes.annotate(text, at, (4, -11 if below else 5), textcoords="offset points", fontsize=7)


def _colour(name: str) -> str:
    return COLOURS[name.split(" ", maxsplit=1)[0]]


def _middle(found: Table, name: str) -> tuple[float, float]:
    """Mean energy and loss over seeds."""
    return mean(relative_energy(found, name)), mean(over(found.arms, name, lambda _, o: o.loss))


def map_of(tables: Sequence[Table]) -> Figure:
    """At every point, by how much two groups and one-by-one differ from all-in-one, both ways."""
    there = [found for found in tables if ALL in found.arms]
    figure = Figure(figsize=(9.0, 1.2 + 0.38 * len(there)), layout="constrained")
    halves = figure.subplots(1, 2, sharey=True)
    for axes, title in zip(halves, ("equal rounds", "equal energy"), strict=True):
        for row, found in enumerate(there):
            for name, shift in ((TWO, -0.12), (ONE, 0.12)):
                whole = lengths_of(found.point, ALL)
                equal = title == "equal rounds"
                values = (
                    ahead(found.arms, name, ALL) if equal else ahead_at_equal_energy(found.arms, name, whole)
                )
                if values:
                    axes.plot(values, [row + shift] * len(values), "o", color=_colour(name))
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set(title=title, xlabel="loss against all-in-one, %", yticks=range(len(there)))
        axes.set_yticklabels([f"{found.point.name}" for found in there])
    halves[0].invert_yaxis()
    for name in (TWO, ONE):
        halves[1].plot([], [], "o", color=_colour(name), label=name)
    halves[1].legend()
    return figure
