from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mas_edge.models import net as nets
from mas_edge.models.evaluate import evaluate
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Batch, Source, Task
from mas_edge.models.workloads.watch import workload

ONE = Task("one", "", "mse", "mae", (1,), np.array([1.0]))
TWO = Task("two", "", "mse", "mae", (1,), np.array([0.0]))


class Points:
    def __init__(self, **valid):
        self.labels = frozenset({"one", "two"}) if valid else frozenset({"one"})
        self.valid = {name: np.array(mask, bool) for name, mask in valid.items()}

    def __len__(self):
        return 5

    def batch(self, index):
        x = index.astype(np.float32)[:, None]
        valid = {name: mask[index] for name, mask in self.valid.items()}
        return Batch(x, {name: np.zeros_like(x) for name in self.labels}, valid)


def net(*middle):
    encoder = nn.Sequential(nn.Linear(1, 1, bias=False), *middle)
    decoders = {name: nn.Linear(1, 1, bias=False) for name in ("one", "two")}
    found = MultiTaskNet(encoder, decoders)
    for parameter in found.parameters():
        nn.init.ones_(parameter)
    return found


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_scores_are_sums_over_all_valid_examples_however_they_are_batched(batch):
    one, two = evaluate(net(), Points(two=[0, 1, 1, 0, 0]), (ONE, TWO), batch)
    assert (one.count, one.loss_sum, one.constant_loss_sum, one.metric_sum) == (5, 30, 5, 10)
    assert (two.count, two.loss_sum, two.constant_loss_sum, two.metric_sum) == (2, 5, 0, 3)


def test_a_task_without_labels_is_left_out_and_one_without_valid_examples_counts_zero():
    assert [score.task for score in evaluate(net(), Points(), (ONE, TWO), 2)] == ["one"]
    two = evaluate(net(), Points(two=[0] * 5), (ONE, TWO), 2)[1]
    assert (two.count, two.loss_sum, two.metric_sum) == (0, 0, 0)


class Pixels:
    labels = frozenset({"parts"})

    def __len__(self):
        return 3

    def batch(self, index):
        target = np.array([[[1, 1]], [[2, 0]], [[2, 1]]], np.uint8)[index]
        return Batch(np.zeros((len(index), 1), np.float32), {"parts": target}, {})


class Says(nn.Module):
    """Class 1 everywhere."""

    def forward(self, x):
        return torch.tensor([0.0, 2.0, 1.0])[None, :, None, None].expand(len(x), 3, 1, 2)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_miou_is_scored_as_two_counts_per_class_that_add_up(batch):
    task = Task("parts", "", "cross-entropy", "miou", (3, 1, 2), np.zeros((3, 1, 1)), ignore=(0,))
    says = MultiTaskNet(nn.Linear(1, 1), {"parts": Says()})
    (score,) = evaluate(says, Pixels(), (task,), batch)
    assert (score.count, score.metric_sum) == (3, None)
    assert (score.intersection, score.union) == ((0, 3, 0), (0, 5, 2))
    assert score.constant_loss_sum == pytest.approx(3 * np.log(3))


def test_it_uses_eval_mode_and_leaves_everything_as_it_was():
    noisy = net(nn.Dropout(0.5), nn.BatchNorm1d(1)).train()
    noisy.decoder.eval()  # a mixture of modes comes back as it was
    before = {name: tensor.clone() for name, tensor in noisy.state_dict().items()}
    rng_state = torch.get_rng_state()
    assert evaluate(noisy, Points(), (ONE,), 2) == evaluate(noisy, Points(), (ONE,), 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in noisy.state_dict().items())
    assert (noisy.encoder.training, noisy.decoder.training) == (True, False)
    assert torch.equal(torch.get_rng_state(), rng_state)


def test_an_untrained_network_is_no_better_than_the_constant_predictor():
    fresh = nets.build(workload, "micro", ["exercise"], seed=0)
    data = workload.dataset(Source(workload.unseen), "all", 0.0)
    (score,) = evaluate(fresh, data, workload.choose(["exercise"]), 256)
    assert score.count == len(data)
    assert score.constant_loss_sum is not None
    assert score.loss_sum > 0.9 * score.constant_loss_sum
