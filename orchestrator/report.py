"""What a job has learnt, how it was split, and the bills of who worked for it, from its stored events alone.

``report`` folds the stored events into one struct. Losses are weighted by valid examples over devices. The
scores that devices send in round r are those of the weights they received, so they stand under round
r - 1. ``profiles`` are the bills; what the orchestrator's own child used (first weights, unseen clients)
stands under the group ``orchestrator``. Bills are added up by ``profiling``, both are put together in
``orchestrator.reports.runs``; how it looks is the business of its neighbours there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.affinity import Affinity, normalise, pool
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.events import GaveUp, Heard, Late, Merged
from mas_edge.orchestrator.job import Initialised, Judged
from mas_edge.orchestrator.peaks import Memory, memory
from mas_edge.orchestrator.spec import ORCHESTRATOR, JobSpec
from mas_edge.orchestrator.storage import refusals
from mas_edge.orchestrator.storage.refusals import Refusals
from mas_edge.wire.messages import Profile, Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mas_edge.orchestrator.job import Event, Job


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the report."""


class Point(_Value, frozen=True):
    """A task's score under some weights, pooled over devices.

    ``round`` is the 0-based round that produced the weights; ``loss`` and the rest are means per valid
    example (mIoU: over the classes that were predicted or labelled), None where nothing was evaluated.
    """

    task: str
    group: str
    round: int
    count: float
    loss: float | None
    constant_loss: float | None
    metric: float | None


class AffinityTable(_Value, frozen=True):
    """Row's encoder step on column's loss: mean, standard error (None: unknown), measured batches."""

    tasks: tuple[str, ...]
    mean: tuple[tuple[float | None, ...], ...]
    se: tuple[tuple[float | None, ...], ...]
    batches: tuple[tuple[int, ...], ...]


class Report(_Value, frozen=True):
    """Everything about a finished (or failed) job. Totals are sums of task means.

    ``affinity`` is what the split went by; ``affinity_relative`` is each column over its self-effect,
    which takes out that some losses fall faster than others. ``final_digests`` name the weights of each
    group, ``final_rounds`` how many rounds are in them. Where ``groups`` overlap, each ``serves`` some tasks,
    of which alone it gives results, as did one that had to give way to others; ``curve`` holds all that was
    evaluated. ``merged_rounds`` are those of all tasks together before it was last decided how they
    go on.
    """

    name: str
    phase: str
    reason: str
    spec: JobSpec
    wall_s: float
    parameters: dict[str, int]
    groups: tuple[str, ...]
    decision: Decision | None
    affinity: AffinityTable | None
    affinity_relative: AffinityTable | None
    held_out: tuple[Point, ...]
    unseen: tuple[Point, ...]
    curve: tuple[Point, ...]
    held_out_total: float | None
    held_out_relative: float | None
    unseen_total: float | None
    unseen_relative: float | None
    final_digests: dict[str, str]
    gave_up: tuple[str, ...]
    train_devices: tuple[str, ...] = ()
    memory: tuple[Memory, ...] = ()
    replans: tuple[str, ...] = ()
    refusals: tuple[Refusals, ...] = ()
    final_rounds: dict[str, int] = {}
    serves: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    merged_rounds: int = 0


Scored: TypeAlias = "dict[tuple[str, str, int], list[Score]]"


def report(spec: JobSpec, stored: Iterable[tuple[float, Event]]) -> Report:
    """The report of a job's stored events (job time in seconds, event)."""
    events = list(stored)
    job = jobs.replay(spec, events)
    scored, unseen = _scores(event for _, event in events)
    curve = tuple(_point(name, scores) for name, scores in sorted(scored.items(), key=lambda i: i[0][2]))
    groups = tuple(run.group for run in job.runs)
    held_out = _final(job, curve)
    judged = _final(job, [_point(name, scores) for name, scores in unseen.items()])
    pooled = pool(measured.sums for measured in job.measured) if job.measured else None
    made = next((event for _, event in events if isinstance(event, Initialised)), None)
    return Report(
        name=spec.name,
        phase=job.phase,
        reason=job.reason,
        spec=spec,
        wall_s=events[-1][0] if events else 0.0,
        parameters=made.parameters if made else {},
        groups=groups,
        decision=job.decision,
        affinity=affinity_table(pooled) if pooled else None,
        affinity_relative=affinity_table(normalise(pooled, "self")) if pooled else None,
        held_out=held_out,
        unseen=judged,
        curve=curve,
        held_out_total=total(held_out),
        held_out_relative=relative(held_out),
        unseen_total=total(judged),
        unseen_relative=relative(judged),
        final_digests={run.group: run.weights.digest for run in job.runs if run.weights},
        final_rounds={run.group: min(run.round, run.past) for run in job.runs if run.weights},
        gave_up=refusals.lines(event for _, event in events),
        refusals=refusals.counted(event for _, event in events),
        train_devices=_train_devices(event for _, event in events),
        memory=memory(event for _, event in events),
        replans=job.replans,
        serves=_serves(job),
        merged_rounds=_merged_rounds(job, (event for _, event in events)),
    )


def profiles(stored: Iterable[tuple[float, Event]]) -> tuple[tuple[str, Profile], ...]:
    """(device, bill) of every training that was heard of, and of the orchestrator's own work."""
    found: list[tuple[str, Profile]] = []
    for _, event in stored:
        match event:
            case Heard(update=update):
                found.append((update.key.device, update.profile))
            case GaveUp(key=key, profile=profile):
                found.append((key.device, profile))
            case Late(key=key):
                found.append((key.device, event.bill))
            case Initialised(profile=profile) | Judged(profile=profile):
                found.append((ORCHESTRATOR, profile))
    return tuple(found)


def total(points: Sequence[Point]) -> float | None:
    """Sum of the tasks' mean losses; None if one is unknown or there are none."""
    losses = [p.loss for p in points]
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) if known and len(known) == len(losses) else None


def relative(points: Sequence[Point]) -> float | None:
    """Mean over the tasks of loss / constant predictor's loss; None if one is unknown."""
    ratios = [p.loss / p.constant_loss for p in points if p.loss is not None and p.constant_loss]
    return math.fsum(ratios) / len(ratios) if ratios and len(ratios) == len(points) else None


def _merged_rounds(job: Job, events: Iterable[Event]) -> int:
    """Fewer than was planned if a budget or want of memory came before."""
    tasks = {task for run in job.runs for task in run.tasks}
    done = (e.round + 1 for e in events if isinstance(e, Merged) and tasks <= set(e.group.split("+")))
    return min(max(done, default=0), job.merged_rounds)


def _serves(job: Job) -> dict[str, tuple[str, ...]]:
    """By group the tasks that it serves, where groups overlap; those of the plan that fitted nowhere, too."""
    plan = job.decision
    planned = zip(plan.groups, plan.serves, strict=True) if plan and plan.serves else ()
    running = {run.group: run.serves for run in job.runs if run.serves}
    return {"+".join(group): own for group, own in planned} | running


def _scores(events: Iterable[Event]) -> tuple[Scored, Scored]:
    held_out: Scored = defaultdict(list)
    unseen: Scored = defaultdict(list)
    for event in events:
        if isinstance(event, Heard):
            key = event.update.key
            for score in event.update.scores:
                held_out[score.task, key.group, key.round - 1].append(score)
        elif isinstance(event, Judged):
            for score in event.scores:
                unseen[score.task, event.group, -1].append(score)
    return held_out, unseen


def _point(name: tuple[str, str, int], scores: list[Score]) -> Point:
    task, group, round_ = name
    count = math.fsum(score.count for score in scores)
    return Point(
        task=task,
        group=group,
        round=round_,
        count=count,
        loss=_mean([score.loss_sum for score in scores], count),
        constant_loss=_mean([score.constant_loss_sum for score in scores], count),
        metric=_miou(scores)
        if any(s.union for s in scores)
        else _mean([s.metric_sum for s in scores], count),
    )


def _miou(scores: list[Score]) -> float | None:
    """Mean over the classes of intersection over union, each summed over devices; None without any."""
    pairs = (zip(s.intersection, s.union, strict=True) for s in scores)
    classes = zip_longest(*pairs, fillvalue=(0, 0))  # who evaluated nothing has none
    sums = [tuple(map(sum, zip(*parts, strict=True))) for parts in classes]
    ratios = [both / either for both, either in sums if either]
    return math.fsum(ratios) / len(ratios) if ratios else None


def _mean(sums: list[float | None], count: float) -> float | None:
    known = [value for value in sums if value is not None]
    return math.fsum(known) / count if count and len(known) == len(sums) else None


def _final(job: Job, points: Sequence[Point]) -> tuple[Point, ...]:
    """The last point of every task, in the job's order, of the group that its result comes from.

    Until that was evaluated, of any; unknown where nobody had labels. None at all if there are no points.
    """
    runs = {task: job.result(task) for task in job.spec.tasks}
    results = {task: run.group for task, run in runs.items() if run}
    found = {point.task: point for point in points}
    found |= {point.task: point for point in points if point.group == results.get(point.task)}
    return tuple(found.get(task) or _nowhere(task) for task in job.spec.tasks) if found else ()


def _nowhere(task: str) -> Point:
    return Point(task=task, group="", round=-1, count=0.0, loss=None, constant_loss=None, metric=None)


def affinity_table(affinity: Affinity) -> AffinityTable:
    """What was pooled, as plain values; NaN becomes None."""

    def rows(matrix: Iterable[Iterable[float]]) -> tuple[tuple[float | None, ...], ...]:
        return tuple(tuple(None if math.isnan(v) else float(v) for v in row) for row in matrix)

    return AffinityTable(
        tasks=affinity.tasks,
        mean=rows(affinity.mean),
        se=rows(affinity.se),
        batches=tuple(tuple(int(n) for n in row) for row in affinity.batches),
    )


def _train_devices(events: Iterable[Event]) -> tuple[str, ...]:
    """Where the workers computed: cpu, cuda."""
    return tuple(sorted({e.update.profile.train_device for e in events if isinstance(e, Heard)}))
