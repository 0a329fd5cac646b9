"""One picture or label file to an array and back: 8- and 16-bit PNG, and npy.

PNG is Pillow's work; what Pillow would change on the way is refused instead. It reduces 16-bit colour to 8
bits and stretches grey of fewer than 8 bits (class 3 of a 2-bit file becomes 255), both without a word, so
the header is looked at first. 16-bit grey comes back as uint16: 65535, the hole in a depth map, stays 65535.

Source: PNG specification, 11.2.2 (IHDR). It knows no data set and no task, and scales nothing.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from mas_edge.models.tasks import Array, DataRefused

_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STORED = (np.uint8, np.uint16, np.float32)


def read(path: Path) -> Array:
    """The stored values, (H, W) or (H, W, C): uint8 or uint16, from npy float32 too.

    Raises DataRefused, naming the file, if it is missing, damaged, or of a depth that would be changed.
    """
    if not path.is_file():
        raise DataRefused(
            f"{path}: there is no such file; put it there, or leave its view out of all domains"
        )
    stored = _read_npy(path) if path.suffix == ".npy" else _read_png(path)
    if stored.dtype not in _STORED or stored.ndim not in {2, 3} or not stored.size:
        raise DataRefused(
            f"{path}: {stored.dtype} of shape {stored.shape}; "
            f"store uint8, uint16 or float32 as (H, W) or (H, W, C)"
        )
    return stored


def write(path: Path, stored: Array) -> None:
    """Write uint8 (H, W) or (H, W, 3), or uint16 (H, W), as PNG; raises TypeError for others, OSError."""
    grey = stored.ndim == 2 and stored.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}
    if not grey and not (stored.dtype == np.uint8 and stored.ndim == 3 and stored.shape[2] == 3):
        raise TypeError(
            f"{path}: PNG takes grey of 8 or 16 bits or colour of 8, not {stored.dtype} {stored.shape}"
        )
    _pillow(path).fromarray(stored).save(path, "PNG")


def _read_npy(path: Path) -> Array:
    try:
        stored: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataRefused(_damaged(path, error)) from error
    return stored


def _read_png(path: Path) -> Array:
    image = _pillow(path)
    try:
        _refuse_changed_depth(path)
        with image.open(path, formats=("PNG",)) as picture:
            stored = np.asarray(picture)
    except DataRefused:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, image.DecompressionBombError) as error:
        raise DataRefused(_damaged(path, error)) from error
    return stored.astype(np.uint16) if stored.dtype == np.int32 else stored  # Pillow before 11: mode I


def _refuse_changed_depth(path: Path) -> None:
    """Raises DataRefused for a bit depth whose values Pillow does not give back as they are stored."""
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(_SIGNATURE):
        raise ValueError("not a PNG file")
    bits, colour = head[24], head[25]
    if bits == 16 and colour != _GREY:
        raise DataRefused(f"{path}: 16-bit colour would be read as 8-bit; store it as npy of uint16")
    if bits < 8 and colour == _GREY:
        raise DataRefused(f"{path}: grey of {bits} bits would be stretched to 0..255; store it with 8 bits")


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: cannot be read ({' '.join(str(error).split())}); fetch it again"


def _pillow(path: Path) -> Any:
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise DataRefused(f"{path}: PNG files need Pillow: pip install 'mas-edge[buildings]'") from error
    return Image
