"""How good a network's outputs are, by numpy: the losses and metrics of ``models.losses`` without torch.

A device that only infers has no torch, and its held-out scores must add up with those of devices that train.
So each loss and metric of ``models.losses`` stands here once more, for evaluation alone: on arrays, without
gradients, summed in float64. What masks, counts and the two published losses mean is said there; a test
compares all tasks of all workloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.wire.messages import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mas_edge.models.tasks import Array, Batch, Dataset, Task


@dataclass(frozen=True)
class Labels:
    """One task's labels of B examples: ``mask`` says where ``target`` (B, ...) is valid, in its shape."""

    target: Array
    mask: Array

    @cached_property
    def count(self) -> float:
        """How many examples have a valid label."""
        return float(self.mask.reshape(len(self.mask), -1).any(1).sum())

    @cached_property
    def share(self) -> Array:
        """(B, ...): each valid element's share of its example, 1 / (number of valid ones); 0 elsewhere."""
        elements = self.mask.reshape(len(self.mask), -1).sum(1).clip(1)
        shares: Array = self.mask / elements.reshape(-1, *(1,) * (self.mask.ndim - 1))
        return shares


def labels_of(task: Task, batch: Batch) -> Labels:
    """The batch's labels of a task that it has some for."""
    target = batch.targets[task.name]
    terms = [target != ignored for ignored in task.ignore]
    valid = batch.valid.get(task.name)
    if valid is not None:  # a mask with fewer axes is one per example (or per leading axes)
        terms.append(valid.reshape(valid.shape + (1,) * (target.ndim - valid.ndim)))
    mask = reduce(np.logical_and, terms) if terms else np.True_
    kind = np.int64 if task.loss == "cross-entropy" else np.float32
    return Labels(target.astype(kind, copy=False), np.broadcast_to(mask, target.shape))


def loss_sum(task: Task, output: Array, labels: Labels) -> float:
    """Sum over valid examples of the example's loss; ``output`` is (B, *task.shape)."""
    match task.loss:
        case "cross-entropy":
            at = labels.target.clip(0, task.shape[0] - 1)
            log_p = np.take_along_axis(_log_softmax(output), at[:, None], 1)[:, 0]
            return float((-log_p * labels.share).sum())
        case "mse":
            return float((_difference(output, labels) ** 2 * labels.share).sum())
        case "l1":
            return float((np.abs(_difference(output, labels)) * labels.share).sum())
        case "masked-l1":
            return float(_over_all(_difference(output, labels)).sum())
        case "shifted-masked-l1":
            return float(_over_all_shifted(output, labels).sum())


def metric_sum(task: Task, output: Array, labels: Labels) -> float:
    """Sum over valid examples of the example's mean metric; raises ValueError for ``miou``."""
    match task.metric:
        case "accuracy":
            return float(((output.argmax(1) == labels.target) * labels.share).sum())
        case "mae":
            return float((np.abs(_difference(output, labels)) * labels.share).sum())
        case "angular-error-deg":
            vector = np.where(labels.mask, labels.target, 0)
            return float((_angle_deg(output, vector) * labels.share.sum(1)).sum())
        case "miou":
            raise ValueError(f"task {task.name!r}: the metric miou is no mean over examples")


def overlap(task: Task, output: Array, labels: Labels) -> Array:
    """(2, classes) counts of valid elements: predicted and labelled so; predicted or labelled so."""
    classes = task.shape[0]
    predicted, target = output.argmax(1)[labels.mask], labels.target[labels.mask]
    both = np.bincount(target[predicted == target], minlength=classes)
    either = np.bincount(predicted, minlength=classes) + np.bincount(target, minlength=classes) - both
    either[list(task.ignore)] = 0
    return np.stack([both, either])


def evaluate(
    run: Callable[[Array], Mapping[str, Array]], dataset: Dataset, tasks: Sequence[Task], batch: int
) -> tuple[Score, ...]:
    """A score for each of the tasks that the data has labels for, as ``models.evaluate`` gives them.

    ``run`` gives the output of each task for some inputs.
    """
    sums = [_Sums(task) for task in tasks if task.name in dataset.labels]
    for start in range(0, len(dataset), batch) if sums else ():
        given = dataset.batch(np.arange(start, min(start + batch, len(dataset))))
        outputs = run(given.inputs)
        for each in sums:
            each.add(outputs[each.task.name], labels_of(each.task, given))
    return tuple(each.score() for each in sums)


class _Sums:
    """One task's sums over the batches so far."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._row = np.zeros(4)
        self._overlap = np.zeros((2, task.shape[0] if task.metric == "miou" else 0), np.int64)

    def add(self, output: Array, labels: Labels) -> None:
        task, metric = self.task, 0.0
        if task.metric == "miou":
            self._overlap += overlap(task, output, labels)
        else:
            metric = metric_sum(task, output, labels)
        constant = np.broadcast_to(np.asarray(task.constant, np.float32), (len(output), *task.shape))
        self._row += labels.count, loss_sum(task, output, labels), loss_sum(task, constant, labels), metric

    def score(self) -> Score:
        return score_of(self.task, self._row, self._overlap)


def score_of(task: Task, row: Array, overlap: Array) -> Score:
    """Score of sums: ``row`` is count, loss, the constant predictor's loss, metric; ``overlap`` (2, C) are
    intersections and unions of classes, of which other metrics have none.
    """
    count, loss, constant, metric = row.tolist()
    intersection, union = (tuple(part) for part in overlap.tolist())
    return Score(
        task=task.name,
        count=count,
        loss_sum=loss,
        constant_loss_sum=constant,
        metric_sum=None if union else metric,
        intersection=intersection,
        union=union,
    )


def _difference(output: Array, labels: Labels) -> Array:
    """Output less target in float64; 0 where the target is invalid, whatever stands there."""
    target = np.where(labels.mask, labels.target, 0)
    return np.where(labels.mask, output.astype(np.float64) - target, 0.0)


def _over_all(difference: Array) -> Array:
    """(B,): absolute error over the valid elements, divided by the number of all."""
    mean: Array = np.abs(difference).reshape(len(difference), -1).mean(1)
    return mean


def _over_all_shifted(output: Array, labels: Labels) -> Array:
    """(B,): the smallest ``_over_all`` of nine positions of the output, without the border."""
    height, width = (size - 2 for size in labels.target.shape[-2:])
    inner = Labels(labels.target[..., 1:-1, 1:-1], labels.mask[..., 1:-1, 1:-1])
    moved = (output[..., y : y + height, x : x + width] for y in range(3) for x in range(3))
    least: Array = np.stack([_over_all(_difference(each, inner)) for each in moved]).min(0)
    return least


def _angle_deg(one: Array, other: Array) -> Array:
    """(B, ...): angles between vectors (B, 3, ...), 90 if one is zero; exact near 0 and 180."""
    dot = (one * other).sum(1)
    cross = np.linalg.norm(np.cross(one, other, axis=1), axis=1)
    angle: Array = np.where((dot == 0) & (cross == 0), 90.0, np.rad2deg(np.arctan2(cross, dot)))
    return angle


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_p
