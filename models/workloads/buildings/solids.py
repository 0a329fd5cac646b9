"""Triangles with normals, surface coordinates and paint: what everything in a building is made of.

A ``Solid`` keeps its triangles' corners, one normal per corner (shared over an edge only where the surface
bends by less than CREASE_DEG, so that a barrel is round and a box is not), and surface coordinates in metres:
each triangle is laid flat along the axis that it faces most, in the solid's *own* axes. What is turned or
moved therefore takes its texture along. Paint is a material's name per triangle group, resolved later.

Shapes come from trimesh.creation. Solids are values: every change returns another one, and none knows where
in a building it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array

    Floats = NDArray[np.float32]

CREASE_DEG = 40.0
"""Edges that bend more are sharp."""

MERGED_M = 1e-4
"""Corners closer than this (on a grid) are one point."""


@dataclass(frozen=True)
class Solid:
    """F triangles of one material and class; corners, unit normals and surface coordinates in metres."""

    corners_F33: Floats
    normals_F33: Floats
    surface_F32: Floats
    material: str
    label: int = 1

    def moved(self, to: Sequence[float] | Array, turn_rad: float = 0.0) -> Solid:
        """Turned around the vertical axis, then moved."""
        c, s = np.cos(turn_rad), np.sin(turn_rad)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        return replace(
            self,
            corners_F33=self.corners_F33 @ turn + np.asarray(to, np.float32),
            normals_F33=self.normals_F33 @ turn,
        )

    def laid_in_place(self) -> Solid:
        """With surface coordinates of where it is: what is next to each other continues the pattern."""
        flat = _laid_flat(self.corners_F33, self.normals_F33[:, 0])
        return replace(self, surface_F32=flat)


def solid(vertices: Array, faces: Array, material: str, label: int = 1) -> Solid:
    """Any triangles, with creased normals; triangles without area are left out."""
    corners = np.asarray(vertices, np.float32)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    real = (normal**2).sum(1) > 1e-16  # twice the area is 1e-8 m²
    corners, normal = corners[real], normal[real]
    return Solid(corners, _creased(corners, normal), _laid_flat(corners, normal), material, label)


def box(size: Sequence[float], material: str, label: int = 1, at: Sequence[float] = (0, 0, 0)) -> Solid:
    """A box of these extents around a point."""
    corners, normals = _unit_box()
    corners = corners * np.asarray(size, np.float32)
    return Solid(
        corners + np.asarray(at, np.float32), normals, _laid_flat(corners, normals[:, 0]), material, label
    )


def cylinder(radius: float, height: float, material: str, label: int = 1) -> Solid:
    """An upright cylinder around the origin."""
    return _of(trimesh.creation.cylinder(radius=radius, height=height, sections=24), material, label)


def ball(radii: Sequence[float], material: str, label: int = 1, *, squareness: float = 2.0) -> Solid:
    """An ellipsoid around the origin; greater ``squareness`` (the exponent) swells it towards its box."""
    points, faces = _unit_ball()
    swollen = np.sign(points) * np.abs(points) ** (2 / squareness)
    return solid(swollen * np.asarray(radii), faces, material, label)


def turned(profile: Sequence[tuple[float, float]], material: str, label: int = 1) -> Solid:
    """What a lathe makes of (radius, height) pairs, upright."""
    return _of(trimesh.creation.revolve(np.asarray(profile, float), sections=24), material, label)


def components(vertices: Array, faces: Array) -> list[Array]:
    """The faces that hang together, the group with most area first."""
    _, point = np.unique(_on_grid(np.asarray(vertices)), return_inverse=True)
    joined = point[faces]
    edges = np.concatenate([joined[:, :2], joined[:, 1:]])
    graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(point.max() + 1,) * 2)
    _, group = connected_components(graph, directed=False)
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    of_face = group[joined[:, 0]]
    order = np.argsort(-np.bincount(of_face, area), kind="stable")
    return [faces[of_face == number] for number in order]


def bounds(solids: Sequence[Solid]) -> tuple[Floats, Floats]:
    """The least and the greatest corner of all."""
    low = np.min([part.corners_F33.min((0, 1)) for part in solids], 0)
    high = np.max([part.corners_F33.max((0, 1)) for part in solids], 0)
    return low, high


def _of(mesh: trimesh.Trimesh, material: str, label: int) -> Solid:
    return solid(mesh.vertices, mesh.faces, material, label)


@cache
def _unit_box() -> tuple[Floats, Floats]:
    mesh = trimesh.creation.box(extents=(1, 1, 1))
    corners = np.asarray(mesh.vertices, np.float32)[mesh.faces]
    return corners, np.repeat(np.asarray(mesh.face_normals, np.float32)[:, None], 3, 1)


@cache
def _unit_ball() -> tuple[Array, Array]:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def _on_grid(points: Array) -> NDArray[np.int64]:
    """One number per point, the same for points in one cell."""
    x, y, z = np.rint(points.astype(np.float64) / MERGED_M).astype(np.int64).T
    key: NDArray[np.int64] = (x << 42) + (y << 21) + z
    return key


def _creased(corners_F33: Floats, normal_F3: Floats) -> Floats:
    """Per corner, the mean of the normals (weighted by area) that meet there and do not bend too much."""
    unit = normal_F3 / np.linalg.norm(normal_F3, axis=1, keepdims=True)
    point = _on_grid(corners_F33.reshape(-1, 3))
    order = np.argsort(point, kind="stable")
    _, first, count = np.unique(point[order], return_index=True, return_counts=True)
    times = np.repeat(count, count)  # with how many corners each of the sorted ones meets
    one = np.repeat(order, times)
    start = np.repeat(np.repeat(first, count), times)
    other = order[start + np.arange(len(one)) - np.repeat(np.cumsum(times) - times, times)]
    bend = (unit[one // 3] * unit[other // 3]).sum(1)
    kept = bend > np.cos(np.radians(CREASE_DEG))
    added = normal_F3[other[kept] // 3].astype(np.float64)
    total: Array = np.stack([np.bincount(one[kept], axis, len(point)) for axis in added.T], -1)
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return total.astype(np.float32).reshape(-1, 3, 3)


def _laid_flat(corners_F33: Floats, normal_F3: Floats) -> Floats:
    """Surface coordinates (F, 3, 2): the two axes that the triangle faces least, the vertical one last."""
    axes = np.array([[1, 2], [0, 2], [0, 1]])[np.abs(normal_F3).argmax(1)]
    flat: Floats = np.take_along_axis(corners_F33, axes[:, None, :], 2)
    return flat
