"""How bright surfaces are: the lamp of each room, the sun through the windows, and what the walls scatter.

A point gets its own room's lamp (inverse square, a sharp shadow), the sun where a line towards it leaves by a
window and meets nothing, and scattered light that is weaker in corners. Walls are opaque, so a neighbour's
lamp is left out, and a sun ray is only cast for points whose line passes a window's rectangle: few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.workloads.buildings.building import dot
from mas_edge.models.workloads.buildings.shell import LAMP_DROP_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mas_edge.models.workloads.buildings.building import Building, Hits
    from mas_edge.models.workloads.buildings.plan import Plan

    Floats = NDArray[np.float32]

LIFTED_M = 2e-3
"""Shadow rays start this far above a surface."""

LAMP_REACH = 0.9
"""They end before the lamp's own glass."""

CELL_M = 0.05
CORNER_M = 0.25
CORNER_LOSS = 0.35
"""Scattered light that a corner loses, and the distance over which it comes back."""


def illumination(building: Building, point_3N: Floats, hits: Hits) -> Floats:
    """Light that falls on each surface, (3, N), linear."""
    style = building.style
    lifted = point_3N + hits.flat_normal_3N * LIFTED_M
    room = rooms_of(building.plan, lifted)
    light: Floats = style.lamp_rgb[:, None] * _lamp(building, room, lifted, hits)
    light += style.sun_rgb[:, None] * _sun(building, lifted, hits)
    light += style.ambient_rgb[:, None] * _scattered(building.plan, room, point_3N, hits.normal_3N)
    return light


def rooms_of(plan: Plan, point_3N: Floats) -> NDArray[np.intp]:
    """Which room each point is in, by its x and y; points in outer walls count to the nearest cell."""
    cells = np.zeros((int(plan.width / CELL_M) + 1, int(plan.depth / CELL_M) + 1), np.intp)
    for number, room in enumerate(plan.rooms):
        x0, y0, x1, y1 = (round(edge / CELL_M) for edge in (room.x0, room.y0, room.x1, room.y1))
        cells[x0 : x1 + 1, y0 : y1 + 1] = number
    x, y = (
        (point_3N[axis] * (1 / CELL_M)).astype(np.int32).clip(0, cells.shape[axis] - 1) for axis in (0, 1)
    )
    found: NDArray[np.intp] = cells.ravel().take(x * cells.shape[1] + y)
    return found


def _lamp(building: Building, room_N: NDArray[np.intp], lifted_3N: Floats, hits: Hits) -> Floats:
    height = building.plan.height - LAMP_DROP_M
    lamps = np.array([(*room.centre, height) for room in building.plan.rooms], np.float32).T
    towards = lamps.take(room_N, 1) - lifted_3N
    square = dot(towards, towards)
    facing = np.maximum(dot(towards, hits.normal_3N), 0)
    light = facing / (np.sqrt(square) * (1 + square) + 1e-6)
    lit = np.flatnonzero((light > 0) & (dot(towards, hits.flat_normal_3N) > 0) & hits.hit_N)
    lit = lit[~building.surfaces.blocked(lifted_3N[:, lit], towards[:, lit], LAMP_REACH)]
    return _only(light, lit)


def _sun(building: Building, lifted_3N: Floats, hits: Hits) -> Floats:
    towards = building.style.towards_sun
    light = dot(towards, hits.normal_3N)
    lit = np.flatnonzero((light > 0) & (dot(towards, hits.flat_normal_3N) > 0) & hits.hit_N)
    lit = lit[_leaves_by_window(building.plan, lifted_3N[:, lit], towards)]
    lit = lit[~building.surfaces.blocked(lifted_3N[:, lit], towards[:, None], 1e3)]
    return _only(light, lit)


def _only(light_N: Floats, lit: NDArray[np.intp]) -> Floats:
    """The light of these places, and none elsewhere."""
    kept = np.zeros_like(light_N)
    kept[lit] = light_N[lit]
    return kept


def _leaves_by_window(plan: Plan, point_3N: Floats, towards_3: Floats) -> NDArray[np.bool_]:
    """Whether the line from each point crosses a window's rectangle in an outer wall's plane."""
    crosses = np.zeros(point_3N.shape[1], bool)
    for axis in (0, 1):
        if abs(towards_3[axis]) < 1e-6:
            continue
        at = (plan.width, plan.depth)[axis] if towards_3[axis] > 0 else 0.0
        distance = (at - point_3N[axis]) / towards_3[axis]
        along = point_3N[1 - axis] + distance * towards_3[1 - axis]
        up = point_3N[2] + distance * towards_3[2]
        for side in (side for room in plan.rooms for side in room.sides):
            if side.outside and (side.axis, side.at) == (axis, at):
                for hole in side.openings:
                    crosses |= (along > hole.start) & (along < hole.end) & (up > hole.low) & (up < hole.high)
    return crosses


def _scattered(plan: Plan, room_N: NDArray[np.intp], point_3N: Floats, normal_3N: Floats) -> Floats:
    """More from above than from below; less beside the walls, floor and ceiling that a surface is not on."""
    low = np.array([(room.x0, room.y0, 0) for room in plan.rooms], np.float32).T.take(room_N, 1)
    high = np.array([(room.x1, room.y1, plan.height) for room in plan.rooms], np.float32).T.take(room_N, 1)
    away = np.maximum(np.minimum(point_3N - low, high - point_3N), 0)
    kept = 1 - CORNER_LOSS * (1 - np.abs(normal_3N)) * np.exp(away * (-1 / CORNER_M))
    scattered: Floats = kept[0] * kept[1] * kept[2] * (0.85 + 0.15 * normal_3N[2])
    return scattered
