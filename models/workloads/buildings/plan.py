"""The floor plan of a building: rooms, what they are for, and the openings in their walls; numpy only.

A rectangle of 7-13 × 6-11 m is cut in two again and again (binary space partition) until 3 to 8 rooms are
left. Rooms that touch along more than a doorway get a door; walls to the outside get windows. What a room is
for follows its size and the building's taste. World coordinates are x, y along the walls and z up, metres.

It draws no furniture and makes no triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_M, MOST_M = 2.5, 5.2
"""Sides of a room: one that is shorter than twice the first is not cut, one longer than the second is."""

DOOR_M = (0.9, 2.05)
ROOMS = (3, 8)


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: from ``start`` to ``end`` along it, ``low`` to ``high`` above the floor."""

    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One wall of a room: the plane where coordinate ``axis`` is ``at``, its room where ``inward`` points."""

    axis: int
    at: float
    start: float
    end: float
    inward: int
    outside: bool
    openings: tuple[Opening, ...] = ()

    def point(self, along: float, off: float) -> tuple[float, float]:
        """(x, y) of a place along the wall, ``off`` metres into the room."""
        here = self.at + self.inward * off
        return (here, along) if self.axis == 0 else (along, here)


@dataclass(frozen=True)
class Room:
    """A rectangle, what it is for, and its four walls (x low, x high, y low, y high)."""

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float
    sides: tuple[Side, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, (x, y)."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


@dataclass(frozen=True)
class Plan:
    """A building of one floor."""

    width: float
    depth: float
    height: float
    rooms: tuple[Room, ...]


Rectangle = tuple[float, float, float, float]


def draw_plan(rng: np.random.Generator, mix: Mapping[str, float]) -> Plan:
    """A random plan; ``mix`` is how often each kind of room is wanted (any scale)."""
    while True:
        width, depth, height = rng.uniform(7, 13), rng.uniform(6, 11), rng.uniform(2.4, 3.1)
        rectangles = _cut(rng, (0.0, 0.0, width, depth))
        if ROOMS[0] <= len(rectangles) <= ROOMS[1]:
            break
    doors = _doors(rng, rectangles)
    rooms = []
    for rectangle in rectangles:
        kind = _kind(rng, rectangle, mix)
        sides = [_with_openings(rng, side, doors, height, kind) for side in _sides(rectangle, width, depth)]
        rooms.append(Room(kind, *rectangle, tuple(sides)))
    return Plan(width, depth, height, tuple(rooms))


def _cut(rng: np.random.Generator, rectangle: Rectangle) -> list[Rectangle]:
    x0, y0, x1, y1 = rectangle
    width, depth = x1 - x0, y1 - y0
    small = width < MOST_M and depth < MOST_M
    if max(width, depth) < 2 * LEAST_M or (small and rng.random() < 0.5):
        return [rectangle]
    if width > depth:
        x = rng.uniform(x0 + LEAST_M, x1 - LEAST_M)
        return _cut(rng, (x0, y0, x, y1)) + _cut(rng, (x, y0, x1, y1))
    y = rng.uniform(y0 + LEAST_M, y1 - LEAST_M)
    return _cut(rng, (x0, y0, x1, y)) + _cut(rng, (x0, y, x1, y1))


def _kind(rng: np.random.Generator, rectangle: Rectangle, mix: Mapping[str, float]) -> str:
    """Bathrooms are small, living and dining rooms are not."""
    x0, y0, x1, y1 = rectangle
    area_m2 = (x1 - x0) * (y1 - y0)
    fits = {"bath": area_m2 < 13, "living": area_m2 > 11, "dining": area_m2 > 10}
    kinds = [kind for kind in mix if fits.get(kind, True)]
    weights = np.array([mix[kind] for kind in kinds])
    return kinds[rng.choice(len(kinds), p=weights / weights.sum())]


def _sides(rectangle: Rectangle, width: float, depth: float) -> list[Side]:
    x0, y0, x1, y1 = rectangle
    return [
        Side(0, x0, y0, y1, 1, outside=x0 == 0),
        Side(0, x1, y0, y1, -1, outside=x1 == width),
        Side(1, y0, x0, x1, 1, outside=y0 == 0),
        Side(1, y1, x0, x1, -1, outside=y1 == depth),
    ]


def _doors(rng: np.random.Generator, rectangles: list[Rectangle]) -> list[tuple[int, float, Opening]]:
    """(axis, at, opening) of each; a wide shared wall may have a wide opening."""
    doors = []
    for axis in (0, 1):
        for one in rectangles:
            for other in rectangles:
                start, end = max(one[1 - axis], other[1 - axis]), min(one[3 - axis], other[3 - axis])
                if one[2 + axis] != other[axis] or end - start < DOOR_M[0] + 0.4:
                    continue
                wide = end - start > 3 and rng.random() < 0.25
                width = rng.uniform(1.5, 2.2) if wide else DOOR_M[0]
                left = rng.uniform(start + 0.2, end - 0.2 - width)
                doors.append((axis, one[2 + axis], Opening(left, left + width, 0.0, DOOR_M[1])))
    return doors


def _with_openings(
    rng: np.random.Generator, side: Side, doors: list[tuple[int, float, Opening]], height: float, kind: str
) -> Side:
    if side.outside:
        openings = _windows(rng, side, height, kind)
    else:
        openings = [
            door
            for axis, at, door in doors
            if (axis, at) == (side.axis, side.at) and side.start < door.start < side.end
        ]
    openings.sort(key=lambda opening: opening.start)
    return Side(side.axis, side.at, side.start, side.end, side.inward, side.outside, tuple(openings))


def _windows(rng: np.random.Generator, side: Side, height: float, kind: str) -> list[Opening]:
    low = {"kitchen": 1.15, "bath": 1.4}.get(kind, float(rng.choice([0.35, 0.85, 0.9])))
    windows = []
    at = side.start + rng.uniform(0.5, 1.4)
    while at < side.end - 1.3:
        width = rng.uniform(0.7, min(1.6, side.end - 0.4 - at))
        windows.append(Opening(at, at + width, low, min(2.2, height - 0.2)))
        at += width + rng.uniform(0.8, 2.5)
    return windows
