"""Who brought what to which task group: rounds, examples and labels, and what of it came to nothing.

``contributions`` folds a job's stored events into a row per group and device that was asked for it. Only what
was merged counts as brought. A device that has no labels of a task has None there, not 0: it helped the
encoder, and the decoder not at all. What it cost stands in the bill (``profiling.costs``), which is why a
refusal costs joules and brings nothing. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.events import Closed, GaveUp, Heard, Late, LeftOut, Merged, Selected
from mas_edge.orchestrator.job import Job
from mas_edge.orchestrator.storage.refusals import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.job import Event
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import Update

REFUSED = frozenset({"update-refused", LEFT_OUT})
"""Reasons that are ours; the others are the devices' own."""

DECLINED = frozenset({"no-data", "memory", "not-now"})
"""Reasons of a device that did not begin."""


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """Valid labels of a task that a device trained on, epochs counted; None: it has none of this task."""

    task: str
    examples: float | None


class Reasoned(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was said."""

    reason: str
    times: int


class Contributed(msgspec.Struct, frozen=True, kw_only=True):
    """What a device brought to a task group.

    ``rounds`` are those into which its update was merged, of ``asked`` in which it was selected (None: nobody
    was, all took part). ``missed`` are deadlines that it let pass, ``benched`` the times that it was then, or
    after failures, not asked for a while. ``refused``, ``declined`` and ``failed`` count answers that brought
    nothing, ``late`` those that nobody waited for any more; ``reasons`` are the words of the first three.
    """

    group: str
    device: str
    rounds: int
    asked: int | None
    examples: int
    labelled: tuple[Labelled, ...]
    late: int
    missed: int
    refused: int
    declined: int
    failed: int
    benched: int
    reasons: tuple[Reasoned, ...]

    @property
    def even(self) -> bool:
        """Whether it took part in all that it was asked for, with labels of every task."""
        troubles = (self.late, self.missed, self.refused, self.declined, self.failed, self.benched)
        return not any(troubles) and all(each.examples is not None for each in self.labelled)


@dataclass
class _Row:
    """A device's work for a group, so far."""

    asked: set[int] = field(default_factory=set)
    rounds: int = 0
    examples: int = 0
    labels: dict[str, float] = field(default_factory=dict)
    late: int = 0
    missed: int = 0
    benched: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def merged(self, update: Update) -> None:
        self.rounds += 1
        self.examples += update.examples
        for score in update.trained:
            self.labels[score.task] = self.labels.get(score.task, 0.0) + score.count


class _Fold:
    """The rows of all groups and devices while the events go by."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], _Row] = defaultdict(_Row)
        self.tasks: dict[str, tuple[str, ...]] = {}
        self._heard: dict[tuple[str, int], list[Update]] = defaultdict(list)

    def hear(self, event: Event) -> None:
        match event:
            case Selected(group=group, round=round_, devices=devices, missed=missed):
                for device in devices:
                    self.rows[group, device].asked.add(round_)
                self._missed(group, missed)
            case Closed(group=group, missed=missed):
                self._missed(group, missed)
            case Heard(update=update) if update.weights is not None:
                self._trained(update)
            case GaveUp(key=key, reason=reason):
                self.rows[key.group, key.device].reasons[reason] += 1
            case Late(key=key):
                self.rows[key.group, key.device].late += 1
            case LeftOut(group=group, round=round_, updates=updates):
                self._left_out(group, round_, {each.device for each in updates})
            case Merged(group=group, round=round_):
                for update in self._heard.pop((group, round_), ()):
                    self.rows[group, update.key.device].merged(update)

    def look(self, before: Job, after: Job) -> None:
        """Who was benched between two states of the job; and which tasks a group has."""
        known = {run.group: {each.device: each.benchings for each in run.records} for run in before.runs}
        for run in after.runs:
            self.tasks.setdefault(run.group, run.tasks)
            for record in run.records:
                if record.benchings > known.get(run.group, {}).get(record.device, 0):
                    self.rows[run.group, record.device].benched += 1

    def _trained(self, update: Update) -> None:
        labels = self.rows[update.key.group, update.key.device].labels
        labels.update({score.task: labels.get(score.task, 0.0) for score in update.trained})
        self._heard[update.key.group, update.key.round].append(update)

    def _missed(self, group: str, devices: Iterable[str]) -> None:
        for device in devices:
            self.rows[group, device].missed += 1

    def _left_out(self, group: str, round_: int, devices: set[str]) -> None:
        heard = self._heard[group, round_]
        self._heard[group, round_] = [update for update in heard if update.key.device not in devices]
        for device in devices:
            self.rows[group, device].reasons[LEFT_OUT] += 1


def contributions(spec: JobSpec, stored: Iterable[tuple[float, Event]]) -> tuple[Contributed, ...]:
    """A row per group and device, groups in the order in which they began, devices by name."""
    fold, job = _Fold(), Job(spec=spec)
    for time_s, event in stored:
        before, job = job, jobs.fold(job, event, time_s)
        fold.hear(event)
        if job.runs is not before.runs:
            fold.look(before, job)
    order = {group: number for number, group in enumerate(fold.tasks)}
    keys = sorted((key for key in fold.rows if key[0] in order), key=lambda key: (order[key[0]], key[1]))
    return tuple(_contributed(*key, fold.tasks[key[0]], fold.rows[key]) for key in keys)


def _contributed(group: str, device: str, tasks: tuple[str, ...], row: _Row) -> Contributed:
    said = {
        kind: sum(n for reason, n in row.reasons.items() if reason in kind) for kind in (REFUSED, DECLINED)
    }
    return Contributed(
        group=group,
        device=device,
        rounds=row.rounds,
        asked=len(row.asked) or None,
        examples=row.examples,
        labelled=tuple(Labelled(task=task, examples=row.labels.get(task)) for task in tasks),
        late=row.late,
        missed=row.missed,
        refused=said[REFUSED],
        declined=said[DECLINED],
        failed=row.reasons.total() - sum(said.values()),
        benched=row.benched,
        reasons=tuple(Reasoned(reason=reason, times=n) for reason, n in sorted(row.reasons.items())),
    )
