"""One network for many tasks: a shared encoder, a decoder per task; built, merged, split, put into arrays.

Every part is built under its own random seed, SHA-256 of (seed, part): a decoder starts from the same
weights whatever other tasks are there, so that one-by-one, merged and split trainings can be compared.
A network's state has the names of ``models.weights``: ``encoder.*`` and ``decoder.TASK.*``.

Source: the merge and split of MAS (arXiv 2307.11285). It holds no data, loss or optimiser.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mas_edge.models.tasks import UnknownTask
from mas_edge.models.weights import check, layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from mas_edge.models.tasks import Workload
    from mas_edge.models.weights import State


class JointDecoder(nn.Module):
    """A decoder of which several that read the same features are computed faster at once."""

    @classmethod
    def together(cls, decoders: Sequence[Any], features: Tensor) -> list[Tensor]:
        """What each of these decoders of this class gives, up to rounding."""
        raise NotImplementedError


class MultiTaskNet(nn.Module):
    """An encoder whose features feed a decoder per task."""

    def __init__(self, encoder: nn.Module, decoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.ModuleDict(dict(decoders))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order in which they were given."""
        return tuple(self.decoder)

    @property
    def last_block(self) -> nn.Module:
        """The encoder's last block, which gram looks at; raises TypeError if that is no module."""
        block = self.encoder.last_block
        if not isinstance(block, nn.Module):
            raise TypeError(f"{type(self.encoder).__name__}.last_block is not a module")
        return block

    def forward(self, inputs: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The output (B, ...) of each of these tasks, or of all."""
        names = self.tasks if tasks is None else tuple(tasks)
        outputs = decoded([self.decoder[task] for task in names], self.encoder(inputs))
        return dict(zip(names, outputs, strict=True))


def decoded(decoders: Sequence[nn.Module], features: Tensor) -> list[Tensor]:
    """What each decoder gives of the features, together where they can be."""
    kinds = {type(decoder) for decoder in decoders}
    if len(decoders) > 1 and len(kinds) == 1 and issubclass(kind := kinds.pop(), JointDecoder):
        return kind.together(decoders, features)
    return [decoder(features) for decoder in decoders]


def settle(threads: int = 1) -> None:
    """Make this process compute the same bits each time: fixed threads, deterministic algorithms.

    ``set_deterministic_debug_mode`` switches what ``use_deterministic_algorithms`` does, but does not
    import the compiler on the way (measured with torch 2.13: 71 MB of resident memory). Memory that an
    operation returns unwritten is not filled first, which is on by default: no operation here reads such.
    """
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def part_seed(seed: int, part: str) -> int:
    """The random seed of one part (``encoder`` or ``decoder.TASK``): 63 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{part}".encode()).digest()[:8], "big") >> 1


def build(workload: Workload, network: str, tasks: Iterable[str], seed: int) -> MultiTaskNet:
    """A fresh network for these tasks, in the workload's order; torch's random state is left alone.

    Raises UnknownTask, and UnknownChoice for a network that the workload lacks.
    """
    chosen = workload.choose(tasks)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(part_seed(seed, "encoder"))
        encoder = workload.encoder(network)
        decoders = {}
        for task in chosen:
            torch.manual_seed(part_seed(seed, f"decoder.{task.name}"))
            decoders[task.name] = workload.decoder(network, task)
    return MultiTaskNet(encoder, decoders)


def merge(nets: Sequence[MultiTaskNet]) -> MultiTaskNet:
    """One network with the mean of the encoders and all decoders, copied.

    Integer buffers are the first network's. Raises ValueError if a task stands in two of them.
    """
    names = [task for net in nets for task in net.tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"a task can be merged once; given {', '.join(names)}")
    encoder = deepcopy(nets[0].encoder)
    states = [net.encoder.state_dict() for net in nets]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }
    encoder.load_state_dict(mean)
    return MultiTaskNet(encoder, {task: deepcopy(net.decoder[task]) for net in nets for task in net.tasks})


def split(net: MultiTaskNet, tasks: Iterable[str]) -> MultiTaskNet:
    """A copy with these tasks' decoders alone; raises UnknownTask."""
    wanted = tuple(tasks)
    for task in wanted:
        if task not in net.decoder:
            raise UnknownTask(f"the network has no task {task!r}; it has {', '.join(net.tasks)}")
    return MultiTaskNet(deepcopy(net.encoder), {task: deepcopy(net.decoder[task]) for task in wanted})


def state(net: MultiTaskNet) -> dict[str, NDArray[Any]]:
    """Weights and buffers as arrays of their own (not views), by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in net.state_dict().items()}


def load(net: MultiTaskNet, weights: State) -> None:
    """Set all weights and buffers; raises WeightsRefused, and then changes nothing."""
    check(weights, layout(state(net)))
    net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})


def parameter_count(module: nn.Module) -> int:
    """How many numbers are trained in it."""
    return sum(parameter.numel() for parameter in module.parameters())


def normalises_over_batch(net: nn.Module) -> bool:
    """Whether an example's output depends, in training, on the others of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())  # noqa: SLF001 - torch has no public name for all of them
