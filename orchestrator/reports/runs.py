"""``report.json``: everything about a finished run, from which every other form of its report is made.

``compose`` folds a job's stored events into a ``RunReport``; ``read`` takes one from the directory of a run.
Page, tables and CSV are drawn from this struct alone, so that they show the same numbers. Its schema is
docs/report-schema.json, written by scripts/report_schema; a change of meaning raises ``SCHEMA``, new fields
with a default do not. Energies have one standard uncertainty (u) beside them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.observed import observed
from mas_edge.orchestrator.report import Report, profiles, report
from mas_edge.orchestrator.reports.in_use import Served
from mas_edge.orchestrator.reports.manifest import Manifest
from mas_edge.orchestrator.reports.task_bill import TaskBill, shares_of, task_bills
from mas_edge.orchestrator.reports.timeline import Timeline, timeline
from mas_edge.orchestrator.storage.contributions import Contributed, contributions
from mas_edge.profiling.bill import FleetBill, billed, fleet
from mas_edge.profiling.costs import Row, rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mas_edge.orchestrator.job import Event
    from mas_edge.orchestrator.spec import JobSpec

SCHEMA = 1
REPORT = "report.json"


class RunRefused(ValueError):
    """What was named is no finished run, or one of another version; the text says what to do."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """``report.json``: what was learnt, how it was split, what it cost, when, and with what.

    ``wall_s`` is job time; ``restarts`` name processes that had to be started again; ``in_use`` is how its
    models do on devices that they were deployed to.
    """

    schema_version: int
    policy: str
    report: Report
    bill: FleetBill
    rows: tuple[Row, ...]
    timeline: Timeline
    manifest: Manifest
    wall_s: float
    restarts: tuple[str, ...]
    final_digests: dict[str, str]
    contributions: tuple[Contributed, ...] = ()
    task_bills: tuple[TaskBill, ...] = ()
    in_use: tuple[Served, ...] = ()


def compose(
    spec: JobSpec,
    stored: Iterable[tuple[float, Event]],
    manifest: Manifest,
    *,
    wall_s: float,
    restarts: tuple[str, ...] = (),
    elsewhere: Iterable[tuple[float, Event]] = (),
    in_use: tuple[Served, ...] = (),
) -> RunReport:
    """The report of a job's stored events (job time in seconds, event).

    A device that works for several jobs bills what it has just done for one of them with its next answer,
    which may be another one's: ``elsewhere`` are the events of those, for the tasks' bills.
    """
    events = list(stored)
    made, bills = report(spec, events), profiles(events)
    every = billed(bills)
    strays = tuple(row for row in billed(profiles(elsewhere)) if row.spend.job == spec.name)
    return RunReport(
        schema_version=SCHEMA,
        policy=spec.policy,
        report=made,
        bill=fleet(bills),
        rows=rows(every),
        timeline=timeline(events),
        manifest=manifest,
        wall_s=wall_s,
        restarts=restarts,
        final_digests=made.final_digests,
        contributions=contributions(spec, events),
        task_bills=task_bills(
            spec, (*every, *strays), shares_of(spec, made.parameters, observed(events)), made.serves
        ),
        in_use=in_use,
    )


def read(folder: Path) -> RunReport:
    """The report in a run's directory; raises RunRefused if there is none that this version can read."""
    path = folder / REPORT
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        arms = sorted(found.parent.name for found in folder.glob(f"*/{REPORT}")) if folder.is_dir() else []
        several = f"; it holds several runs, name one: {', '.join(f'{folder}/{arm}' for arm in arms)}"
        raise RunRefused(f"{folder} holds no finished run, no {REPORT}" + (several if arms else "")) from None
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version != SCHEMA:
            raise RunRefused(
                f"{path} has schema {version} and this program reads {SCHEMA}: run mas demo again, or update"
            )
        return msgspec.json.decode(data, type=RunReport)
    except msgspec.MsgspecError as error:
        raise RunRefused(f"{path} is no report of a run: {error}") from error


class _Version(msgspec.Struct):
    schema_version: int = 0
