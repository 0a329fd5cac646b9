"""How far a job is, how long it may still take, and what it waits for.

The share done counts device-rounds; before a split is decided the second stage counts as so many groups as
are asked for, or two, so the estimate moves when it is. A trial counts once it has begun. The seconds left
are the job time so far by that share: they assume that rounds stay as fast as they were. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.orchestrator.job_state import TRAINING
from mas_edge.orchestrator.spec import FROM_SCRATCH, MERGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.orchestrator.job import Job
    from mas_edge.orchestrator.rounds import Run

OVER = frozenset({"done", "failed", "stopped"})
"""Phases of a job in which nothing happens any more, unless somebody resumes it."""

GUESSED_GROUPS = 2
LEAST_SHARE = 0.02
"""With less behind it, an estimate of what is left says nothing."""
NAMED = 4
"""Devices that are named in a line; the rest is counted."""

WITHOUT_ROUNDS = {"initialising": "the first weights", "planning": "the plan", "judging": "unseen clients"}
"""What the orchestrator itself is at in these phases of a job."""

WITHOUT_DEVICES = {
    "starting": "its first weights",
    "selecting": "a device that may train now",
    "merging": "the merged weights",
}
"""What a run waits for in the phases in which it waits for no device that it asked."""


PHASES = {
    "first": "in its first stage",
    "trial": "trying groups beside each other",
    "second": "in its second stage",
    "initialising": "waiting for its first weights",
    "planning": "being planned",
    "judging": "judged on unseen clients",
}
"""The phases of a job whose names are no words for people."""


def phase_words(phase: str) -> str:
    """What a job in this phase is, for people."""
    return PHASES.get(phase, phase)


def share_done(job: Job) -> float:
    """The share of the job's device-rounds that are done, from 0 to 1; stages to come are guessed."""
    if job.phase in {"done", "judging"}:
        return 1.0
    if not job.runs:
        return 0.0
    spec = job.spec
    began = job.merged_rounds if job.runs[0].past > job.merged_rounds else 0  # of this stage
    before = began
    if spec.policy in FROM_SCRATCH and job.decision:
        before = spec.training.rounds * sum(len(plan.groups) for plan in job.plans[:-1])
    here = sum(max(run.past - began, 0) for run in job.runs)
    done = before + sum(max(_done(run) - began, 0) for run in job.runs)
    whole = before + here + _to_come(job)
    return done / whole if whole else 1.0  # the budget was used up before the first round


def _to_come(job: Job) -> int:
    """The device-rounds of the groups that are not decided yet."""
    spec, run = job.spec, job.runs[0]
    if job.decision or job.exhausted or (run.closing and spec.policy != "hoa"):
        return 0
    guess = len(spec.partition) or (GUESSED_GROUPS if spec.groups == "auto" else spec.groups)
    return guess * (spec.training.rounds - (run.past if spec.policy in MERGES else 0))


def left_s(job: Job, time_s: float) -> float | None:
    """Seconds of job time that are left at a job time; None if nothing is, or it is too soon to say."""
    done = share_done(job)
    if job.phase in OVER or not LEAST_SHARE < done < 1.0:
        return None
    return time_s * (1.0 - done) / done


def slowest(job: Job) -> Run | None:
    """The run that holds the job up: the first of those with the fewest rounds behind them.

    One that fits no device holds up nothing: on trial it is out, else other groups take its place at once.
    """
    going = [run for run in job.runs if run.phase not in {"finished", "failed", "unfit"}]
    return min(going, key=lambda run: (run.round, run.phase != "collecting"), default=None)


def waits_for(job: Job, why: Callable[[str], str]) -> str:
    """What the job waits for, in a line; ``why`` says of a device what it does instead of answering."""
    if job.phase in OVER:
        return ""
    run = slowest(job)
    if job.phase in WITHOUT_ROUNDS or run is None:
        return WITHOUT_ROUNDS.get(job.phase, "")
    where = f"round {run.round + 1} of {run.group}" if run.trains else f"the last evaluation of {run.group}"
    if run.phase != "collecting":
        return f"{where}: {WITHOUT_DEVICES.get(run.phase, run.phase)}"
    named = [f"{device} ({why(device)})" for device in run.missing[:NAMED]]
    rest = len(run.missing) - len(named)
    return f"{where}: " + ", ".join(named) + (f" and {rest} more" if rest else "")


def at(job: Job) -> str:
    """Where the job is, in two words: a round of its slowest group, or its phase."""
    rounds, run = job.spec.training.rounds, slowest(job)
    if job.phase not in TRAINING or run is None:
        return job.phase
    return f"round {min(run.round + 1, rounds)}/{rounds}"


def _done(run: Run) -> float:
    asked = len(run.heard) + len(run.missing)
    return min(run.round + len(run.heard) / max(asked, 1), run.past)
