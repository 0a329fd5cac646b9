"""How good a network is on a data set: sums per task that add up over devices.

Runs the network in eval mode without gradients, batch by batch in the data's order, and leaves its mode
as it was. Each task that has labels gets one ``Score``: loss, the constant predictor's loss and the
metric on the same examples. It neither trains nor decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mas_edge.models import losses
from mas_edge.wire.messages import Score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Dataset, Task


def evaluate(net: MultiTaskNet, dataset: Dataset, tasks: Sequence[Task], batch: int) -> tuple[Score, ...]:
    """A score for each of the tasks that the data has labels for, in the tasks' order.

    A task without a single valid example has count 0 and sums 0; one without labels is left out.
    """
    labelled = [task for task in tasks if task.name in dataset.labels]
    sums = {task.name: np.zeros(4) for task in labelled}
    mode = _modes(net)
    net.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(dataset), batch):
                index = np.arange(start, min(start + batch, len(dataset)))
                given = losses.examples(dataset.batch(index), labelled, device_of(net))
                outputs = net(given.inputs, given.labels)
                for task in labelled:
                    sums[task.name] += _sums(task, outputs[task.name], given.labels[task.name])
    finally:
        for module, training in mode:
            module.training = training
    return tuple(_score(name, row) for name, row in sums.items())


def device_of(net: nn.Module) -> torch.device:
    """Where the network's first parameter lives."""
    return next(net.parameters()).device


def _modes(net: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in net.modules()]


def _sums(
    task: Task, output: torch.Tensor, labels: losses.Labels
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    three = (
        losses.loss_sum(task, output, labels),
        losses.constant_loss_sum(task, labels),
        losses.metric_sum(task, output, labels),
    )
    return np.array([labels.count, *(value.item() for value in three)])


def _score(task: str, row: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Score:
    count, loss, constant, metric = row.tolist()
    return Score(task=task, count=count, loss_sum=loss, constant_loss_sum=constant, metric_sum=metric)
