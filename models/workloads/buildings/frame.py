"""One rendered view, as the renderer hands it to the labels.

Camera frame: x right, y down, z away from the camera. A pixel is a sample at its centre; the principal point
is the centre of the picture, so that the point in pixel (row, column) of an S × S view is depth times
((column + 0.5 - S / 2) / focal, (row + 0.5 - S / 2) / focal, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    "uncertain",
    "background",
    "bottle",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
)
"""What class ids mean, in Taskonomy's order."""


@dataclass(frozen=True)
class Frame:
    """A view of S × S pixels; where no surface was hit, the normal is 0 and the class background."""

    rgb_HW3: NDArray[np.uint8]
    """sRGB picture with the client's gamma, white balance and noise."""

    depth_HW: NDArray[np.float32]
    """Metres along the optical axis; inf where no surface was hit."""

    normal_HW3: NDArray[np.float32]
    """Unit, in the camera frame, facing the camera; of the curved surface that triangles stand for."""

    label_HW: NDArray[np.uint8]
    """Index into CLASSES, never 0: a ray always meets one thing or nothing."""

    focal_px: float
