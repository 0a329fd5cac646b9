"""What is learnt, described without torch: tasks, workloads, and the data they are trained on.

A *task* is a name with a head's output shape, a loss and a metric. A *workload* is a set of tasks
on one kind of input, the networks that fit it and the data, written as ordinary Python and found by
entry point (group ``mas_edge.workloads``); ours come through the same door as anyone's. Both daemons
import this module, so neither it nor the module behind an entry point imports torch at import time:
``encoder`` and ``decoder`` do so when they are called. Ours leave numpy to later as well, which saves an
idle agent 12 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from torch import nn

GROUP = "mas_edge.workloads"
"""The entry point group in which workloads are found."""

View = Literal["train", "held-out", "all"]
"""Which examples of a client: those trained on, those held out, or both."""

Array: TypeAlias = "NDArray[Any]"

Loss = Literal["cross-entropy", "mse", "l1", "masked-l1", "shifted-masked-l1"]
"""How an output is judged while it is trained; ``models.losses`` says what each is."""

Metric = Literal["accuracy", "mae", "miou", "angular-error-deg"]
"""What a person asks about a task: share of right answers, mean absolute error, mean intersection over
union of the classes, mean angle between vectors in degrees."""


class WorkloadError(Exception):
    """Root of what can be wrong with a workload, its tasks or its data."""


class UnknownWorkload(WorkloadError, LookupError):
    """No workload of this name is installed."""


class UnknownTask(WorkloadError, LookupError):
    """The workload has no task of this name."""


class UnknownChoice(WorkloadError, LookupError):
    """The workload has no network, preset or client of this name."""


class DataRefused(WorkloadError, ValueError):
    """A data file that is missing, damaged or not what it should be; the text names it."""


class ExportRefused(WorkloadError, ValueError):
    """A network that does not become a file of the kind that was asked for; the text says why."""


@dataclass(frozen=True)
class Task:
    """One thing to learn from an input.

    ``shape`` is the shape of one example's output; for ``cross-entropy`` its first axis counts the
    classes, for ``angular-error-deg`` it has the vector's 3 components. Where a target is one of ``ignore``
    (classes), it is not valid, whatever the mask says. ``constant`` is the constant predictor (logits for
    classes) of that shape or broadcastable to it, fitted on the training clients and frozen with the
    workload.
    """

    name: str
    title: str
    loss: Loss
    metric: Metric
    shape: tuple[int, ...]
    constant: ArrayLike = field(compare=False)
    unit: str = ""
    default: bool = True
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Some examples: ``inputs`` (B, ...), a target (B, ...) per task, and which are valid.

    ``valid[task]`` is a boolean array that broadcasts against the target (without its class axis);
    a task that is missing there is valid everywhere, one that is missing in ``targets`` has no
    labels on this device.
    """

    inputs: Array
    targets: Mapping[str, Array]
    valid: Mapping[str, Array]


class Dataset(Protocol):
    """Examples by index. ``labels`` names the tasks that have labels here."""

    labels: frozenset[str]

    def __len__(self) -> int: ...

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The examples at these positions, normalised."""
        ...


@dataclass(frozen=True)
class Source:
    """Which data a device has: the root folder (None: what ships with the workload) and clients."""

    clients: tuple[str, ...]
    root: Path | None = None


@dataclass(frozen=True)
class Preset:
    """A named size of a job: everything that `mas demo --preset` fixes and an option may override.

    ``clients_per_agent`` None deals all clients that train to the agents. ``groups`` is how many a demo
    splits into: a number where it is to show a split, whether or not one pays for its energy at its size.
    """

    name: str
    network: str
    rounds: int
    merge_rounds: int
    epochs: int
    batch: int
    lr: float
    affinity_every: int
    held_out_share: float
    clients_per_agent: int | None = None
    groups: int | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Normalisation:
    """Of inputs, channel by channel: (stored - mean) / std, in the stored value's unit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Workload:
    """Tasks + networks + data, installed on a device as ordinary Python.

    ``encoder(network)`` and ``decoder(network, task)`` build modules with torch's current random
    state; an encoder has an attribute ``last_block`` (the parameters that ``gram`` looks at).
    ``dataset(source, view, held_out_share)`` raises DataRefused. ``definition`` is a text that says
    how labels and normalisation are made, and is part of the fingerprint. ``draw(task, inputs,
    target, axes)`` pictures one example on a matplotlib axes. ``normalisation`` is what ``dataset`` does to
    the inputs, None where it cannot be said so.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    networks: tuple[str, ...]
    clients: tuple[str, ...]
    unseen: tuple[str, ...]
    input_shape: tuple[int, ...]
    definition: str
    encoder: Callable[[str], nn.Module]
    decoder: Callable[[str, Task], nn.Module]
    dataset: Callable[[Source, View, float], Dataset]
    draw: Callable[[Task, Array, Array, Any], None]
    presets: tuple[Preset, ...] = ()
    normalisation: Normalisation | None = None

    def task(self, name: str) -> Task:
        """The task of this name; raises UnknownTask with the names there are."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise UnknownTask(
            f"workload {self.name!r} has no task {name!r}; it has {_listed(t.name for t in self.tasks)}"
        )

    def preset(self, name: str) -> Preset:
        """The preset of this name; raises UnknownChoice with the names there are."""
        for preset in self.presets:
            if preset.name == name:
                return preset
        raise UnknownChoice(
            f"workload {self.name!r} has no preset {name!r}; it has {_listed(p.name for p in self.presets)}"
        )

    def choose(self, names: Iterable[str] | None) -> tuple[Task, ...]:
        """The named tasks in the workload's order, or its default ones; raises UnknownTask."""
        if names is None:
            return tuple(task for task in self.tasks if task.default)
        wanted = {self.task(name).name for name in names}
        return tuple(task for task in self.tasks if task.name in wanted)


def installed() -> tuple[str, ...]:
    """Names of the workloads that are installed, sorted."""
    return tuple(sorted(entry.name for entry in entry_points(group=GROUP)))


def find(name: str) -> Workload:
    """The installed workload of this name; raises UnknownWorkload with the names there are.

    An entry point is a Workload, or a function without arguments that makes one and may raise DataRefused.
    """
    for entry in entry_points(group=GROUP, name=name):
        loaded = entry.load()
        workload = loaded() if callable(loaded) else loaded
        if not isinstance(workload, Workload):
            raise WorkloadError(f"entry point {GROUP}:{name} is {type(workload).__name__}, not a Workload")
        return workload
    raise UnknownWorkload(f"no workload {name!r} is installed; there are {_listed(installed())}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
