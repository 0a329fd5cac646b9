"""A run in a sentence and a few numbers: what was learnt, for how many joules, how sure, by which sensor.

Text for people out of a ``RunReport``; page and terminal share it. Losses are relative to the constant
predictor's on the same examples: below 1, something was learnt. Pure; it measures and decides nothing.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.spec import FROM_SCRATCH, ORCHESTRATOR
from mas_edge.profiling.costs import Number, attributed, number, of_level
from mas_edge.profiling.report import UNKNOWN, method, uncertain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.orchestrator.report import Point, Report
    from mas_edge.orchestrator.reports.runs import RunReport
    from mas_edge.profiling.costs import Row


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """After a round: joules of the task groups so far, mean over the tasks of loss / constant loss."""

    round: int
    energy_j: Number
    relative_loss: float


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A number worth a place of its own: what it is, the number as text, and what to know about it."""

    label: str
    value: str
    about: str = ""


def headline(run: RunReport) -> str:
    """One sentence that ends in a full stop."""
    made, total = run.report, number(run.bill.total_j, run.bill.total_u_j)
    learnt = f"{_count(len(made.spec.tasks), 'task')} in {_count(len(made.groups), 'group')}"
    if made.held_out_relative is not None:
        learnt += f" learnt to {made.held_out_relative:.2f} of the constant predictor’s loss on held-out data"
    if total is None:
        return f"{learnt}; what that cost in joules is not known: {_source(run)}."
    own = all_of(run)
    charged = attributed(own.cost) if own else None
    part = "" if charged is None else f" ({uncertain(charged)} J of it charged to the work itself)"
    return f"{learnt}, for {uncertain(total)} J{part}: {_source(run)}."


def facts(run: RunReport) -> tuple[Fact, ...]:
    """The numbers that one asks for first."""
    made, bill, own = run.report, run.bill, all_of(run)
    how = method(bill.methods)
    sent = own.cost.sent_bytes + own.cost.received_bytes if own else None
    return (
        Fact(
            label="attributed to task groups, J",
            value=uncertain(attributed(own.cost)) if own else UNKNOWN,
            about=f"{how}, \N{PLUS-MINUS SIGN}2u",
        ),
        Fact(
            label="all that the fleet’s hosts used, J",
            value=uncertain(number(bill.total_j, bill.total_u_j)),
            about=f"{how}, \N{PLUS-MINUS SIGN}2u, idle included",
        ),
        Fact(
            label="held-out loss",
            value=_ratio(made.held_out_relative),
            about="of the constant predictor’s, mean over tasks",
        ),
        Fact(
            label="unseen clients",
            value=_ratio(made.unseen_relative),
            about="the same, nobody trained on them",
        ),
        Fact(label="wall time, s", value=f"{run.wall_s:.1f}", about=_how_much(made)),
        Fact(
            label="MB over the network",
            value=UNKNOWN if sent is None else f"{sent / 1e6:.1f}",
            about="sent and received by devices",
        ),
    )


def all_of(run: RunReport) -> Row | None:
    """The sum of all rows, None if there are none."""
    return next(iter(of_level(run.rows, "all")), None)


def short_names(made: Report) -> dict[str, str]:
    """What stands for a group in a narrow place: a letter after the split, or how many tasks it has."""
    whole = "+".join(made.spec.tasks)
    letters = {group: chr(ord("A") + n) for n, group in enumerate(made.groups) if "+" in group}
    return {**letters, whole: f"all {len(made.spec.tasks)} tasks"} if len(made.spec.tasks) > 1 else {}


def trajectory(run: RunReport) -> tuple[Step, ...]:
    """How the loss fell with the joules of the task groups, round by round; none where either is unknown.

    Where the groups were trained from scratch, what was trained to choose them was spent before their first
    round.
    """
    made = run.report
    scratch = made.spec.policy in FROM_SCRATCH
    rows = [row for row in of_level(run.rows, "group-round") if row.group != ORCHESTRATOR]
    spent = [
        (-1 if scratch and row.group not in made.groups else row.round, attributed(row.cost)) for row in rows
    ]
    steps = []
    for round_, points in _results(made).items():
        ratios = [p.loss / p.constant_loss for p in points if p.loss is not None and p.constant_loss]
        energy_j = _sum([energy for when, energy in spent if when is not None and when <= round_])
        if energy_j is not None and len(ratios) == len(made.spec.tasks):
            steps.append(Step(round=round_, energy_j=energy_j, relative_loss=fsum(ratios) / len(ratios)))
    return tuple(steps)


def _results(made: Report) -> dict[int, tuple[Point, ...]]:
    """By round a point of each task: of the group that its result comes from, else of one before it."""
    groups = {point.task: point.group for point in made.held_out}
    found: dict[int, dict[str, Point]] = {}
    for point in sorted(made.curve, key=lambda point: point.round):
        own = point.group == groups.get(point.task)
        if point.round >= 0 and (own or made.spec.policy not in FROM_SCRATCH):
            at = found.setdefault(point.round, {})
            at[point.task] = point if own else at.get(point.task, point)
    return {round_: tuple(points.values()) for round_, points in found.items()}


def _sum(parts: Sequence[Number | None]) -> Number | None:
    """The sum of energies whose errors are mostly common: uncertainties add linearly."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    us = [part.u for part in known if part.u is not None]
    return Number(fsum(part.value for part in known), fsum(us) if len(us) == len(known) else None)


def _source(run: RunReport) -> str:
    """Which sensors, and whether they measured."""
    sensors = sorted({host.sensor for host in run.bill.hosts if host.sensor}, key=lambda sensor: sensor.name)
    if not sensors:
        return "no device has a sensor"
    estimated = [s for s in sensors if s.method == "estimated"]
    done = {"counter": "counted", "sampled": "sampled"}
    measured = [f"{done[s.method]} by {s.name} ({s.scope})" for s in sensors if s.method != "estimated"]
    guessed = [f"an estimate from processor time ({s.name}), no sensor measured it" for s in estimated]
    mixed = "measured and estimated joules mixed, " if measured and guessed else ""
    return mixed + "; ".join(dict.fromkeys((*measured, *guessed)))


def _how_much(made: Report) -> str:
    return f"{_count(made.spec.training.rounds, 'round')} on {_count(len(made.spec.devices), 'device')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _ratio(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"
