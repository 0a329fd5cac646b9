"""`mas report` from its arguments to what is printed: one run, or one compared with another.

Everything comes from ``report.json`` in the runs' directories, so that a report can be made again later,
elsewhere, with another comparison or another number for CO2e; or from the running orchestrator, of a job that
it has, finished or not.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.demos.showcase import PLAIN_WIDTH
from mas_edge.orchestrator.reports import compare, tables
from mas_edge.orchestrator.reports.page import Named, page
from mas_edge.orchestrator.reports.runs import RunRefused, read
from mas_edge.profiling.costs import with_co2e
from mas_edge.profiling.report import csv_text, render
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import is_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.orchestrator.reports.runs import RunReport

Form: TypeAlias = Literal["text", "json", "csv"]


class ReportRefused(ValueError):
    """A report that cannot be made as asked: a carbon intensity that cannot be, a page with no place."""


def show(
    run: str,
    other: str | None,
    html: Path | None,
    form: Form,
    g_per_kwh: float | None,
    ask: Callable[[str], RunReport],
) -> int:
    """Print a run's report in a form and write its page if one is asked for; the exit code.

    ``run`` and ``other`` are directories, or jobs whose report ``ask`` gives. Raises RunRefused and
    ReportRefused, and what ``ask`` raises.
    """
    if g_per_kwh is not None and not 0 <= g_per_kwh < math.inf:
        raise ReportRefused(f"--co2 {g_per_kwh:g}: give grams per kWh, 0 or more")
    one = _named(run, g_per_kwh, ask)
    two = None if other is None else _named(other, g_per_kwh, ask)
    if html is not None:
        _write(html, page(one, two, g_per_kwh))
    if form == "text":
        _print(one, two, g_per_kwh)
        if html is not None:
            print(html)
    else:
        sys.stdout.write(csv_text(one.run.rows) if form == "csv" else _json(one, two))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise ReportRefused(f"cannot write {path}: {error.strerror}") from error


def _named(name: str, g_per_kwh: float | None, ask: Callable[[str], RunReport]) -> Named:
    run = read(Path(name)) if not is_name(name) or Path(name).exists() else _asked(name, ask)
    if g_per_kwh is not None:
        run = msgspec.structs.replace(run, rows=with_co2e(run.rows, g_per_kwh))
    return Named(name, run)


def _asked(job: str, ask: Callable[[str], RunReport]) -> RunReport:
    try:
        return ask(job)
    except ConnectionError as error:
        raise RunRefused(f"{job} is no directory with a finished run; as a job: {error}") from error


def _json(one: Named, two: Named | None) -> str:
    """The run; with another one both and the ratios."""
    found: object = one.run
    if two is not None:
        found = {"run": one.run, "other": two.run, "ratios": compare.compare(one.run, two.run)}
    return msgspec.json.encode(found).decode() + "\n"


def _print(one: Named, two: Named | None, g_per_kwh: float | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra

    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    tables.job(console, one.run, g_per_kwh)
    if two is not None:
        ratios = compare.compare(one.run, two.run)
        render(compare.table(ratios, one.run, two.run, (one.name, two.name)), console)
