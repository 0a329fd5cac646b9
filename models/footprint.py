"""How much memory a training step of a task group takes, counted in a dry step on two examples.

The dry step runs forward and backward once on real examples and counts, exactly, the bytes that autograd
keeps for the gradient and those of inputs and labels: per example, for the encoder, for each task's decoder
and loss, and for what checkpointing (``models.checkpoint``) would keep of them. It touches buffers and random
state, so it belongs before the weights are loaded. Counting is linear in the examples and imports
nothing; a ``TorchDispatchMode``, which would see every temporary, costs a process 80 MB, and peaks of
resident memory over two small steps were off by half when extrapolated (docs/log.md).

What it cannot count (gradients of activations, workspaces of convolutions, what malloc does not give
back) is a factor, in ``edge_agent.fit``. It decides nothing.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from mas_edge.models import losses
from mas_edge.models.checkpoint import segments
from mas_edge.models.evaluate import device_of
from mas_edge.models.net import parameter_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Dataset, Task

EXAMPLES = 2
"""Of the dry step; of a single one a normalisation over the batch has nothing to normalise over."""

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Part:
    """Bytes of the encoder, or of a task's decoder and loss.

    ``weights_bytes`` are those of its parameters. Per example: ``example_bytes`` are kept until the gradient
    is known; with checkpointing ``kept_bytes`` are, and ``again_bytes`` more for the segment at work.
    """

    weights_bytes: int
    example_bytes: float
    kept_bytes: float
    again_bytes: float


@dataclass(frozen=True)
class Footprint:
    """A group's parts; ``resident_bytes`` is the process at rest, with its ``examples`` and these weights.

    ``copies`` of the weights are held besides while it trains: gradient, momentum, step.
    """

    resident_bytes: int
    examples: int
    encoder: Part
    decoders: Mapping[str, Part]
    copies: int = 3


def count(net: MultiTaskNet, dataset: Dataset, tasks: Sequence[Task]) -> tuple[Part, dict[str, Part]]:
    """The encoder's part, and each task's; of tasks without labels here the decoder's weights alone.

    Raises ValueError for a data set without examples.
    """
    if not len(dataset):
        raise ValueError("a data set without examples has no step to count")
    index = np.arange(EXAMPLES) % len(dataset)
    labelled = [task for task in tasks if task.name in dataset.labels]
    given = losses.examples(dataset.batch(index), labelled, device_of(net))
    net.train()
    encoder = _counted(net, given, ())
    alone = {task.name: _counted(net, given, (task,)) for task in labelled}
    _step(net, given, labelled)
    decoders = {
        task.name: _part(net.decoder[task.name], alone.get(task.name, encoder).beyond(encoder))
        for task in tasks
    }
    return _part(net.encoder, encoder), decoders


def _part(module: nn.Module, tally: _Tally) -> Part:
    return Part(
        weights_bytes=_FLOAT_BYTES * parameter_count(module),
        example_bytes=tally.held / EXAMPLES,
        kept_bytes=tally.kept / EXAMPLES,
        again_bytes=tally.again / EXAMPLES,
    )


@dataclass(frozen=True)
class _Tally:
    """Bytes held; with checkpointing held all the time, and for the largest segment."""

    held: int = 0
    kept: int = 0
    again: int = 0

    def beyond(self, other: _Tally) -> _Tally:
        """What this holds that the other does not; segments come one after the other."""
        return _Tally(self.held - other.held, self.kept - other.kept, self.again)


def _counted(net: MultiTaskNet, given: losses.Examples, tasks: Sequence[Task]) -> _Tally:
    """What a forward pass for these tasks holds; of the encoder with the inputs if there are none."""
    held = _Held(net)
    held.add(given.inputs)
    with saved_tensors_hooks(held.add, _gone), held.watching(segments(net)):
        if not tasks:
            held.add(net.encoder(given.inputs))
        outputs = net(given.inputs, [task.name for task in tasks]) if tasks else {}
        for task in tasks:
            labels = given.labels[task.name]
            held.add(labels.target)
            held.add(labels.share)
            losses.loss_sum(task, outputs[task.name], labels)
    return held.tally()


class _Held:
    """Counts each storage once, at the segment in which it was first met; the network's own do not count."""

    def __init__(self, net: MultiTaskNet) -> None:
        self._own = {_address(tensor) for tensor in (*net.parameters(), *net.buffers())}
        self._alive: list[Tensor] = []  # so that no address is used twice
        self._bytes: Counter[tuple[int, int]] = Counter()  # (segment, address); 0 is outside of all
        self._segment, self._segments = 0, 0
        self._inputs: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        """Count it. Autograd's graph is given nothing back: a tensor that it made would hold it for ever."""
        address = _address(tensor)
        if address not in self._own:
            self._own.add(address)
            self._alive.append(tensor.detach())
            self._bytes[self._segment, address] = tensor.untyped_storage().nbytes()

    @contextmanager
    def watching(self, parts: Sequence[nn.Module]) -> Iterator[None]:
        """Within it, what is held inside each of these modules is told apart."""
        handles = [part.register_forward_pre_hook(self._enter) for part in parts]
        handles += [part.register_forward_hook(self._leave) for part in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._segments += 1
        self._segment = self._segments
        self._inputs |= {_address(each): each.untyped_storage().nbytes() for each in inputs}
        self._alive += [each.detach() for each in inputs]

    def _leave(self, *_: object) -> None:
        self._segment = 0

    def tally(self) -> _Tally:
        """What was counted so far."""
        per_segment: Counter[int] = Counter()
        for (segment, _), size in self._bytes.items():
            per_segment[segment] += size
        outside = {address for segment, address in self._bytes if not segment}
        inputs = sum(size for address, size in self._inputs.items() if address not in outside)
        again = max((size for segment, size in per_segment.items() if segment), default=0)
        return _Tally(sum(per_segment.values()), per_segment[0] + inputs, again)


def _gone(_: None) -> Tensor:
    raise RuntimeError("what was only counted has no gradient")


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _step(net: MultiTaskNet, given: losses.Examples, tasks: Sequence[Task]) -> None:
    """A whole step, so that code and workspaces that its first one brings in are resident afterwards."""
    outputs = net(given.inputs, [task.name for task in tasks])
    sums = [losses.loss_sum(task, outputs[task.name], given.labels[task.name]) for task in tasks]
    if sums:
        torch.autograd.backward(torch.stack(sums).sum())
    net.zero_grad()
