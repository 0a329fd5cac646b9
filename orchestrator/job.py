"""The life of a job: initialise, merge, measure, split, continue, judge, finish.

A job is one or more tasks that are planned together under a policy. It owns one *run*
(``orchestrator.rounds``) per task group of the present stage::

    initialising --Initialised--> first stage --(mas, fixed: split)--> second stage --> judging --> done
                              any run failed, or Abandoned --> failed

    policy       first stage                 second stage
    mas          all tasks, R0 rounds        groups chosen by affinity (orchestrator.split), R - R0 rounds
    fixed        all tasks, R0 rounds        the groups given; R0 = 0 starts with them
    all-in-one   all tasks, R rounds
    one-by-one   one run a task, R rounds

Source: MAS (Merge and Split), ICCV 2023. The learning-rate schedule runs over the job's R rounds and
is not restarted at the split. Everything here is pure: ``step`` folds events into a state, ``owes``
says what that state wants done. Restart = replay. What devices may do at the same time is decided in
``assignments``: one training a device, the earliest round first, groups in the plan's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator import replan, rounds
from mas_edge.orchestrator.decision import Decision, decide
from mas_edge.orchestrator.rounds import Ask, Carved, Fact, GaveUp, Heard, Merged, Run, Value
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire.messages import AffinitySums, BlobRef, Key, Profile, Score

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Initialised(Fact, frozen=True):
    """The first weights exist; ``fingerprint`` is the workload's as the orchestrator computes it."""

    weights: BlobRef
    fingerprint: str
    parameters: dict[str, int]
    profile: Profile = Profile()


class Judged(Fact, frozen=True):
    """A finished group's weights were evaluated on the clients that no device has."""

    group: str
    scores: tuple[Score, ...]
    profile: Profile = Profile()


class Abandoned(Fact, frozen=True):
    """The orchestrator itself cannot do what the job needs; the reason is for people."""

    reason: str


Event: TypeAlias = Initialised | Carved | Heard | GaveUp | Merged | Judged | Abandoned


class Measured(Value, frozen=True):
    """The affinities that one device measured in one round."""

    round: int
    device: str
    sums: AffinitySums


class Job(Value, frozen=True):
    """The whole state of a job. ``replans``, in words: what did not fit devices' memory, what followed."""

    spec: JobSpec
    phase: Literal["initialising", "first", "second", "judging", "done", "failed"] = "initialising"
    fingerprint: str = ""
    runs: tuple[Run, ...] = ()
    measured: tuple[Measured, ...] = ()
    decision: Decision | None = None
    replans: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in {"done", "failed"}


class Init(Value, frozen=True):
    """Owed: make the first weights of all tasks."""

    tasks: tuple[str, ...]


class Judge(Value, frozen=True):
    """Owed: evaluate a finished group on the unseen clients."""

    group: str
    tasks: tuple[str, ...]
    weights: BlobRef


Action: TypeAlias = rounds.Action | Init | Judge


def group_name(tasks: tuple[str, ...]) -> str:
    """A group is named by its tasks, in the job's order."""
    return "+".join(tasks)


def step(job: Job, event: Event, time_s: float) -> tuple[Job, tuple[Action, ...]]:
    """The job after an event at a job time in seconds, and everything that it then owes."""
    job = _step(job, event, time_s)
    return job, owes(job, time_s)


def _step(job: Job, event: Event, time_s: float) -> Job:
    if job.over:
        return job
    match event:
        case Abandoned():
            return msgspec.structs.replace(job, phase="failed", reason=event.reason)
        case Initialised():
            return _initialised(job, event)
        case Judged():
            return _judged(job, event)
        case _:
            return _in_a_run(job, event, time_s)


def _initialised(job: Job, event: Initialised) -> Job:
    if job.phase != "initialising":
        return job
    runs = _first(job.spec, event.weights)
    return msgspec.structs.replace(job, phase="first", fingerprint=event.fingerprint, runs=runs)


def _in_a_run(job: Job, event: rounds.Event, time_s: float) -> Job:
    replace = msgspec.structs.replace
    runs = tuple(rounds.step(run, event, time_s) for run in job.runs)
    if runs == job.runs:
        return job
    if isinstance(event, Heard) and event.update.affinity is not None:
        key = event.update.key
        measured = Measured(round=key.round, device=key.device, sums=event.update.affinity)
        job = replace(job, measured=(*job.measured, measured))
    left = [(old, new) for old, new in zip(job.runs, runs, strict=True) if len(new.unfit) > len(old.unfit)]
    notes = tuple(replan.moved(new.group, new.round, new.unfit[-1], new.devices) for _, new in left)
    return _onwards(_replanned(replace(job, runs=runs, replans=(*job.replans, *notes))))


def _replanned(job: Job) -> Job:
    """Groups that fit no device any more give way to parts that do; there is at most one of them."""
    stuck = next((run for run in job.runs if run.phase == "unfit"), None)
    if stuck is None:
        return job
    replace, spec = msgspec.structs.replace, job.spec
    merged = not stuck.closing
    given = spec.partition if merged and stuck.tasks not in spec.partition else ()
    parts = given or replan.divided(stuck.tasks, stuck.unfit)
    if not parts:
        return replace(job, phase="failed", reason=replan.nowhere(stuck.group, stuck.unfit))
    why = replan.divided_because(stuck.group, parts, measuring=stuck.measure)
    past = spec.training.rounds if merged else stuck.past
    weights = stuck.weights or stuck.source
    heirs = tuple(_run(spec, part, weights, stuck.round, past) for part in parts)
    runs = tuple(new for run in job.runs for new in (heirs if run is stuck else (run,)))
    job = replace(job, runs=runs, replans=(*job.replans, why))
    return replace(job, phase="second", decision=Decision(groups=parts, why=why)) if merged else job


def replay(spec: JobSpec, events: Iterable[tuple[float, Event]]) -> Job:
    """The job after stored events (job time in seconds, event), in their order."""
    job = Job(spec=spec)
    for time_s, event in events:
        job = _step(job, event, time_s)
    return job


def owes(job: Job, time_s: float) -> tuple[Action, ...]:
    """What the job wants done now; all of it may be done again without harm."""
    match job.phase:
        case "initialising":
            return (Init(tasks=job.spec.tasks),)
        case "first" | "second":
            return tuple(action for run in job.runs for action in rounds.owes(run, time_s))
        case "judging":
            waiting = (run for run in job.runs if run.group not in job.judged)
            return tuple(
                Judge(group=run.group, tasks=run.tasks, weights=run.weights) for run in waiting if run.weights
            )
    return ()


def assignments(actions: tuple[Action, ...], sent: Collection[Key] = ()) -> dict[str, Ask]:
    """Of all that is asked of devices, the one training that each device should do now.

    What it was ``sent`` stays, as long as it is asked for. Else the earliest round goes first and,
    among equals, the group that stands first in the plan: groups keep pace with each other, and no
    device waits for a group's slowest one while another group has work for it.
    """
    asks = (action for action in actions if isinstance(action, Ask))
    chosen: dict[str, Ask] = {}
    for ask in sorted(asks, key=lambda ask: (ask.key not in sent, ask.key.round)):
        chosen.setdefault(ask.key.device, ask)
    return chosen


def referenced(job: Job) -> set[str]:
    """Digests of the blobs that the job may still need, or that are its result."""
    refs = {ref.digest for run in job.runs for ref in (run.source, run.weights) if ref}
    return refs | {c.weights.digest for run in job.runs for c in run.heard if c.weights}


def _first(spec: JobSpec, weights: BlobRef) -> tuple[Run, ...]:
    merged = spec.merge_rounds if spec.policy in {"mas", "fixed"} else 0
    if merged:
        return (_run(spec, spec.tasks, weights, 0, merged, measure=spec.policy == "mas", closing=False),)
    groups = {
        "one-by-one": tuple((task,) for task in spec.tasks),
        "fixed": spec.partition,
    }.get(spec.policy, (spec.tasks,))
    return tuple(_run(spec, group, weights, 0, spec.training.rounds) for group in groups)


def _run(
    spec: JobSpec,
    tasks: tuple[str, ...],
    source: BlobRef,
    first: int,
    past: int,
    *,
    measure: bool = False,
    closing: bool = True,
) -> Run:
    whole = tasks == spec.tasks
    return Run(
        job=spec.name,
        group=group_name(tasks),
        tasks=tasks,
        devices=spec.devices,
        round=first,
        past=past,
        source=source,
        weights=source if whole else None,
        phase="collecting" if whole else "starting",
        measure=measure,
        closing=closing,
        all_contribute=spec.training.reproducible,
        tries=spec.tries,
    )


def _onwards(job: Job) -> Job:
    """The next stage, if the present one is over."""
    replace = msgspec.structs.replace
    failed = next((run for run in job.runs if run.phase == "failed"), None)
    if failed is not None:
        return replace(job, phase="failed", reason=failed.reason)
    if any(run.phase != "finished" for run in job.runs):
        return job
    if job.phase == "first" and not job.runs[0].closing:
        return _split(job)
    return replace(job, phase="judging" if job.spec.unseen else "done")


def _split(job: Job) -> Job:
    spec, merged = job.spec, job.runs[0]
    decision = decide(spec, (measured.sums for measured in job.measured))
    groups = decision.groups
    weights = merged.weights or merged.source
    runs = tuple(_run(spec, group, weights, merged.past, spec.training.rounds) for group in groups)
    return msgspec.structs.replace(job, phase="second", decision=decision, runs=runs)


def _judged(job: Job, event: Judged) -> Job:
    replace = msgspec.structs.replace
    if job.phase != "judging" or event.group in job.judged or event.group not in {r.group for r in job.runs}:
        return job
    job = replace(job, judged=(*job.judged, event.group))
    return replace(job, phase="done") if len(job.judged) == len(job.runs) else job
