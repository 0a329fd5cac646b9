"""A decision in words and numbers: what was chosen and why, who trains what, what was turned down and why.

``explain`` gives the lines that ``mas plan`` prints, ``in_short`` the one that goes to the log; as JSON a
``Decision`` is itself. \N{PLUS-MINUS SIGN} is one standard uncertainty (of scores: standard error), upwards
for costs, which err by factors. Where costs come from is said in brackets: *measured* on these devices,
*fitted* from other groups or devices. A unit of energy is that of a step of all tasks together; by how much
it lowers the losses is times the learning rate (``orchestrator.gain``). Pure; nothing is computed here.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from mas_edge.orchestrator.cost_model import figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mas_edge.orchestrator.budget import GroupCost, LeftOut
    from mas_edge.orchestrator.cost_model import Estimate
    from mas_edge.orchestrator.decision import Alternative, Decision, MoreRounds
    from mas_edge.orchestrator.learning_curve import Carried

NAMED = 8
"""Devices that are named in a line; more are counted."""

PM = "\N{PLUS-MINUS SIGN}"


def in_short(decision: Decision) -> str:
    """What was decided and why, in one line."""
    if decision.refused:
        return decision.refused
    return f"{what(decision)}: {decision.why}"


def explain(decision: Decision, all_devices: Sequence[str]) -> list[str]:
    """The decision in lines; ``all_devices`` are those of the job."""
    if decision.refused:
        return [f"It cannot be done: {decision.refused}."]
    return [
        f"{_number(decision)}: {what(decision)}",
        f"  because {decision.why}{_by(decision)}",
        *(f"  although it {note}" for note in decision.notes),
        *_more_rounds(decision.more_rounds),
        *_again(decision),
        f"  {_rounds(decision)}: {_total(decision)}",
        *_groups(decision, all_devices),
        *_rejected(decision.rejected),
    ]


def named(groups: Iterable[Iterable[str]]) -> str:
    """A partition as one writes it."""
    return " | ".join("+".join(group) for group in groups)


def _by(decision: Decision) -> str:
    """The numbers that it was decided by."""
    return _score(decision.score, decision.se, ", score ") + _loss(decision.loss, ", ")


def _more_rounds(known: MoreRounds | None) -> Iterable[str]:
    """What the energy of a split could be spent on instead."""
    if known is not None:
        lower = f"lower the loss by another {known.lower_by:.1%}" if known.lower_by > 0 else "bring nothing"
        yield (
            f"  the energy of {named(known.groups)} pays for {known.rounds} rounds of all tasks instead of"
            f" {known.planned}: they are foretold to {lower}"
        )


def _again(decision: Decision) -> Iterable[str]:
    """How well all tasks learn together, and when that is looked at again."""
    if decision.carried is not None:
        yield f"  {carries(decision.carried)}"
    if decision.again:
        yield f"  only up to round {decision.again}: then it is decided again"


def carries(known: Carried) -> str:
    """How much of what is learnt carries over, in words."""
    share = f"{figure(100 * known.share, 2)} {PM}{figure(100 * known.se, 2)} %"
    return f"of what all tasks learn together {share} carries over to held-out examples"


def _number(decision: Decision) -> str:
    trial = decision.trial
    return f"{len(trial.partitions)} on trial" if trial else _count(len(decision.groups), "group")


def what(decision: Decision) -> str:
    """The groups, where they overlap with the tasks that each serves; or the partitions that are tried."""
    if decision.trial:
        return "; ".join(map(named, decision.trial.partitions))
    serves = zip(decision.groups, decision.serves or decision.groups, strict=True)
    return " | ".join(
        "+".join(group) + (f" for {' and '.join(own)}" if own != group else "") for group, own in serves
    )


def _rounds(decision: Decision) -> str:
    most = _count(decision.rounds, "round")
    return f"up to {most} each" if decision.trial else f"{most} to train"


def _total(decision: Decision) -> str:
    """What it will cost, beside what is left."""
    if not decision.rounds:
        return "all groups are trained already"
    parts = [
        _beside(decision.energy_j, decision.energy_left_j, "J"),
        _beside(decision.time_s, decision.time_left_s, "s"),
    ]
    known = [part for part in parts if part]
    return "; ".join(known) if known else "nothing was measured yet that would tell joules or seconds"


def _beside(cost: Estimate | None, left: float | None, unit: str) -> str:
    limit = "" if left is None else f" of {figure(max(left, 0.0))} {unit} left"
    if cost is None:
        return f"unknown{limit}" if limit else ""
    return f"{cost.words(unit)}{limit} ({cost.how})"


def _groups(decision: Decision, all_devices: Sequence[str]) -> Iterable[str]:
    """For each group who trains it for what, and who does not and why."""
    count = len(decision.groups)
    devices = decision.devices or (tuple(all_devices),) * count
    costs = decision.costs or (None,) * count
    serves = decision.serves or decision.groups
    long = decision.trial.rounds if decision.trial else (0,) * count
    for group, names, cost, served, tried in zip(decision.groups, devices, costs, serves, long, strict=True):
        sake = f" for the sake of {', '.join(served)}" if served != group else ""
        rounds = f" for {_count(tried, 'round')}" if tried else ""
        yield f"  {'+'.join(group)}{sake} on {_devices(names, all_devices)}{rounds}{_a_round(cost)}"
        for why, left in _by_reason(each for each in decision.left_out if each.group == group):
            yield f"    not on {_devices(left, ())}: {why}"


def _by_reason(left_out: Iterable[LeftOut]) -> Iterable[tuple[str, list[str]]]:
    """Devices that are left out for one and the same reason together."""
    ordered = sorted(left_out, key=lambda each: each.why)
    for why, same in groupby(ordered, key=lambda each: each.why):
        yield why, [each.device for each in same]


def _devices(names: Sequence[str], all_devices: Sequence[str]) -> str:
    if len(names) > 1 and len(names) == len(all_devices):
        return f"all {len(names)} devices"
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _a_round(cost: GroupCost | None) -> str:
    if cost is None:
        return ""
    parts = [cost.energy_j.words("J") if cost.energy_j else "", cost.wall_s.words("s") if cost.wall_s else ""]
    parts.append(f"{figure(cost.traffic_bytes / 1e6, 2)} MB" if cost.traffic_bytes else "")
    known = [part for part in parts if part]
    by = cost.energy_j or cost.wall_s
    how = f" ({by.how})" if by else ""
    return f", a round {', '.join(known)}{how}" if known else ""


def _rejected(rejected: Sequence[Alternative]) -> Iterable[str]:
    if rejected:
        yield "Turned down:"
    for each in rejected:
        costs = [
            each.energy_j.words("J") if each.energy_j else "",
            each.time_s.words("s") if each.time_s else "",
        ]
        said = (_score(each.score, each.se, "score "), _loss(each.loss, ""), *costs)
        known = ", ".join(part for part in said if part)
        numbers = f" ({known})" if known else ""
        yield f"  {_count(len(each.groups), 'group')}: {named(each.groups)}{numbers}: {each.why}"


def _score(score: float | None, se: float | None, before: str) -> str:
    if score is None:
        return ""
    return f"{before}{score:.4f}" + ("" if se is None else f" {PM}{se:.4f}")


def _loss(loss: float | None, before: str) -> str:
    return "" if loss is None else f"{before}held-out loss {figure(loss)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
