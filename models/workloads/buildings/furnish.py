"""Where things stand: against walls, in the middle, on walls and on the floor, and never in each other.

What a room of a kind has is a table (WANTED). Each thing is tried at a few random places; it must keep clear
of the others, of door swings, and not hide a window if it is tall. Chairs face their table or desk. What
finds no place is left out, as in real rooms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mas_edge.models.workloads.buildings.catalogue import label
from mas_edge.models.workloads.buildings.furniture import moved, piece
from mas_edge.models.workloads.buildings.kitchen import counter
from mas_edge.models.workloads.buildings.plan import DOOR_M, Opening, Plan, Room, Side
from mas_edge.models.workloads.buildings.solids import Solid, bounds, box
from mas_edge.models.workloads.buildings.style import PICTURES, RUGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mas_edge.models.workloads.buildings.furniture import Piece

Point: TypeAlias = "tuple[float, float, float]"

WALL_M = 0.06
"""How far a wall reaches into its room."""

WANTED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "living": (
        ("couch", "tv", "bookcase", "potted plant", "couch", "background", "chair"),
        ("coffee table", "dining table"),
    ),
    "bedroom": (("bed", "wardrobe", "desk", "potted plant", "background", "bookcase", "tv"), ()),
    "kitchen": (
        ("counter", "refrigerator", "counter", "oven", "potted plant", "background"),
        ("dining table",),
    ),
    "bath": (("toilet", "sink", "background", "potted plant", "background"), ()),
    "office": (
        ("desk", "bookcase", "desk", "bookcase", "potted plant", "couch", "background"),
        ("dining table",),
    ),
    "dining": (
        ("bookcase", "background", "potted plant", "counter", "chair"),
        ("dining table", "dining table"),
    ),
}
"""Per kind of room, what stands along its walls and what in its middle, most wanted first."""

_CHAIRS = {"dining table": (2, 6), "desk": (1, 2)}
_TRIES = 25


@dataclass(frozen=True)
class Box2:
    """A rectangle on the floor."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box2) -> bool:
        """Whether they overlap."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def within(self, room: Room, margin: float) -> bool:
        """Whether it keeps this far from the walls."""
        return (
            self.x0 > room.x0 + margin
            and self.y0 > room.y0 + margin
            and self.x1 < room.x1 - margin
            and self.y1 < room.y1 - margin
        )


@dataclass(frozen=True)
class Furnished:
    """What was put into a room, the floor that is taken, and the middles of the things of each class."""

    solids: tuple[Solid, ...]
    taken: tuple[Box2, ...]
    objects: dict[int, tuple[Point, ...]]


def furnish(rng: np.random.Generator, room: Room, plan: Plan) -> Furnished:
    """Fill a room by its kind."""
    taken = [_swing(side, opening.start, opening.end) for side, opening in _doors(room)]
    doors = len(taken)
    along, middle = WANTED[room.kind]
    placed: list[Piece] = []
    for kind in along:
        if rng.random() < 0.9:
            placed += _against_wall(rng, kind, room, taken)
    for kind in middle:
        placed += _in_middle(rng, kind, room, taken)
    placed += list(_on_walls(rng, room, plan, [*taken]))
    placed += list(_rug(rng, room))
    solids = tuple(part for thing in placed for part in thing)
    return Furnished(solids, tuple(taken[doors:]), _objects(solids))


def _objects(solids: Sequence[Solid]) -> dict[int, tuple[Point, ...]]:
    found: dict[int, tuple[Point, ...]] = {}
    for part in solids:
        if part.label != label("background"):
            low, high = bounds([part])
            x, y, z = map(float, (low + high) / 2)
            found[part.label] = (*found.get(part.label, ()), (x, y, z))
    return found


def _doors(room: Room) -> Iterator[tuple[Side, Opening]]:
    for side in room.sides:
        for opening in side.openings:
            if opening.low == 0:
                yield side, opening


def _swing(side: Side, start: float, end: float) -> Box2:
    """The floor in front of a doorway that stays free."""
    (xa, ya), (xb, yb) = side.point(start, 0.0), side.point(end, DOOR_M[0] * 0.8)
    return Box2(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))


def _made(kind: str, rng: np.random.Generator) -> Piece:
    return counter(rng) if kind == "counter" else piece(kind, rng)


def _facing(side: Side) -> float:
    """The turn that brings a thing's back (+y) to the wall."""
    return {(1, -1): 0.0, (1, 1): np.pi, (0, -1): -np.pi / 2, (0, 1): np.pi / 2}[side.axis, side.inward]


def _against_wall(rng: np.random.Generator, kind: str, room: Room, taken: list[Box2]) -> list[Piece]:
    thing = _made(kind, rng)
    low, high = bounds(thing)
    width, depth = float(high[0] - low[0]), float(high[1] - low[1])
    for _ in range(_TRIES):
        side = room.sides[rng.integers(4)]
        if side.end - side.start < width + 2 * WALL_M + 0.1:
            continue
        reach = width / 2 + WALL_M + 0.02
        along = rng.uniform(side.start + reach, side.end - reach)
        off = WALL_M + 0.02 + float(high[1])
        x, y = side.point(along, off)
        space = _space(side, along, width, depth)
        if any(space.meets(other) for other in taken) or _hides_window(side, along, width, float(high[2])):
            continue
        taken.append(space)
        front = low[1] if kind == "desk" else None
        return [
            tuple(moved(thing, x, y, 0, _facing(side))),
            *_chair_before(rng, side, along, off, front, taken),
        ]
    return []


def _space(side: Side, along: float, width: float, depth: float) -> Box2:
    (xa, ya), (xb, yb) = (
        side.point(along - width / 2, 0.0),
        side.point(along + width / 2, depth + WALL_M + 0.05),
    )
    return Box2(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))


def _hides_window(side: Side, along: float, width: float, height: float) -> bool:
    return any(
        hole.start < along + width / 2 and along - width / 2 < hole.end and hole.low + 0.1 < height
        for hole in side.openings
    )


def _chair_before(
    rng: np.random.Generator, side: Side, along: float, off: float, front: float | None, taken: list[Box2]
) -> list[Piece]:
    """A chair that faces a desk."""
    if front is None:
        return []
    x, y = side.point(along, off - float(front) + 0.15)
    turn = _facing(side) + np.pi + rng.normal(0, 0.3)
    return _stand(rng, "chair", x, y, turn, taken)


def _stand(
    rng: np.random.Generator, kind: str, x: float, y: float, turn_rad: float, taken: list[Box2]
) -> list[Piece]:
    """A thing at a place where it may touch what it belongs to; its floor is taken."""
    thing = tuple(moved(_made(kind, rng), x, y, 0, turn_rad))
    low, high = bounds(thing)
    taken.append(Box2(float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    return [thing]


def _in_middle(rng: np.random.Generator, kind: str, room: Room, taken: list[Box2]) -> list[Piece]:
    thing = _made(kind, rng)
    for _ in range(_TRIES):
        turn = float(rng.choice([0, np.pi / 2]))
        x, y = rng.uniform(room.x0 + 0.8, room.x1 - 0.8), rng.uniform(room.y0 + 0.8, room.y1 - 0.8)
        here = tuple(moved(thing, x, y, 0, turn))
        low, high = bounds(here)
        space = Box2(*map(float, (low[0] - 0.1, low[1] - 0.1, high[0] + 0.1, high[1] + 0.1)))
        if not space.within(room, 0.35) or any(space.meets(other) for other in taken):
            continue
        taken.append(space)
        return [here, *_chairs_around(rng, kind, room, space, taken)]
    return []


def _chairs_around(
    rng: np.random.Generator, kind: str, room: Room, table: Box2, taken: list[Box2]
) -> list[Piece]:
    """Chairs of one model on the table's sides, their backs away from it."""
    if kind not in _CHAIRS:
        return []
    chair = piece("chair", rng)
    chairs: list[Piece] = []
    x, y = (table.x0 + table.x1) / 2, (table.y0 + table.y1) / 2
    a, b = (table.x1 - table.x0) / 2 + 0.1, (table.y1 - table.y0) / 2 + 0.1
    for number in rng.permutation(6)[: rng.integers(*_CHAIRS[kind])]:
        place = [
            (x + a, y, 0),
            (x - a, y, 2),
            *((x + k * a / 2, y + s * b, 2 - s) for k in (-1, 1) for s in (-1, 1)),
        ]
        px, py, quarter = place[number]
        turn = (quarter - 1) * np.pi / 2 + rng.normal(0, 0.15)
        here = tuple(moved(chair, px, py, 0, turn))
        low, high = bounds(here)
        space = Box2(*map(float, (low[0], low[1], high[0], high[1])))
        if space.within(room, 0.1) and not any(space.meets(o) for o in taken if o is not table):
            taken.append(space)
            chairs.append(here)
    return chairs


def _on_walls(rng: np.random.Generator, room: Room, plan: Plan, taken: list[Box2]) -> Iterator[Piece]:
    """Pictures, and a clock: not over openings, not behind tall things."""
    for kind in ["clock"] * (rng.random() < 0.7) + ["picture"] * int(rng.integers(1, 5)):
        side = room.sides[rng.integers(4)]
        thing = _made("clock", rng) if kind == "clock" else _picture(rng)
        width = float(np.ptp([part.corners_F33[..., 0] for part in thing[:1]]))
        along = rng.uniform(side.start + 0.5, side.end - 0.5)
        space = _space(side, along, width + 0.1, 0.3)
        if _hides_window(side, along, width + 0.2, plan.height) or any(space.meets(other) for other in taken):
            continue
        taken.append(space)
        x, y = side.point(along, WALL_M)
        yield tuple(moved(thing, x, y, rng.uniform(1.5, 1.75), _facing(side)))


def _picture(rng: np.random.Generator) -> Piece:
    """A frame, and the canvas a hair before it; the back at y = 0."""
    width, height = rng.uniform(0.35, 1.1), rng.uniform(0.35, 0.9)
    frame = str(rng.choice(["wood", "black", "white"]))
    return (
        box((width, 0.016, height), frame, at=(0, -0.008, 0)),
        box((width - 0.06, 0.004, height - 0.06), f"picture{rng.integers(PICTURES)}", at=(0, -0.017, 0)),
    )


def _rug(rng: np.random.Generator, room: Room) -> Iterator[Piece]:
    if room.kind in ("kitchen", "bath") or rng.random() < 0.35:
        return
    width = min(rng.uniform(1.2, 2.4), room.x1 - room.x0 - 0.6)
    depth = min(rng.uniform(1.0, 1.8), room.y1 - room.y0 - 0.6)
    x, y = room.centre
    yield (box((width, depth, 0.008), f"rug{rng.integers(RUGS)}", at=(0, 0, 0.004)).moved((x, y, 0)),)
