"""The nine labels of a rendered view, by the formulas of the Taskonomy annotators, scaled to small pictures.

Everything is computed at the resolution S that the view was rendered at and then brought down to the
wanted size: depth and classes by the nearest sample, all else by the mean over each pixel's box (over what
was hit, where only surfaces count). The annotators ran at 512 pixels: widths of filters are times S / 512
(with a floor where a filter would vanish), edge magnitudes too. Camera frame, normals and units
are those of ``frame``; curvature is positive where a surface bulges towards the camera.

Source: Zamir et al. 2018 (arXiv 1804.08328), its supplement and the released annotators' settings; keypoints
are the determinant of Hessian of SURF (Bay et al. 2008), as scikit-image computes it. Nothing is normalised
here, and nothing is drawn or stored.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import hessian_matrix_det
from skimage.filters import gaussian, sobel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array
    from mas_edge.models.workloads.buildings.frame import Frame

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

ANNOTATED = 512
"""Pixels of the pictures that the published filter widths are for."""

DEPTH_PER_M = 512
NO_DEPTH = 65535
"""Stored depth where there is no surface."""

EDGE_SIGMA, EDGE_SIGMA_FLOOR = 3.0, 0.8
KEYPOINT_SIGMAS = np.linspace(1, 30, 10)
KEYPOINT_SCALE_FLOOR = 0.34
"""Keeps some scales apart in small pictures."""

HALF_LIFE_M = 8.0
"""Where the lamp of reshading gives half its light."""

SHARPEST_PER_M = 1 / 0.03
"""Curvature beyond which the label saturates."""

UNCERTAIN = 0


def labels(frame: Frame, pixels: int) -> dict[str, Array]:
    """The labels (pixels, pixels[, channels]) by Taskonomy's names, in the types that its pictures have.

    uint8: segment_semantic (0 where a pixel straddles classes), normal (right, up, towards the viewer;
    x 127.5 + 127.5), reshading (x 255), principal_curvature (larger first, 127 flat, 254 is 1/0.03 m), rgb.
    uint16: depth_zbuffer (1/512 m, 65535 for none), keypoints2d, edge_texture, edge_occlusion (x 65535).
    Raises ValueError if ``pixels`` does not divide S.
    """
    size = len(frame.depth_HW)
    step, rest = divmod(size, pixels)
    if rest or not step:
        raise ValueError(f"a view of {size} x {size} cannot be brought down to {pixels} x {pixels}")
    hit = np.isfinite(frame.depth_HW)
    points = points_of(frame)
    grey = rgb2gray(frame.rgb_HW3)
    towards_viewer = frame.normal_HW3 * hit[..., None] * np.array([1, -1, -1], np.float32)
    curvatures = np.stack(curvature(points, frame.normal_HW3, hit, frame.focal_px), -1)
    return {
        "segment_semantic": _classes(frame.label_HW, step),
        "depth_zbuffer": _nearest(depth16(frame.depth_HW), step),
        "normal": _stored(_unit(_mean(towards_viewer, step)) * 127.5 + 127.5, np.uint8),
        "keypoints2d": _stored(_mean(keypoints(grey), step) * 65535, np.uint16),
        "edge_texture": _stored(_mean(texture_edges(grey), step) * 65535, np.uint16),
        "edge_occlusion": _stored(_mean(occlusion_edges(frame.depth_HW), step) * 65535, np.uint16),
        "reshading": _stored(_mean_hit(shading(points, frame.normal_HW3), hit, step) * 255, np.uint8),
        "principal_curvature": _stored(
            _mean_hit(curvatures, hit, step) / SHARPEST_PER_M * 127 + 127, np.uint8
        ),
        "rgb": _stored(_mean(frame.rgb_HW3, step), np.uint8),
    }


def points_of(frame: Frame) -> Floats:
    """Where each pixel's ray met a surface, (S, S, 3) in metres in the camera frame; 0 where it met none."""
    size = len(frame.depth_HW)
    across = (np.arange(size, dtype=np.float32) + np.float32(0.5 - size / 2)) / np.float32(frame.focal_px)
    depth = np.where(np.isfinite(frame.depth_HW), frame.depth_HW, np.float32(0))
    return np.stack([depth * across, depth * across[:, None], depth], -1)


def depth16(depth_HW: Floats) -> NDArray[np.uint16]:
    """Depth in 1/512 m, at most 65534; NO_DEPTH where it is not finite."""
    steps = np.rint(np.minimum(depth_HW * DEPTH_PER_M, NO_DEPTH - 1))
    return np.where(np.isfinite(depth_HW), steps, NO_DEPTH).astype(np.uint16)


def texture_edges(grey_HW: Array) -> Array:
    """Sobel magnitude of the smoothed picture in [0, 1], times S / 512; not thinned."""
    scale = len(grey_HW) / ANNOTATED
    edges: Array = sobel(gaussian(grey_HW, max(EDGE_SIGMA_FLOOR, EDGE_SIGMA * scale))) * scale
    return edges


def keypoints(grey_HW: Array) -> Array:
    """The strongest of up to ten scales of the determinant of Hessian, at least 0.

    The picture is mirrored around: filters that reach out of it would see a bright corner in every view.
    Scales are whole pixels: others make box filters whose weights do not add up to 0, which answer to light.
    """
    scale = max(len(grey_HW) / ANNOTATED, KEYPOINT_SCALE_FLOOR)
    sigmas = np.unique(np.rint(KEYPOINT_SIGMAS * scale).clip(1))
    reaches = [int(1.5 * sigma) + 1 for sigma in sigmas]  # half of SURF's box filter, which is 3 sigma wide
    mirrored = np.pad(grey_HW, reaches[-1], mode="symmetric")
    strongest = np.zeros(grey_HW.shape)
    for sigma, reach in zip(sigmas, reaches, strict=True):
        inside = slice(reaches[-1] - reach, len(mirrored) - reaches[-1] + reach)
        around = hessian_matrix_det(mirrored[inside, inside], sigma, approximate=True)
        np.maximum(strongest, around[reach:-reach, reach:-reach], out=strongest)
    return strongest


def occlusion_edges(depth_HW: Floats) -> Array:
    """Sobel magnitude of the root of depth (1 at 128 m), times S / 512; 0 beside what was not hit."""
    hit = np.isfinite(depth_HW)
    root = np.sqrt(np.where(hit, depth_HW, 0) * np.float32(DEPTH_PER_M / 2**16))
    inside = ndimage.binary_erosion(hit, np.ones((3, 3)), border_value=1)
    edges: Array = sobel(root) * inside * (len(depth_HW) / ANNOTATED)
    return edges


def shading(points_HW3: Floats, normal_HW3: Floats) -> Floats:
    """What a white surface sends back of a lamp at the camera, in [0, 1]; 0 where nothing was hit."""
    square = _dot(points_HW3, points_HW3)
    cosine = -_dot(normal_HW3, points_HW3) / np.sqrt(np.maximum(square, np.float32(1e-12)))
    return np.maximum(cosine, 0) * np.float32(HALF_LIFE_M**2) / (np.float32(HALF_LIFE_M**2) + square)


def curvature(
    points_HW3: Floats, normal_HW3: Floats, hit_HW: Bools, focal_px: float
) -> tuple[Floats, Floats]:
    """Principal curvatures in 1/m, the larger first, clipped to ±1/0.03; 0 where no surface is around.

    The shape operator W of dN = W dP, from differences to those neighbours that lie on the same surface;
    exact on spheres and cylinders up to the sampling.
    """
    (Pu, Nu), (Pv, Nv) = (
        (_difference(points_HW3, joined, axis), _difference(normal_HW3, joined, axis))
        for axis in (1, 0)
        for joined in [_joined(points_HW3, normal_HW3, hit_HW, focal_px, axis)]
    )
    E, F, G = _dot(Pu, Pu), _dot(Pu, Pv), _dot(Pv, Pv)  # first fundamental form
    e, f, g = _dot(Nu, Pu), (_dot(Nu, Pv) + _dot(Nv, Pu)) / 2, _dot(Nv, Pv)  # second
    area = E * G - F * F
    known = area > 1e-6 * E * G  # 0 where a direction has no neighbour
    area[~known] = 1
    mean = (E * g - 2 * F * f + G * e) / (2 * area)
    spread = np.sqrt(np.maximum(mean * mean - (e * g - f * f) / area, 0))
    limit = np.float32(SHARPEST_PER_M)
    larger, smaller = (np.clip(known * k, -limit, limit) for k in (mean + spread, mean - spread))
    return larger, smaller


def _joined(points_HW3: Floats, normal_HW3: Floats, hit_HW: Bools, focal_px: float, axis: int) -> Bools:
    """Whether neighbours along the axis lie on one surface: no step steeper than the surfaces themselves.

    On the plane through P with normal n, depth z changes per pixel by z n_u / (f |n·ray|), u the axis.
    """
    depth = points_HW3[..., 2]
    along = np.abs(normal_HW3[..., 1 - axis])
    facing = np.abs(_dot(normal_HW3, points_HW3)) / np.maximum(depth, np.float32(1e-6))
    slope = depth * along / (focal_px * np.maximum(facing, np.float32(0.1)))
    here, there = _pair(axis)
    allowed = 2 * np.maximum(slope[here], slope[there]) + np.maximum(depth[here], depth[there]) / focal_px
    joined: Bools = hit_HW[here] & hit_HW[there] & (np.abs(depth[there] - depth[here]) <= allowed)
    return joined


def _difference(field_HW3: Floats, joined: Bools, axis: int) -> Floats:
    """The next joined neighbour less the one before; where one is not joined, less the pixel itself."""
    here, there = _pair(axis)
    step = (field_HW3[there] - field_HW3[here]) * joined[..., None]
    both = np.zeros_like(field_HW3)
    both[here] += step
    both[there] += step
    return both


def _pair(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last, and all but the first, along an axis."""
    rest = (slice(None),) * axis
    return (*rest, slice(None, -1)), (*rest, slice(1, None))


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.einsum("hwc,hwc->hw", a, b)
    return product


def _classes(label_HW: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    nearest = _nearest(label_HW, step)
    mixed = reduce(np.logical_or, [samples != nearest for samples in _samples(label_HW, step)])
    return np.where(mixed, np.uint8(UNCERTAIN), nearest)


def _nearest(image: Array, step: int) -> Array:
    return image[step // 2 :: step, step // 2 :: step]


def _samples(image: Array, step: int) -> Iterator[Array]:
    """The images (pixels, pixels, ...) of every pixel's first sample, its second, and so on."""
    return (image[row::step, column::step] for row in range(step) for column in range(step))


def _mean(image: Array, step: int) -> Floats:
    total: Floats = reduce(np.add, _samples(image.astype(np.float32, copy=False), step))
    return total / np.float32(step * step)


def _mean_hit(image: Array, hit_HW: Bools, step: int) -> Array:
    """The mean over those of a pixel's samples that hit something; 0 where none did."""
    hit = hit_HW.astype(np.float32).reshape(*hit_HW.shape, *(1,) * (image.ndim - 2))
    total, count = _mean(image * hit, step), _mean(hit, step)
    mean: Array = total / np.where(count > 0, count, np.float32(1))
    return mean


def _unit(vectors: Floats) -> Array:
    unit: Array = vectors / np.sqrt(np.maximum(_dot(vectors, vectors), np.float32(1e-12)))[..., None]
    return unit


def _stored(values: Array, kind: type[np.unsignedinteger]) -> Array:
    return np.clip(np.rint(values), 0, np.iinfo(kind).max).astype(kind)
