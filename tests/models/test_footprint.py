"""What a dry step counts, by hand and against itself."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn

from mas_edge.models import footprint
from mas_edge.models import net as nets
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Batch, Source, Task, find

ONE = Task("one", "", "mse", "mae", (2,), np.zeros(1))
TWO = Task("two", "", "mse", "mae", (5,), np.zeros(1))
FLOAT = 4


class Data:
    """Examples of three numbers with targets for the tasks that have labels."""

    def __init__(self, labels=("one", "two"), size=6):
        self.labels, self.size = frozenset(labels), size

    def __len__(self):
        return self.size

    def batch(self, index):
        shapes = {"one": (2,), "two": (5,)}
        ones = {name: np.ones((len(index), *shapes[name]), np.float32) for name in self.labels}
        return Batch(np.ones((len(index), 3), np.float32), ones, {})


class Block(nn.Module):
    """Three numbers to four, through seven."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(3, 7), nn.Linear(7, 4)

    def forward(self, x):
        return self.narrow(self.wide(x).tanh())


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.last_block = Block()

    def forward(self, x):
        return self.last_block(x)


def net():
    torch.manual_seed(0)
    return MultiTaskNet(Encoder(), {"one": nn.Linear(4, 2), "two": nn.Linear(4, 5)})


def test_a_small_network_is_counted_as_by_hand():
    encoder, decoders = footprint.count(net(), Data(), (ONE, TWO))
    assert encoder.weights_bytes == FLOAT * (3 * 7 + 7 + 7 * 4 + 4)
    # the input (which the first layer keeps), the tanh's result and the features
    assert encoder.example_bytes == FLOAT * (3 + 7 + 4)
    # forgotten, and computed again: the tanh's result; features and input stay
    assert encoder.again_bytes == FLOAT * 7
    assert encoder.kept_bytes == FLOAT * (3 + 4)
    for name, outputs in (("one", 2), ("two", 5)):
        part = decoders[name]
        assert part.weights_bytes == FLOAT * (4 * outputs + outputs)
        # target and the difference that the square keeps; the share is one number for both examples
        assert part.example_bytes == part.kept_bytes == FLOAT * (2 * outputs + 1 / 2)


def test_a_task_without_labels_here_takes_its_weights_alone():
    _, decoders = footprint.count(net(), Data(labels=("one",)), (ONE, TWO))
    assert decoders["two"].example_bytes == decoders["two"].kept_bytes == 0
    assert decoders["two"].weights_bytes > 0


def test_data_without_examples_are_refused():
    with pytest.raises(ValueError, match="without examples"):
        footprint.count(net(), Data(size=0), (ONE,))


def test_a_single_example_is_enough():
    encoder, _ = footprint.count(net(), Data(size=1), (ONE, TWO))
    assert encoder.example_bytes == FLOAT * (3 + 7 + 4)


@pytest.mark.parametrize(("name", "network"), [("watch", "small"), ("buildings", "micro")])
def test_tasks_add_up_and_checkpointing_keeps_less(name, network):
    workload = find(name)
    tasks = workload.choose(None)
    data = workload.dataset(Source(workload.clients[:1]), "train", 0.2)
    whole = nets.build(workload, network, [task.name for task in tasks], seed=0)
    encoder, decoders = footprint.count(whole, data, tasks)
    alone = nets.build(workload, network, [tasks[2].name], seed=0)
    encoder_alone, decoders_alone = footprint.count(alone, data, tasks[2:3])
    assert encoder == encoder_alone
    assert decoders[tasks[2].name] == decoders_alone[tasks[2].name]
    for part in (encoder, *decoders.values()):
        assert 0 <= part.kept_bytes <= part.example_bytes
        assert part.again_bytes > 0
    assert encoder.kept_bytes + encoder.again_bytes < encoder.example_bytes


def test_nothing_of_a_dry_step_stays_behind():
    network = net()

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    footprint.count(network, Data(), (ONE, TWO))
    before = tensors()
    for _ in range(3):
        footprint.count(network, Data(), (ONE, TWO))
    assert tensors() == before
    assert all(weight.grad is None for weight in network.parameters())
