"""A job's report on a terminal: affinity, split, losses, costs; and several policies side by side.

Draws with rich what ``orchestrator.report`` and ``profiling.bill`` hold and computes nothing but ratios.
Unknown is a dash. Losses are lower-is-better; a loss relative to the constant predictor below 1 means
that something was learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.profiling import report as bills

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from mas_edge.orchestrator.job import Decision
    from mas_edge.orchestrator.report import AffinityTable, Point, Report
    from mas_edge.profiling.bill import FleetBill

UNKNOWN = bills.UNKNOWN


def job(console: Console, report: Report, bill: FleetBill) -> None:
    """Everything about one job."""
    if report.affinity:
        console.print(_affinity(report.affinity))
    if report.decision:
        _decision(console, report.decision)
    console.print(_losses(report))
    names = _short_names(report)
    for group in report.groups:
        if len(names.get(group, "")) == 1:
            console.print(f"Group {names[group]}: {group}", highlight=False)
    bills.render(bills.table(bill, names), console)
    console.print(f"trained on {', '.join(report.train_devices) or UNKNOWN}", highlight=False)


def comparison(console: Console, arms: Sequence[tuple[str, Report, FleetBill, float]]) -> None:
    """Policies side by side: what they cost, what they reached, and both relative to one-by-one."""
    table = _table("Policies on the same data and seed", ["", *(policy for policy, *_ in arms)])
    base = next((arm for arm in arms if arm[0] == "one-by-one"), None)

    def row(name: str, values: Sequence[float | None], form: str) -> None:
        table.add_row(name, *(_number(value, form) for value in values))
        if base is not None and len(arms) > 1:
            reference = values[[arm[0] for arm in arms].index("one-by-one")]
            table.add_row(
                "  / one-by-one",
                *(_number(v / reference if v is not None and reference else None, ".2f") for v in values),
                style="dim",
            )

    method = bills.method(sorted({m for _, _, bill, _ in arms for m in bill.methods}))
    row("wall s", [wall_s for *_, wall_s in arms], ".1f")
    row("CPU s", [_cpu_s(bill) for _, _, bill, _ in arms], ".1f")
    row(f"attributed J ({method})", [bill.attributed_j for _, _, bill, _ in arms], ".0f")
    row(f"fleet total J ({method})", [bill.total_j for _, _, bill, _ in arms], ".0f")
    row("MB over MQTT", [_bytes(bill) / 1e6 for _, _, bill, _ in arms], ".2f")
    row("held-out loss, all tasks", [report.held_out_total for _, report, _, _ in arms], ".3f")
    row("  relative to constant", [report.held_out_relative for _, report, _, _ in arms], ".3f")
    row("unseen loss, all tasks", [report.unseen_total for _, report, _, _ in arms], ".3f")
    table.add_section()
    for number, task in enumerate(arms[0][1].spec.tasks):
        table.add_row(task, *(_number(_loss(report.held_out, number), ".3f") for _, report, _, _ in arms))
    console.print(table)


def _table(title: str, headers: Sequence[str]) -> Table:
    from rich import box  # noqa: PLC0415 - an extra
    from rich.table import Table as RichTable  # noqa: PLC0415

    table = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position else "left")
    return table


def _affinity(affinity: AffinityTable) -> Table:
    title = "Affinity: row's step on column's loss (positive helps) ± standard error"
    table = _table(title, ["", *affinity.tasks])
    for task, means, errors in zip(affinity.tasks, affinity.mean, affinity.se, strict=True):
        cells = (
            UNKNOWN if mean is None else f"{mean:+.3f}" + ("" if error is None else f" ±{error:.3f}")
            for mean, error in zip(means, errors, strict=True)
        )
        table.add_row(task, *cells)
    return table


def _decision(console: Console, decision: Decision) -> None:
    console.print(f"Split: [bold]{_groups(decision.groups)}[/] ({decision.why})", highlight=False)
    if decision.score is None or decision.runner_up_score is None:
        return
    lead = decision.score - decision.runner_up_score
    error = "" if decision.lead_se is None else f" ± {decision.lead_se:.4f}"
    console.print(f"Runner-up: {_groups(decision.runner_up)}; lead {lead:+.4f}{error}", highlight=False)


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return " | ".join("+".join(group) for group in groups)


def _losses(report: Report) -> Table:
    seen = "held-out examples of clients that trained"
    table = _table(
        f"Loss per task: on {seen}, and on unseen clients",
        ["task", "held-out", "constant", "ratio", "metric", "unseen", "constant", "ratio", "metric"],
    )
    for number, task in enumerate(report.spec.tasks):
        cells = [cell for points in (report.held_out, report.unseen) for cell in _cells(points, number)]
        table.add_row(task, *cells)
    table.add_section()
    totals = (
        (report.held_out_total, report.held_out_relative),
        (report.unseen_total, report.unseen_relative),
    )
    cells = [c for t, r in totals for c in (_number(t, ".3f"), "", _number(r, ".2f"), "")]
    table.add_row("all (sum; mean ratio)", *cells, style="bold")
    return table


def _cells(points: Sequence[Point], number: int) -> tuple[str, ...]:
    if number >= len(points):
        return (UNKNOWN,) * 4
    point = points[number]
    ratio = point.loss / point.constant_loss if point.loss is not None and point.constant_loss else None
    return (
        _number(point.loss, ".3f"),
        _number(point.constant_loss, ".3f"),
        _number(ratio, ".2f"),
        _number(point.metric, ".3f"),
    )


def _loss(points: Sequence[Point], number: int) -> float | None:
    return points[number].loss if number < len(points) else None


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _cpu_s(bill: FleetBill) -> float:
    return sum(line.cost.cpu_s for line in bill.lines if line.phase is None)


def _bytes(bill: FleetBill) -> int:
    return sum(line.cost.sent_bytes + line.cost.received_bytes for line in bill.lines if line.phase is None)


def _short_names(report: Report) -> dict[str, str]:
    """What stands for a group in a narrow table: a letter after the split, or how many tasks it has."""
    whole = "+".join(report.spec.tasks)
    letters = {group: chr(ord("A") + n) for n, group in enumerate(report.groups) if "+" in group}
    return {**letters, whole: f"all {len(report.spec.tasks)} tasks"} if len(report.spec.tasks) > 1 else {}
