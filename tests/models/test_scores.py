"""The losses and metrics of numpy are those of torch."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models import losses, scores
from mas_edge.models import net as nets
from mas_edge.models.evaluate import evaluate
from mas_edge.models.tasks import Batch, Source, find

WORKLOADS = ("watch", "buildings", "taskonomy")
TASKS = [(name, task) for name in WORKLOADS for task in find(name).tasks]
NAMED = [f"{name}-{task.name}" for name, task in TASKS]
LOSSES = ("mse", "l1", "masked-l1", "shifted-masked-l1")


def a_case(task, seed, size):
    """Outputs, and a batch of labels with holes that hold rubbish."""
    rng = np.random.default_rng(seed)
    output = rng.normal(0, 2, (size, *task.shape)).astype(np.float32)
    classes = task.loss == "cross-entropy"
    shape = (size, *task.shape[1:]) if classes else (size, *task.shape)
    target = rng.integers(0, task.shape[0], shape) if classes else rng.normal(0, 2, shape).astype(np.float32)
    valid = rng.random(shape) < rng.choice([0.0, 0.4, 1.0], (size, *(1,) * (len(shape) - 1)))
    target = np.where(valid, target, 99 if classes else np.nan)
    return output, Batch(np.zeros((size, 1)), {task.name: target}, {task.name: valid})


def same(task, output, batch):
    ours, theirs = scores.labels_of(task, batch), losses.examples(batch, [task]).labels[task.name]
    tensor = torch.from_numpy(output)
    assert ours.count == theirs.count
    assert scores.loss_sum(task, output, ours) == pytest.approx(
        losses.loss_sum(task, tensor, theirs).item(), rel=1e-6, abs=1e-6
    )
    if task.metric == "miou":
        np.testing.assert_array_equal(
            scores.overlap(task, output, ours), losses.overlap(task, tensor, theirs).numpy()
        )
    else:
        assert scores.metric_sum(task, output, ours) == pytest.approx(
            losses.metric_sum(task, tensor, theirs).item(), rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize(("workload", "task"), TASKS, ids=NAMED)
def test_every_task_of_every_workload_is_judged_as_torch_judges_it(workload, task):
    shape = task.shape if workload != "taskonomy" else (task.shape[0], *(16 for _ in task.shape[1:]))
    small = replace(task, shape=shape)
    for seed in range(3):
        same(small, *a_case(small, seed, 4))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from(LOSSES))
def test_every_loss_is_that_of_torch_under_any_mask(seed, size, loss):
    task = replace(dict(zip(NAMED, (t for _, t in TASKS), strict=True))["buildings-depth_zbuffer"], loss=loss)
    task = replace(task, shape=(2, 5, 4))
    same(task, *a_case(task, seed, size))


@pytest.mark.parametrize("name", ["watch", "buildings"])
def test_a_network_is_scored_as_torch_scores_it(name):
    workload = find(name)
    net = nets.build(workload, "micro", [task.name for task in workload.tasks], seed=1).eval()
    data = workload.dataset(Source(workload.unseen[:1]), "held-out", 0.1)

    def run(inputs):
        with torch.inference_mode():
            return {task: output.numpy() for task, output in net(torch.from_numpy(inputs)).items()}

    ours = scores.evaluate(run, data, workload.tasks, 16)
    theirs = evaluate(net, data, workload.tasks, 16)
    for one, other in zip(ours, theirs, strict=True):
        for given_, wanted in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True):
            assert given_ == (pytest.approx(wanted, rel=1e-6) if isinstance(wanted, float) else wanted)
