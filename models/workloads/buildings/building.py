"""A whole building in memory: its plan and style, and all its triangles behind a ray engine.

``draw_building(seed)`` makes the same building for the same numbers. What a ray meets comes back as the
number of a triangle and where on it; ``Surfaces`` turns that into points, normals, materials and classes.
Rays are cast by Embree (Wald et al. 2014) through embreex's scene itself: trimesh's wrapper takes three times
as long for a small picture.

Numbers are as Embree's instruction set gives them: equal on one kind of machine, last bits apart on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from mas_edge.models.workloads.buildings.furnish import Furnished, furnish
from mas_edge.models.workloads.buildings.plan import Plan, draw_plan
from mas_edge.models.workloads.buildings.shell import shell
from mas_edge.models.workloads.buildings.style import Style, draw_style
from mas_edge.models.workloads.buildings.texture import Paints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array
    from mas_edge.models.workloads.buildings.solids import Solid

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Hits:
    """What N rays met; what stands for a ray that met nothing is finite and means nothing.

    Vectors are kept as rows x, y, z of N: whole rows are what numpy computes fast.
    """

    hit_N: NDArray[np.bool_]
    distance_N: Floats
    """In lengths of the ray's direction; inf where nothing was met."""

    flat_normal_3N: Floats
    """Unit normal of the triangle, towards the ray's origin."""

    normal_3N: Floats
    """Unit normal of the curved surface that the triangle stands for, towards the ray's origin."""

    surface_2N: Floats
    material_N: NDArray[np.int32]
    label_N: NDArray[np.uint8]


class Surfaces:
    """Triangles that can be met by rays."""

    def __init__(self, solids: Sequence[Solid], materials: Sequence[str]) -> None:
        """``materials`` gives the solids' materials their numbers; raises KeyError for one that it lacks."""
        number = {name: index for index, name in enumerate(materials)}
        sizes = [len(part.corners_F33) for part in solids]
        corners = np.concatenate([part.corners_F33 for part in solids])
        flat = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).T).T
        bent = np.concatenate([np.concatenate([p.normals_F33, p.surface_F32], 2) for p in solids])
        bent[:, 1:] -= bent[:, :1]  # from the first corner to the others
        self._about = np.concatenate([bent.reshape(len(flat), 15), flat], 1)
        self._material = np.repeat(np.array([number[part.material] for part in solids], np.int32), sizes)
        self._label = np.repeat(np.array([part.label for part in solids], np.uint8), sizes)
        self.engine = EmbreeScene()  # public, so that bench/ can time it alone
        self._mesh = TriangleMesh(self.engine, np.ascontiguousarray(corners, np.float32))
        self.cast(np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32))  # the first ray builds the tree

    def __len__(self) -> int:
        return len(self._label)

    def cast(self, origin_3N: Floats, direction_3N: Floats) -> Hits:
        """The first surface that each ray meets."""
        found = self.engine.run(origin_3N.T, direction_3N.T, query="INTERSECT", output=1)
        hit, triangle = found["primID"] >= 0, np.maximum(found["primID"], 0)
        about, u, v = self._about.take(triangle, 0), found["u"], found["v"]
        between = np.empty((5, len(hit)), np.float32)
        for row in range(5):  # barycentric, a row at a time
            between[row] = about[:, row] + u * about[:, row + 5] + v * about[:, row + 10]
        flat = about[:, 15:].T.copy()
        flat *= -np.sign(dot(flat, direction_3N))
        normal = _unit(between[:3])
        normal *= np.sign(dot(normal, flat))
        _face(normal, direction_3N)
        return Hits(
            hit_N=hit,
            distance_N=np.where(hit, found["tfar"], np.float32(np.inf)),
            flat_normal_3N=flat,
            normal_3N=normal,
            surface_2N=between[3:],
            material_N=self._material.take(triangle),
            label_N=self._label.take(triangle),
        )

    def blocked(self, origin_3N: Floats, direction_3N: Floats, reach: float) -> NDArray[np.bool_]:
        """Whether anything is met before ``reach`` lengths of each direction; one direction may serve all."""
        count = origin_3N.shape[1]
        if not count:
            return np.zeros(0, bool)
        far = np.full(count, reach, np.float32)
        met: Array = self.engine.run(origin_3N.T, direction_3N.T, dists=far, query="OCCLUDED")
        return met >= 0


@dataclass(frozen=True)
class Building:
    """A furnished building that can be looked at."""

    plan: Plan
    style: Style
    rooms: tuple[Furnished, ...]
    surfaces: Surfaces
    paints: Paints


def draw_building(rng: np.random.Generator) -> Building:
    """A random building."""
    style = draw_style(rng)
    plan = draw_plan(rng, style.mix)
    rooms = tuple(furnish(rng, room, plan) for room in plan.rooms)
    solids = [*shell(plan), *(part for room in rooms for part in room.solids)]
    surfaces = Surfaces(solids, tuple(style.paints))
    return Building(plan, style, rooms, surfaces, Paints(list(style.paints.values())))


def dot(one_3N: Floats, other_3N: Floats) -> Floats:
    """Scalar products (N,); either may be one vector (3,). A matrix product would start BLAS's threads."""
    product: Floats = one_3N[0] * other_3N[0]
    for row in (1, 2):
        product += one_3N[row] * other_3N[row]
    return product


def _face(normal_3N: Floats, direction_3N: Floats) -> None:
    """Bring normals that interpolation has turned away from the viewer back to just visible, in place."""
    along = dot(normal_3N, direction_3N)
    away = np.flatnonzero(along > 0)
    if len(away):
        seen = direction_3N[:, away]
        normal_3N[:, away] = _unit(normal_3N[:, away] - seen * (1.001 * along[away] / dot(seen, seen)))


def _unit(vector_3N: Floats) -> Floats:
    unit: Array = vector_3N / np.sqrt(np.maximum(dot(vector_3N, vector_3N), 1e-24))
    return unit
