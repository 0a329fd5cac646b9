"""Activations that are forgotten and computed again: the same bits for less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from mas_edge.models import conv1d
from mas_edge.models.checkpoint import checkpointed, segments
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Task
from mas_edge.models.workloads import dense


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Dropping(nn.Module):
    """An encoder of two blocks with dropout and running statistics."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(self.block(width) for width in (3, 8)))
        self.last_block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    @staticmethod
    def block(width):
        return nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Tanh())

    def forward(self, x):
        return self.last_block(self.blocks(x))


def dropping():
    return MultiTaskNet(Dropping(), {"a": nn.Linear(8, 2), "b": nn.Sequential(nn.Linear(8, 4), nn.Tanh())})


def signals():
    heads = {"a": conv1d.Summary(16, 3), "b": conv1d.Upsample(16, 2, 8)}
    return MultiTaskNet(conv1d.Encoder(6, (8, 8, 16)), heads)


def pictures(network):
    tasks = {name: Task(name, "", "l1", "mae", (n, 32, 32), np.zeros(1)) for name, n in (("a", 2), ("b", 3))}
    return MultiTaskNet(
        dense.encoder(network), {name: dense.decoder(network, task) for name, task in tasks.items()}
    )


NETWORKS = {
    "dropping": (dropping, (6, 3)),
    "signals": (signals, (4, 6, 128)),
    "micro": (lambda: pictures("micro"), (3, 3, 32, 32)),
    "small": (lambda: pictures("small"), (3, 3, 32, 32)),
    "xception": (lambda: pictures("xception"), (3, 3, 32, 32)),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def made(name):
    """The network, and a batch for it: the same ones each time."""
    build, shape = NETWORKS[name]
    torch.manual_seed(3)
    return build(), torch.randn(shape)


def stepped(name, *, forget):
    """Every gradient and buffer after one step, and the outputs."""
    net, x = made(name)
    torch.manual_seed(4)
    if forget:
        with checkpointed(net):
            outputs = net(x)
            sum(out.square().sum() for out in outputs.values()).backward()
    else:
        outputs = net(x)
        sum(out.square().sum() for out in outputs.values()).backward()
    found = {key: out.detach() for key, out in outputs.items()}
    found |= {key: weight.grad for key, weight in net.named_parameters()}
    return found | dict(net.named_buffers()) | {"random": torch.get_rng_state()}


@each_network
def test_gradients_outputs_buffers_and_random_state_are_the_same_bits(name):
    plain, forgetful = stepped(name, forget=False), stepped(name, forget=True)
    assert plain.keys() == forgetful.keys()
    assert [key for key in plain if not torch.equal(plain[key], forgetful[key])] == []


@each_network
def test_it_computes_what_torchs_own_checkpointing_computes(name):
    net, x = made(name)
    for part in segments(net):
        part.forward = lambda *inputs, call=part.forward: checkpoint(call, *inputs, use_reentrant=False)
    torch.manual_seed(4)
    sum(out.square().sum() for out in net(x).values()).backward()
    ours = stepped(name, forget=True)
    theirs = {key: weight.grad for key, weight in net.named_parameters()}
    assert [key for key in theirs if not torch.equal(theirs[key], ours[key])] == []


@each_network
def test_several_backward_passes_over_one_graph_find_what_was_forgotten(name):
    net, x = made(name)
    weights = tuple(net.last_block.parameters())

    def rows():
        torch.manual_seed(4)
        outputs = net(x)
        losses = [out.square().sum() for out in outputs.values()]
        found = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
        sum(losses).backward()
        return [*(g for row in found for g in row), *(p.grad.clone() for p in net.parameters())]

    plain = rows()
    net, x = made(name)
    weights = tuple(net.last_block.parameters())
    with checkpointed(net):
        forgetful = rows()
    assert all(torch.equal(one, other) for one, other in zip(plain, forgetful, strict=True))


def kept_bytes(net, x):
    """What autograd holds between forward and backward, outside of segments."""
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.clone()

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x)
    return sum(sizes.values())


@each_network
def test_less_is_kept_between_forward_and_backward(name):
    net, x = made(name)
    plain = kept_bytes(net, x)
    with checkpointed(net):
        assert kept_bytes(net, x) < plain


@each_network
def test_no_segment_stands_inside_another_and_each_is_run(name):
    net, x = made(name)
    parts = segments(net)
    assert len(parts) > 1
    for part in parts:
        assert not set(part.modules()) & {other for other in parts if other is not part}
    ran = []
    handles = [part.register_forward_hook(lambda module, *_: ran.append(module)) for part in parts]
    net(x)
    assert set(ran) == set(parts)
    assert len(handles) == len(ran)


def test_afterwards_the_network_is_as_it_was():
    net, x = made("micro")
    with pytest.raises(ZeroDivisionError), checkpointed(net):
        raise ZeroDivisionError
    assert all("forward" not in vars(module) for module in net.modules())
    with checkpointed(net), torch.no_grad():
        forgetful = net(x)
    assert torch.equal(forgetful["a"], net(x)["a"].detach())
