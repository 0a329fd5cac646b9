"""Draws what a job learnt: the measured affinities, and each task's loss over the rounds.

Both pictures show only what the report holds: numbers with their standard errors, gaps where nothing
was measured. They are drawn without a display, by matplotlib (extra ``orchestrator``), which is slow to
import and so only is when a picture is drawn; the caller saves the figure. What the numbers mean is said
in ``orchestrator.report``, what the job cost is drawn by ``orchestrator.reports.charts``.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.report import AffinityTable, Point, Report

COLUMNS = 3
"""Tasks side by side in the picture of the losses."""

GREY = "#595959"
"""Of what is in common or was only compared: rounds before the split, the split, the constant predictor."""

COMPARED = "other groups"
"""What lines are called of groups that give no result of a task: tried, gone on, or helped by it."""

ON_LIGHT, LIGHT = "#111111", "#fefefe"
"""Text on cells that stay light on a dark page, and such a cell."""


def blank(width_in: float, height_in: float) -> Figure:
    """An empty figure that keeps what is drawn apart."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and an extra

    return Figure(figsize=(width_in, height_in), layout="constrained")


def affinity(table: AffinityTable, decision: Decision | None) -> Figure:
    """A heat map with mean ± standard error: the row's step on the column's loss.

    Tasks stand in the order of the groups that were decided on, which are framed. Colours span the
    effects on other tasks; those on oneself are far greater and stay white. Numbers greater
    than their standard error are bold.
    """
    sizes = [len(group) for group in decision.groups] if decision else []
    tasks = [task for group in decision.groups for task in group] if decision else list(table.tasks)
    order = [table.tasks.index(task) for task in tasks]
    mean, se = (np.array(m, np.float64)[np.ix_(order, order)] for m in (table.mean, table.se))
    others = mean.copy()
    np.fill_diagonal(others, np.nan)
    limit = np.nanmax(np.abs(others), initial=0.0) or 1.0
    side_in = 2.6 + 0.95 * len(tasks)
    figure = blank(side_in + 1.0, side_in)
    axes = figure.subplots()
    axes.set_facecolor(LIGHT)
    image = axes.imshow(others, cmap="RdBu", vmin=-limit, vmax=limit)
    _write_numbers(axes, mean, se, limit)
    for start, size in zip([0, *accumulate(sizes)], sizes, strict=False):
        corners = (
            start - 0.5 + size * np.array([0, 1, 1, 0, 0]),
            start - 0.5 + size * np.array([0, 0, 1, 1, 0]),
        )
        axes.plot(*corners, color=ON_LIGHT, linewidth=2, clip_on=False)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set(xlabel="… on the loss of", ylabel="effect of a step for …")
    axes.set_title("Affinity, mean ± standard error" + ("; groups are framed" if decision else ""))
    figure.colorbar(
        image, shrink=0.8, label="helps (blue) or harms (red): fall of the loss, relative, per learning rate"
    )
    return figure


def _write_numbers(axes: Axes, mean: NDArray[np.float64], se: NDArray[np.float64], limit: float) -> None:
    for i, j in np.ndindex(mean.shape):
        value, error = mean[i, j], se[i, j]
        unknown = math.isnan(value)
        text = (
            "not\nmeasured" if unknown else f"{value:.2g}\n± {'?' if math.isnan(error) else f'{error:.2g}'}"
        )
        axes.text(
            j,
            i,
            text,
            color=LIGHT if i != j and abs(value) > 0.6 * limit else ON_LIGHT,
            weight="bold" if abs(value) > error else "normal",
            fontsize="small",
            ha="center",
            va="center",
        )


def curves(made: Report) -> Figure:
    """Each task's held-out loss over the rounds, the split marked.

    Rounds before the split are grey, afterwards a colour stands for a group in the panels of its tasks. Thin
    and grey is what was trained to choose among groups, or to help others. The dotted line is the constant
    predictor's loss on the same examples.
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - slow to import, and an extra

    tasks = made.spec.tasks
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = blank(3.4 * columns, 2.4 * rows + 0.9)
    figure.subplots(rows, columns, squeeze=False, sharex=True)
    every = dict.fromkeys((*made.groups, *(point.group for point in made.curve)))
    split = made.merged_rounds if made.decision else 0
    for axes, task in zip(figure.axes, tasks, strict=False):
        colors = {group: _color(made, group, task) for group in every}
        _draw_task(axes, [point for point in made.curve if point.task == task], colors, split)
        axes.set_title(task, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in figure.axes[len(tasks) :]:
        axes.set_axis_off()
    for axes in figure.axes[max(0, len(tasks) - columns) : len(tasks)]:
        axes.set_xlabel("rounds trained")
        axes.tick_params(labelbottom=True)
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    labels = [label for label in handles if not str(label).startswith("_")]
    figure.legend(
        handles=[handles[label] for label in labels],
        loc="outside lower center",
        ncols=2,
        fontsize="small",
        frameon=False,
    )
    figure.supylabel("held-out loss", fontsize="medium")
    figure.suptitle(f"{made.name}: {made.spec.policy}")
    return figure


def _color(made: Report, group: str, task: str) -> str:
    """Grey for a group that gives no result of the task."""
    serves = made.serves.get(group, tuple(group.split("+")))
    return f"C{made.groups.index(group)}" if group in made.groups and task in serves else GREY


def _draw_task(axes: Axes, points: list[Point], colors: dict[str, str], split: int) -> None:
    """One task's panel; a group's line begins with the merged weights that it inherited."""
    _draw_line(axes, [point for point in points if point.round < split], GREY, "merged")
    for group, color in colors.items():
        own = [point for point in points if point.group == group and point.round >= split - 1]
        _draw_line(axes, own, color, COMPARED if color == GREY else group)
    constant = next((point.constant_loss for point in reversed(points) if point.constant_loss), None)
    if constant is not None:
        axes.axhline(constant, color=GREY, linestyle=":", linewidth=1, label="constant predictor")
    if split:
        axes.axvline(split, color=GREY, linestyle="--", linewidth=1, label="split")
    axes.set_ylim(0, 1.04 * axes.get_ylim()[1])
    axes.grid(alpha=0.25)


def _draw_line(axes: Axes, points: list[Point], color: str, label: str) -> None:
    if points:
        trained = [point.round + 1 for point in points]
        losses = [math.nan if point.loss is None else point.loss for point in points]
        width = 0.6 if label == COMPARED else 1.5
        axes.plot(
            trained, losses, color=color, label=label, marker="o", markersize=2 * width, linewidth=width
        )
