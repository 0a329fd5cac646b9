"""Losses and metrics with masks, as (sum, count), so that batches, devices and rounds add up exactly.

An example's loss is the mean over its valid elements; a batch's is the sum over examples that have any,
next to their number. So a batch may be cut anywhere: micro-batches, devices and rounds pool by adding
sums and adding counts. Nothing valid gives sum 0 and count 0, never NaN, and what stands in an invalid
place (NaN, a class that does not exist) reaches neither the value nor the gradient.

It keeps no state and knows no network: two models in one process do not touch each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from mas_edge.models.tasks import Array, Batch, Task


@dataclass(frozen=True)
class Labels:
    """One task's labels of B examples.

    ``target`` (B, ...) holds 0 where invalid. ``share`` (B, ...) is each valid element's share of its
    example, 1 / (number of valid elements), and 0 elsewhere. ``valid`` (B,) says which examples have any.
    """

    target: Tensor
    share: Tensor
    valid: NDArray[np.bool_]

    @property
    def count(self) -> float:
        """How many examples have a valid label."""
        return float(self.valid.sum())


@dataclass(frozen=True)
class Examples:
    """A batch as tensors: ``inputs`` (B, ...) and the labels of each task that has some."""

    inputs: Tensor
    labels: Mapping[str, Labels]


def examples(batch: Batch, tasks: Iterable[Task], device: torch.device | None = None) -> Examples:
    """The batch on a device, with labels of those of the tasks that it has targets for."""
    labels = {
        task.name: _labels(task, batch.targets[task.name], batch.valid.get(task.name), device)
        for task in tasks
        if task.name in batch.targets
    }
    return Examples(torch.as_tensor(batch.inputs, device=device), labels)


def loss_sum(task: Task, output: Tensor, labels: Labels) -> Tensor:
    """Sum over valid examples of the example's mean loss, differentiable; the count is ``labels.count``.

    ``output`` is (B, *task.shape). Cross-entropy is in nats, mse and l1 in the target's (squared) unit.
    """
    return (_loss_elements(task, output, labels.target) * labels.share).sum()


def metric_sum(task: Task, output: Tensor, labels: Labels) -> Tensor:
    """Sum over valid examples of the example's mean metric: accuracy in [0, 1], or absolute error."""
    if task.metric == "accuracy":
        right = (output.argmax(1) == labels.target).to(labels.share.dtype)
    else:
        right = (output - labels.target).abs()
    return (right * labels.share).sum()


def constant_loss_sum(task: Task, labels: Labels) -> Tensor:
    """The loss of the task's constant predictor on the same examples, by the same function."""
    constant = torch.as_tensor(np.asarray(task.constant, np.float32), device=labels.share.device)
    output = constant.expand(len(labels.valid), *task.shape)
    return loss_sum(task, output, labels)


def _loss_elements(task: Task, output: Tensor, target: Tensor) -> Tensor:
    match task.loss:
        case "cross-entropy":
            return functional.cross_entropy(output, target, reduction="none")
        case "mse":
            return (output - target).square()
        case "l1":
            return (output - target).abs()


def _labels(task: Task, target: Array, valid: Array | None, device: torch.device | None) -> Labels:
    classes = task.loss == "cross-entropy"
    target = target.astype(np.int64 if classes else np.float32, copy=False)
    if valid is None:
        mask = np.ones(target.shape, bool)
    else:  # a mask with fewer axes is one per example (or per leading axes)
        mask = np.broadcast_to(valid.reshape(valid.shape + (1,) * (target.ndim - valid.ndim)), target.shape)
        target = np.where(mask, target, np.zeros((), target.dtype))
    elements = mask.sum(tuple(range(1, mask.ndim)))
    per_element = np.divide(1, elements, where=elements > 0, out=np.zeros(len(mask)))
    share = mask * per_element.reshape(-1, *(1,) * (target.ndim - 1))
    return Labels(
        torch.as_tensor(target, device=device),
        torch.as_tensor(share.astype(np.float32), device=device),
        elements > 0,
    )
