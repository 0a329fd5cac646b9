"""What goes on in a fleet, of its jobs' tallies and of what devices said of themselves.

``status`` is a pure function; ``orchestrator.views.follow`` reads its arguments from the store. What stands
in the result is described in ``orchestrator.views.status_values``.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.reports.task_bill import portion, static_shares
from mas_edge.orchestrator.views import outlook
from mas_edge.orchestrator.views.device_status import devices_status, energy, why
from mas_edge.orchestrator.views.status_values import (
    BudgetStatus,
    Curve,
    DeviceStatus,
    Energy,
    GroupStatus,
    JobStatus,
    Known,
    Status,
    TaskStatus,
)
from mas_edge.orchestrator.views.tally import Bill, together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mas_edge.orchestrator.views.tally import Bills, Branch, Point, Tally


def status(tallies: Iterable[Tally], known: Mapping[str, Known], midnight_wall_s: float) -> Status:
    """All of it; ``midnight_wall_s`` is when the orchestrator's day began."""
    told = tuple(tallies)
    devices, bills = devices_status(told, known, midnight_wall_s), together(tally.bills for tally in told)
    jobs = tuple(job_status(tally, devices, bills) for tally in told)
    return Status(jobs=jobs, devices=tuple(devices.values()))


def recent(whole: Status, jobs: Collection[str] = (), most: int = 20) -> Status:
    """The status without jobs that were over long ago: of those the last ones stay, and ``jobs``."""
    over = [job.name for job in whole.jobs if job.phase in outlook.OVER]
    old = set(over[:-most]) - set(jobs)
    return msgspec.structs.replace(whole, jobs=tuple(job for job in whole.jobs if job.name not in old))


def job_status(tally: Tally, devices: Mapping[str, DeviceStatus], bills: Bills) -> JobStatus:
    """A job, what it waits for of these devices, and what it cost of these bills of all jobs."""
    job, spec = tally.job, tally.job.spec
    own = {group: bill for (name, group), bill in bills.items() if name == spec.name}
    ours = Bill.sum(bill for group, bill in own.items() if group not in tally.branches)
    cost = Bill.sum(own.values())
    run = outlook.slowest(job)
    return JobStatus(
        name=spec.name,
        phase=job.phase,
        reason=job.reason,
        policy=spec.policy,
        workload=spec.training.workload,
        priority=spec.priority,
        tasks=tuple(_task(tally, task, own, ours) for task in spec.tasks),
        groups=tuple(_group(branch, tally, own.get(name, Bill())) for name, branch in tally.branches.items()),
        round=run.round if run else None,
        rounds=spec.training.rounds,
        share_done=outlook.share_done(job),
        time_s=tally.time_s,
        left_s=outlook.left_s(job, tally.time_s),
        since_wall_s=tally.since_wall_s,
        at=outlook.at(job),
        waits_for=outlook.waits_for(job, lambda device: why(devices.get(device), job, run)),
        waits_since_wall_s=tally.branches[run.group].since_wall_s
        if run and job.phase not in outlook.OVER
        else None,
        energy=energy(cost),
        orchestrator=energy(ours),
        under_way_j=_under_way_j(spec.name, devices.values()),
        budget=_budget(tally, cost.energy_j),
        affinity=tally.affinity(),
        decision=job.decision,
        parameters=sum(job.parameters.values()) if job.parameters else None,
        replans=job.replans,
        gave_up=tally.counts.get("gave up", 0),
        refused=tally.counts.get("refused", 0),
        late=tally.counts.get("late", 0),
    )


def _under_way_j(job: str, devices: Iterable[DeviceStatus]) -> float | None:
    """Joules of trainings that have not been billed yet, by the devices' last word."""
    known = [d.work.energy_j for d in devices if d.work and d.work.job == job and d.work.energy_j]
    return fsum(known) if known else None


def _task(tally: Tally, task: str, own: Mapping[str, Bill], ours: Bill) -> TaskStatus:
    spec = tally.job.spec
    launched = next((each for each in spec.launched if each.task == task), None)
    points = list(tally.curve(task))
    curves = tuple(_curve(group, points) for group in dict.fromkeys(group for group, *_ in points))
    run = tally.job.result(task)
    losses = [(group, loss) for group, _, loss, _ in points if loss and loss.mean is not None]
    held_out = [loss for group, loss in losses if run and group == run.group] or [loss for _, loss in losses]
    trained = [loss.mean for *_, loss in points if loss and loss.mean is not None]
    unseen = tally.unseen.get(task)
    energy, device_s = _paid(tally, task, own, ours)
    return TaskStatus(
        energy=energy,
        device_s=device_s,
        task=task,
        name=launched.name if launched else task,
        owner=launched.owner if launched else "",
        group=run.group if run else None,
        held_out=held_out[-1].mean if held_out else None,
        relative=held_out[-1].relative if held_out else None,
        training=trained[-1] if trained else None,
        unseen_relative=unseen.relative if unseen else None,
        stopped=task in tally.job.stopped,
        target_loss=launched.target_loss if launched else None,
        curves=curves,
    )


def _paid(tally: Tally, task: str, bills: Mapping[str, Bill], ours: Bill) -> tuple[Energy, float]:
    """What a task pays so far, in joules and seconds: of what its groups cost, and of our own work for it."""
    spec = tally.job.spec
    shares = static_shares(spec, tally.job.parameters)
    groups = {name: branch.run for name, branch in tally.branches.items() if task in branch.run.results}
    paid = [
        (bills.get(name, Bill()), portion(task, run.tasks, shares, run.serves))
        for name, run in groups.items()
    ]
    paid.append((ours, 1.0 / len(spec.tasks)))
    known = [bill.energy_j * share for bill, share in paid if bill.energy_j is not None]
    energy = Energy(
        attributed_j=fsum(known) if known else None,
        complete=all(bill.complete for bill, _ in paid),
        methods=tuple(sorted({method for bill, _ in paid for method in bill.methods})),
    )
    return energy, fsum(bill.wall_s * share for bill, share in paid)


def _curve(group: str, points: list[Point]) -> Curve:
    own = [(round_, held_out, trained) for of, round_, held_out, trained in points if of == group]
    return Curve(
        group=group,
        rounds=tuple(round_ for round_, _, _ in own),
        held_out=tuple(loss.mean if loss else None for _, loss, _ in own),
        relative=tuple(loss.relative if loss else None for _, loss, _ in own),
        training=tuple(loss.mean if loss else None for _, _, loss in own),
    )


def _group(branch: Branch, tally: Tally, bill: Bill) -> GroupStatus:
    run = branch.run
    current = any(each.group == run.group for each in tally.job.runs)
    gone = "gone on" if any(each.parent == run.group for each in tally.branches.values()) else "dropped"
    return GroupStatus(
        group=run.group,
        parent=branch.parent,
        tasks=run.tasks,
        serves=run.results,
        phase=run.phase if current else gone,
        round=run.round,
        rounds=run.past,
        devices=run.devices,
        answered=tuple(contribution.device for contribution in run.heard),
        since_wall_s=branch.since_wall_s,
        energy=energy(bill),
        device_s=bill.wall_s,
    )


def _budget(tally: Tally, used_j: float | None) -> BudgetStatus:
    budget = tally.job.spec.budget
    return BudgetStatus(
        energy_j=budget.energy_j,
        energy_left_j=None if budget.energy_j is None or used_j is None else budget.energy_j - used_j,
        time_s=budget.time_s,
        time_left_s=None if budget.time_s is None else budget.time_s - tally.time_s,
        device_energy_j_per_day=budget.device_energy_j_per_day,
    )
