"""What a set of buildings is like: normalisation, constant predictors, and how much buildings differ.

Means, deviations and best constants are measured over the valid pixels of the *training* buildings, once per
published set; they are frozen in the workload as numbers, and a test compares them. How far clients are from
having the same data is told by the Jensen-Shannon divergence of their shares of object classes, between
buildings and, for what chance alone does, between halves of one.

It reads records and changes nothing.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.workloads.buildings.dataset import stored
from mas_edge.models.workloads.description import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array
    from mas_edge.models.workloads.description import Description, Label

    Records = NDArray[np.void]

FIRST_OBJECT = 2
"""Class ids below are no objects: 0 uncertain, 1 background."""


def fit(described: Description, buildings: Sequence[Records]) -> dict[str, dict[str, list[float]]]:
    """Per task, the values that ``description.Label`` wants: mean, std and constant.

    A mean and deviation that the description fixes at 0 to 1 (classes) or by the label's range (normals,
    pictures) are left as they are.
    """
    parts = [stored(views) for views in buildings]
    mask = described.mask or Mask(domain=described.input.domain)
    valid = np.concatenate([mask.valid(part[mask.domain]).all(-1) for part in parts])
    fitted = {}
    for name, label in described.tasks.items():
        values = np.concatenate([part[name] for part in parts])
        values = values[valid] if label.masked else values.reshape(-1, values.shape[-1])
        fitted[name] = (
            _log_shares(values, label) if label.kind == "classes" else _numbers(name, values, label)
        )
    return fitted


def class_shares(views: Records, classes: int) -> NDArray[np.float64]:
    """Share of each class among the pixels that have one, (classes,); 0 for the class 0."""
    counts = np.bincount(views["segment_semantic"].ravel(), minlength=classes).astype(np.float64)
    counts[0] = 0
    shares: NDArray[np.float64] = counts / max(counts.sum(), 1)
    return shares


def divergence_bit(one: Array, other: Array) -> float:
    """Jensen-Shannon divergence of two distributions, in [0, 1] bit."""
    middle = (one + other) / 2
    return (_relative_entropy_bit(one, middle) + _relative_entropy_bit(other, middle)) / 2


def divergences_bit(buildings: Sequence[Records], classes: int) -> tuple[float, float]:
    """Mean divergence of the object mix between buildings, and between the halves (odd, even) of one."""
    mixes = [_objects(views, classes) for views in buildings]
    between = [divergence_bit(one, other) for one, other in combinations(mixes, 2)]
    within = [divergence_bit(_objects(v[::2], classes), _objects(v[1::2], classes)) for v in buildings]
    return float(np.mean(between)), float(np.mean(within))


def _objects(views: Records, classes: int) -> Array:
    shares = class_shares(views, classes)[FIRST_OBJECT:]
    mix: Array = shares / max(shares.sum(), 1e-12)
    return mix


def _relative_entropy_bit(of: Array, to: Array) -> float:
    there = of > 0
    return float((of[there] * np.log2(of[there] / to[there])).sum())


def _log_shares(values: Array, label: Label) -> dict[str, list[float]]:
    """Log shares of the classes; one that never occurs is given half a pixel."""
    counts = np.bincount(values.ravel(), minlength=label.channels).astype(np.float64)
    counts[list(label.ignore)] = 0
    return {"constant": np.log(np.maximum(counts, 0.5) / counts.sum()).round(4).tolist()}


def _numbers(name: str, values: Array, label: Label) -> dict[str, list[float]]:
    """Mean and deviation, and the median as a target: no constant has a smaller absolute error."""
    fixed = label.kind == "normals" or name == "rgb"
    mean, std = (np.array(label.mean), np.array(label.std)) if fixed else (values.mean(0), values.std(0))
    mean, std = np.round(mean, 4), np.round(std, 4)
    median = (np.median(values, 0) - mean) / std
    measured = {} if fixed else {"mean": mean.tolist(), "std": std.tolist()}
    return measured | {"constant": np.round(median, 4).tolist()}
