"""The state of a job between two events, what happens to it, and what it can want done.

How events change it is in ``orchestrator.job``; those of its rounds are in ``orchestrator.events``. Nothing
here decides. Pure.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.orchestrator import events
from mas_edge.orchestrator.decision import Decision, Stage
from mas_edge.orchestrator.events import Fact, Value
from mas_edge.orchestrator.round_state import Run
from mas_edge.orchestrator.spec import FROM_SCRATCH, JobSpec
from mas_edge.wire.messages import AffinitySums, BlobRef, Profile, Score


class Initialised(Fact, frozen=True):
    """The first weights exist; ``fingerprint`` is the workload's as the orchestrator computes it.

    ``parameters`` and ``flops`` (of an example, forward) are by part; old stores have no ``flops``.
    """

    weights: BlobRef
    fingerprint: str
    parameters: dict[str, int]
    flops: dict[str, int] = msgspec.field(default_factory=dict)
    profile: Profile = Profile()


class Judged(Fact, frozen=True):
    """A finished group's weights were evaluated on the clients that no device has."""

    group: str
    scores: tuple[Score, ...]
    profile: Profile = Profile()


class Abandoned(Fact, frozen=True):
    """The orchestrator itself cannot do what the job needs; the reason is for people."""

    reason: str


class Stopped(Fact, frozen=True):
    """Somebody stopped these tasks, or, if none is named, the whole job."""

    tasks: tuple[str, ...] = ()


class Resumed(Fact, frozen=True):
    """Somebody wants a stopped or failed job to go on; its troubles are forgotten."""


class Planned(Fact, frozen=True):
    """It was decided which groups are trained by which devices; what it went by is not looked at again."""

    decision: Decision
    stage: Stage = "start"


class Exhausted(Fact, frozen=True):
    """The job's budget is used up; the reason says by what."""

    reason: str


TRAINING = frozenset({"first", "trial", "second"})
"""Phases of a job in which devices train."""

Event: TypeAlias = events.Event | Initialised | Judged | Abandoned | Stopped | Resumed | Planned | Exhausted


class Measured(Value, frozen=True):
    """The affinities that one device measured in one round."""

    round: int
    device: str
    sums: AffinitySums


class Job(Value, frozen=True):
    """The whole state of a job. ``replans``, in words: what did not fit devices' memory, what followed.

    ``alone`` are the finished runs of single tasks that policy hoa compares with, for want of a better one.
    ``plans`` are all decisions that were taken, ``decision`` is the one that split the tasks, ``initial``
    the first weights with their ``parameters`` and ``flops`` by part. ``exhausted``: the budget ended it.
    ``stopped`` are tasks that were dropped; ``resumes`` is where a stopped or failed job goes back to.
    """

    spec: JobSpec
    phase: Literal[
        "initialising", "planning", "first", "trial", "second", "judging", "done", "failed", "stopped"
    ] = "initialising"
    fingerprint: str = ""
    initial: BlobRef | None = None
    parameters: dict[str, int] = msgspec.field(default_factory=dict)
    flops: dict[str, int] = msgspec.field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    alone: tuple[Run, ...] = ()
    measured: tuple[Measured, ...] = ()
    plans: tuple[Decision, ...] = ()
    decision: Decision | None = None
    exhausted: bool = False
    replans: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    resumes: str = ""
    reason: str = ""

    @property
    def stage(self) -> Stage:
        """Which plan comes next: of the first groups, of what is to be tried, or of the last groups."""
        if not self.runs:
            return "start"
        tries = self.spec.policy == "mas-verified" and any(run.measure for run in self.runs)
        return "trial" if tries else "split"

    @property
    def merged_rounds(self) -> int:
        """For how many rounds all tasks are trained together before it is decided how they go on."""
        return next((plan.again for plan in reversed(self.plans) if plan.again), self.spec.merge_rounds)

    def awaits(self, planned: Planned) -> bool:
        """Whether this plan is the one that comes next: none that was overtaken by rounds trained since."""
        again = planned.decision.again
        return planned.stage == self.stage and all(not again or again > run.round for run in self.runs)

    def tried_until(self, group: tuple[str, ...]) -> int:
        """The round up to which these tasks were on trial as a group; 0 if they were not.

        Devices have answered under the keys of those rounds: no other group of that name may train them.
        """
        trials = (plan.trial for plan in self.plans if plan.trial)
        lasted = [trial.lasted(group) for trial in trials if group in trial.groups]
        return self.spec.merge_rounds + max(lasted) if lasted else 0

    def result(self, task: str) -> Run | None:
        """The run that a task's result comes from, by the groups of the present stage."""
        return next((run for run in self.runs if task in run.results), None)

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


class Plan(Value, frozen=True):
    """Owed: decide which groups are trained by which devices (``orchestrator.planning``)."""

    stage: Stage


Action: TypeAlias = events.Action | Init | Judge | Plan


def referenced(job: Job) -> set[str]:
    """Digests of the blobs that the job may still need, or that are its result."""
    later = job.spec.policy in FROM_SCRATCH and job.decision is None and not job.exhausted
    first = () if job.runs and not later else (job.initial,)
    alone = job.alone if any(run.trains for run in job.runs) else ()
    refs = {ref.digest for run in (*job.runs, *alone) for ref in (run.source, run.weights) if ref}
    refs |= {ref.digest for ref in first if ref}
    return refs | {c.weights.digest for run in job.runs for c in run.heard if c.weights}
