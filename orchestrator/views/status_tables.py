"""What goes on, as text: tables of jobs, tasks and devices, and a line for each thing that is new.

`mas ps`, `mas devices` and `mas watch` print the tables; where there is no terminal, `mas watch` and `mas
demo` print the lines. Joules are attributed ones; ``est.`` marks an estimate, ``≥`` a sum of which a part is
not known, a dash what is not known at all. Losses are held-out ones over the constant predictor's: below 1,
something was learnt. Pure: the present moment is an argument.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mas_edge.orchestrator.explain import what
from mas_edge.orchestrator.views.device_status import activity
from mas_edge.profiling.report import UNKNOWN, Table, joules, method

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mas_edge.orchestrator.views.status_values import (
        DeviceStatus,
        Energy,
        GroupStatus,
        JobStatus,
        Status,
        TaskStatus,
    )


WIDE = 100
"""Columns from which everything has room."""
NEWLINE = "\n"


def jobs(shown: Status, *, brief: bool = False, tasks_too: bool = True) -> Table:
    """A line per job, and below it one for each task; ``brief`` is for less than ``WIDE`` columns."""
    rows: list[tuple[str, ...]] = []
    for job in shown.jobs:
        left = UNKNOWN if job.left_s is None else duration(job.left_s)
        limit = (
            "" if job.budget.energy_j is None else f"{NEWLINE if brief else ' '}of {job.budget.energy_j:g}"
        )
        loss, done = number(mean_relative(job), ".2f"), f"{job.share_done:.0%}"
        rows.append((job.name, job.at, done, loss, energy(job.energy) + limit, left, duration(job.time_s)))
        rows += [_task_of(job, task) for task in job.tasks if tasks_too]
    full = (shown.full,) if shown.full else ()
    notes = tuple(f"{job.name} waits for {job.waits_for}" for job in shown.jobs if job.waits_for)
    failed = tuple(f"{job.name} {job.phase}: {job.reason}" for job in shown.jobs if job.reason)
    none = () if rows else ("no job yet: mas launch FILE",)
    heads = ("job, task", "at", "done", "loss", "J", "left", "time")
    columns = len(heads) - brief
    return Table(
        title="Jobs",
        headers=heads[:columns],
        rows=tuple(row[:columns] for row in rows),
        keys=2,
        notes=(*full, *notes, *failed, *none),
        whole=True,
    )


def _task_of(job: JobStatus, task: TaskStatus) -> tuple[str, ...]:
    """A task's line among those of jobs: whose it is, how far its group is, what it pays."""
    name = f"  {task.name}" + (f" ({task.owner})" if task.owner else "")
    group = next((group for group in job.groups if group.group == task.group), None)
    going = group is not None and len(job.tasks) > 1 and job.left_s is not None
    at = "stopped" if task.stopped else f"round {_round_of(group)}" if group and going else ""
    return (name, at, "", number(task.relative, ".2f"), energy(task.energy), "", "")


def tasks(job: JobStatus, *, brief: bool = False) -> Table:
    """A line per task of a job, in its groups' order; ``brief`` leaves out what matters least."""
    groups = {group.group: group for group in job.groups}
    rows = []
    for task in job.tasks:
        group = groups.get(task.group or "")
        where = UNKNOWN if group is None else _round_of(group)
        own = (task.name, task.owner or UNKNOWN, task.group or UNKNOWN, where)
        losses = (number(task.held_out, ".3f"), number(task.relative, ".2f"))
        more = () if brief else (duration(task.device_s), number(task.training, ".3f"))
        rows.append((*own, *losses, energy(task.energy), *more))
    more = () if brief else ("device\ntime", "training\nloss")
    heads = ("task", "owner", "group", "round", "held-out\nloss", "of\nconstant", "J", *more)
    notes = (f"waits for {job.waits_for}",) if job.waits_for else ()
    title = f"{job.name}: {headline(job)}"
    return Table(title=title, headers=heads, rows=tuple(rows), keys=3, notes=notes, whole=True)


def _round_of(group: GroupStatus) -> str:
    return f"{min(group.round + 1, group.rounds)}/{group.rounds}"


def headline(job: JobStatus) -> str:
    """A job in a line: where it is, what it used, how long it may still take."""
    left = f", about {duration(job.left_s)} left" if job.left_s is not None else ""
    done = f"{job.share_done:.0%} done" if job.phase != "done" else "done"
    at = "" if job.at in {"done", "failed"} else f", {job.at}"
    return f"{job.policy}{at}, {done}, {spent(job.energy)}, {duration(job.time_s)}{left}"


def devices(shown: Status, wall_s: float) -> Table:
    """A line per device, as it is at a Unix time."""
    rows = []
    for device in shown.devices:
        used = energy(device.energy), energy(device.energy_today)
        rows.append((device.name, doing(device, wall_s), _board(device), *used, _left(device)))
    heads = ("device", "does", "has", "J", "today", "left\ntoday")
    notes = tuple(f"{device.name}: {note}" for device in shown.devices for note in device_notes(device))
    none = () if rows else ("no device yet: mas-agent run --config agent.toml on one",)
    return Table(title="Devices", headers=heads, rows=tuple(rows), keys=3, notes=(*notes, *none), whole=True)


def doing(device: DeviceStatus, wall_s: float) -> str:
    """What a device does, in words; for how long, where it does nothing by its own account."""
    work = device.work
    if device.state not in {"working", "asked"} or work is None:
        plain = {"declining": "may not train", "unseen": "never seen", "unknown": UNKNOWN}
        words = plain.get(device.state, device.state)
        told = device.state in {"away", "declining"} and device.since_wall_s is not None
        return f"{words} for {duration(wall_s - (device.since_wall_s or 0.0))}" if told else words
    step = f", step {work.step} of {work.steps}" if work.steps else ""
    return f"{activity(work)} {work.group}, round {work.round + 1} of {work.job}{step}"


def device_notes(device: DeviceStatus) -> Iterator[str]:
    """Why a device does not do more."""
    for reason in device.reasons:
        yield f"may not train now: {reason.condition}: {reason.detail}"
    for bench in device.benched:
        until = f"before {bench.until_s:.0f} s of job time"
        yield f"not asked for {bench.job} {bench.group} {until}: {bench.reason}"


def news(before: JobStatus | None, after: JobStatus) -> Iterator[str]:
    """What a job did between two looks, a line each; all of it if there was no look before."""
    if after.parameters and not (before and before.parameters):
        yield f"first weights: {after.parameters:,} parameters for {len(after.tasks)} tasks"
    yield from after.replans[len(before.replans) if before else 0 :]
    seen = {group.group: group.round for group in before.groups} if before else {}
    for group in after.groups:
        first = seen.get(group.group, min(group.round, _born(group, after)))
        for round_ in range(first, min(group.round, group.rounds)):
            yield _round(group, round_, after)
    if after.decision and not (before and before.decision):
        yield f"split into {what(after.decision)}" if len(after.decision.groups) > 1 else "not split"
    if after.phase == "trial" and not (before and before.phase == "trial"):
        tried = [group.group for group in after.groups if group.phase not in {"gone on", "dropped"}]
        yield f"trained beside each other, to choose among them: {' | '.join(tried)}"
    judged = {task.group for task in before.tasks if task.unseen_relative is not None} if before else set()
    for name in dict.fromkeys(task.group for task in after.tasks if task.unseen_relative is not None):
        if name not in judged:
            yield f"{name}: evaluated on unseen clients"
    if after.reason and not (before and before.reason):
        yield f"{after.phase}: {after.reason}"


def _born(group: GroupStatus, job: JobStatus) -> int:
    """The round in which a group took over from the one above it."""
    return next((above.round for above in job.groups if above.group == group.parent), 0)


def _round(group: GroupStatus, round_: int, job: JobStatus) -> str:
    losses = [_training(task, group.group, round_) for task in job.tasks if task.task in group.tasks]
    known = [loss for loss in losses if loss is not None]
    loss = number(math.fsum(known) if known else None, ".3f")
    return f"round {round_ + 1}/{job.rounds}  {group.group}  training loss {loss}  {spent(job.energy)}"


def _training(task: TaskStatus, group: str, round_: int) -> float | None:
    found = (
        dict(zip(c.rounds, c.training, strict=True)).get(round_) for c in task.curves if c.group == group
    )
    return next(found, None)


def mean_relative(job: JobStatus) -> float | None:
    """Mean over the tasks of held-out loss over the constant predictor's; None if one is not known."""
    known = [task.relative for task in job.tasks if task.relative is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(job.tasks) else None


def energy(used: Energy, unit: str = "") -> str:
    """Attributed joules, marked where they are estimated or not all known."""
    if used.attributed_j is None:
        return UNKNOWN + unit
    least = "" if used.complete else "≥ "
    guessed = f" {method(used.methods)}" if "estimated" in used.methods else ""
    return f"{least}{joules(used.attributed_j, None)}{unit}{guessed}"


def spent(used: Energy) -> str:
    """The same in a sentence, with its unit."""
    return energy(used, " J")


def duration(seconds: float) -> str:
    """A number of seconds in the two largest units that matter.

    >>> duration(0.4), duration(59), duration(754), duration(7509), duration(200000)
    ('0 s', '59 s', '12 min 34 s', '2 h 5 min', '2 d 7 h')
    """
    whole = max(int(seconds), 0)
    for unit_s, unit, below_s, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // below_s} {below}"
    return f"{whole} s"


def number(value: float | None, form: str) -> str:
    """The number, or the dash of what is not known."""
    return UNKNOWN if value is None else f"{value:{form}}"


def _left(device: DeviceStatus) -> str:
    return joules(device.budget_left_j, None)


def _board(device: DeviceStatus) -> str:
    """Processors, memory and sensor; what caps leave of them first."""
    cpus, memory = device.caps.cpus or device.cpus, device.caps.memory_bytes or device.memory_bytes
    sensor = device.sensor
    parts: Iterable[str] = (
        f"{cpus:g} cpus" if cpus else "",
        f"{memory / 1e9:.1f} GB" if memory else "",
        f"{sensor.name}{' (est.)' if sensor.method == 'estimated' else ''}" if sensor else "",
    )
    return ", ".join(part for part in parts if part) or UNKNOWN
