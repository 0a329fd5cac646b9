"""The same arms on a fleet of real processes: what they cost in seconds, joules and bytes.

Each run is one of `mas demo` (broker, orchestrator, an agent per device) in a directory of its own; a run
that was cut short goes on. Losses need no repetition: the final weights must have the digests of the arm
that was trained in one process, and whether they have is said. Clients that nobody trains on are judged
there alone. Runs take turns, and the machine should have nothing else to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from comparison.data import place
from comparison.points import clients, known, spec
from comparison.trained import finished
from mas_edge.orchestrator.demos.demo import prepare, run
from mas_edge.orchestrator.demos.progress import Display
from mas_edge.orchestrator.demos.showcase import write
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.reports import runs, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from comparison.points import Arm, Point
    from mas_edge.profiling.report import Table

SEED = 1


@dataclass(frozen=True)
class Run:
    """An arm on real processes. ``same`` digests as in one process; None if it was not trained there."""

    arm: str
    report: runs.RunReport
    same: bool | None


def measure(folder: Path, point: Point, arms: Iterable[Arm], *, say: Callable[[str], None]) -> None:
    """Run what the folder lacks; raises as `mas demo` does."""
    root = place(folder, point)
    for arm in arms:
        out = _out(folder, point, arm)
        if not known(arm) or (out / runs.REPORT).exists():
            continue
        job = msgspec.structs.replace(spec(point, arm, SEED), unseen=())
        plan = DemoPlan(spec=job, clients=clients(point), root=str(root.resolve()) if root else None)
        prepare(plan, out)
        with Display(Console(stderr=True), arm.name) as display:
            outcome = run(plan, out, "auto", display)
        made = write(plan, out, outcome)
        say(f"{point.name}, fleet, {arm.name}: {made.wall_s:.1f} s")


def found(folder: Path, point: Point, arms: Iterable[Arm]) -> list[Run]:
    """The runs that are finished."""
    there = [arm for arm in arms if (_out(folder, point, arm) / runs.REPORT).exists()]
    return [_run(folder, point, arm) for arm in there]


def _run(folder: Path, point: Point, arm: Arm) -> Run:
    made, alone = runs.read(_out(folder, point, arm)), finished(folder, point, arm, SEED)
    same = None if alone is None else made.final_digests == alone.report.final_digests
    return Run(arm.name, made, same)


def table(measured: Sequence[Run]) -> Table:
    """What the runs cost, side by side, as `mas demo --compare` shows it."""
    return tables.policies([(each.arm, each.report) for each in measured])


def _out(folder: Path, point: Point, arm: Arm) -> Path:
    return folder / "fleet" / point.name / arm.name.replace(" ", "-")
