"""Averages the devices' updates into the next weights, a block at a time, whatever their number.

Encoder tensors are weighted by the examples that a device trained on, those of a decoder by the
examples that had its label; buffers count like weights. Every tensor is summed in float64, device by
device in the order of their names, so that neither the order of arrival nor the block size shows in
the bits. The result has the base's header, byte for byte, and appears under its name only when it is
whole and on disk. Files are read in blocks rather than mapped: mapped pages count against a memory
cap, and a mapped file that is cut short kills the process instead of raising an error.

Source: FedAvg (arXiv 1602.05629) applied to each part, as in MAS (ICCV 2023). Who contributes, and
with which weight, is decided by the caller; nothing here defends against poisoned finite values.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from mas_edge.models.weights import ENCODER, part
from mas_edge.wire.host import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO

    from numpy.typing import NDArray

BLOCK = 1 << 16
"""Numbers that are worked on at a time: float64 sums of this many stay in the cache."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
"""What can be averaged. The mean of integers is rounded to the nearest, ties to even."""


class UpdateRefused(ValueError):
    """An update that must not count; ``device`` and ``tensor`` say which and where, if known."""

    def __init__(self, reason: str, *, device: str = "", tensor: str = "") -> None:
        self.reason, self.device, self.tensor = reason, device, tensor
        who = f"update of {device}" if device else "weights"
        super().__init__(f"{who}: tensor {tensor!r}: {reason}" if tensor else f"{who}: {reason}")


@dataclass(frozen=True)
class Contribution:
    """A device's update: a safetensors file, and its weight in the encoder and in each decoder."""

    device: str
    path: Path
    encoder_weight: float
    decoder_weights: Mapping[str, float]


@dataclass(frozen=True)
class Merged:
    """What a merge did; ``kept`` names the parts that nobody trained, which are as in the base."""

    devices: tuple[str, ...]
    kept: tuple[str, ...]
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * DTYPES[self.dtype].itemsize

    def blocks(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.count, BLOCK):
            yield first, min(BLOCK, self.count - first)


@dataclass(frozen=True)
class _Source:
    """A tensor as one device has it, and the device's share in the mean."""

    device: str
    path: Path
    tensor: _Tensor
    share: float


def merge(updates: Sequence[Contribution], out: Path, *, base: Path) -> Merged:
    """Writes the weighted mean of the updates to ``out`` and says what was read, written and kept.

    ``base`` is what the updates were trained from. Raises UpdateRefused, and leaves ``out`` as it
    was, if there are no updates, a device comes twice, a weight is not from 0 to 2**53, or a tensor
    that counts is missing, extra, of another shape or dtype, or not finite. Integers beyond 2**53
    lose their last digits.
    """
    ordered = sorted(updates, key=lambda update: update.device)
    _check_weights(ordered)
    layout = _layout(base)
    layouts = {update.device: _expect(update.path, layout, update.device) for update in ordered}
    plan = [(tensor, _sources(ordered, layouts, name)) for name, tensor in layout.items()]
    with _appearing(out) as file:
        file.write(_header(base))
        for tensor, sources in plan:
            _write_mean(file, tensor, sources or [_Source("", base, tensor, 1.0)])
    return Merged(
        devices=tuple(update.device for update in ordered),
        kept=tuple(sorted({part(tensor.name) for tensor, sources in plan if not sources})),
        read_bytes=sum(max(1, len(sources)) * tensor.nbytes for tensor, sources in plan),
        written_bytes=out.stat().st_size,
    )


def screen(path: Path, base: Path, *, device: str = "") -> float:
    """How far the file's weights are from the base (Euclidean norm), if they could be merged into it.

    Else UpdateRefused says what is wrong. Integers do not count: they are no weights. Both files are read
    once, block by block.
    """
    layout = _layout(base)
    found = _expect(path, layout, device)
    squares = [_squared_distance(path, found[name], base, layout[name], device) for name in layout]
    distance = math.sqrt(math.fsum(squares))
    if not math.isfinite(distance):
        raise UpdateRefused("is infinitely far from what it was trained from", device=device)
    return distance


# --- what is in a file ----------------------------------------------------------------------------


def _layout(path: Path, device: str = "") -> dict[str, _Tensor]:
    """The tensors of a file in the order of their bytes; safetensors itself judges the header."""
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            shapes = {name: (it.get_dtype(), tuple(it.get_shape())) for name, it in slices.items()}
    except SafetensorError as error:
        raise UpdateRefused(f"{path.name} is not a whole safetensors file: {error}", device=device) from error
    tensors, offset = {}, len(_header(path))
    for name, (dtype, shape) in shapes.items():
        if dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise UpdateRefused(f"{dtype} cannot be averaged; use {known}", device=device, tensor=name)
        tensors[name] = _Tensor(name, dtype, shape, offset)
        offset += tensors[name].nbytes
    return tensors


def _header(path: Path) -> bytes:
    """The header with the eight bytes of its length before it."""
    with path.open("rb") as file:
        size = file.read(8)
        return size + file.read(int.from_bytes(size, "little"))


def _expect(path: Path, layout: Mapping[str, _Tensor], device: str) -> dict[str, _Tensor]:
    """The file's tensors, which must be those of the layout in any order; else UpdateRefused."""
    found = _layout(path, device)
    for name in sorted(layout.keys() | found.keys()):
        if name not in found or name not in layout:
            reason = "is missing" if name in layout else "is not part of the network"
            raise UpdateRefused(reason, device=device, tensor=name)
        got, wanted = found[name], layout[name]
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            reason = f"is {got.dtype}{list(got.shape)}, not {wanted.dtype}{list(wanted.shape)}"
            raise UpdateRefused(reason, device=device, tensor=name)
    return found


def _require_finite(path: Path, tensor: _Tensor, device: str) -> None:
    block = np.empty(BLOCK, DTYPES[tensor.dtype])
    for first, count in tensor.blocks():
        _read(path, tensor, first, block[:count], device)
        if not np.isfinite(block[:count]).all():
            raise UpdateRefused("holds NaN or infinity", device=device, tensor=tensor.name)


def _squared_distance(path: Path, tensor: _Tensor, base: Path, before: _Tensor, device: str) -> float:
    """Of a tensor from the base's, of the same dtype and shape; raises UpdateRefused if not finite.

    Squares are added within a block in the tensor's own precision, in float32 at least: to four digits, and
    infinite from distances of 1e19 on.
    """
    dtype = DTYPES[tensor.dtype]
    block, old = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
    apart = np.empty(BLOCK, np.result_type(dtype, np.float32))
    total = 0.0
    for first, count in tensor.blocks():
        _read(path, tensor, first, block[:count], device)
        if not np.isfinite(block[:count]).all():
            raise UpdateRefused("holds NaN or infinity", device=device, tensor=tensor.name)
        if dtype.kind == "f":
            _read(base, before, first, old[:count], "")
            with np.errstate(over="ignore"):
                np.subtract(block[:count], old[:count], out=apart[:count], dtype=apart.dtype)
                total += float(np.einsum("i,i->", apart[:count], apart[:count]))
    return total


def _read(path: Path, tensor: _Tensor, first: int, into: NDArray[Any], device: str) -> None:
    """Fills an array from the tensor's entries ``first``, ``first + 1``, ..."""
    # opened each time, so that a thousand devices do not need a thousand descriptors
    with path.open("rb", buffering=0) as file:
        file.seek(tensor.offset + first * into.itemsize)
        if file.readinto(into.data) != into.nbytes:
            raise UpdateRefused(f"{path.name} was cut short while it was read", device=device)


# --- the mean -------------------------------------------------------------------------------------


def _check_weights(updates: Sequence[Contribution]) -> None:
    if not updates:
        raise UpdateRefused("there are none to merge")
    device, times = Counter(update.device for update in updates).most_common(1)[0]
    if times > 1:
        raise UpdateRefused(f"came {times} times", device=device)
    for update in updates:
        for name, weight in (("encoder", update.encoder_weight), *update.decoder_weights.items()):
            if not 0 <= weight <= 2**53:
                raise UpdateRefused(f"weight {weight} of {name} is not from 0 to 2**53", device=update.device)


def _sources(
    updates: Sequence[Contribution], layouts: Mapping[str, Mapping[str, _Tensor]], name: str
) -> list[_Source]:
    """Who counts in a tensor, with shares that sum to 1; empty if nobody does."""
    of = part(name)
    task = of.removeprefix("decoder.")
    weights = [u.encoder_weight if of == ENCODER else u.decoder_weights.get(task, 0.0) for u in updates]
    total = math.fsum(weights)
    return [
        _Source(u.device, u.path, layouts[u.device][name], weight / total)
        for u, weight in zip(updates, weights, strict=True)
        if weight
    ]


def _write_mean(file: BinaryIO, tensor: _Tensor, sources: Sequence[_Source]) -> None:
    dtype = DTYPES[tensor.dtype]
    block, term = np.empty(BLOCK, dtype), np.empty(BLOCK)
    for first, count in tensor.blocks():
        total = np.zeros(count)
        for source in sources:
            _read(source.path, source.tensor, first, block[:count], source.device)
            total += np.multiply(block[:count], source.share, out=term[:count], dtype=np.float64)
        if not np.isfinite(total).all():
            for source in sources:
                _require_finite(source.path, source.tensor, source.device)
        file.write((np.rint(total) if dtype.kind == "i" else total).astype(dtype).data)


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name only when it is whole and on disk, and leaves nothing otherwise."""
    unnamed = path.with_name(f".{path.name}.part")
    try:
        with unnamed.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unnamed.replace(path)
    finally:
        unnamed.unlink(missing_ok=True)
    sync_folder(path.parent)
