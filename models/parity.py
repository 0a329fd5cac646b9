"""Whether an ONNX file computes what the network computes: both run on inputs that nobody trained on.

onnxruntime runs the file, opened as a device opens it, and torch the network, on the same batches; of each
output the largest and the mean absolute difference are kept, and the loss of either by ``models.losses``.
Inputs are real ones of clients that nobody trains on, spread evenly; every fifth only calibrates int8, so
that no file is judged by the examples that its ranges come from. Where no client's data are here, inputs
are noise, and the proof says so.

It converts nothing and refuses two things: outputs that are no finite numbers, of which nothing can be
proved, and a float32 file that is further off than ``TOLERANCE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch

from mas_edge.models import losses
from mas_edge.models.export import OPSET
from mas_edge.models.onnx_file import open_model
from mas_edge.models.proof import TOLERANCE, Proof, TaskProof
from mas_edge.models.tasks import Batch, DataRefused, ExportRefused, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Array, Dataset, Task, Workload

MOST_EXAMPLES = 640
"""Of the held-out ones; a fifth of them only calibrate."""

_CALIBRATES_EVERY = 5
_NOISE_EXAMPLES = 16
_BATCH = 16


class _Noise:
    """Inputs of zero mean and unit variance, without labels; the same each time."""

    labels: frozenset[str] = frozenset()

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self._inputs = rng.standard_normal((_NOISE_EXAMPLES, *shape), np.float32)

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        return Batch(self._inputs[index], {}, {})


@dataclass(frozen=True)
class Held:
    """Examples that nobody trained on; ``reason`` says why they are noise, if they are."""

    data: Dataset
    clients: tuple[str, ...] = ()
    reason: str = ""

    @property
    def proves(self) -> NDArray[np.int64]:
        """Positions of the examples that a file is judged by."""
        chosen = self._chosen()
        return chosen[np.arange(len(chosen)) % _CALIBRATES_EVERY > 0] if self.clients else chosen

    @property
    def calibration(self) -> Array | None:
        """Inputs (N, ...) of the others; None if none are real."""
        return self.data.batch(self._chosen()[::_CALIBRATES_EVERY]).inputs if self.clients else None

    def _chosen(self) -> NDArray[np.int64]:
        count = min(len(self.data), MOST_EXAMPLES)
        return np.linspace(0, len(self.data) - 1, count).astype(np.int64)


def held_out(workload: Workload, clients: Sequence[str], root: Path | None = None) -> Held:
    """All examples of these clients; of those that the workload names as unseen, if none are given.

    Raises DataRefused and UnknownChoice for clients that are given. Where nobody is unseen, or the data of
    those are not here, it is noise.
    """
    chosen, reason = tuple(clients) or workload.unseen, "nobody is held out"
    if chosen:
        try:
            data = workload.dataset(Source(chosen, root), "all", 0.0)
        except DataRefused as error:
            if clients:
                raise
            reason = str(error)
        else:
            if len(data) > 1:
                return Held(data, chosen)
            reason = f"{', '.join(chosen)}: too few examples"
    return Held(_Noise(workload.input_shape), reason=reason)


def prove(path: Path, net: MultiTaskNet, tasks: Sequence[Task], held: Held) -> Proof:
    """What the file computes beside the network of these tasks.

    Raises ExportRefused if it is float32 and computes something else, or if it or torch computes NaN or
    infinity; ModelRefused if devices would refuse it.
    """
    model, sums = open_model(path), {task.name: _Sums(task) for task in tasks}
    net.eval()
    for batch in _batches(held):
        with torch.inference_mode():
            wanted = net(torch.from_numpy(batch.inputs))
        labels = losses.examples(batch, tasks).labels
        for name, output in model.run(batch.inputs).items():
            given = torch.from_numpy(output)
            _finite(name, f"the {model.card.precision} file", given)
            _finite(name, "torch", wanted[name])
            sums[name].add(given, wanted[name], labels.get(name))
    calibration = held.calibration if model.card.precision == "int8" else None
    proof = Proof(
        digest=model.digest,
        size_bytes=model.size_bytes,
        precision=model.card.precision,
        opset=OPSET,
        inputs="held-out" if held.clients else "noise",
        examples=len(held.proves),
        tasks=tuple(each.proof() for each in sums.values()),
        versions={name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
        clients=held.clients,
        calibrated_on=0 if calibration is None else len(calibration),
        reason=held.reason,
    )
    _check(proof)
    return proof


def _finite(task: str, who: str, output: Tensor) -> None:
    """Before any maximum is taken: ``max(0.0, nan)`` is 0.0, an error that looks like none."""
    if not output.isfinite().all():
        raise ExportRefused(f"task {task}: {who} computes NaN or infinity on inputs that nobody trained on")


def _check(proof: Proof) -> None:
    worst = max(proof.tasks, key=lambda each: each.max_abs_error)
    if proof.precision == "fp32" and not worst.max_abs_error <= TOLERANCE:
        raise ExportRefused(
            f"task {worst.task}: the ONNX file is off from torch by {worst.max_abs_error:.2g},"
            f" and {TOLERANCE:g} is allowed"
        )


def _batches(held: Held) -> Iterator[Batch]:
    index = held.proves
    for start in range(0, len(index), _BATCH):
        yield held.data.batch(index[start : start + _BATCH])


class _Sums:
    """One task's sums over the batches so far."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._largest, self._error, self._elements = 0.0, 0.0, 0
        self._count, self._loss, self._torch_loss = 0.0, 0.0, 0.0

    def add(self, given: Tensor, wanted: Tensor, labels: losses.Labels | None) -> None:
        error = (given - wanted).abs()
        self._largest = max(self._largest, error.max().item())
        self._error += error.double().sum().item()
        self._elements += error.numel()
        if labels is not None:
            self._count += labels.count
            self._loss += losses.loss_sum(self._task, given, labels).item()
            self._torch_loss += losses.loss_sum(self._task, wanted, labels).item()

    def proof(self) -> TaskProof:
        return TaskProof(
            task=self._task.name,
            max_abs_error=self._largest,
            mean_abs_error=self._error / self._elements,
            loss=self._loss / self._count if self._count else None,
            torch_loss=self._torch_loss / self._count if self._count else None,
        )
