"""Losses and metrics with masks, as (sum, count), so that batches, devices and rounds add up exactly.

An example's loss is the mean over its valid elements; a batch's is the sum over examples that have any,
next to their number. So a batch may be cut anywhere: micro-batches, devices and rounds pool by adding
sums and adding counts. Nothing valid gives sum 0 and count 0, never NaN, and what stands in an invalid
place (NaN, a class that does not exist) reaches neither the value nor the gradient.

Two losses divide otherwise, as published for Taskonomy: ``masked-l1`` is Σ|output − target| over an
example's valid elements through the number of *all* its elements, so that a picture full of holes counts
less; ``shifted-masked-l1`` is the smallest of nine of them, the output moved by at most a pixel in either
direction against the target and a one-pixel border left out, so that labels that are a pixel off cost
nothing. The intersection over union of a class is no mean over examples: ``overlap`` gives the two counts
whose sums over devices make it.

Source of those two: the released code of "Which Tasks Should Be Learned Together in Multi-task Learning?"
(Standley et al., ICML 2020, taskonomy_losses.py), which MAS (arXiv 2307.11285) trains with. Two differences:
a picture without any valid pixel is left out of the count there is divided by, and cross-entropy is a mean
of the pictures' means, not of all pixels. It keeps no state and knows no network: two models in one process
do not touch each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from mas_edge.models.tasks import Array, Batch, Task


@dataclass(frozen=True)
class Labels:
    """One task's labels of B examples.

    ``mask`` says where ``target`` (B, ...) is valid and broadcasts against it, None is everywhere; elsewhere
    anything may stand. ``valid`` (B,) says which examples have a valid element.
    """

    target: Tensor
    mask: Tensor | None
    valid: NDArray[np.bool_]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it holds on the device."""
        return (self.target,) if self.mask is None else (self.target, self.mask)

    @property
    def count(self) -> float:
        """How many examples have a valid label."""
        return float(np.count_nonzero(self.valid))

    @cached_property
    def share(self) -> Tensor:
        """(B, ...): each valid element's share of its example, 1 / (number of valid ones); 0 elsewhere."""
        shape, size = self.target.shape, math.prod(self.target.shape[1:])
        if self.mask is None:
            return torch.full((), 1 / size, device=self.target.device).expand(shape)
        mask = self.mask.expand(shape)
        elements = mask.reshape(len(mask), size).sum(1).clamp(min=1)
        return mask * (1 / elements).reshape(-1, *(1,) * (len(shape) - 1))


@dataclass(frozen=True)
class Examples:
    """A batch as tensors: ``inputs`` (B, ...) and the labels of each task that has some."""

    inputs: Tensor
    labels: Mapping[str, Labels]

    @property
    def nbytes(self) -> int:
        """Of its tensors, those that several tasks share counted once."""
        held = [self.inputs, *(tensor for each in self.labels.values() for tensor in each.tensors)]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in held}.values())

    def split(self, sizes: list[int]) -> list[Examples]:
        """So many of the examples after another, not copied."""
        ends = np.cumsum(sizes)[:-1]
        masks = {id(each.mask): each.mask for each in self.labels.values() if each.mask is not None}
        parts_of = {key: torch.split(mask, sizes) for key, mask in masks.items()}
        nowhere = (None,) * len(sizes)
        columns = [
            zip(
                torch.split(each.target, sizes),
                parts_of.get(id(each.mask), nowhere),
                np.split(each.valid, ends),
                strict=True,
            )
            for each in self.labels.values()
        ]
        return [
            Examples(inputs, dict(zip(self.labels, (Labels(*part) for part in row), strict=True)))
            for inputs, *row in zip(torch.split(self.inputs, sizes), *columns, strict=True)
        ]


def examples(batch: Batch, tasks: Iterable[Task], device: torch.device | None = None) -> Examples:
    """The batch on a device, with labels of those of the tasks that it has targets for."""
    valid = dict(batch.valid)  # holds the arrays: one that several tasks share is found by its identity
    masks: dict[Hashable, _Mask] = {}
    device = device if device and device.type != "cpu" else None
    labels = {
        task.name: _labels(task, batch.targets[task.name], valid.get(task.name), device, masks)
        for task in tasks
        if task.name in batch.targets
    }
    return Examples(_tensor(batch.inputs, device), labels)


def loss_sum(task: Task, output: Tensor, labels: Labels) -> Tensor:
    """Sum over valid examples of the example's loss, differentiable; the count is ``labels.count``.

    ``output`` is (B, *task.shape). Cross-entropy is in nats, mse and l1 in the target's (squared) unit.
    """
    target, mask = labels.target, labels.mask
    match task.loss:
        case "cross-entropy":  # F.cross_entropy computes the same, but not deterministically on a GPU
            at = target.clamp(0, task.shape[0] - 1)  # where it is invalid, there may be no such class
            log_p = output.log_softmax(1).gather(1, at.unsqueeze(1)).squeeze(1)
            return (-log_p * labels.share).sum()
        case "mse":
            return (_difference(output, target, mask).square() * labels.share).sum()
        case "l1":
            return (_difference(output, target, mask).abs() * labels.share).sum()
        case "masked-l1":
            return _over_all(_difference(output, target, mask)).sum()
        case "shifted-masked-l1":
            return _over_all_shifted(output, target, mask).sum()


def metric_sum(task: Task, output: Tensor, labels: Labels) -> Tensor:
    """Sum over valid examples of the example's mean metric over its valid elements.

    Accuracy is in [0, 1], an absolute error in the target's unit, an angle in degrees. Raises ValueError
    for ``miou``, which is no such sum: see ``overlap``.
    """
    target, share = labels.target, labels.share
    match task.metric:
        case "accuracy":
            return ((output.argmax(1) == target) * share).sum()
        case "mae":
            return (_difference(output, target, labels.mask).abs() * share).sum()
        case "angular-error-deg":
            vector = torch.where(share > 0, target, 0.0)
            return (_angle_deg(output, vector) * share.sum(1)).sum()
        case "miou":
            raise ValueError(f"task {task.name!r}: the metric miou is no mean over examples")


def overlap(task: Task, output: Tensor, labels: Labels) -> Tensor:
    """(2, classes) counts of valid elements: predicted and labelled so; predicted or labelled so.

    The first over the second, each summed over all batches and devices, is a class's intersection over
    union. A class that is ignored has zeros.
    """
    classes = task.shape[0]
    valid = labels.share > 0
    predicted, target = output.argmax(1)[valid], labels.target[valid]
    both = target[predicted == target].bincount(minlength=classes)
    either = predicted.bincount(minlength=classes) + target.bincount(minlength=classes) - both
    either[list(task.ignore)] = 0
    return torch.stack([both, either])


def constant_loss_sum(task: Task, labels: Labels) -> Tensor:
    """The loss of the task's constant predictor on the same examples, by the same function."""
    constant = torch.as_tensor(np.asarray(task.constant, np.float32), device=labels.target.device)
    output = constant.expand(len(labels.valid), *task.shape)
    return loss_sum(task, output, labels)


def _difference(output: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Output less target; 0 without gradient where the target is invalid, whatever stands there."""
    difference = output - target
    return difference if mask is None else torch.where(mask, difference, 0.0)


def _over_all(difference: Tensor) -> Tensor:
    """(B,): absolute error over the valid elements, divided by the number of all."""
    return difference.abs().flatten(1).mean(1)


def _over_all_shifted(output: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """(B,): the smallest ``_over_all`` of nine positions of the output, without the border."""
    height, width = (size - 2 for size in target.shape[-2:])
    inner = target[..., 1:-1, 1:-1]
    inner_mask = None if mask is None else mask.expand(target.shape)[..., 1:-1, 1:-1]
    moved = (output[..., y : y + height, x : x + width] for y in range(3) for x in range(3))
    return torch.stack([_over_all(_difference(each, inner, inner_mask)) for each in moved]).amin(0)


def _angle_deg(one: Tensor, other: Tensor) -> Tensor:
    """(B, ...): angles between vectors (B, 3, ...), 90 if one is zero; exact near 0 and 180, unlike acos."""
    dot = (one * other).sum(1)
    cross = torch.linalg.cross(one, other, dim=1).norm(dim=1)
    return torch.where((dot == 0) & (cross == 0), 90.0, torch.atan2(cross, dot).rad2deg())


class _Mask(NamedTuple):
    """What ``Labels`` says of where targets are valid."""

    mask: Tensor | None
    valid: NDArray[np.bool_]


def _labels(
    task: Task,
    target: Array,
    valid: Array | None,
    device: torch.device | None,
    known: dict[Hashable, _Mask],
) -> Labels:
    """The task's labels; ``known`` are the batch's masks so far, of which most tasks share one."""
    kind = np.int64 if task.loss == "cross-entropy" else np.float32
    key = task.name if task.ignore else (id(valid), target.ndim)
    if key not in known:
        known[key] = _mask(task, target, valid, device)
    return Labels(_tensor(target.astype(kind, copy=False), device), *known[key])


def _mask(task: Task, target: Array, valid: Array | None, device: torch.device | None) -> _Mask:
    """Which elements are valid, with as many axes as the target."""
    terms = [target != ignored for ignored in task.ignore]
    if valid is not None:  # a mask with fewer axes is one per example (or per leading axes)
        terms.append(valid.reshape(valid.shape + (1,) * (target.ndim - valid.ndim)))
    if not terms:
        return _Mask(None, np.ones(len(target), bool))
    mask = reduce(np.logical_and, terms)
    return _Mask(_tensor(mask, device), mask.reshape(len(mask), math.prod(mask.shape[1:])).any(1))


def _tensor(array: Array, device: torch.device | None) -> Tensor:
    """The array on the device, sharing memory if that is the CPU: ``torch.as_tensor`` in half its time."""
    tensor = torch.from_numpy(array)
    return tensor if device is None else tensor.to(device)
