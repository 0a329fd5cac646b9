"""What is known of an exported ONNX file: that it computes what the network computes, and how well.

Plain values, read by the orchestrator and written beside each file as ``GROUP.parity.json``;
``models.parity`` makes them. Errors are absolute differences to torch's float32 outputs over all elements of
all examples; losses are means over the same examples by ``models.losses``, of the file and of torch. Imports
no torch.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from mas_edge.wire.messages import Precision

TOLERANCE = 1e-4
"""The largest absolute error against torch that a float32 file may have."""


class TaskProof(msgspec.Struct, frozen=True, kw_only=True):
    """One output beside torch's. Losses are None where no example has a label."""

    task: str
    max_abs_error: float
    mean_abs_error: float
    loss: float | None = None
    torch_loss: float | None = None


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What an ONNX file with this SHA-256 computes, on inputs that nobody trained on.

    ``inputs``: ``held-out`` are real ones of ``clients``, ``noise`` is drawn, of zero mean and unit variance,
    because of ``reason``: there were none. ``calibrated_on`` counts further examples, not among ``examples``,
    by which the ranges of int8 were chosen. ``versions`` are those of the libraries.
    """

    digest: str
    size_bytes: int
    precision: Precision
    opset: int
    inputs: Literal["held-out", "noise"]
    examples: int
    tasks: tuple[TaskProof, ...]
    versions: dict[str, str]
    clients: tuple[str, ...] = ()
    calibrated_on: int = 0
    reason: str = ""

    @property
    def max_abs_error(self) -> float:
        """The largest of all tasks."""
        return max(each.max_abs_error for each in self.tasks)

    @property
    def loss(self) -> float | None:
        """Sum of the tasks' losses by the file; None if one is unknown."""
        return _total([each.loss for each in self.tasks])

    @property
    def torch_loss(self) -> float | None:
        """The same by torch."""
        return _total([each.torch_loss for each in self.tasks])


def _total(losses: list[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) if len(known) == len(losses) else None
