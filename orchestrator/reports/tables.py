"""A run on a terminal: affinity, split, losses, costs; and several policies side by side.

Makes tables of what ``orchestrator.report`` holds, as ``profiling.tables`` does of costs, and prints both
with rich; the page shows the same ones. It computes nothing but ratios. Unknown is a dash. Losses are
lower-is-better; a loss relative to the constant predictor below 1 means that something was learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.orchestrator.cost_model import figure
from mas_edge.orchestrator.explain import carries, what
from mas_edge.orchestrator.reports import in_use, trade_off
from mas_edge.orchestrator.reports.summary import all_of, headline, short_names
from mas_edge.profiling import costs
from mas_edge.profiling import tables as bills
from mas_edge.profiling.report import UNKNOWN, Table, method, render, uncertain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.peaks import Memory
    from mas_edge.orchestrator.report import AffinityTable, Point, Report
    from mas_edge.orchestrator.reports.runs import RunReport
    from mas_edge.orchestrator.reports.task_bill import TaskBill
    from mas_edge.orchestrator.storage.contributions import Contributed
    from mas_edge.profiling.costs import Row

TOLD = 2.0
"""So many standard errors a lead has to be for measured affinity to tell two partitions apart."""


def job(console: Console, run: RunReport, g_per_kwh: float | None = None) -> None:
    """Everything about one run that a terminal has room for."""
    made = run.report
    if made.affinity:
        render(affinity(made.affinity), console)
    for line in split(made):
        console.print(line, highlight=False, markup=False)
    for each in trade_off.tables(run):
        render(each, console)
    for note in made.replans:
        console.print(f"Memory: {note}", highlight=False, markup=False)  # in the words of a device
    render(losses(made), console)
    names = short_names(made)
    render(bills.costs(run.rows, names), console)
    render(task_costs(run.task_bills), console)
    render(bills.listing(run.rows, "group-phase", names), console)
    render(bills.totals(run.bill, g_per_kwh), console)
    if limited(made):
        render(memory(made.memory, names), console)
    if run.in_use:
        render(in_use.table(run.in_use, names), console)
    if uneven(run):
        render(contributions(run.contributions, names), console)
    for group, name in names.items():
        if len(name) == 1:
            console.print(f"Group {name}: {group}", highlight=False)
    console.print(f"trained on {', '.join(made.train_devices) or UNKNOWN}", highlight=False, markup=False)
    console.print(f"\n[bold]{headline(run)}[/]", highlight=False)


def policies(arms: Sequence[tuple[str, RunReport]]) -> Table:
    """Policies side by side: what they cost, what they reached, and both relative to one-by-one."""
    runs = [run for _, run in arms]
    names = [name for name, _ in arms]
    base = names.index("one-by-one") if "one-by-one" in names and len(arms) > 1 else None
    rows: list[tuple[str, ...]] = []

    def row(name: str, values: Sequence[float | None], form: str) -> None:
        rows.append((name, *(_number(value, form) for value in values)))
        if base is not None and (reference := values[base]):
            ratios = (None if value is None else value / reference for value in values)
            rows.append(("  / one-by-one", *(_number(ratio, ".2f") for ratio in ratios)))

    how = method(sorted({m for run in runs for m in run.bill.methods}))
    sums = [all_of(run) for run in runs]
    row("wall s", [run.wall_s for run in runs], ".1f")
    row("CPU s", [own.cost.cpu_s if own else None for own in sums], ".1f")
    row(f"attributed J ({how})", [run.bill.attributed_j for run in runs], ".0f")
    row(f"fleet total J ({how})", [run.bill.total_j for run in runs], ".0f")
    row("MB over MQTT", [_megabytes(own) for own in sums], ".2f")
    rows.append(("groups", *(str(len(run.report.groups)) for run in runs)))
    row("held-out loss, all tasks", [run.report.held_out_total for run in runs], ".3f")
    row("  relative to constant", [run.report.held_out_relative for run in runs], ".3f")
    row("unseen loss, all tasks", [run.report.unseen_total for run in runs], ".3f")
    for number, task in enumerate(runs[0].report.spec.tasks):
        found = (_loss(run.report.held_out, number) for run in runs)
        rows.append((task, *(_number(loss, ".3f") for loss in found)))
    return Table(title="Policies on the same data and seed", headers=("", *names), rows=tuple(rows))


def task_costs(paid: Sequence[TaskBill]) -> Table:
    """What each task cost, and how that is known; together it is what the groups cost."""
    rows = []
    every = sorted({name for bill in paid for name in bill.methods})
    for bill in paid:
        shares = ", ".join(sorted({part.how for part in bill.parts if part.how != "equal"}))
        cost = uncertain(costs.number(bill.energy_j, bill.energy_u_j))
        name = bill.name if bill.name == bill.task else f"{bill.name} ({bill.task})"
        rows.append((name, bill.owner or UNKNOWN, cost, f"{bill.wall_s:.1f}", shares, method(bill.methods)))
    return Table(
        title="Cost per task, \N{PLUS-MINUS SIGN}2u",
        headers=("task", "owner", f"attributed J ({method(every)})", "device s", "shares", "method"),
        rows=tuple(rows),
        keys=2,
        notes=(
            "A task pays for its own decoder, and an equal part of what its groups shared, helpers included.",
        ),
    )


def affinity(found: AffinityTable) -> Table:
    """Row's step on column's loss."""
    rows = []
    for task, means, errors in zip(found.tasks, found.mean, found.se, strict=True):
        cells = (
            UNKNOWN if mean is None else f"{mean:+.3f}" + ("" if error is None else f" ±{error:.3f}")
            for mean, error in zip(means, errors, strict=True)
        )
        rows.append((task, *cells))
    title = "Affinity: row's step on column's loss (positive helps) ± standard error"
    return Table(title=title, headers=("", *found.tasks), rows=tuple(rows))


def split(report: Report) -> tuple[str, ...]:
    """The groups that were decided on and by how much; nothing where none were."""
    decision = report.decision
    if decision is None:
        return ()
    chosen = f"{'Split' if len(decision.groups) > 1 else 'Not split'}: {what(decision)} ({decision.why})"
    if decision.carried is not None:
        chosen += f"; after {report.merged_rounds} rounds {carries(decision.carried)}"
    if decision.loss is not None:
        return chosen, *_tried(decision, decision.loss)
    if decision.score is None or decision.runner_up_score is None:
        return (chosen,)
    lead = decision.score - decision.runner_up_score
    error = "" if decision.lead_se is None else f" ± {decision.lead_se:.4f}"
    even = ", too little to tell the two apart" if abs(lead) < TOLD * (decision.lead_se or 0.0) else ""
    return chosen, f"Runner-up: {_groups(decision.runner_up)}; lead {lead:+.4f}{error}{even}"


def _tried(decision: Decision, loss: float) -> Iterable[str]:
    """What a trial came to: the held-out loss of what was taken, and of what was tried beside it."""
    yield f"On trial: {_groups(decision.groups)}: held-out loss {figure(loss)}"
    for each in decision.rejected:
        known = "" if each.loss is None else f"held-out loss {figure(each.loss)}, "
        yield f"On trial: {_groups(each.groups)}: {known}{each.why}"


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return " | ".join("+".join(group) for group in groups)


def losses(report: Report) -> Table:
    """Each task's loss, held-out and on clients that nobody trained on."""
    rows = []
    for number, task in enumerate(report.spec.tasks):
        cells = [cell for points in (report.held_out, report.unseen) for cell in _cells(points, number)]
        rows.append((task, *cells))
    totals = (
        (report.held_out_total, report.held_out_relative),
        (report.unseen_total, report.unseen_relative),
    )
    cells = [c for t, r in totals for c in (_number(t, ".3f"), "", _number(r, ".2f"), "")]
    rows.append(("all (sum; mean ratio)", *cells))
    return Table(
        title="Loss per task: on held-out examples of clients that trained, and on unseen clients",
        headers=("task", "held-out", "constant", "ratio", "metric", "unseen", "constant", "ratio", "metric"),
        rows=tuple(rows),
        strong=frozenset({len(rows) - 1}),
    )


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


def limited(made: Report) -> bool:
    """Whether any device had a limit to its memory, or was killed at one."""
    return any(row.allowed_bytes is not None or row.killed_bytes is not None for row in made.memory)


def memory(found: Sequence[Memory], names: Mapping[str, str]) -> Table:
    """A line per group and device."""
    rows = []
    for row in found:
        flags = ["computed twice"] * row.checkpointing + ["batch statistics cut"] * row.cut_statistics
        sizes = (row.peak_bytes, row.estimated_bytes, row.allowed_bytes, row.killed_bytes)
        cells = (UNKNOWN if size is None else f"{size / 1e6:.0f}" for size in sizes)
        name = names.get(row.group, row.group)
        rows.append((name, row.device, str(row.micro_batch), *cells, ", ".join(flags)))
    heads = ("group", "device", "at a time", "peak MB", "estimate", "allowed", "killed at", "")
    return Table(title="Memory of the training process", headers=heads, rows=tuple(rows))


def uneven(run: RunReport) -> bool:
    """Whether some device brought less than others: missed, late, refused, or without a task's labels."""
    return not all(row.even for row in run.contributions)


def contributions(found: Sequence[Contributed], names: Mapping[str, str]) -> Table:
    """Who brought what, a line per group and device."""
    rows = []
    for row in found:
        labels = (f"{each.task} {_number(each.examples, '.0f')}" for each in row.labelled)
        counts = (row.late, row.missed, row.refused, row.declined, row.failed, row.benched)
        why = ", ".join(f"{each.reason} ×{each.times}" for each in row.reasons)
        rounds = f"{row.rounds}" if row.asked is None else f"{row.rounds} of {row.asked}"
        cells = (rounds, f"{row.examples}", ", ".join(labels), *(str(n) if n else "" for n in counts), why)
        rows.append((names.get(row.group, row.group), row.device, *cells))
    heads = ("group", "device", "rounds", "examples", "labels", "late", "missed", "refused")
    more = ("declined", "failed", "benched", "why")
    title = "Who contributed what: rounds merged of those asked for; –: no labels of this task"
    return Table(title=title, headers=(*heads, *more), rows=tuple(rows), keys=2)


def _loss(points: Sequence[Point], number: int) -> float | None:
    return points[number].loss if number < len(points) else None


def _megabytes(row: Row | None) -> float | None:
    return None if row is None else (row.cost.sent_bytes + row.cost.received_bytes) / 1e6


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"
