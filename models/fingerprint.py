"""What a workload computes, in 64 hex digits: equal on every machine that has the same workload.

Weights of equal shapes do not make equal workloads: a label or a normalisation may have changed. So the
SHA-256 is taken over the workload's definition text, its tasks (shape, loss, metric, constant predictor),
every tensor's name and shape, and what the network computes: each task's mean output on a fixed input
under fixed weights. Those are drawn from SHA-256, not from a random generator that a version may change.

Outputs differ between machines in the last bits (other kernels, other order of sums), about 1e-6 of their
size; they are rounded to 0.01, so that a value would have to lie that near to a rounding edge to differ.
A workload whose values do is refused where it should not be; ``margin`` says how far they are, and a test
holds ours away from the edges. Labels are represented by ``definition``: who changes how they are made
changes that text (for the shipped workload a test pins them).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from mas_edge.models.net import build

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Workload

_STEP = 0.01
_EXAMPLES = 4


def fingerprint(workload: Workload, network: str) -> str:
    """SHA-256, in hex, of what this workload means and computes with this network (about 10 ms)."""
    net = build(workload, network, [task.name for task in workload.tasks], seed=0)
    sha = hashlib.sha256()
    lines = [workload.name, network, workload.definition, str(workload.input_shape)]
    for task in workload.tasks:
        constant = np.asarray(task.constant, "<f4")
        lines += [
            f"{task.name} {task.shape} {task.loss} {task.metric} {task.ignore} {constant.shape}",
            constant.tobytes().hex(),
        ]
    lines += [f"{name} {tuple(tensor.shape)}" for name, tensor in net.state_dict().items()]
    lines += [str(int(level)) for level in np.round(_levels(workload, net))]
    for line in lines:
        sha.update(line.encode() + b"\0")
    return sha.hexdigest()


def margin(workload: Workload, network: str) -> float:
    """How far the outputs' nearest value is from a rounding edge, in units of output (at most 0.005)."""
    net = build(workload, network, [task.name for task in workload.tasks], seed=0)
    levels = _levels(workload, net)
    return float((0.5 - np.abs(levels - np.round(levels))).min() * _STEP)


def _levels(workload: Workload, net: MultiTaskNet) -> NDArray[np.float64]:
    """Each task's mean output on the fixed input, in steps of 0.01, not rounded yet."""
    inputs = torch.from_numpy(_numbers("input", (_EXAMPLES, *workload.input_shape)))
    with torch.inference_mode():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                fan_in = max(1, tensor[0].numel() if tensor.dim() > 1 else 1)
                tensor.copy_(torch.from_numpy(_numbers(name, tuple(tensor.shape))).abs() / fan_in)
        outputs = net.eval()(inputs)
    return np.array([output.double().mean().item() for output in outputs.values()]) / _STEP


def _numbers(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Numbers in [-1, 1), the same everywhere and for ever: SHA-256 in counter mode."""
    count = int(np.prod(shape, dtype=np.int64))
    blocks = (hashlib.sha256(f"{name}/{block}".encode()).digest() for block in range(-(-count // 16)))
    words = np.frombuffer(b"".join(blocks), "<u2")[:count]
    return (words.astype(np.float32) / np.float32(32768) - np.float32(1)).reshape(shape)
