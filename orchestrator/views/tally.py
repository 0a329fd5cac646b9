"""What a job's stored events add up to, event by event: the job's state, losses, joules, the tree of groups.

A ``Tally`` hears each event once, in order, and keeps sums; so whoever follows a running job pays for what is
new and not for all that was. It is deterministic: heard in two parts or in one, the same events give the
same tally. What is shown of it is ``orchestrator.views.status``' business. Pure.

The report (``orchestrator.report``) says more, of all stored events at once. Here too the scores that come
with the answers of round r are those of the weights of round r - 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.affinity import pool
from mas_edge.orchestrator.events import GaveUp, Heard, Late, LeftOut
from mas_edge.orchestrator.job import Job, Judged
from mas_edge.orchestrator.report import AffinityTable, affinity_table, profiles
from mas_edge.orchestrator.spec import ORCHESTRATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mas_edge.orchestrator.job import Event
    from mas_edge.orchestrator.round_state import Run
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import Profile, Score


@dataclass
class Bill:
    """Attributed joules and device-seconds; ``complete`` is false where a part's joules are not known."""

    energy_j: float | None = None
    wall_s: float = 0.0
    complete: bool = True
    methods: set[str] = field(default_factory=set)

    def add(self, energy_j: float | None, wall_s: float, method: str | None) -> None:
        """One more row of a bill."""
        self.wall_s += wall_s
        if energy_j is None:
            self.complete = self.complete and wall_s <= 0.0
            return
        self.energy_j = (self.energy_j or 0.0) + energy_j
        self.methods |= {method} if method else set()

    @classmethod
    def sum(cls, bills: Iterable[Bill]) -> Bill:
        """All of them together; what is known of no part is not known."""
        whole = cls()
        for bill in bills:
            whole.wall_s += bill.wall_s
            whole.complete = whole.complete and bill.complete
            whole.methods |= bill.methods
            if bill.energy_j is not None:
                whole.energy_j = (whole.energy_j or 0.0) + bill.energy_j
        return whole


@dataclass
class Loss:
    """Sums over devices of one task's losses under one group's weights; means are None without examples."""

    count: float = 0.0
    loss_sum: float = 0.0
    constant_sum: float | None = 0.0

    def add(self, score: Score) -> None:
        """One more device's score."""
        self.count += score.count
        self.loss_sum += score.loss_sum
        known = self.constant_sum is not None and score.constant_loss_sum is not None
        self.constant_sum = (self.constant_sum or 0.0) + (score.constant_loss_sum or 0.0) if known else None

    @property
    def mean(self) -> float | None:
        """Loss per valid example."""
        return self.loss_sum / self.count if self.count else None

    @property
    def relative(self) -> float | None:
        """The same over the constant predictor's; below 1, something was learnt."""
        return self.loss_sum / self.constant_sum if self.constant_sum else None


@dataclass
class Branch:
    """A group in the tree: which one it came from, and its run as it was last seen."""

    run: Run
    parent: str | None
    since_wall_s: float


_Place: TypeAlias = "tuple[str, str, int]"
"""Task, group, 0-based round that produced the weights (training losses: in which they were measured)."""

Point: TypeAlias = "tuple[str, int, Loss | None, Loss | None]"
"""Group, round, held-out loss of the weights that it produced, training loss."""


Bills: TypeAlias = "dict[tuple[str, str], Bill]"
"""By job and group, that of the orchestrator's own work included."""


def together(bills: Iterable[Bills]) -> Bills:
    """What several jobs' tallies hold for each group, in one."""
    parts: dict[tuple[str, str], list[Bill]] = {}
    for each in bills:
        for of, bill in each.items():
            parts.setdefault(of, []).append(bill)
    return {of: Bill.sum(some) for of, some in parts.items()}


class Tally:
    """The tally of one job so far."""

    def __init__(self, spec: JobSpec) -> None:
        self.job = Job(spec=spec)
        self.time_s = 0.0
        self.wall_s: float | None = None
        self.since_wall_s: float | None = None
        self.bills: Bills = {}  # an agent's bill also holds what it has just done for another job
        self.branches: dict[str, Branch] = {}
        self.held_out: dict[_Place, Loss] = {}
        self.training: dict[_Place, Loss] = {}
        self.unseen: dict[str, Loss] = {}
        self.counts: dict[str, int] = {}
        self.by_device: dict[str, list[tuple[float, Bill]]] = {}  # Unix time, what was billed then
        self._pooled: tuple[int, AffinityTable | None] = (0, None)

    def add(self, time_s: float, wall_s: float, event: Event) -> None:
        """What happened at a job time in seconds, stored at a Unix time."""
        before, self.job = self.job, jobs.fold(self.job, event, time_s)
        self.time_s, self.wall_s = time_s, wall_s
        if before.phase != self.job.phase or self.since_wall_s is None:
            self.since_wall_s = wall_s
        self._grow(before, wall_s)
        for device, profile in profiles([(time_s, event)]):
            self._charge(device, profile, wall_s)
        match event:
            case Heard(update=update):
                key = update.key
                self._score(self.training, key.group, key.round, update.trained)
                self._score(self.held_out, key.group, key.round - 1, update.scores)
            case Judged():
                run = next((run for run in self.job.runs if run.group == event.group), None)
                for score in (score for score in event.scores if run and score.task in run.results):
                    self.unseen.setdefault(score.task, Loss()).add(score)
            case GaveUp():
                self._count("refused" if event.reason == "update-refused" else "gave up")
            case LeftOut():
                self._count("refused", len(event.updates))
            case Late():
                self._count("late")

    def _grow(self, before: Job, wall_s: float) -> None:
        """Take over the runs as they are now; a group that is new hangs below the one whose tasks it has."""
        was = {run.group: run for run in before.runs}
        for run in self.job.runs:
            branch, old = self.branches.get(run.group), was.get(run.group)
            if branch is None:
                above = next((old.group for old in before.runs if set(run.tasks) <= set(old.tasks)), None)
                if above is not None:  # it went so far before it handed its weights on
                    parent = self.branches[above]
                    parent.run = msgspec.structs.replace(parent.run, round=max(run.round, parent.run.round))
                self.branches[run.group] = Branch(run, above, wall_s)
            elif run is not old:
                if old is None or (old.round, old.phase) != (run.round, run.phase):
                    branch.since_wall_s = wall_s
                branch.run = run

    def _charge(self, device: str, profile: Profile, wall_s: float) -> None:
        method = profile.sensor.method if profile.sensor else None
        own = Bill()
        for row in profile.rows:
            charged = self.bills.setdefault((row.job, row.group), Bill())
            for bill in (own, charged):
                bill.add(row.attributed_energy_j, row.wall_s, method)
        if profile.rows and device != ORCHESTRATOR:
            self.by_device.setdefault(device, []).append((wall_s, own))

    def _score(self, curves: dict[_Place, Loss], group: str, round_: int, scores: tuple[Score, ...]) -> None:
        for score in scores:
            curves.setdefault((score.task, group, round_), Loss()).add(score)

    def _count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times

    def affinity(self) -> AffinityTable | None:
        """What was measured so far, pooled; None if nothing was."""
        measured = self.job.measured
        if len(measured) != self._pooled[0]:
            self._pooled = len(measured), affinity_table(pool(one.sums for one in measured))
        return self._pooled[1]

    def curve(self, task: str) -> Iterator[Point]:
        """A task's group, round, held-out and training losses, round by round."""
        mine = {key for key in (*self.held_out, *self.training) if key[0] == task}
        for key in sorted(mine, key=lambda key: (key[2], key[1])):
            yield key[1], key[2], self.held_out.get(key), self.training.get(key)
