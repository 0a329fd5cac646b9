"""How tasks leave a job before its last round, and how a job that was stopped or failed goes on.

A task that is stopped leaves its group at the next boundary of a round: the run goes on without its decoder,
cut out of the weights that were merged last, under the name of the tasks that are left. A group of which
nothing is left ends at once and keeps the weights that it has. In a group that overlaps with others (policies
tag and hoa) a stopped task stays as a helper of those that the group serves, for which it was chosen; hoa's
pairs end with either task, and what mas-verified has on trial goes on unchanged, so that it stays comparable.
What was spent stays on the tasks' bill.

A group whose tasks have all reached their ``target_loss``, by the answers of all devices, trains no further
round: what it is just training is still merged, and evaluated by its closing round.

A job that goes on asks under new attempts, because a device remembers the keys that it was done with.
Pure; ``orchestrator.job`` says when.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.affinity import restricted
from mas_edge.orchestrator.round_state import Run, asked_anew, begun

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mas_edge.orchestrator.job_state import Job, Measured
    from mas_edge.orchestrator.spec import JobSpec

BOUNDARY = frozenset({"starting", "selecting"})
"""Phases of a run in which no device has been asked for the present round."""

OVER = frozenset({"finished", "failed", "unfit"})


def remaining(spec: JobSpec, stopped: Collection[str]) -> JobSpec:
    """The job as it would have been asked for without the tasks that were stopped."""
    if not stopped:
        return spec
    tasks = tuple(task for task in spec.tasks if task not in stopped)
    parts = (tuple(task for task in part if task not in stopped) for part in spec.partition)
    groups = spec.groups if spec.groups == "auto" else min(spec.groups, len(tasks))
    partition = tuple(part for part in parts if part)
    return msgspec.structs.replace(spec, tasks=tasks, partition=partition, groups=groups)


def kept(measured: Measured, stopped: Collection[str]) -> Measured:
    """What was measured between the tasks that are left."""
    tasks = tuple(task for task in measured.sums.tasks if task not in stopped)
    return msgspec.structs.replace(measured, sums=restricted(measured.sums, tasks))


def without(run: Run, job: Job, *, at_boundary: bool) -> Run:
    """The run after tasks of the job were stopped; the same run as long as it has to wait for a boundary.

    Under a name that was on trial it leaves out the rounds that were trained then.
    """
    left = tuple(task for task in run.tasks if task not in job.stopped)
    if left == run.tasks or run.phase in OVER:
        return run
    if not set(run.results) - set(job.stopped):
        return ended(run)
    if run.serves or not run.trains or not (at_boundary or run.phase in BOUNDARY):
        return run
    first = min(max(run.round, job.tried_until(left)), run.past)
    named = msgspec.structs.replace(run, group="+".join(left), tasks=left, round=first)
    source = run.weights or run.source
    return msgspec.structs.replace(begun(named), source=source, weights=None, phase="starting")


def trimmed(job: Job, rounds_before: Mapping[str, int]) -> Job:
    """The job without its stopped tasks in the groups at a boundary: if of another round than before."""
    if job.phase != "trial":
        runs = tuple(
            without(run, job, at_boundary=rounds_before.get(run.group) != run.round) for run in job.runs
        )
    elif job.spec.policy == "hoa":  # pairs are trained for both of their tasks' sake, or for nothing
        gone = [run for run in job.runs if run.phase not in OVER and set(run.tasks) & set(job.stopped)]
        runs = tuple(ended(run) if run in gone else run for run in job.runs)
    else:
        return job
    return msgspec.structs.replace(job, runs=runs) if runs != job.runs else job


def ended(run: Run) -> Run:
    """The run, over at once because of what was stopped."""
    return msgspec.structs.replace(begun(run), phase="finished", reason="stopped")


def reached(run: Run, spec: JobSpec, stopped: Collection[str]) -> bool:
    """Whether the weights that a round began with are good enough for every task of the group.

    By the pooled held-out losses that came with the round's answers; a task without a target never is.
    """
    targets = {each.task: each.target_loss for each in spec.launched}
    wanted = [task for task in run.results if task not in stopped]
    return bool(wanted) and all(_good_enough(run, task, targets.get(task)) for task in wanted)


def _good_enough(run: Run, task: str, target_loss: float | None) -> bool:
    scores = [score for each in run.heard for score in each.scores if score.task == task]
    count = math.fsum(score.count for score in scores)
    if target_loss is None or not count:
        return False
    return math.fsum(score.loss_sum for score in scores) / count <= target_loss


def ended_if_enough(run: Run, spec: JobSpec, stopped: Collection[str]) -> Run:
    """The run whose updates are being merged, to end with this round if its tasks are good enough.

    Where only some of the devices answer, a loss tells as much of them as of the weights: then it takes as
    many such rounds in a row as would ask everybody once.
    """
    run = msgspec.structs.replace(run, met=run.met + 1 if reached(run, spec, stopped) else 0)
    if run.met * len(run.heard) < len(run.devices):
        return run
    reason = "every task has reached its target loss"
    return msgspec.structs.replace(run, past=run.round + 1, closing=True, reason=reason)


def curtailed(run: Run) -> Run:
    """The run, to end with the round that it is at; with the one before if nobody was asked for it yet."""
    if run.phase in OVER or not run.trains:
        return run
    past = run.round + (run.phase not in BOUNDARY)
    run = msgspec.structs.replace(run, past=past, closing=True)
    if run.phase != "selecting":
        return run
    answered = {each.device for each in run.heard}  # before it was stopped: for nothing now
    trouble = (t for t in run.trouble if t.device not in answered)
    anew_ = (asked_anew(run, device) for device in sorted(answered))
    return msgspec.structs.replace(begun(run), trouble=(*trouble, *anew_))


def anew(run: Run) -> Run:
    """The run of a job that goes on: whoever has not answered is asked again, under a new attempt.

    Devices that the group did not fit, or that had failed too often, are tried again too.
    """
    if run.phase in {"finished", "merging"}:
        return run
    replace = msgspec.structs.replace
    back = tuple(each.device for each in run.unfit if each.device not in run.devices)
    run = replace(run, devices=(*run.devices, *back), unfit=(), cohort=None, call=0, reason="")
    answered = {each.device for each in run.heard}
    kept_ = (t for t in run.trouble if t.device in answered)
    trouble = (*kept_, *(asked_anew(run, device) for device in run.devices if device not in answered))
    records = tuple(replace(each, failures=0, missed=0, benched_until_s=0.0) for each in run.records)
    phase = begun(run).phase if run.weights else "starting"
    return replace(run, trouble=trouble, records=records, phase=phase)
