"""``report.html``: a run on one page that needs no network and no script, with figures as inline SVG.

The template is ``page.html`` (jinja2, which escapes every text); its numbers are the cells of the tables
that a terminal shows. Figures are drawn in the light theme; as text stays text and the colours of ink are
replaced by variables of the page, they follow the reader's dark mode too. Nothing is computed here.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from mas_edge.orchestrator.reports import charts, compare, in_use, pictures, trade_off
from mas_edge.orchestrator.reports import tables as learnt
from mas_edge.orchestrator.reports.summary import facts, headline, short_names
from mas_edge.profiling import provenance, tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from mas_edge.orchestrator.reports.runs import RunReport
    from mas_edge.profiling.costs import Level
    from mas_edge.profiling.report import Table

PAGE = "report.html"

SUMS: tuple[Level, ...] = ("group-round", "device")
"""Levels that stand folded up on the page."""

INKS = {"#000000": "var(--ink)", pictures.GREY: "var(--soft)"}
"""Colours of a figure that have to change with the page's background."""


FONT = "system-ui, sans-serif"


@dataclass(frozen=True)
class Named:
    """A run and what it is called."""

    name: str
    run: RunReport


def page(shown: Named, other: Named | None = None, g_per_kwh: float | None = None) -> str:
    """The whole document; ``other`` is compared with, ``g_per_kwh`` is what the user says a kWh emits."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files(__package__) / "page.html").read_text("utf-8"))
    run, names = shown.run, short_names(shown.run.report)
    rows = run.rows
    return template.render(
        name=shown.name,
        run=run,
        headline=headline(run),
        facts=facts(run),
        names={name: group for group, name in names.items() if len(name) == 1},
        costs=tables.costs(rows, names),
        tasks=learnt.task_costs(run.task_bills),
        totals=tables.totals(run.bill, g_per_kwh),
        phases=tables.listing(rows, "group-phase", names, tables.BROAD),
        sums=[tables.listing(rows, level, names, tables.BROAD) for level in SUMS],
        every=tables.listing(rows, "row", names, tables.WIDE),
        losses=learnt.losses(run.report),
        split=learnt.split(run.report),
        memory=learnt.memory(run.report.memory, names) if run.report.memory else None,
        contributions=learnt.contributions(run.contributions, names) if run.contributions else None,
        in_use=in_use.table(run.in_use, names) if run.in_use else None,
        compared=_compared(shown, other),
        hosts=[provenance.facts(host) for host in run.bill.hosts],
        figures=_figures(shown, other),
        trade_offs=trade_off.tables(run),
    )


def _compared(shown: Named, other: Named | None) -> Table | None:
    if other is None:
        return None
    ratios = compare.compare(shown.run, other.run)
    return compare.table(ratios, shown.run, other.run, (shown.name, other.name))


def _figures(shown: Named, other: Named | None) -> Mapping[str, str]:
    """SVG of every figure for which something is known."""
    run = shown.run
    made = run.report
    runs = {named.name: named.run for named in (shown, other) if named}
    drawn = {
        "energy": charts.energy(run),
        "over_time": charts.over_time(run),
        "losses": pictures.curves(made) if made.curve else None,
        "loss_against_energy": charts.loss_against_energy(runs),
        "affinity": pictures.affinity(made.affinity, made.decision) if made.affinity else None,
        "trade_off": trade_off.chart(made.decision),
    }
    return {name: svg(figure, name) for name, figure in drawn.items() if figure is not None}


def svg(figure: Figure, name: str) -> str:
    """An ``svg`` element that takes its inks and its font from the page; ``name`` tells its ids apart."""
    from matplotlib import rc_context  # noqa: PLC0415 - slow to import, and an extra

    out = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)
    text = re.sub(r'( id="|"#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"'DejaVu Sans'(, '[^']*'|, [\w-]+)*", FONT, text)
    return re.sub("|".join(INKS), lambda color: INKS[color[0]], text)
