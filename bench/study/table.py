"""What the trainings of one task set under one seed amount to: the loss and the cost of every partition.

A loss is summed over tasks, as they are or each over its constant predictor's, on held-out examples of the
clients that train or on clients that nobody trains on. A cost is the CPU time of the training after the
merge, what all tasks together take being 1. It comes from a few steps of each group that were measured in
turn, smoothed by a fit (encoder + sum of decoders): long trainings ran beside other work, now more, now
less. All tasks together were also trained for longer; between those points the loss is interpolated over the
logarithm of the cost, so that any partition can be compared with not splitting at equal energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from mas_edge.orchestrator.spec import JobSpec
from study.records import Costs, Setting, StudyRefused, Trained, read
from study.sets import SETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mas_edge.wire.messages import AffinitySums
    from study.records import Losses, Step

    Group = tuple[str, ...]
    Partition = tuple[Group, ...]


@dataclass(frozen=True)
class Criterion:
    """By which loss partitions are judged."""

    view: Literal["held-out", "unseen"] = "held-out"
    relative: bool = False

    def of(self, losses: Losses) -> float:
        """The sum over these tasks; ``relative`` each over the constant predictor's."""
        return sum(loss / constant if self.relative else loss for loss, constant in losses.values())


HELD_OUT = Criterion()
CRITERIA = {
    "held-out": HELD_OUT,
    "held-out, relative": Criterion(relative=True),
    "unseen": Criterion("unseen"),
    "unseen, relative": Criterion("unseen", relative=True),
}


def partitions(tasks: Sequence[str]) -> Iterator[Partition]:
    """Every way to cut the tasks into groups, groups and tasks in order."""
    if not tasks:
        yield ()
        return
    for rest in partitions(tasks[1:]):
        yield ((tasks[0],), *rest)
        for at, group in enumerate(rest):
            yield ((tasks[0], *group), *rest[:at], *rest[at + 1 :])


@dataclass(frozen=True)
class Table:
    """One task set under one seed."""

    setting: Setting
    spec: JobSpec
    trained: dict[tuple[object, ...], Trained]
    measured_costs: Costs

    @property
    def tasks(self) -> Group:
        """The tasks, in the job's order."""
        return self.spec.tasks

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """All of them, in a fixed order."""
        return tuple(sorted(partitions(self.tasks), key=lambda p: (len(p), p)))

    def group(self, tasks: Group) -> Trained:
        """The training of a group after the merge."""
        return self.trained["group", tasks, "", 0, 1.0]

    def loss(self, partition: Partition, by: Criterion = HELD_OUT) -> float:
        """The final loss of a partition."""
        return sum(by.of(_final(self.group(group), by)) for group in partition)

    def loss_after(self, partition: Partition, rounds: int) -> float:
        """The held-out loss so many rounds after the merge: the mean over the later half of them."""
        later = range(rounds // 2, rounds)
        steps = [self.group(group).steps[at] for group in partition for at in later]
        return sum(HELD_OUT.of(step.held_out) for step in steps) / len(later)

    @cached_property
    def costs(self) -> dict[Group, float]:
        """Of each group, all tasks together being 1."""
        found = self.measured_costs.groups
        has = np.array([[1.0, *(task in group for task in self.tasks)] for group in found])
        taken = np.median(self.measured_costs.cpu_s, axis=0)
        fitted = has @ np.linalg.lstsq(has, taken, rcond=None)[0]
        return dict(zip(found, fitted / fitted[found.index(self.tasks)], strict=True))

    def cost(self, partition: Partition) -> float:
        """CPU time after the merge, not splitting being 1."""
        return sum(self.costs[group] for group in partition)

    def together(self, cost: float, by: Criterion = HELD_OUT) -> float:
        """The loss of not splitting with so much CPU time after the merge; flat beyond what was trained."""
        longer = sorted((t.factor, by.of(_final(t, by))) for t in self.trained.values() if t.what == "longer")
        factors, losses = zip((1.0, self.loss((self.tasks,), by)), *longer, strict=True)
        return float(np.interp(np.log(cost), np.log(factors), losses))

    @property
    def merged(self) -> Trained:
        """The merged rounds, as the product measures by default."""
        return self.trained["merged", self.tasks, "gram", self.spec.training.affinity_every, 1.0]

    @property
    def ways(self) -> frozenset[tuple[str, int]]:
        """How affinity was measured: methods, and every so many batches."""
        return frozenset((each.method, each.every) for each in self.trained.values() if each.what == "merged")

    def measured(self, method: str, every: int) -> list[tuple[AffinitySums, ...]]:
        """What the devices measured in each merged round."""
        return _measured(self.trained["merged", self.tasks, method, every, 1.0].steps)

    def measured_throughout(self) -> list[tuple[AffinitySums, ...]]:
        """What lookahead measured in every round of a job that never splits."""
        rounds = self.measured("lookahead", self.spec.training.affinity_every)
        return rounds + _measured(self.group(self.tasks).steps)


def _final(trained: Trained, by: Criterion) -> Losses:
    return trained.unseen if by.view == "unseen" else trained.steps[-1].held_out


def _measured(steps: Sequence[Step]) -> list[tuple[AffinitySums, ...]]:
    return [step.measured for step in steps]


def tables(folder: Path) -> dict[str, list[Table]]:
    """By task set the tables of all seeds that are complete; raises StudyRefused if there are none."""
    found: dict[str, list[Table]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        setting, trained, costs = read(path)
        spec = msgspec.json.decode(setting.spec, type=JobSpec)
        if costs:  # which come last
            table = Table(setting, spec, {each.name: each for each in trained}, costs)
            found.setdefault(setting.name, []).append(table)
    if not found:
        raise StudyRefused(f"{folder}: no task set is complete; train first")
    return {name: found[name] for name in SETS if name in found}
