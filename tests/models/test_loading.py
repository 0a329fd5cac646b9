from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models import loading, losses
from mas_edge.models.tasks import Batch, Source, Task
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.workload import DESCRIPTION, workload

TASKS = (
    Task("class", "", "cross-entropy", "miou", (3, 4, 4), np.zeros(3), ignore=(0,)),
    Task("depth", "", "masked-l1", "mae", (1, 4, 4), np.zeros(1)),
    Task("shade", "", "masked-l1", "mae", (1, 4, 4), np.zeros(1)),
    Task("rgb", "", "l1", "mae", (3, 4, 4), np.zeros(1)),
)


class Noted:
    """Made-up examples that note what is asked for at a time."""

    labels = frozenset(task.name for task in TASKS)

    def __init__(self, size):
        rng = np.random.default_rng(0)
        self.asked = []
        self._inputs = rng.normal(size=(size, 3, 4, 4)).astype(np.float32)
        self._targets = {
            task.name: rng.integers(0, 3, (size, 4, 4), np.uint8)
            if task.loss == "cross-entropy"
            else rng.normal(size=(size, *task.shape)).astype(np.float32)
            for task in TASKS
        }
        self._mask = rng.random((size, 1, 4, 4)) < 0.5

    def __len__(self):
        return len(self._inputs)

    def batch(self, index):
        self.asked.append(len(index))
        mask = self._mask[index]
        targets = {name: target[index] for name, target in self._targets.items()}
        return Batch(self._inputs[index], targets, {"depth": mask, "shade": mask})


def same(one, other):
    assert torch.equal(one.inputs, other.inputs)
    assert list(one.labels) == list(other.labels)
    for name, labels in one.labels.items():
        there = other.labels[name]
        assert labels.target.dtype == there.target.dtype
        assert torch.equal(labels.target, there.target)
        assert (labels.mask is None) == (there.mask is None)
        assert labels.mask is None or torch.equal(labels.mask, there.mask)
        np.testing.assert_array_equal(labels.valid, there.valid)
        assert torch.equal(labels.share, there.share)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=12))
def test_batches_that_are_read_together_are_those_that_are_read_alone(wanted):
    data, indices = Noted(10), [np.array(each) for each in wanted]
    found = list(loading.batches(data, TASKS, None, indices))
    assert len(found) == len(indices)
    assert sum(data.asked) == sum(map(len, indices))
    for batch, index in zip(found, indices, strict=True):
        same(batch, losses.examples(data.batch(index), TASKS))


def test_small_batches_are_read_several_at_a_time_and_large_ones_one_by_one():
    small = Noted(10)
    list(loading.batches(small, TASKS, None, [np.arange(2)] * 9))
    assert small.asked == [2, 16]
    large = Noted(10)
    example_bytes = losses.examples(large.batch(np.arange(1)), TASKS).nbytes
    size = loading.AHEAD_BYTES // example_bytes // 2 + 1
    large.asked.clear()
    list(loading.batches(large, TASKS, None, [np.zeros(size, np.int64)] * 3))
    assert large.asked == [size] * 3


def test_nothing_is_read_before_it_is_asked_for():
    data = Noted(10)
    waiting = loading.batches(data, TASKS, None, [np.arange(2)] * 3)
    assert not data.asked
    next(waiting)
    assert data.asked == [2]


def test_a_mask_that_tasks_share_counts_once_and_stays_shared():
    whole = losses.examples(Noted(4).batch(np.arange(4)), TASKS)
    floats, classes, masks = (3 + 1 + 1 + 3) * 16 * 4, 16 * 8, 2 * 16
    assert whole.nbytes == 4 * (floats + classes + masks)
    first, _ = whole.split([3, 1])
    assert first.labels["depth"].mask is first.labels["shade"].mask


@pytest.mark.parametrize("clients", [("3",), ("1", "8", "2")])
def test_a_batch_of_buildings_is_what_is_stored_less_the_mean_over_the_deviation_to_the_last_bit(clients):
    data = workload.dataset(Source(clients), "all", 0.0)
    stored = np.concatenate([archive.unpack(archive.SHIPPED, each, DESCRIPTION.pixels) for each in clients])
    index = np.array([5, 0, len(data) - 1, 5])
    batch = data.batch(index)
    wanted = {name: (label.mean, label.std) for name, label in DESCRIPTION.tasks.items()}
    del wanted["segment_semantic"]
    found = [("rgb", batch.inputs, DESCRIPTION.input.mean, DESCRIPTION.input.std)]
    found += [(name, batch.targets[name], *scale) for name, scale in wanted.items()]
    for name, values, mean, std in found:
        raw = stored[name][index].reshape(4, 32, 32, -1).transpose(0, 3, 1, 2).astype(np.float32)
        less = raw - np.array(mean, np.float32).reshape(-1, 1, 1)
        expected = less * (1 / np.array(std)).astype(np.float32).reshape(-1, 1, 1)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(batch.targets["segment_semantic"], stored["segment_semantic"][index])
    np.testing.assert_array_equal(batch.valid["normal"][:, 0], stored["depth_zbuffer"][index] < 8192)
