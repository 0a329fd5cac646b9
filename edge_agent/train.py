"""One round on one device: local epochs of SGD over a task group, cancellable, measured on the way.

The loss of a batch is the sum over its tasks of the mean loss of their valid examples; a batch that does
not fit is cut into micro-batches, each divided by the *whole* batch's count, so that cutting changes the
update by rounding only. The learning rate of round r of R is lr·(1 − r/R)^p, momentum starts at zero, and
all randomness comes from SHA-256 of (seed, job, group, round, device): the same assignment gives the same
bits on one machine type. Affinity is measured on every ρ-th batch counted over the whole job, and at least
once in a measured round; gram on the whole batch, however it is cut, lookahead on its first micro-batch. A
cut batch is loaded twice, first to count its labels, so that only one micro-batch is ever in memory.

Source: the method of MAS (arXiv 2307.11285) as its released code settles it. It reads no clock, disk or
network: phases, cancellation and progress are functions that the caller gives.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from mas_edge.models import affinity, loading, losses
from mas_edge.models.checkpoint import checkpointed
from mas_edge.models.evaluate import device_of
from mas_edge.models.net import normalises_over_batch, settle
from mas_edge.models.sgd import SGD
from mas_edge.profiling.cpu import keep_freed_memory
from mas_edge.wire.messages import Fit, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Dataset, Task
    from mas_edge.wire.messages import AffinitySums, Key, Training


class TrainingBroke(Exception):
    """Root of why a training ended without an update."""


class Cancelled(TrainingBroke):
    """The caller's ``stop`` said so."""


class Diverged(TrainingBroke, ArithmeticError):
    """A loss is not finite any more; the text names the task and the step."""


@dataclass(frozen=True)
class Trained:
    """What a round brought, besides the network's changed weights; by default nothing.

    ``examples`` went through the encoder (epochs counted); ``losses`` are sums of training losses.
    """

    examples: int = 0
    losses: tuple[Score, ...] = ()
    affinity: AffinitySums | None = None


def use_device(name: Literal["auto", "cpu", "cuda"], *, threads: int) -> torch.device:
    """Where to train, after setting this process to that many threads and to deterministic algorithms.

    From then on the process keeps the memory that it frees, until ``give_memory_back``.
    ``auto`` is a GPU if torch finds one. Raises TrainingBroke for ``cuda`` where there is none.
    """
    settle(threads)
    keep_freed_memory()
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise TrainingBroke("train device 'cuda': torch finds no GPU here; use 'auto' or 'cpu'")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def learning_rate(training: Training, round_index: int) -> float:
    """lr·(1 − r/R)^p for the 0-based round r of the whole job; a split does not restart it."""
    return training.lr * float((1 - round_index / training.rounds) ** training.lr_power)


def random_seed(training: Training, key: Key) -> int:
    """128 bits from (seed, job, group, round, device); the attempt is left out, so that a retry repeats."""
    text = "/".join(map(str, (training.seed, key.job, key.group, key.round, key.device)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def measured_batches(round_index: int, per_round: int, every: int) -> frozenset[int]:
    """Which of this round's batches are measured: every ρ-th of the job from its first, and at least one."""
    first = round_index * per_round
    due = frozenset(i for i in range(per_round) if (first + i) % every == 0)
    return due or frozenset({0})


def local_round(  # noqa: PLR0913 - one call, and all but two by name
    net: MultiTaskNet,
    dataset: Dataset,
    *,
    tasks: Sequence[Task],
    training: Training,
    key: Key,
    measure: bool,
    enter: Callable[[str], None],
    stop: Callable[[], bool],
    beat: Callable[[int, int], None],
    fit: Fit | None = None,
) -> Trained:
    """Train the network in place over all examples, ``training.epochs`` times.

    ``enter(phase)`` is called where a phase begins: load, forward, affinity, backward, step;
    ``stop()`` is asked before each micro-batch; ``beat(step, steps)`` follows each step. Raises Cancelled
    or Diverged; the network is then half trained and of no use. A batch without any label changes nothing.
    ``fit`` None is as the training says. Raises TrainingBroke, before anything is done, for micro-batches of
    a network with BatchNorm unless the training allows them.
    """
    fit = fit or Fit(micro_batch=training.micro_batch or training.batch)
    _refuse_micro_batches_of_statistics(net, training, fit.micro_batch)
    seed = random_seed(training, key)
    batches = list(_batches(len(dataset), training, np.random.default_rng(seed)))
    measured = measured_batches(key.round, len(batches), training.affinity_every) if measure else frozenset()
    loop = _Loop(net, dataset, tasks, training, key.round, enter, stop, fit.micro_batch)
    net.train()
    with torch.random.fork_rng(), checkpointed(net) if fit.checkpointing else nullcontext():
        torch.manual_seed(seed >> 65)
        loop.read_ahead(batches)
        for number, index in enumerate(batches):
            loop.batch(index, number=number, measured=number in measured)
            beat(number + 1, len(batches))
    return Trained(sum(map(len, batches)), loop.scores(), loop.tally.sums() if measure else None)


def cuts_statistics(net: nn.Module, training: Training, micro_batch: int) -> bool:
    """Whether these micro-batches change what is learnt, because the network normalises over the batch."""
    return micro_batch < training.batch and normalises_over_batch(net)


def _refuse_micro_batches_of_statistics(net: nn.Module, training: Training, micro_batch: int) -> None:
    if cuts_statistics(net, training, micro_batch) and not training.cut_statistics:
        raise TrainingBroke(
            f"network {training.network!r} normalises over the batch: micro-batches of {micro_batch} instead"
            f" of {training.batch} would change what is learnt; drop micro_batch or the network, or allow it"
            " with cut_statistics"
        )


def _batches(examples: int, training: Training, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    for _ in range(training.epochs):
        order = rng.permutation(examples)
        for start in range(0, examples, training.batch):
            yield order[start : start + training.batch]


class _Loop:
    """What lives from batch to batch of one round."""

    def __init__(
        self,
        net: MultiTaskNet,
        dataset: Dataset,
        tasks: Sequence[Task],
        training: Training,
        round_index: int,
        enter: Callable[[str], None],
        stop: Callable[[], bool],
        micro_batch: int,
    ) -> None:
        self._net, self._dataset, self._training = net, dataset, training
        self._enter, self._stop, self._size = enter, stop, micro_batch
        self._tasks = tasks
        self._labelled = [task for task in tasks if task.name in dataset.labels]
        self._lr = learning_rate(training, round_index)
        self._device = device_of(net)
        named = list(net.named_parameters())
        self._names = [name for name, _ in named]
        self._sgd = SGD(
            [p for _, p in named],
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            prox_mu=training.prox_mu,
        )
        self._sums = {task.name: np.zeros(2) for task in self._labelled}
        self._whole: Iterator[losses.Examples] = iter(())
        self.tally = affinity.Tally([task.name for task in tasks])

    def read_ahead(self, indices: Sequence[NDArray[np.int64]]) -> None:
        """The batches that will come; those that are not cut are read several at a time."""
        whole = (index for index in indices if len(index) <= self._size)
        self._whole = loading.batches(self._dataset, self._labelled, self._device, whole)

    def batch(self, index: NDArray[np.int64], *, number: int, measured: bool) -> None:
        """One step on these examples."""
        self._enter("load")
        parts = [index[at : at + self._size] for at in range(0, len(index), self._size)]
        first = self._examples(parts[0]) if parts[1:] else next(self._whole)
        counts = self._counts(first, parts[1:])
        gram = self._gram() if measured else None
        for position, part in enumerate(parts):
            if self._stop():
                raise Cancelled(f"before batch {number + 1}")
            if position:
                self._enter("load")
            given = self._examples(part) if position else first
            self._micro_batch(given, counts, number=number, gram=gram, look=measured and position == 0)
        if gram:
            self.tally.add(gram.measured())
        self._enter("step")
        self._scale_encoder()
        self._sgd.step(self._lr)

    def _counts(self, first: losses.Examples, others: Sequence[NDArray[np.int64]]) -> dict[str, float]:
        """Valid examples of each task in the whole batch."""
        counts = {task.name: first.labels[task.name].count for task in self._labelled}
        for part in others:
            given = self._examples(part)
            for name in counts:
                counts[name] += given.labels[name].count
        return counts

    def _examples(self, index: NDArray[np.int64]) -> losses.Examples:
        return losses.examples(self._dataset.batch(index), self._labelled, self._device)

    def _gram(self) -> affinity.Gram | None:
        match self._training.affinity:
            case "gram":
                return affinity.Gram(self._net.last_block, self._tasks)
            case "gram-full":
                return affinity.Gram(self._net.encoder, self._tasks)
        return None

    def _micro_batch(
        self,
        given: losses.Examples,
        counts: dict[str, float],
        *,
        number: int,
        gram: affinity.Gram | None,
        look: bool,
    ) -> None:
        self._enter("forward")
        rng_state = torch.get_rng_state() if look else None
        tasks = [task for task in self._labelled if counts[task.name]]
        outputs = self._net(given.inputs, [task.name for task in tasks])
        sums = [losses.loss_sum(task, outputs[task.name], given.labels[task.name]) for task in tasks]
        self._count(tasks, sums, given, number)
        if gram:
            self._enter("affinity")
            gram.add(given, outputs, counts)
        elif rng_state is not None:
            self._enter("affinity")
            moment = self._moment(rng_state)
            method = self._training.affinity
            self.tally.add(affinity.measure(method, self._net, given, outputs, self._tasks, moment))
        if sums:
            self._enter("backward")
            terms = [loss / counts[task.name] for task, loss in zip(tasks, sums, strict=True)]
            torch.autograd.backward(torch.stack(terms).sum())

    def _count(
        self, tasks: Sequence[Task], sums: Sequence[Tensor], given: losses.Examples, number: int
    ) -> None:
        for task, loss in zip(tasks, sums, strict=True):
            value = loss.item()
            if not np.isfinite(value):
                raise Diverged(
                    f"the loss of task {task.name!r} is {value} in batch {number + 1}; lower the lr"
                )
            self._sums[task.name] += given.labels[task.name].count, value

    def _scale_encoder(self) -> None:
        if self._training.encoder_gradient_scale == "rsqrt-tasks":
            for parameter in self._net.encoder.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(len(self._tasks) ** -0.5)

    def _moment(self, rng_state: Tensor) -> affinity.Moment:
        velocity = {
            name.removeprefix("encoder."): self._sgd.velocity[position]
            for position, name in enumerate(self._names)
            if name.startswith("encoder.") and position in self._sgd.velocity
        }
        training = self._training
        return affinity.Moment(self._lr, training.weight_decay, training.momentum, velocity, rng_state)

    def scores(self) -> tuple[Score, ...]:
        """Training losses, summed over the round."""
        return tuple(
            Score(task=name, count=float(count), loss_sum=float(loss))
            for name, (count, loss) in self._sums.items()
        )
