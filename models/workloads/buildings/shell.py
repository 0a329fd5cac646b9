"""Floors, ceilings, walls with doors and windows, skirting and lamps: a building before it is furnished.

Every room has its own inner skin of wall, so that both sides of a partition have their own paper. Walls to
the outside are thick, so that windows have reveals; what a ray finds beyond them is sky: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.models.workloads.buildings.furnish import WALL_M
from mas_edge.models.workloads.buildings.solids import Solid, ball, box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mas_edge.models.workloads.buildings.plan import Opening, Plan, Room, Side

OUTER_M = 0.2
SKIRTING_M = 0.08
LAMP_DROP_M = 0.3
"""How far below the ceiling a lamp hangs."""


def shell(plan: Plan) -> Iterator[Solid]:
    """Everything that is not furniture."""
    size = (plan.width + 2 * OUTER_M, plan.depth + 2 * OUTER_M, 0.1)
    yield box(size, "ceiling", at=(plan.width / 2, plan.depth / 2, plan.height + 0.05))
    for room in plan.rooms:
        x, y = room.centre
        floor = (room.x1 - room.x0, room.y1 - room.y0, 0.1)
        yield box(floor, f"floor {room.kind}", at=(0, 0, -0.05)).moved((x, y, 0)).laid_in_place()
        yield ball((0.18, 0.18, 0.06), "lamp").moved((x, y, plan.height - 0.05))
        for side in room.sides:
            yield from _wall(side, room, plan.height)


def _wall(side: Side, room: Room, height: float) -> Iterator[Solid]:
    """Strips around the openings, from the floor to the ceiling."""
    at = side.start
    for hole in side.openings:
        yield from _strip(side, room, at, hole.start, 0.0, height)
        yield from _strip(side, room, hole.start, hole.end, 0.0, hole.low)
        yield from _strip(side, room, hole.start, hole.end, hole.high, height)
        yield from _frame(side, hole)
        at = hole.end
    yield from _strip(side, room, at, side.end, 0.0, height)


def _strip(side: Side, room: Room, start: float, end: float, low: float, high: float) -> Iterator[Solid]:
    if end - start < 1e-3 or high - low < 1e-3:
        return
    outer = OUTER_M if side.outside else 0.0
    yield _slab(side, (start, end), (low, high), (-outer, WALL_M), f"wall {room.kind}")
    if low == 0 and room.kind != "bath":
        yield _slab(side, (start, end), (0.0, SKIRTING_M), (WALL_M, WALL_M + 0.012), "trim")


def _frame(side: Side, hole: Opening) -> Iterator[Solid]:
    """White boards around a door; a window's frame and its bars."""
    thick, low, high = 0.06, hole.low, hole.high
    off = (0.0, WALL_M + 0.015) if low == 0 else (-0.08, -0.02)
    around, inside = (thick, 0.01) if low == 0 else (0.0, thick)  # a door's frame lies around it
    yield _slab(side, (hole.start - around, hole.start + inside), (low, high), off, "trim")
    yield _slab(side, (hole.end - inside, hole.end + around), (low, high), off, "trim")
    yield _slab(side, (hole.start - around, hole.end + around), (high - inside, high + around), off, "trim")
    if low > 0:
        middle = (hole.start + hole.end) / 2
        yield _slab(side, (hole.start, hole.end), (low, low + thick), off, "trim")
        yield _slab(side, (middle - 0.025, middle + 0.025), (low, high), off, "trim")
        sill = (hole.start - 0.04, hole.end + 0.04)
        yield _slab(side, sill, (low - 0.03, low + 0.012), (-0.02, WALL_M + 0.06), "trim")


def _slab(
    side: Side,
    along: tuple[float, float],
    up: tuple[float, float],
    off: tuple[float, float],
    material: str,
) -> Solid:
    """A box on a wall: from-to along it, above the floor, and into the room; paper goes on over openings."""
    near, far = (side.at + side.inward * o for o in off)
    length, middle = along[1] - along[0], (along[0] + along[1]) / 2
    across = (abs(far - near), (near + far) / 2)
    z = (up[1] - up[0], (up[0] + up[1]) / 2)
    x, y = (across, (length, middle)) if side.axis == 0 else ((length, middle), across)
    return box((x[0], y[0], z[0]), material, at=(x[1], y[1], z[1])).laid_in_place()
