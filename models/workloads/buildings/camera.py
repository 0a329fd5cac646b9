"""Where the pictures of a building are taken from, and of what.

As in Taskonomy, a camera is at eye height, without roll, and looks at a point of interest: half of the
pictures are of an object (any class of the building as often as any other), half of any point in a room. A
few probing rays refuse views that are mostly window, or a wall before one's nose, or hide the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mas_edge.models.workloads.buildings.building import Building
    from mas_edge.models.workloads.buildings.furnish import Furnished
    from mas_edge.models.workloads.buildings.plan import Room

    Floats = NDArray[np.float32]

FOV_DEG = (50.0, 80.0)
HEIGHT_M = (1.1, 1.7)
NEAREST_M, USUAL_M = 0.45, 0.9
"""A twentieth of what is seen may be nearer than the first, half of it nearer than the second."""

AWAY_M, OBJECT_AWAY_M = (1.2, 9.0), (0.8, 2.6)
"""How far away a point of interest is, and an object."""

LEAST_SEEN = 0.6
"""Share of the rays that must meet a surface."""

_PROBES = 9
_TRIES = 2000


class NoView(WorkloadError, RuntimeError):
    """A building in which no picture is worth taking."""


@dataclass(frozen=True)
class Camera:
    """A pinhole at a place; the rows of ``axes`` are right, down and ahead in the world."""

    position_3: Floats
    axes_33: Floats
    half_width: float
    """Tangent of half the field of view."""

    def rays(self, size: int) -> Floats:
        """Directions (3, size²), row by row, through pixels' centres; one length is one metre of depth."""
        across = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1) * self.half_width
        right, down, ahead = self.axes_33[:, :, None, None]
        directions: Floats = right * across + down * across[:, None] + ahead
        return directions.reshape(3, -1)

    def focal_px(self, size: int) -> float:
        """The focal length in pixels of a picture of this size."""
        return size / 2 / self.half_width


def draw_camera(rng: np.random.Generator, building: Building) -> Camera:
    """A random view; raises NoView if the building has none worth seeing."""
    kinds = sorted({kind for room in building.rooms for kind in room.objects})
    wanted = kinds[rng.integers(len(kinds))] if kinds and rng.random() < 0.5 else None
    for attempt in range(_TRIES):
        kind = wanted if attempt < _TRIES // 2 else None  # a thing may be hidden from everywhere
        number, target = _point(rng, building) if kind is None else _object(rng, building, kind)
        position = _standing(rng, building.plan.rooms[number])
        low, high = AWAY_M if kind is None else OBJECT_AWAY_M
        if not low < np.linalg.norm(target - position) < high or not _free(position, building.rooms[number]):
            continue
        camera = look_at(position, target, np.radians(rng.uniform(*FOV_DEG)))
        if _worth_seeing(building, camera, kind):
            return camera
    raise NoView(f"no view worth seeing after {_TRIES} tries in a building of {len(building.rooms)} rooms")


def look_at(position: NDArray[np.float64], target: NDArray[np.float64], fov_rad: float) -> Camera:
    """The upright camera at a place that has the target in the middle of its picture."""
    x, y, z = (target - position) / np.linalg.norm(target - position)
    level = np.hypot(x, y)
    axes = [(y / level, -x / level, 0), (x * z / level, y * z / level, -level), (x, y, z)]
    return Camera(position.astype(np.float32), np.array(axes, np.float32), float(np.tan(fov_rad / 2)))


def _standing(rng: np.random.Generator, room: Room) -> NDArray[np.float64]:
    x, y = rng.uniform(room.x0 + 0.3, room.x1 - 0.3), rng.uniform(room.y0 + 0.3, room.y1 - 0.3)
    return np.array([x, y, rng.uniform(*HEIGHT_M)])


def _point(rng: np.random.Generator, building: Building) -> tuple[int, NDArray[np.float64]]:
    """A room's number, and any point in it."""
    number = int(rng.integers(len(building.rooms)))
    room = building.plan.rooms[number]
    x, y = rng.uniform(room.x0, room.x1), rng.uniform(room.y0, room.y1)
    return number, np.array([x, y, rng.uniform(0.3, 1.7)])


def _object(rng: np.random.Generator, building: Building, kind: int) -> tuple[int, NDArray[np.float64]]:
    """The number of a room that has things of this class, and a point near one of them."""
    having = [number for number, room in enumerate(building.rooms) if kind in room.objects]
    number = having[rng.integers(len(having))]
    things = building.rooms[number].objects[kind]
    return number, np.array(things[rng.integers(len(things))]) + rng.normal(0, 0.1, 3)


def _free(position: NDArray[np.float64], furnished: Furnished) -> bool:
    x, y, _ = position
    return not any(
        box.x0 - 0.1 < x < box.x1 + 0.1 and box.y0 - 0.1 < y < box.y1 + 0.1 for box in furnished.taken
    )


def _worth_seeing(building: Building, camera: Camera, kind: int | None) -> bool:
    """Whether enough is met, not too near, and a thing of the class (None: any) about the middle."""
    hits = building.surfaces.cast(np.repeat(camera.position_3[:, None], _PROBES**2, 1), camera.rays(_PROBES))
    seen = np.sort(hits.distance_N[hits.hit_N])
    if len(seen) < LEAST_SEEN * _PROBES**2:
        return False
    if seen[len(seen) // 20] < NEAREST_M or seen[len(seen) // 2] < USUAL_M:
        return False
    about = slice(_PROBES // 2 - 1, _PROBES // 2 + 2)
    return kind is None or kind in hits.label_N.reshape(_PROBES, _PROBES)[about, about]
