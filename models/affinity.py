"""How one task's step on the shared encoder changes another task's loss: affinity, measured while training.

On a measured batch X, Z[i, j] > 0 says that a step of task i helps task j. ``lookahead`` tries it::

    θ_{s|i} = θ_s − η (∇L_i + wd·θ_s)          momentum:  θ_s − η (μ·v + ∇L_i + wd·θ_s)
    Z[i, j] = [ 1 − L_j(X; θ_{s|i}, θ_j) / L_j(X; θ_s, θ_j) ] / η

``gram`` is its first-order Taylor term, ⟨g_i, g_j⟩ / L_j with g the tasks' gradients on the encoder's last
block (``gram-full``: on all of it); it needs no further forward pass. Measuring is an observer: it runs on
the training step's own graph between forward and backward, and leaves weights, buffers, gradients, random
state and momentum bit for bit as they were. Of a batch that is cut into micro-batches the gram is that of the
whole batch, up to rounding (``Gram``); lookahead would need every part twice and is that of the part it is
given, which weighs less and is noisier. Harmful (negative) values count like any other; where a loss
is zero or not finite, or labels are missing, the entry is missing for that batch.

Source: TAG (Fifty et al. 2021, arXiv 2109.04617) eq. 1 for the lookahead, used by MAS (arXiv 2307.11285).
It does not pool devices or decide a split; that is the orchestrator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from mas_edge.models import losses
from mas_edge.wire.messages import AffinitySums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Task

Method: TypeAlias = Literal["gram", "gram-full", "lookahead", "lookahead-momentum"]
Matrix: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Moment:
    """The optimiser and the random state just before a training step's forward pass.

    ``velocity`` maps the encoder's parameter names to momentum buffers; a missing one is zero.
    """

    lr: float
    weight_decay: float
    momentum: float
    velocity: Mapping[str, Tensor]
    rng_state: Tensor


@dataclass(frozen=True)
class Measured:
    """One batch's affinities between n tasks.

    ``z`` (n, n): row i's step on column j's loss, NaN where missing. ``w`` (n, n): how many examples are
    valid for both, 0 where missing.
    """

    z: Matrix
    w: Matrix


def measure(
    method: Method,
    net: MultiTaskNet,
    given: losses.Examples,
    outputs: Mapping[str, Tensor],
    tasks: Sequence[Task],
    moment: Moment,
) -> Measured:
    """The affinities on a batch whose ``outputs`` were just computed by ``net`` in training mode.

    The graph behind the outputs stays usable: the caller runs its backward pass afterwards.
    """
    able = [task for task in tasks if task.name in given.labels and given.labels[task.name].count]
    if method in ("gram", "gram-full"):
        gram = Gram(net.last_block if method == "gram" else net.encoder, tasks)
        gram.add(given, outputs, {task.name: given.labels[task.name].count for task in able})
        return gram.measured()
    mean = {task.name: _mean_loss(task, outputs[task.name], given) for task in able}
    gradients = _gradients(net.encoder, mean)
    if method == "lookahead":
        moment = Moment(moment.lr, moment.weight_decay, 0.0, {}, moment.rng_state)
    found = _lookahead(net, given, able, gradients, mean, moment)
    return _placed(found, {task.name: given.labels[task.name].valid for task in able}, tasks)


class Gram:
    """``gram`` of a batch that comes in parts: gradients and losses add up to those of the whole batch."""

    def __init__(self, module: torch.nn.Module, tasks: Sequence[Task]) -> None:
        self._module, self._tasks = module, tasks
        self._gradient: dict[str, Tensor] = {}
        self._loss: dict[str, float] = {}
        self._valid: dict[str, list[NDArray[np.bool_]]] = {}

    def add(self, given: losses.Examples, outputs: Mapping[str, Tensor], counts: Mapping[str, float]) -> None:
        """A part with its outputs; ``counts`` are the whole batch's valid examples of each task that has any.

        The graph behind the outputs stays usable.
        """
        able = [task for task in self._tasks if counts.get(task.name)]
        part = {
            task.name: losses.loss_sum(task, outputs[task.name], given.labels[task.name]) / counts[task.name]
            for task in able
        }
        for name, row in zip(part, _gradients(self._module, part), strict=True):
            flat = torch.cat([gradient.flatten() for gradient in row])
            self._gradient[name] = self._gradient[name] + flat if name in self._gradient else flat
            self._loss[name] = self._loss.get(name, 0.0) + part[name].item()
            self._valid.setdefault(name, []).append(given.labels[name].valid)

    def measured(self) -> Measured:
        """The affinities of what was added."""
        found: Matrix = np.zeros((0, 0))
        if self._gradient:
            flat = torch.stack(list(self._gradient.values()))
            found = _over((flat @ flat.T).cpu().double().numpy(), np.array(list(self._loss.values())))
        valid = {name: np.concatenate(parts) for name, parts in self._valid.items()}
        return _placed(found, valid, self._tasks)


def _mean_loss(task: Task, output: Tensor, given: losses.Examples) -> Tensor:
    labels = given.labels[task.name]
    return losses.loss_sum(task, output, labels) / labels.count


def _gradients(module: torch.nn.Module, mean: Mapping[str, Tensor]) -> list[tuple[Tensor, ...]]:
    """Per task, the gradient of its mean loss on each of the module's parameters."""
    parameters = tuple(module.parameters())
    return [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in mean.values()
    ]


def _lookahead(
    net: MultiTaskNet,
    given: losses.Examples,
    tasks: Sequence[Task],
    gradients: Sequence[tuple[Tensor, ...]],
    mean: Mapping[str, Tensor],
    moment: Moment,
) -> Matrix:
    base = np.array([loss.item() for loss in mean.values()])
    rows = [_after_step(net, given, tasks, gradient, moment) for gradient in gradients]
    with np.errstate(invalid="ignore"):  # inf - inf: the entry will be missing
        lowered = base - np.array(rows).reshape(len(base), len(base))
    return _over(lowered, base) / moment.lr


def _after_step(
    net: MultiTaskNet,
    given: losses.Examples,
    tasks: Sequence[Task],
    gradient: Sequence[Tensor],
    moment: Moment,
) -> list[float]:
    """Every task's loss on the same batch after one task's step of the encoder; nothing else changes."""
    stepped = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.random.fork_rng(devices=()), torch.no_grad():
        for (name, weight), g in zip(net.encoder.named_parameters(), gradient, strict=True):
            direction = g + moment.weight_decay * weight
            if name in moment.velocity:
                direction = direction + moment.momentum * moment.velocity[name]
            stepped[f"encoder.{name}"] = weight - moment.lr * direction
        torch.set_rng_state(moment.rng_state)
        outputs = functional_call(net, stepped, (given.inputs, [task.name for task in tasks]))
        return [_mean_loss(task, outputs[task.name], given).item() for task in tasks]


def _over(numerator: Matrix, base: Matrix) -> Matrix:
    """Each column over its task's loss; NaN where that is zero or either is not finite."""
    usable = np.isfinite(base) & (base > 0)
    quotient = np.divide(numerator, base, where=usable[None, :], out=np.full(numerator.shape, np.nan))
    return np.where(np.isfinite(quotient), quotient, np.nan)


def _placed(found: Matrix, valid: Mapping[str, NDArray[np.bool_]], tasks: Sequence[Task]) -> Measured:
    """The matrix over the tasks with valid labels, put into one over all, with the weight of every entry."""
    z = np.full((len(tasks), len(tasks)), np.nan)
    w = np.zeros_like(z)
    at = np.array([index for index, task in enumerate(tasks) if task.name in valid], dtype=np.intp)
    z[np.ix_(at, at)] = found
    if len(at):
        of = np.array([valid[tasks[index].name] for index in at], dtype=np.float64)
        w[np.ix_(at, at)] = of @ of.T
    z[w == 0] = np.nan
    w[np.isnan(z)] = 0
    return Measured(z, w)


class Tally:
    """Measured batches of one training, as sums that pool with those of other devices and rounds."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tuple(tasks)
        self._sums = np.zeros((5, len(self._tasks), len(self._tasks)))

    def add(self, measured: Measured) -> None:
        """Count one batch; its missing entries are not counted."""
        w, z = measured.w, np.where(measured.w > 0, measured.z, 0.0)
        self._sums += np.stack([w > 0, w, w * w, w * z, w * z * z])

    def sums(self) -> AffinitySums:
        """What was counted so far, row-major."""
        batches, *rest = (tuple(row.ravel().tolist()) for row in self._sums)
        w, ww, wz, wzz = rest
        return AffinitySums(
            tasks=self._tasks, batches=tuple(int(b) for b in batches), w=w, ww=ww, wz=wz, wzz=wzz
        )
