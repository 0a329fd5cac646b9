"""From a folder of finished arms to what is judged, and what is missing.

Losses are the reports'; energy is counted from the arms' turns by what these cost in turn (``costs``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comparison.costs import energy, measure
from comparison.judge import Outcome
from comparison.trained import finished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from comparison.costs import Kind
    from comparison.judge import Arms
    from comparison.points import Point
    from comparison.trained import Finished


@dataclass(frozen=True)
class Table:
    """A point's outcomes; ``missing`` are arms with the seeds under which they are not trained yet."""

    point: Point
    arms: Arms
    ratios: Mapping[Kind, float]
    missing: Mapping[str, Sequence[int]]


def table(folder: Path, point: Point) -> Table:
    """What there is of a point; costs that the folder lacks are measured now."""
    every = [(arm, seed) for seed in point.seeds for arm in point.arms]
    found = {(arm.name, seed): finished(folder, point, arm, seed) for arm, seed in every}
    done = {key: each for key, each in found.items() if each is not None}
    ratios = measure(
        folder, point, sorted({(t.tasks, t.measured) for each in done.values() for t in each.turns})
    )
    arms: Arms = {}
    for (name, seed), each in done.items():
        arms.setdefault(name, {})[seed] = outcome(each, ratios, point.asked or point.devices)
    missing: dict[str, list[int]] = {}
    for arm, seed in every:
        if (arm.name, seed) not in done:
            missing.setdefault(arm.name, []).append(seed)
    return Table(point, arms, ratios, missing)


def outcome(arm: Finished, ratios: Mapping[Kind, float], devices: int) -> Outcome:
    """How an arm ended; so many ``devices`` train in a round."""
    report = arm.report
    losses = {point.task: point.loss for point in report.held_out}
    totals = (report.held_out_total, report.held_out_relative, report.unseen_total, report.unseen_relative)
    known = [value for value in totals if value is not None]
    assert len(known) == len(totals), "a finished arm has all its losses"  # noqa: S101
    loss, relative, unseen, unseen_relative = known
    return Outcome(
        energy=energy(arm.turns, ratios, devices),
        loss=loss,
        relative=relative,
        unseen=unseen,
        unseen_relative=unseen_relative,
        by_task={task: value for task, value in losses.items() if value is not None},
        groups=report.groups,
        merged_rounds=report.merged_rounds,
        carried=report.decision.carried.share if report.decision and report.decision.carried else None,
    )
