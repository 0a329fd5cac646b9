"""Draws what a run cost and when: energy per group and phase, power and work over time, loss against energy.

Everything is drawn from a ``RunReport`` by matplotlib (extra ``orchestrator``), without a display. The
functions give a figure, for ``page`` to make SVG of; those of affinities and losses are in ``pictures``.
Joules are labelled with the method by which they came about. A figure for which nothing is known is None.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from mas_edge.orchestrator.reports.pictures import GREY, ON_LIGHT, blank
from mas_edge.orchestrator.reports.summary import short_names, trajectory
from mas_edge.profiling.costs import attributed, of_level
from mas_edge.profiling.report import method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mas_edge.orchestrator.reports.runs import RunReport
    from mas_edge.orchestrator.reports.timeline import Bar, Kind, Power
    from mas_edge.profiling.costs import Row

_Place: TypeAlias = "tuple[str | None, str | None]"

KINDS: dict[Kind, str] = {
    "fetch": "#56b4e9",
    "train": "#e69f00",
    "evaluate": "#009e73",
    "upload": "#0072b2",
    "orchestrator": "#cc79a7",
    "lost": "#d55e00",
}
"""Kinds of work in the colours of Okabe and Ito, which the colour-blind tell apart."""

PHASES = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8a8a8a")

MOST_PHASES = 7
"""Phases with a colour of their own; the smallest ones are drawn together."""

LABEL_WIDTH = 26
"""Characters beside a bar."""

MOST_DEVICES = 40
"""Devices that find room below each other."""

MOST_BARS = 2000
"""Bars that are drawn as shapes; more become an image."""


def energy(run: RunReport) -> Figure | None:
    """A bar per task group, made of its phases, with +-2u of the sum; None without attributed joules."""
    groups = [row for row in of_level(run.rows, "group") if attributed(row.cost)]
    if not groups:
        return None
    parts, names = _phases(run), short_names(run.report)
    figure = blank(9.0, 1.3 + 0.5 * len(groups))
    axes = figure.subplots()
    left = dict.fromkeys(map(_of, groups), 0.0)
    for color, (phase, joules) in zip(PHASES, parts, strict=False):
        widths = [joules.get(place, 0.0) for place in left]
        axes.barh(range(len(groups)), widths, 0.62, list(left.values()), color=color, label=phase)
        left = {place: start + width for (place, start), width in zip(left.items(), widths, strict=True)}
    for place, row in enumerate(groups):
        if row.cost.attributed_energy_j is not None and row.cost.attributed_u_j:
            axes.errorbar(
                row.cost.attributed_energy_j, place, xerr=2 * row.cost.attributed_u_j, color=GREY, capsize=4
            )
    axes.set_yticks(range(len(groups)), [_label(row.group or "", names) for row in groups])
    axes.invert_yaxis()
    axes.set_xlabel(f"attributed J ({method(run.bill.methods)}); whiskers: \N{PLUS-MINUS SIGN}2u of the sum")
    axes.set_xlim(left=min(0.0, *left.values()))
    axes.grid(axis="x", alpha=0.25)
    figure.legend(loc="outside upper center", ncols=len(parts), fontsize="small", frameon=False)
    return figure


def _label(group: str, names: Mapping[str, str]) -> str:
    """A group's short name, and its tasks if that is a letter, broken into lines that a margin holds."""
    short = names.get(group, group)
    whole = f"{short}: {group}" if len(short) == 1 else short
    lines = [""]
    for word in re.findall(r"[^+ ]+[+ ]?", whole):
        if len(lines[-1]) + len(word) > LABEL_WIDTH:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def _of(row: Row) -> _Place:
    """Job and group: an agent's bill also holds what it just did for another job's group of that name."""
    return row.job, row.group


def _phases(run: RunReport) -> list[tuple[str, dict[_Place, float]]]:
    """Phases by energy, greatest first, each with its joules by group; small ones together as ``other``."""
    parts: dict[str, dict[_Place, float]] = {}
    for row in of_level(run.rows, "group-phase"):
        if row.cost.attributed_energy_j is not None:
            parts.setdefault(row.phase or "", {})[_of(row)] = row.cost.attributed_energy_j
    found = sorted(parts.items(), key=lambda item: -sum(item[1].values()))
    if len(found) <= MOST_PHASES + 1:
        return found
    rest: Counter[_Place] = Counter()
    for _, joules in found[MOST_PHASES:]:
        rest.update(joules)
    return [*found[:MOST_PHASES], ("other", dict(rest))]


def over_time(run: RunReport) -> Figure | None:
    """Power of every host above, below it what each device was at; None if nobody was metered or timed."""
    when = run.timeline
    devices = _devices(when.bars)
    if not when.powers and not devices:
        return None
    heights = [2.4, 0.36 * len(devices) + 0.2] if devices else [2.4]
    figure = blank(10.0, sum(heights) + 1.3)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    _draw_power(rows[0][0], when.powers, method(run.bill.methods))
    _mark(rows[0][0], when.bars)
    if devices:
        _draw_bars(rows[1][0], [bar for bar in when.bars if bar.device in devices], devices)
        _number(rows[1][0], when.bars, devices, short_names(run.report))
    for axes in rows[:, 0]:
        for mark in when.marks:
            if mark.what == "merged":
                axes.axvline(mark.t_s, color=GREY, linewidth=0.7, alpha=0.6)
    rows[-1][0].set_xlabel("seconds of the job; thin lines: a round’s weights were merged")
    figure.legend(loc="outside upper center", ncols=8, fontsize="small", frameon=False)
    return figure


def _devices(bars: Iterable[Bar]) -> list[str]:
    names = sorted({bar.device for bar in bars}, key=lambda name: (len(name), name))
    return names[:MOST_DEVICES]


def _draw_power(axes: Axes, powers: Sequence[Power], how: str) -> None:
    for place, power in enumerate(powers):
        label = f"power, {power.sensor}" if len(powers) == 1 else ", ".join(power.devices)
        color = f"C{place}" if len(powers) > 1 else "#b03060"
        t_s, watts = _stairs(power)
        axes.plot(
            t_s, watts, color=color, linewidth=1.3, drawstyle="steps-post", label=label if place < 6 else None
        )
        if power.idle_w is not None:
            axes.axhline(power.idle_w, color=color, linestyle=":", linewidth=1)
            axes.annotate(
                "idle",
                (1.0, power.idle_w),
                xycoords=("axes fraction", "data"),
                xytext=(3, -3),
                textcoords="offset points",
                fontsize="small",
            )
    axes.set_ylabel(f"W ({how})")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _stairs(power: Power) -> tuple[list[float], list[float]]:
    """Points of a step line, broken where nothing was metered."""
    t_s: list[float] = []
    watts: list[float] = []
    for k, (t0_s, t1_s, power_w) in enumerate(zip(power.t0_s, power.t1_s, power.power_w, strict=True)):
        t_s.append(t0_s)
        watts.append(power_w)
        if k + 1 == len(power.t0_s) or power.t0_s[k + 1] > t1_s:
            t_s += [t1_s, t1_s]
            watts += [power_w, float("nan")]
    return t_s, watts


def _mark(axes: Axes, bars: Sequence[Bar]) -> None:
    """Shades each moment with what most devices were at."""
    for t0_s, t1_s, kind in busiest(bars):
        axes.axvspan(t0_s, t1_s, color=KINDS[kind], alpha=0.16, linewidth=0)


def busiest(bars: Sequence[Bar]) -> list[tuple[float, float, Kind]]:
    """From, to, and the kind of work that most devices were at, in order of time; nothing in pauses."""
    moments = sorted(
        [(bar.t0_s, 1, bar.kind) for bar in bars] + [(bar.t1_s, -1, bar.kind) for bar in bars],
        key=lambda moment: moment[0],
    )
    at: Counter[Kind] = Counter()
    found: list[tuple[float, float, Kind]] = []
    since_s = 0.0
    for t_s, change, kind in moments:
        present = [name for name in KINDS if at[name] > 0]
        if present and t_s > since_s:
            most = max(present, key=lambda name: at[name])
            if found and found[-1][1:] == (since_s, most):
                since_s = found.pop()[0]
            found.append((since_s, t_s, most))
        at[kind] += change
        since_s = t_s
    return found


def _draw_bars(axes: Axes, bars: Sequence[Bar], devices: Sequence[str]) -> None:
    """Devices below each other; in a bar stand its group and round."""
    for place, device in enumerate(devices):
        for kind, color in KINDS.items():  # in this order: evaluation lies within the training's span
            own = [bar for bar in bars if bar.device == device and bar.kind == kind]
            spans = [(bar.t0_s, bar.t1_s - bar.t0_s) for bar in own]
            axes.broken_barh(spans, (place - 0.36, 0.72), facecolors=color, rasterized=len(bars) > MOST_BARS)
    shown = {bar.kind for bar in bars}
    for kind, color in KINDS.items():
        if kind in shown:
            axes.barh(0, 0, color=color, label=kind)
    axes.set_yticks(range(len(devices)), devices)
    axes.set_ylim(len(devices) - 0.45, -0.55)


def _number(axes: Axes, bars: Sequence[Bar], devices: Sequence[str], names: Mapping[str, str]) -> None:
    """Writes the group's letter and the round into bars that have room for it."""
    span_s = max(bar.t1_s for bar in bars) - min(bar.t0_s for bar in bars)
    for bar in bars:
        if bar.kind == "train" and bar.device in devices and bar.t1_s - bar.t0_s > 0.03 * span_s:
            letter = names.get(bar.group, "")
            axes.text(
                (bar.t0_s + bar.t1_s) / 2,
                devices.index(bar.device),
                f"{letter if len(letter) == 1 else ''}{bar.round}",
                ha="center",
                va="center_baseline",
                fontsize="small",
                color=ON_LIGHT,
            )


def loss_against_energy(runs: dict[str, RunReport]) -> Figure | None:
    """Mean relative loss over the joules of the task groups, a line per run; None if no run tells both."""
    lines = {name: trajectory(run) for name, run in runs.items()}
    if not any(lines.values()):
        return None
    figure = blank(7.0, 3.6)
    axes = figure.subplots()
    for place, (name, steps) in enumerate(lines.items()):
        energies = [step.energy_j.value for step in steps]
        errors = [2 * (step.energy_j.u or 0.0) for step in steps]
        losses = [step.relative_loss for step in steps]
        axes.errorbar(
            energies,
            losses,
            xerr=errors,
            color=f"C{place}",
            ecolor=(f"C{place}", 0.35),
            marker="o",
            markersize=4,
            capsize=3,
            label=name,
        )
    how = method(sorted({m for run in runs.values() for m in run.bill.methods}))
    axes.axhline(1.0, color=GREY, linestyle=":", linewidth=1)
    axes.set_xlabel(f"J attributed to task groups so far ({how}), \N{PLUS-MINUS SIGN}2u; a point per round")
    axes.set_ylabel("held-out loss / constant predictor’s")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    if len(runs) > 1:
        axes.legend(fontsize="small", frameon=False)
    return figure
