"""How good a network is on a data set: sums per task that add up over devices.

Runs the network in eval mode without gradients, batch by batch in the data's order, and leaves its mode
as it was. Each task that has labels gets one ``Score``: loss, the constant predictor's loss and the
metric (for mIoU, its two counts per class) on the same examples. It neither trains nor decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mas_edge.models import losses
from mas_edge.models.scores import score_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Dataset, Task
    from mas_edge.wire.messages import Score


def evaluate(net: MultiTaskNet, dataset: Dataset, tasks: Sequence[Task], batch: int) -> tuple[Score, ...]:
    """A score for each of the tasks that the data has labels for, in the tasks' order.

    A task without a single valid example has count 0 and sums 0; one without labels is left out.
    """
    labelled = [task for task in tasks if task.name in dataset.labels]
    sums = {task.name: _Sums(task) for task in labelled}
    mode = _modes(net)
    net.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(dataset), batch):
                index = np.arange(start, min(start + batch, len(dataset)))
                given = losses.examples(dataset.batch(index), labelled, device_of(net))
                outputs = net(given.inputs, given.labels)
                for task in labelled:
                    sums[task.name].add(outputs[task.name], given.labels[task.name])
    finally:
        for module, training in mode:
            module.training = training
    return tuple(each.score() for each in sums.values())


def device_of(net: nn.Module) -> torch.device:
    """Where the network's first parameter lives."""
    return next(net.parameters()).device


def _modes(net: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in net.modules()]


class _Sums:
    """One task's sums over the batches so far."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._row = np.zeros(4)
        self._overlap = np.zeros((2, task.shape[0] if task.metric == "miou" else 0), np.int64)

    def add(self, output: torch.Tensor, labels: losses.Labels) -> None:
        task, metric = self._task, 0.0
        if task.metric == "miou":
            self._overlap += losses.overlap(task, output, labels).cpu().numpy()
        else:
            metric = losses.metric_sum(task, output, labels).item()
        loss, constant = losses.loss_sum(task, output, labels), losses.constant_loss_sum(task, labels)
        self._row += labels.count, loss.item(), constant.item(), metric

    def score(self) -> Score:
        return score_of(self._task, self._row, self._overlap)
