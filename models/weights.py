"""A model's weights as files: named float arrays in safetensors, by part, checked before they are believed.

A state maps tensor names to numpy arrays. Names say the part: ``encoder.*`` is what all tasks share,
``decoder.TASK.*`` belongs to one task; buffers (running statistics) are named and travel like weights.
Files are written beside their place and renamed, so that a name never holds half a file, and equal
states give equal bytes, so that a SHA-256 names them. Reading maps the file and copies tensor by tensor.

Source of the format: https://github.com/huggingface/safetensors (8-byte header length, JSON header, data).
It does not train, average or send weights, and it never imports torch: the daemons use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mas_edge.models.tasks import WorkloadError
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

State: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Tensor name to array; float32, or an integer type where a buffer counts."""

Layout: TypeAlias = "Mapping[str, tuple[tuple[int, ...], str]]"
"""Tensor name to (shape, numpy dtype name): what a state has to look like."""

ENCODER = "encoder"
"""The part that all tasks share."""


class WeightsRefused(WorkloadError, ValueError):
    """Weights that are damaged or not those of the expected network; the text names file or tensor."""


def part(name: str) -> str:
    """The part that a tensor belongs to: ``encoder`` or ``decoder.TASK``; raises WeightsRefused."""
    match name.split("."):
        case ["encoder", _, *_]:
            return ENCODER
        case ["decoder", task, _, *_]:
            return f"decoder.{task}"
    raise WeightsRefused(f"tensor {name!r} is neither encoder.* nor decoder.TASK.*")


def parts(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Each part's tensor names, both sorted; raises WeightsRefused for a name of no part."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(part(name), []).append(name)
    return {key: tuple(found[key]) for key in sorted(found)}


def layout(state: State) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every tensor, for ``check``."""
    return {name: (tuple(array.shape), array.dtype.name) for name, array in state.items()}


def check(state: State, expected: Layout) -> None:
    """Nothing, if the state has exactly the expected tensors and finite values; else WeightsRefused.

    The error names the first tensor, in sorted order, that is missing, extra, of another shape or
    dtype, or holds NaN or infinity.
    """
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise WeightsRefused(f"tensor {name!r} is missing")
        if name not in expected:
            raise WeightsRefused(f"tensor {name!r} is not part of this network")
        array, (shape, dtype) = state[name], expected[name]
        if tuple(array.shape) != tuple(shape):
            raise WeightsRefused(f"tensor {name!r} has shape {tuple(array.shape)}, expected {tuple(shape)}")
        if array.dtype.name != dtype:
            raise WeightsRefused(f"tensor {name!r} is {array.dtype.name}, expected {dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsRefused(f"tensor {name!r} holds NaN or infinity")


def tasks_in(path: Path) -> tuple[str, ...]:
    """Names of the tasks whose decoders are in a file; raises WeightsRefused, OSError."""
    return tuple(key.removeprefix("decoder.") for key in parts(load(path)) if key != ENCODER)


def save(path: Path, state: State) -> None:
    """Write a state: the same state gives the same bytes; on disk when this returns."""
    write_atomic(path, to_bytes({name: np.asarray(state[name], order="C") for name in sorted(state)}))


def load(path: Path, tasks: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The state in a file: all of it, or the encoder and these tasks' decoders.

    Raises WeightsRefused if it is not safetensors or has no such decoder, OSError if not readable.
    """
    if tasks is None:
        return dict(_tensors(path))
    wanted = {ENCODER, *(f"decoder.{task}" for task in tasks)}
    state = {name: array for name, array in _tensors(path) if part(name) in wanted}
    if missing := wanted - parts(state).keys():
        raise WeightsRefused(f"{path}: no {', '.join(sorted(missing))}")
    return state


def carve(path: Path, tasks: Sequence[str], out: Path) -> None:
    """Write what a group starts from: the encoder and these tasks' decoders, out of a merged file.

    Raises WeightsRefused if a decoder is not in the file.
    """
    save(out, load(path, tasks))


def _tensors(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise WeightsRefused(f"{path}: not a whole safetensors file ({error})") from error
