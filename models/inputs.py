"""Files as a network's inputs: arrays, and pictures.

``.npy`` holds one input or several of them, ``.npz`` the same under ``input`` (or as its only array), numbers
as the network takes them: normalised. Whole numbers are never normalised, so they are taken as raw values, as
a recording's are with ``raw``, and normalised as the model's file says. Pictures (``.png``, ``.jpg``) are cut
to the input's proportions around their middle, as their camera was held, reduced by the mean of boxes and
normalised.

What is no such file, or does not fit, is refused in one line that names it. Nothing read here can run code.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.onnx_file import normalised
from mas_edge.models.panels import pillow
from mas_edge.models.tasks import WorkloadError

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.models.onnx_file import Card
    from mas_edge.models.tasks import Array

ARRAYS, PICTURES = (".npy", ".npz"), (".png", ".jpg", ".jpeg")


_TORN = (
    OSError, ValueError, EOFError, KeyError, SyntaxError, RuntimeError, MemoryError, OverflowError,
    tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What numpy, and those whom it asks, raise over a file that is torn, lies about its size or is encrypted."""


class InputRefused(WorkloadError, ValueError):
    """A file that is no input of the network; the text names it and says what would be one."""


def files(path: Path) -> list[Path]:
    """The file, or those of a folder that may be inputs, by name; raises InputRefused if there is none."""
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in ARRAYS + PICTURES)
        if not found:
            raise InputRefused(f"{path}: no input in this folder: {', '.join(ARRAYS + PICTURES)}")
        return found
    if not path.is_file():
        raise InputRefused(f"{path}: there is no such file")
    if path.suffix.lower() not in ARRAYS + PICTURES:
        raise InputRefused(f"{path}: an input is {', '.join(ARRAYS + PICTURES)}, or a folder of them")
    return [path]


def read(path: Path, card: Card, *, raw: bool) -> Array:
    """The inputs (N, *input_shape) in a file, float32; raises InputRefused, or NoPillow for a picture."""
    if path.suffix.lower() in PICTURES:
        return _normalised(path, _picture(path, card), card)
    values = _array(path)
    if values.dtype.kind not in "fiu":
        raise InputRefused(f"{path}: an array of {values.dtype}; an input is of numbers")
    shape = card.input_shape
    if values.shape == shape:
        values = values[None]
    if values.shape[1:] != shape or not len(values):
        raise InputRefused(f"{path}: shape {values.shape}; the network takes {shape}, or N of them")
    whole = values.dtype.kind in "iu"
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        inputs: Array = _normalised(path, values, card) if raw or whole else values.astype(np.float32)
    if not np.isfinite(inputs).all():
        raise InputRefused(f"{path}: holds values that are no finite numbers")
    return inputs


def _normalised(path: Path, values: Array, card: Card) -> Array:
    if card.normalisation is None:
        raise InputRefused(
            f"{path}: the model's file does not say how raw values are normalised: give float32 that is"
        )
    return normalised(values, card.normalisation)


def _array(path: Path) -> Array:
    try:
        with path.open("rb") as file:  # numpy leaves one that it opened itself open where it is no zip
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            arrays = {name: each for name, each in found.items() if isinstance(each, np.ndarray)}
    except _TORN as error:
        raise InputRefused(
            f"{path}: is no {path.suffix} file that can be read ({' '.join(str(error).split())})"
        ) from error
    if "input" not in arrays and len(arrays) != 1:
        raise InputRefused(f"{path}: has the arrays {', '.join(arrays) or 'none'}; name one of them input")
    array: Array = arrays.get("input", next(iter(arrays.values())))
    return array


def _picture(path: Path, card: Card) -> Array:
    """(1, C, H, W) of 0..255."""
    if len(card.input_shape) != 3 or card.input_shape[0] not in {1, 3}:
        raise InputRefused(f"{path}: a picture; the network takes arrays of shape {card.input_shape}")
    channels, height, width = card.input_shape
    image = pillow()
    try:
        with image.open(path, formats=("PNG", "JPEG")) as opened:
            upright = pillow("ImageOps").exif_transpose(opened)
            picture = upright.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, EOFError, image.DecompressionBombError) as error:
        raise InputRefused(f"{path}: is no picture ({' '.join(str(error).split())})") from error
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    small = np.asarray(picture.resize((width, height), image.Resampling.BOX, box=box))
    planes: Array = small.reshape(height, width, channels).transpose(2, 0, 1)[None]
    return planes
