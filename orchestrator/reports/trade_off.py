"""What another number of groups would have scored and cost; and what the chosen groups were expected to
cost, and did.

Table and picture of the trade-off that a decision was taken by (``orchestrator.decision``): for each number
of groups the best partition that was looked at, its score with a standard error, and joules and seconds for
the rounds that were left with a standard uncertainty. Beside it, for the chosen groups, the cost of a round
as it was expected and as it came out. Drawn by matplotlib (extra ``orchestrator``), imported when a picture
is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mas_edge.orchestrator.cost_model import figure
from mas_edge.orchestrator.decision import Alternative
from mas_edge.orchestrator.explain import PM, named
from mas_edge.orchestrator.reports.pictures import GREY, blank
from mas_edge.orchestrator.spec import FROM_SCRATCH
from mas_edge.profiling.costs import of_level
from mas_edge.profiling.report import UNKNOWN, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mas_edge.orchestrator.cost_model import Estimate
    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.reports.runs import RunReport

Steps: TypeAlias = "list[tuple[int, Alternative]]"

CHOSEN = "chosen"
COLOR = "#0072b2"


def steps(decision: Decision) -> Steps:
    """(number of groups, the best partition into so many); what was chosen is said to be so."""
    taken = Alternative(
        groups=decision.groups,
        why=CHOSEN,
        score=decision.score,
        se=decision.se,
        energy_j=decision.energy_j,
        time_s=decision.time_s,
    )
    best = {len(taken.groups): taken}
    for each in decision.rejected:
        best.setdefault(len(each.groups), each)
    return sorted(best.items())


def tables(run: RunReport) -> tuple[Table, ...]:
    """Both tables, as far as there is something to show."""
    decision = run.report.decision
    found = (table(decision) if decision else None, outcome(run))
    return tuple(each for each in found if each is not None)


def table(decision: Decision) -> Table | None:
    """A line for each number of groups; None if affinity had no say, or no other number was looked at."""
    found = steps(decision)
    if decision.score is None or len(found) < 2:
        return None
    rows = [
        (
            str(number),
            named(each.groups),
            UNKNOWN
            if each.score is None
            else f"{each.score:.4f}" + ("" if each.se is None else f" {PM}{each.se:.4f}"),
            _words(each.energy_j),
            _words(each.time_s),
            each.why,
        )
        for number, each in found
    ]
    return Table(
        title=f"Number of groups against score and cost of the {decision.rounds} rounds left, {PM}u",
        headers=("groups", "best of so many", "score", "expected J", "expected s", ""),
        rows=tuple(rows),
        strong=frozenset(n for n, (_, each) in enumerate(found) if each.why == CHOSEN),
    )


def outcome(run: RunReport) -> Table | None:
    """What a round of each chosen group was expected to cost and did; None if nothing was expected."""
    decision = run.report.decision
    if decision is None or not any(cost.energy_j or cost.wall_s for cost in decision.costs):
        return None
    rows, spec = [], run.report.spec
    first_round = 0 if spec.policy in FROM_SCRATCH else spec.training.rounds - decision.rounds
    for group, cost in zip(decision.groups, decision.costs, strict=True):
        joules, seconds = _actual(run, "+".join(group), first_round)
        rows.append(("+".join(group), _words(cost.energy_j), joules, _words(cost.wall_s), seconds))
    return Table(
        title=f"A round of each group, joules of all devices, seconds of the slowest: expected {PM}u, billed",
        headers=("group", "expected J", "billed J", "expected s", "billed s"),
        rows=tuple(rows),
    )


def _actual(run: RunReport, group: str, first_round: int) -> tuple[str, str]:
    """Means over the rounds that trained the group, in words."""
    past = run.report.spec.training.rounds
    rows = [
        row
        for row in of_level(run.rows, "row")
        if row.group == group and row.round is not None and first_round <= row.round < past
    ]
    rounds = {row.round for row in rows}
    if not rounds:
        return UNKNOWN, UNKNOWN
    joules = [row.cost.attributed_energy_j for row in rows]
    known = [value for value in joules if value is not None]
    busy: dict[tuple[int | None, str | None], float] = {}
    for row in rows:
        busy[row.round, row.device] = busy.get((row.round, row.device), 0.0) + row.cost.wall_s
    slowest = [max(s for (when, _), s in busy.items() if when == round_) for round_ in rounds]
    energy = figure(sum(known) / len(rounds)) if len(known) == len(joules) else UNKNOWN
    return energy, figure(sum(slowest) / len(slowest))


def chart(decision: Decision | None) -> Figure | None:
    """The score above and what it costs below, by the number of groups; None without a choice."""
    if decision is None or decision.score is None or len(steps(decision)) < 2:
        return None
    costs = [
        (unit, left, [(number, cost) for number, each in steps(decision) if (cost := getattr(each, name))])
        for unit, name, left in (
            ("J", "energy_j", decision.energy_left_j),
            ("s", "time_s", decision.time_left_s),
        )
    ]
    drawn = [each for each in costs if each[2]]
    figure_ = blank(6.4, 2.6 + 1.9 * len(drawn))
    rows = figure_.subplots(1 + len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    _draw_scores(rows[0], decision)
    for axes, (unit, left, points) in zip(rows[1:], drawn, strict=True):
        _draw(axes, [(n, cost.value, cost.u) for n, cost in points], len(decision.groups))
        axes.set_ylabel(f"expected {unit}")
        axes.set_ylim(bottom=0)
        if left is not None:
            axes.axhline(left, color=GREY, linestyle="--", linewidth=1, label="left of the budget")
            axes.legend(fontsize="small", frameon=False)
    rows[-1].set_xlabel("groups")
    rows[-1].set_xticks([number for number, _ in steps(decision)])
    figure_.suptitle("What another number of groups would score and cost; filled: chosen", fontsize="medium")
    return figure_


def _draw_scores(axes: Axes, decision: Decision) -> None:
    points = [(n, each.score, each.se or 0.0) for n, each in steps(decision) if each.score is not None]
    _draw(axes, points, len(decision.groups))
    axes.set_ylabel("score")


def _draw(axes: Axes, points: list[tuple[int, float, float]], chosen: int) -> None:
    for number, value, u in points:
        face = COLOR if number == chosen else "none"
        axes.errorbar(number, value, yerr=u, color=COLOR, marker="o", markerfacecolor=face, capsize=3)
    axes.plot([p[0] for p in points], [p[1] for p in points], color=COLOR, linewidth=1, alpha=0.5)
    axes.grid(alpha=0.25)


def _words(cost: Estimate | None) -> str:
    if cost is None:
        return UNKNOWN
    return f"{figure(cost.value)} {PM}{figure(cost.u, 2)} ({cost.how})"
