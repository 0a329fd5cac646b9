"""Views of a building: rays through every pixel, what they meet, and a picture with the client's camera.

Several views are cast together, because arrays of a few hundred rays cost mostly overhead. A picture is
reflectance times light, exposed so that its bright parts are nearly white, then the client's white balance,
gamma and sensor noise. Everything random about a view comes from its own generator: views do not depend
on which others are rendered with them.

It makes no labels; depth, normals and classes are what the rays met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.workloads.buildings.building import dot
from mas_edge.models.workloads.buildings.frame import CLASSES, Frame
from mas_edge.models.workloads.buildings.light import illumination

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array
    from mas_edge.models.workloads.buildings.building import Building
    from mas_edge.models.workloads.buildings.camera import Camera
    from mas_edge.models.workloads.buildings.style import Style

    Floats = NDArray[np.float32]
    Labels = NDArray[np.uint8]

TOGETHER = 1 << 14
"""Rays that are cast at once."""

EXPOSED = 0.92
"""The quantile of a picture's brightness that becomes nearly white."""

NEARLY_WHITE = 0.85

LEAST_SLANT = 0.2
"""However obliquely one looks, paint is not blurred more than five times."""

BACKGROUND = CLASSES.index("background")


def render(
    building: Building, cameras: Sequence[tuple[Camera, np.random.Generator]], size: int
) -> Iterator[Frame]:
    """A frame of size × size per camera, in order; the generator makes the noise."""
    pixels = size * size
    count = max(1, TOGETHER // pixels)
    for first in range(0, len(cameras), count):
        group = cameras[first : first + count]
        light, normal, depth, label = _traced(building, [camera for camera, _ in group], size)
        for number, (camera, rng) in enumerate(group):
            view = slice(number * pixels, (number + 1) * pixels)
            yield Frame(
                rgb_HW3=_picture_of(_developed(light[:, view], building.style, rng), size),
                depth_HW=depth[view].reshape(size, size),
                normal_HW3=_picture_of([dot(axis, normal[:, view]) for axis in camera.axes_33], size),
                label_HW=label[view].reshape(size, size),
                focal_px=camera.focal_px(size),
            )


def _traced(
    building: Building, cameras: Sequence[Camera], size: int
) -> tuple[Floats, Floats, Floats, Labels]:
    """Light (3, N), normals (3, N), depth (N,) and classes (N,) of all the views' rays, one after another."""
    directions = np.concatenate([camera.rays(size) for camera in cameras], 1)
    origins = np.repeat(np.stack([camera.position_3 for camera in cameras], 1), size * size, 1)
    per_m = np.repeat(np.array([1 / c.focal_px(size) for c in cameras], np.float32), size * size)
    parts = [
        _traced_some(building, *(each[..., at : at + TOGETHER] for each in (origins, directions, per_m)))
        for at in range(0, len(per_m), TOGETHER)
    ]
    light, normal, depth, label = (np.concatenate(each, -1) for each in zip(*parts, strict=True))
    return light, normal, depth, label


def _traced_some(
    building: Building, origin_3N: Floats, direction_3N: Floats, per_m_N: Floats
) -> tuple[Floats, Floats, Floats, Labels]:
    """As ``_traced``; ``per_m_N`` is a pixel's width at a metre."""
    hits = building.surfaces.cast(origin_3N, direction_3N)
    distance = np.where(hits.hit_N, hits.distance_N, 0)
    point = origin_3N + direction_3N * distance
    slant = np.sqrt(np.abs(dot(direction_3N, hits.flat_normal_3N)))
    seen_m = distance * per_m_N / np.maximum(slant, LEAST_SLANT)
    light = building.paints.sample(hits.material_N, hits.surface_2N, seen_m)
    light *= illumination(building, point, hits)
    missed = ~hits.hit_N
    light[:, missed] = building.style.sky_rgb[:, None]
    hits.normal_3N[:, missed] = 0
    hits.label_N[missed] = BACKGROUND
    return light, hits.normal_3N, hits.distance_N, hits.label_N


def _picture_of(rows: Sequence[Array] | Array, size: int) -> Array:
    """Three rows of size² as a picture (size, size, 3)."""
    return np.stack(list(rows), -1).reshape(size, size, 3)


def _developed(light_3N: Floats, style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """8-bit colours (3, N) of linear light."""
    green = light_3N[1] * style.white_balance[1]
    place = int(EXPOSED * (len(green) - 1))
    bright = np.partition(green, place)[place] + 1e-6
    exposed = light_3N * (style.white_balance * NEARLY_WHITE / bright)[:, None]
    np.minimum(exposed, 1, out=exposed)
    np.power(exposed, 1 / style.gamma, out=exposed)
    exposed += style.noise * rng.standard_normal(exposed.shape, dtype=np.float32)
    np.clip(exposed, 0, 1, out=exposed)
    picture: NDArray[np.uint8] = (exposed * 255 + 0.5).astype(np.uint8)
    return picture
