"""What the orchestrator decides in a round that depends on the moment: who is asked, and when waiting ends.

Which ruling a group wants follows from its state alone (``Select``, ``Close``, ``LeaveOut`` of
``orchestrator.rounds``); how it is answered depends on who is there, on what devices have used and on the
hour. ``ruling`` is a function of these, given by the shell, and what it returns is stored: a replay repeats
the ruling and takes none anew. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator.events import Close, Closed, LeaveOut, LeftOut, Select, Selected
from mas_edge.orchestrator.round_state import due, keys
from mas_edge.orchestrator.selection import Candidate, select, waits_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mas_edge.orchestrator.job import Job
    from mas_edge.orchestrator.roster import DeviceFacts
    from mas_edge.orchestrator.round_state import Run
    from mas_edge.wire.messages import Key

Ruled: TypeAlias = Select | Close | LeaveOut
"""Actions that a ruling answers."""


def rulings(owed: Iterable[object]) -> list[Ruled]:
    """What is to be ruled on, of all that a job owes."""
    return [action for action in owed if isinstance(action, Ruled)]


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a ruling depends on besides the job; ``time_s`` is job time.

    ``at_work`` are the keys of what devices were sent and have not answered. ``settled``: whoever is there
    has had time to say so since the orchestrator came to the broker. ``today_j`` are the joules that the job
    has used of each device today.
    """

    time_s: float
    facts: tuple[DeviceFacts, ...]
    at_work: frozenset[Key]
    settled: bool
    today_j: Mapping[str, float]


def ruling(job: Job, action: Ruled, scene: Scene) -> Selected | Closed | LeftOut | None:
    """The event that answers the action; None as long as too few devices are there."""
    run = _run(job, action)
    match action:
        case LeaveOut():
            return LeftOut(group=action.group, round=action.round, updates=action.updates)
        case Close():
            return Closed(group=action.group, round=action.round, missed=_silent(run, scene))
    return select(
        run,
        candidates(job, run, scene),
        job.spec.participation,
        seed=job.spec.training.seed,
        time_s=scene.time_s,
        settled=scene.settled,
        missed=_silent(run, scene) if due(run, scene.time_s) else (),
    )


def waiting(job: Job, action: Select, scene: Scene) -> str:
    """What a round waits for whose selection finds too few devices, in one line."""
    run = _run(job, action)
    return waits_for(run, candidates(job, run, scene), scene.time_s)


def candidates(job: Job, run: Run, scene: Scene) -> tuple[Candidate, ...]:
    """The devices of a group, by what is known of them."""
    known = {each.name: each for each in scene.facts}
    return tuple(_candidate(job, run, device, known.get(device), scene) for device in run.devices)


def _candidate(job: Job, run: Run, device: str, fact: DeviceFacts | None, scene: Scene) -> Candidate:
    quota_j = job.spec.budget.device_energy_j_per_day
    left = None if quota_j is None else max(0.0, 1.0 - scene.today_j.get(device, 0.0) / quota_j)
    if fact is None:
        return Candidate(device=device, budget_left=left)
    return Candidate(
        device=device,
        online=fact.online,
        may_train=not fact.reasons,
        labels=not fact.labels(job.spec.training.workload).isdisjoint(run.tasks),
        budget_left=left,
    )


def _silent(run: Run, scene: Scene) -> tuple[str, ...]:
    """Who was sent the assignment and has not answered; who has not had a turn yet has missed nothing."""
    return tuple(key.device for key in keys(run) if key in scene.at_work)


def _run(job: Job, action: Ruled) -> Run:
    return next(run for run in job.runs if (run.group, run.round) == (action.group, action.round))


def news(before: Iterable[Run], after: Iterable[Run]) -> tuple[str, ...]:
    """What of a step people should hear: who was benched and why, and whose update was left out."""
    old = {run.group: run for run in before}
    lines = []
    for run in after:
        was = old.get(run.group)
        until_s = {r.device: r.benched_until_s for r in was.records} if was else {}
        lines += [
            f"{run.group}: {record.device} is benched until {record.benched_until_s:.0f} s ({record.why})"
            for record in run.records
            if was and record.benched_until_s > until_s.get(record.device, 0.0)
        ]
        if was and run.left_out and not was.left_out:
            lines.append(f"{run.group}, round {run.round + 1}: left out {', '.join(run.left_out)}")
    return tuple(lines)
