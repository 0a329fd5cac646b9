"""What happened to a job, in words: a line for each stored event that a person wants to hear of.

``Journal`` folds the events as the orchestrator did, so that it can say what followed from them: a split, a
group that gave way to smaller ones, the end. `mas logs` prints the lines with their times. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.events import Closed, GaveUp, Heard, Late, LeftOut, Lifted, Merged, Selected
from mas_edge.orchestrator.explain import what
from mas_edge.orchestrator.job import Abandoned, Event, Initialised, Job, Judged, Resumed, Stopped
from mas_edge.wire.messages import Update

if TYPE_CHECKING:
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import Profile


STAGES = {
    "first": "the first stage begins",
    "trial": "the trial begins: groups are trained beside each other, to choose among them",
    "second": "the second stage begins",
    "planning": "is planned",
    "judging": "is judged on unseen clients",
}
"""Phases of a job whose names are no words for people."""


def beginning(spec: JobSpec) -> str:
    """What a job is asked to do, in a line."""
    training = spec.training
    merged = f", {spec.merge_rounds} of them merged" if spec.merge_rounds else ""
    how = f"{spec.policy}, {training.rounds} rounds{merged}, network {training.network}, seed {training.seed}"
    tasks = ", ".join(_launched(spec, task) for task in spec.tasks)
    return f"{tasks} of {training.workload} on {', '.join(spec.devices)}: {how}{_limits(spec)}"


def _launched(spec: JobSpec, task: str) -> str:
    own = next((each for each in spec.launched if each.task == task), None)
    if own is None:
        return task
    name = own.name if own.name == task else f"{own.name} ({task})"
    return f"{name} by {own.owner}" if own.owner else name


def _limits(spec: JobSpec) -> str:
    budget = spec.budget
    limits = [
        f"{value:g} {unit}"
        for value, unit in (
            (budget.energy_j, "J"),
            (budget.time_s, "s"),
            (budget.device_energy_j_per_day, "J a day and device"),
        )
        if value is not None
    ]
    return f"; at most {', '.join(limits)}" if limits else ""


class Journal:
    """The story of one job, as far as it has been read."""

    def __init__(self, spec: JobSpec) -> None:
        self.job = Job(spec=spec)

    def read(self, event: Event, time_s: float) -> tuple[str, ...]:
        """The lines of one more event, at its job time in seconds."""
        before = self.job
        self.job, _owed = jobs.step(before, event, time_s)
        return (*_said(event, before), *_followed(before, self.job))


def _said(event: Event, job: Job) -> Iterator[str]:
    match event:
        case Initialised(parameters=parameters):
            yield f"first weights: {sum(parameters.values()):,} parameters"
        case Heard(update=Update(key=key)) | GaveUp(key=key) | Late(key=key):
            yield f"{_round(job, key.group, key.round)}: {key.device} {_answered(event)}"
        case Selected() | Closed() | LeftOut() | Merged():
            for text in _decided(event):
                yield f"{_round(job, event.group, event.round)}: {text}"
        case Lifted(device=device):
            yield f"{device} may train again"
        case Judged(group=group):
            yield f"{group}: evaluated on unseen clients"
        case Stopped(tasks=tasks):
            names = {each.task: each.name for each in job.spec.launched}
            yield f"stopped: {', '.join(names.get(task, task) for task in tasks) or 'the whole job'}"
        case Resumed():
            yield "resumed"
        case Abandoned(reason=reason):
            yield f"given up: {reason}"


def _answered(event: Heard | GaveUp | Late) -> str:
    """What a device did in a round."""
    match event:
        case Heard(update=update):
            did = f"trained {update.examples} examples" if update.examples else "evaluated"
            return did + _cost(update.profile)
        case GaveUp(reason=reason, detail=detail):
            return f"gave up: {reason}" + (f" ({detail})" if detail else "")
        case Late(profile=profile):
            return "answered too late, not merged" + _cost(profile)


def _decided(event: Selected | Closed | LeftOut | Merged) -> tuple[str, ...]:
    """What was decided about a round, or done with it."""
    match event:
        case Selected(devices=devices, wanted=wanted, deadline_s=deadline_s):
            limit = "" if deadline_s is None else f", within {deadline_s:.0f} s"
            return (f"asks {', '.join(devices)} for {wanted} answers{limit}",)
        case Closed(missed=missed):
            return (f"ends without {', '.join(missed)}" if missed else "ends at its deadline",)
        case LeftOut(updates=updates):
            return tuple(f"the update of {each.device} is left out: {each.reason}" for each in updates)
        case Merged():
            return ("merged",)


def _followed(before: Job, after: Job) -> Iterator[str]:
    yield from after.replans[len(before.replans) :]
    if after.decision is not None and after.decision != before.decision:
        yield f"decided: {what(after.decision)}" + (f" ({after.decision.why})" if after.decision.why else "")
    later = next((plan for plan in after.plans[len(before.plans) :] if plan.again), None)
    if later is not None:
        yield f"not split yet, decided again after {later.again} rounds ({later.why})"
    old = {run.group for run in before.runs}
    for run in after.runs:
        if before.runs and run.group not in old:
            yield f"{run.group} begins with round {run.round + 1}"
        was = next((each for each in before.runs if each.group == run.group), None)
        if run.reason and was and run.reason != was.reason:
            yield f"{run.group}: {run.reason}"
    if after.phase != before.phase and later is None:
        words = STAGES.get(after.phase, after.phase)
        yield f"{words}: {after.reason}" if after.reason else words


def _round(job: Job, group: str, round_: int) -> str:
    """A round by its number; in the one after the last, devices only judge the weights of that."""
    past = job.spec.training.rounds
    return f"round {round_ + 1} of {group}" if round_ < past else f"last evaluation of {group}"


def _cost(profile: Profile) -> str:
    """Seconds and attributed joules of a bill; what is not known is left out."""
    rows = profile.rows
    if not rows:
        return ""
    joules = [row.attributed_energy_j for row in rows if row.attributed_energy_j is not None]
    estimated = " est." if profile.sensor and profile.sensor.method == "estimated" else ""
    energy = f", {sum(joules):.3g} J{estimated}" if joules and len(joules) == len(rows) else ""
    return f" in {sum(row.wall_s for row in rows):.1f} s{energy}"
