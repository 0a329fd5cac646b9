"""The life of a job: initialise, merge, measure, split, continue, judge, finish.

A job is one or more tasks that are planned together under a policy. It owns one *run*
(``orchestrator.rounds``) per task group of the present stage::

    initialising -> planning --Planned--> first stage -> planning --Planned--> second stage -> judging -> done
                       |  (one group, or the policy's own)  | ^                 (how it is split)
                       +------------------------> trial <---+ |
                                            (groups to choose among)
                              Exhausted --> each run ends with the round that it is at, then judging
                              any run failed, or Abandoned --> failed --Resumed--> where it was
                              Stopped --> stopped --Resumed--> where it was

    policy        first stage           trial                       second stage
    mas           all tasks, R0 rounds (auto: or more)              groups by affinity, R - R0 rounds
    mas-verified  all tasks, R0 rounds  the best partitions by      the partition of least held-out loss at
                                        affinity, and no split:     equal energy, from where its trial ended
                                        a few rounds each
    tag           all tasks, R rounds                               groups by affinity that may overlap,
                                                                    from scratch, R rounds
    hoa                                 all pairs and all tasks     groups by the pairs' losses that may
                                        alone, R rounds             overlap, from scratch, R rounds
    fixed         all tasks, R0 rounds                              the groups given; R0 = 0 starts with them
    all-in-one    all tasks, R rounds
    one-by-one    one run a task, R rounds

Sources: MAS (Merge and Split), Zhuang et al., ICCV 2023; TAG, Fifty et al., Efficiently Identifying Task
Groupings for Multi-Task Learning, NeurIPS 2021; HOA (higher-order approximation), Standley et al., Which
Tasks Should Be Learned Together in Multi-task Learning?, ICML 2020; mas-verified is ours, after successive
halving (Jamieson and Talwalkar, AISTATS 2016). The learning-rate schedule runs over the job's R rounds and
is not restarted at the split. What overlaps serves each task in one group only (``Run.serves``). A group is
never trained twice. Tasks may be stopped one by one (``orchestrator.stopping``).

Everything here is pure: ``step`` folds events into a state (``orchestrator.job_state``), ``owes`` says what
that state wants done. Restart = replay. Which of the trainings that are owed a device does is
``orchestrator.schedule``'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import replan, rounds, stages, stopping
from mas_edge.orchestrator.events import Heard, LeftOut
from mas_edge.orchestrator.job_state import (
    TRAINING,
    Abandoned,
    Action,
    Event,
    Exhausted,
    Init,
    Initialised,
    Job,
    Judge,
    Judged,
    Measured,
    Plan,
    Planned,
    Resumed,
    Stopped,
    referenced,
)
from mas_edge.orchestrator.rounds import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import BlobRef

# fmt: off
__all__ = [
    "Abandoned", "Action", "Event", "Exhausted", "Init", "Initialised", "Job", "Judge", "Judged", "Measured",
    "Plan", "Planned", "Resumed", "Stopped", "owes", "referenced", "replay", "step",
]
# fmt: on


def step(job: Job, event: Event, time_s: float) -> tuple[Job, tuple[Action, ...]]:
    """The job after an event at a job time in seconds, and everything that it then owes."""
    job = fold(job, event, time_s)
    return job, owes(job, time_s)


def fold(job: Job, event: Event, time_s: float) -> Job:
    """The job after an event at a job time in seconds: ``step`` for who does not care what it owes."""
    anew = isinstance(event, Resumed)
    if job.over and not anew:
        return job
    if job.phase == "stopped" and not anew:  # what is still heard counts, but nothing follows from it yet
        after = fold(msgspec.structs.replace(job, phase=job.resumes), event, time_s)
        if after.over or after.phase == "stopped":
            return after if after.over else job
        return msgspec.structs.replace(after, phase="stopped", resumes=after.phase)
    after = _folded(job, event, time_s)
    return msgspec.structs.replace(after, resumes=job.phase) if after.phase == "failed" else after


def _folded(job: Job, event: Event, time_s: float) -> Job:
    match event:
        case Abandoned():
            return msgspec.structs.replace(job, phase="failed", reason=event.reason)
        case Initialised():
            return _initialised(job, event)
        case Judged():
            return _judged(job, event)
        case Stopped() | Resumed():
            return _stopped(job, event) if isinstance(event, Stopped) else _resumed(job)
        case Planned() | Exhausted():
            return _decided(job, event)
        case _:
            return _in_a_run(job, event, time_s)


def _stopped(job: Job, event: Stopped) -> Job:
    """The job without some tasks from the next boundary on, or stopped if none would be left."""
    stopped = tuple(task for task in job.spec.tasks if task in {*job.stopped, *event.tasks})
    if not event.tasks or stopped == job.spec.tasks:
        return msgspec.structs.replace(job, phase="stopped", resumes=job.phase)
    job = msgspec.structs.replace(job, stopped=stopped)
    if job.decision is None:  # what was decided stays explained by what it went by
        measured = tuple(stopping.kept(each, stopped) for each in job.measured)
        job = msgspec.structs.replace(job, measured=measured)
    return _onwards(stopping.trimmed(job, {run.group: run.round for run in job.runs}))


def _resumed(job: Job) -> Job:
    if job.phase not in {"stopped", "failed"}:
        return job
    runs = tuple(stopping.anew(run) for run in job.runs)
    return msgspec.structs.replace(job, phase=job.resumes, resumes="", reason="", runs=runs)


def _initialised(job: Job, event: Initialised) -> Job:
    if job.phase != "initialising":
        return job
    return msgspec.structs.replace(
        job,
        phase="planning",
        fingerprint=event.fingerprint,
        initial=event.weights,
        parameters=event.parameters,
        flops=event.flops,
    )


def _decided(job: Job, event: Planned | Exhausted) -> Job:
    if isinstance(event, Exhausted):
        return _exhausted(job, event)
    if job.phase != "planning" or not job.awaits(event) or job.initial is None:
        return job
    return _planned(job, event.decision, job.initial)


def _planned(job: Job, decision: Decision, initial: BlobRef) -> Job:
    """The stage that was decided on; a job that cannot be done ends with what would be needed."""
    replace = msgspec.structs.replace
    job = replace(job, plans=(*job.plans, decision))
    if decision.refused:
        return replace(job, phase="failed", reason=decision.refused)
    if decision.trial or decision.again:
        runs = stages.between(job.spec, job.runs[0], decision)
        job = replace(job, phase="trial" if decision.trial else "first", runs=runs)
        return _onwards(stopping.trimmed(job, {}))
    if job.runs:
        runs, alone = stages.second(job.spec, job.runs, initial, decision), stages.alone(job.spec, job.runs)
        job = replace(job, phase="second", decision=decision, runs=runs, alone=alone)
        return _onwards(stopping.trimmed(job, {}))
    begun = stages.first(job.spec, stopping.remaining(job.spec, job.stopped), initial, decision)
    phase = "second" if begun.decision else "trial" if job.spec.policy == "hoa" else "first"
    job = replace(job, runs=begun.parts, phase=phase, decision=begun.decision)
    job = replace(job, replans=(*job.replans, begun.why)) if begun.decision else job
    return _onwards(stopping.trimmed(job, {}))


def _exhausted(job: Job, event: Exhausted) -> Job:
    """The job without further rounds: those that have begun are still merged, then all are evaluated."""
    if job.phase not in TRAINING or job.exhausted:
        return job
    phase, runs = job.phase, job.runs
    if phase == "trial":
        phase, runs = "second", stages.salvaged(job.spec, runs)
    runs = tuple(stopping.curtailed(run) for run in runs)
    return _onwards(msgspec.structs.replace(job, phase=phase, exhausted=True, reason=event.reason, runs=runs))


def _in_a_run(job: Job, event: rounds.Event, time_s: float) -> Job:
    replace = msgspec.structs.replace
    runs = tuple(_in_one_run(job, run, event, time_s) for run in job.runs)
    if runs == job.runs:
        return job
    if isinstance(event, Heard) and event.update.affinity is not None:
        key = event.update.key
        measured = Measured(round=key.round, device=key.device, sums=event.update.affinity)
        job = replace(job, measured=(*job.measured, stopping.kept(measured, job.stopped)))
    if isinstance(event, LeftOut):
        job = replace(job, measured=_without(job, event))
    left = [(old, new) for old, new in zip(job.runs, runs, strict=True) if len(new.unfit) > len(old.unfit)]
    notes = tuple(replan.moved(new.group, new.round, new.unfit[-1], new.devices) for _, new in left)
    before = {run.group: run.round for run in job.runs}
    return _onwards(
        stopping.trimmed(_replanned(replace(job, runs=runs, replans=(*job.replans, *notes))), before)
    )


def _in_one_run(job: Job, run: Run, event: rounds.Event, time_s: float) -> Run:
    """The run after the event; its last round is the present one if its tasks are good enough."""
    after = rounds.step(run, event, time_s)
    if job.phase == "trial":  # what is compared is trained alike
        return after
    ended = after.trains and (run.phase, after.phase) == ("collecting", "merging")
    return stopping.ended_if_enough(after, job.spec, job.stopped) if ended else after


def _without(job: Job, event: LeftOut) -> tuple[Measured, ...]:
    """The affinities but for those that came with updates that were left out."""
    out = {(event.round, each.device) for each in event.updates}
    return tuple(each for each in job.measured if (each.round, each.device) not in out)


def _replanned(job: Job) -> Job:
    """Groups that fit no device any more give way to parts that do; there is at most one of them."""
    unfit = [run for run in job.runs if run.phase == "unfit"]
    if job.phase == "trial":  # what fits nowhere is not chosen, but hoa has nothing without a task alone
        unfit = [run for run in unfit if job.spec.policy == "hoa" and len(run.tasks) == 1]
    stuck = next(iter(unfit), None)
    if stuck is None:
        return job
    replace, left = msgspec.structs.replace, stopping.remaining(job.spec, job.stopped)
    found = stages.divided(left, stuck, job.alone, job.tried_until)
    if not found.parts:
        return replace(job, phase="failed", reason=found.why)
    runs = tuple(new for run in job.runs for new in (found.parts if run is stuck else (run,)))
    job = replace(job, runs=runs, replans=(*job.replans, found.why))
    return replace(job, phase="second", decision=found.decision) if found.decision else job


def replay(spec: JobSpec, events: Iterable[tuple[float, Event]]) -> Job:
    """The job after stored events (job time in seconds, event), in their order."""
    job = Job(spec=spec)
    for time_s, event in events:
        job = fold(job, event, time_s)
    return job


def owes(job: Job, time_s: float) -> tuple[Action, ...]:
    """What the job wants done now; all of it may be done again without harm."""
    match job.phase:
        case "initialising":
            return (Init(tasks=job.spec.tasks),)
        case "planning":
            return (Plan(stage=job.stage),)
        case "first" | "trial" | "second":
            return tuple(action for run in job.runs for action in rounds.owes(run, time_s))
        case "judging":
            return tuple(
                Judge(group=run.group, tasks=run.tasks, weights=run.weights)
                for run in _to_judge(job)
                if run.weights and run.group not in job.judged
            )
    return ()


def _onwards(job: Job) -> Job:
    """The next stage, if the present one is over."""
    replace = msgspec.structs.replace
    if job.phase == "judging":
        return _all_judged(job)
    if job.phase not in TRAINING:
        return job
    failed = next((run for run in job.runs if run.phase == "failed"), None)
    if failed is not None:
        return replace(job, phase="failed", reason=failed.reason)
    over = {"finished", "unfit"} if job.phase == "trial" else {"finished"}
    if any(run.phase not in over for run in job.runs):
        return job
    if job.phase == "trial" or (job.phase == "first" and not job.runs[0].closing):
        return replace(job, phase="planning")
    return replace(job, phase="judging" if job.spec.unseen and _to_judge(job) else "done")


def _to_judge(job: Job) -> tuple[Run, ...]:
    """The runs that unseen clients judge: not those that were stopped."""
    return tuple(run for run in job.runs if run.weights and not set(run.tasks) <= set(job.stopped))


def _judged(job: Job, event: Judged) -> Job:
    replace = msgspec.structs.replace
    if job.phase != "judging" or event.group in job.judged or event.group not in {r.group for r in job.runs}:
        return job
    return _all_judged(replace(job, judged=(*job.judged, event.group)))


def _all_judged(job: Job) -> Job:
    left = {run.group for run in _to_judge(job)} - set(job.judged)
    return job if left else msgspec.structs.replace(job, phase="done")
