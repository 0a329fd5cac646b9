"""Activation checkpointing: forget what a part of the network computed, compute it again for its gradient.

Between forward and backward a network keeps every intermediate result that a gradient needs. ``checkpointed``
makes each of a network's segments (residual blocks, separable convolutions, decoders that run alone) keep
its inputs alone; when backward reaches a segment it is run once more, under the random state that it had, and
with running statistics held still. So the gradients are the same bits, for about a third more work (Chen et
al. 2016, arXiv 1604.06174). What is dropped and brought back are autograd's saved tensors
(``torch.autograd.graph.saved_tensors_hooks``), which also serves several backward passes over one graph.

Why not ``torch.utils.checkpoint``, which does the same: its first call imports torch's compiler, 76 MB of
resident memory and 0.9 CPU-s (torch 2.13), more than it saves on most networks that a board trains.
tests/models/test_checkpoint.py compares the two.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mas_edge.models.net import JointDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from mas_edge.models.net import MultiTaskNet

_PLAIN = (nn.Sequential, nn.ModuleList)


def segments(net: MultiTaskNet) -> tuple[nn.Module, ...]:
    """What is forgotten and computed again as a whole: no module of it stands inside another.

    Decoders that may run together are none: their own forward pass is then never called.
    """
    alone = [decoder for decoder in net.decoder.values() if not isinstance(decoder, JointDecoder)]
    return (*(part for child in net.encoder.children() for part in _parts(child)), *alone)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    if type(module) in _PLAIN and any(list(child.children()) for child in children):
        for child in children:
            yield from _parts(child)
    elif children:
        yield module


@contextmanager
def checkpointed(net: MultiTaskNet) -> Iterator[None]:
    """Within it the network's forward passes keep each segment's inputs only; without effect otherwise."""
    parts = segments(net)
    for part in parts:
        part.forward = _forgetful(part, part.forward)  # an attribute of the instance, in front of the class's
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _forgetful(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        segment = _Segment(module, forward, inputs)
        with saved_tensors_hooks(segment.forget, segment.bring):
            return forward(*inputs)

    return run


class _Segment:
    """One pass through a segment: its inputs, and how to get back what it saved, by position."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
        self._module, self._forward, self._inputs = module, forward, inputs
        self._random = _random_states(inputs)
        self._saved = 0
        self._again: dict[int, Tensor] = {}

    def forget(self, _: Tensor) -> int:
        self._saved += 1
        return self._saved - 1

    def bring(self, position: int) -> Tensor:
        if position not in self._again:  # the first of a backward pass: each takes every tensor once at most
            self._run_again()
        return self._again.pop(position)

    def _run_again(self) -> None:
        found: list[Tensor] = []
        inputs = [each.detach().requires_grad_(each.requires_grad) for each in self._inputs]
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng())
            stack.enter_context(_still(self._module))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(lambda t: found.append(t.detach()), _never))
            _set_random_states(self._random)
            self._forward(*inputs)
        self._again = dict(enumerate(found))


def _never(_: None) -> Tensor:
    raise RuntimeError("what is computed again is not differentiated")


def _random_states(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    on_gpu = any(each.is_cuda for each in inputs)
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if on_gpu else [])]


def _set_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


@contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """The second time, statistics of the batch are used as before but not averaged in again."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - torch has no public name for all of them
    before = [
        (norm.momentum, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone())
        for norm in norms
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, seen) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and seen is not None:
                norm.num_batches_tracked.copy_(seen)
