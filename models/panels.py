"""What a network makes of one input, as a picture that one can look at: a tile for the input, one per task.

Drawn with Pillow alone, so that a board needs no matplotlib (a workload's own ``draw`` wants it, and knows
more). The shape of an output says how: maps of classes in colours, maps of numbers in grey or in colour,
stretched between their 1st and 99th percentile, vectors between -1 and 1 as colours; signals as curves, few
numbers as bars from zero, scores of classes as bars of their probabilities, the likeliest one named by its
number.

It computes nothing new and reads no file; units and axes are not written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mas_edge.models.tasks import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mas_edge.models.tasks import Array, Normalisation, Task

_SIDE, _TITLE, _GAP = 192, 16, 8
_INK, _PAPER, _FRAME = (40, 40, 40), (255, 255, 255), (200, 200, 200)

PALETTE = np.array(
    [
        (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
        (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
        (174, 199, 232), (255, 187, 120), (152, 223, 138), (255, 152, 150), (197, 176, 213),
        (196, 156, 148), (247, 182, 210), (199, 199, 199), (219, 219, 141), (158, 218, 229),
    ],
    np.uint8,
)  # fmt: skip
"""matplotlib's tab20, its dark colours first: what ``mas data show`` draws classes with."""

_MOST_BARS = 16
"""More numbers than this are a curve."""


class NoPillow(WorkloadError, LookupError):
    """Pillow is not installed."""


def pillow(module: str = "Image") -> Any:
    """Pillow's module of this name; raises NoPillow."""
    try:
        import PIL  # noqa: PLC0415 - an extra
        from PIL import Image, ImageDraw, ImageOps  # noqa: PLC0415
    except ImportError as error:
        raise NoPillow("pictures need Pillow: pip install 'mas-edge[infer]'") from error
    del PIL
    return {"Image": Image, "ImageDraw": ImageDraw, "ImageOps": ImageOps}[module]


def panel(
    inputs: Array, outputs: Mapping[str, Array], tasks: Sequence[Task], normalisation: Normalisation | None
) -> Any:
    """One input (C, ...) beside its outputs (one example's, by task), as a Pillow image.

    ``tasks`` are those that are known here; an output of any other is drawn by its shape alone.
    """
    known = {task.name: task for task in tasks}
    tiles = [_tile("input", _input(inputs, normalisation))]
    tiles += [_tile(name, _output(values, known.get(name))) for name, values in outputs.items()]
    width, height = _SIDE + _GAP, _SIDE + _TITLE + _GAP
    columns = min(len(tiles), 5)
    rows = -(-len(tiles) // columns)
    whole = pillow().new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    for place, tile in enumerate(tiles):
        whole.paste(tile, (_GAP + place % columns * width, _GAP + place // columns * height))
    return whole


def _tile(title: str, body: Any) -> Any:
    tile = pillow().new("RGB", (_SIDE, _SIDE + _TITLE), _PAPER)
    pillow("ImageDraw").Draw(tile).text((0, 0), title[:30], fill=_INK)
    tile.paste(body, (0, _TITLE))
    return tile


def _input(values: Array, normalisation: Normalisation | None) -> Any:
    """A picture as it was before it was normalised, else curves."""
    if values.ndim != 3:
        return _curves(values)
    if normalisation is None:
        return _map(_stretched(values))
    mean, std = (np.reshape(each, (-1, 1, 1)) for each in (normalisation.mean, normalisation.std))
    return _map((values * std + mean).clip(0, 255).astype(np.uint8))


def _output(values: Array, task: Task | None) -> Any:
    classes = task is not None and task.loss == "cross-entropy"
    if values.ndim == 3 and classes:
        return _map(PALETTE[values.argmax(0) % len(PALETTE)].transpose(2, 0, 1))
    if values.ndim == 3:
        vectors = task is not None and task.metric == "angular-error-deg"
        return _map(_bytes((values + 1) / 2) if vectors else _stretched(values))
    if values.ndim == 1 and classes:
        odds = np.exp(values - values.max())
        return _bars(odds / odds.sum(), f"class {values.argmax()}: {odds.max() / odds.sum():.0%}")
    if values.ndim == 1 and len(values) <= _MOST_BARS:
        return _bars(values, " ".join(f"{value:.3g}" for value in values[:6]))
    return _curves(np.atleast_2d(values))


def _stretched(values_CHW: Array) -> Array:
    """Colours on one scale, other channels each on its own."""
    axis = None if len(values_CHW) == 3 else (1, 2)
    low, high = np.percentile(values_CHW, (1, 99), axis=axis, keepdims=True)
    return _bytes((values_CHW - low) / np.maximum(high - low, 1e-9))


def _bytes(shares: Array) -> Array:
    whole: Array = (np.nan_to_num(shares).clip(0, 1) * 255).round().astype(np.uint8)
    return whole


def _map(values_CHW: Array) -> Any:
    """One channel as grey, two as red and green, of more the first three as colour."""
    channels, height, width = values_CHW.shape
    if channels == 1:
        values_CHW = values_CHW.repeat(3, 0)
    empty = np.zeros((max(0, 3 - len(values_CHW)), height, width), np.uint8)
    colours = np.concatenate([values_CHW[:3], empty]).transpose(1, 2, 0)
    image, scale = pillow().fromarray(np.ascontiguousarray(colours)), _SIDE / max(height, width)
    return image.resize((round(width * scale), round(height * scale)), pillow().Resampling.NEAREST)


def _curves(values_CT: Array) -> Any:
    """Every channel as a curve, all on one scale."""
    signal = np.nan_to_num(values_CT.reshape(-1, values_CT.shape[-1]).astype(np.float64))
    low, high = min(signal.min(), 0.0), max(signal.max(), 0.0)
    x = np.linspace(0, _SIDE - 1, signal.shape[1])
    tile, pen = _blank(_height(0.0, low, high))
    for row, colour in zip(signal, np.resize(PALETTE, (len(signal), 3)).tolist(), strict=True):
        pen.line(list(zip(x.tolist(), _height(row, low, high).tolist(), strict=True)), tuple(colour), 2)
    return tile


def _bars(values: Array, caption: str) -> Any:
    """A bar from zero for each number."""
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = min(numbers.min(), 0.0), max(numbers.max(), 0.0)
    zero, step = _height(0.0, low, high), _SIDE / len(numbers)
    tile, pen = _blank(zero)
    colours = np.resize(PALETTE, (len(numbers), 3)).tolist()
    for i, (top, colour) in enumerate(zip(_height(numbers, low, high).tolist(), colours, strict=True)):
        pen.rectangle(
            [i * step + step * 0.15, min(top, zero), (i + 1) * step - step * 0.15, max(top, zero)],
            fill=tuple(colour),
        )
    pen.text((4, 2), caption, fill=_INK)
    return tile


def _height(values: Any, low: float, high: float) -> Any:
    """Where numbers stand in a tile, in pixels from its top: room is left for a caption."""
    return _SIDE - 8 - (values - low) / max(high - low, 1e-9) * (_SIDE - 32)


def _blank(zero: float) -> tuple[Any, Any]:
    tile = pillow().new("RGB", (_SIDE, _SIDE), _PAPER)
    pen = pillow("ImageDraw").Draw(tile)
    pen.rectangle([0, 0, _SIDE - 1, _SIDE - 1], outline=_FRAME)
    pen.line([(0, zero), (_SIDE - 1, zero)], _FRAME)
    return tile, pen
