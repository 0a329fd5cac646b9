"""Things that stand in rooms: modelled ones from the catalogue, and those that are made of simple shapes.

``piece(kind, rng)`` is a thing with its back towards +y, its foot at z = 0 and its middle at x = y = 0.
Things that carry others (tables, counters, shelves) come laden, because what small things stand on is how one
meets bottles, books and toasters. Sizes are those of ordinary furniture.

It does not know rooms; ``furnish`` places pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mas_edge.models.workloads.buildings import catalogue, solids
from mas_edge.models.workloads.buildings.catalogue import label
from mas_edge.models.workloads.buildings.solids import Solid, ball, box, cylinder, turned
from mas_edge.models.workloads.buildings.style import BOOKS

if TYPE_CHECKING:
    from collections.abc import Iterable

Piece: TypeAlias = "tuple[Solid, ...]"

_PLATE_M = 0.02


def piece(kind: str, rng: np.random.Generator) -> Piece:
    """A thing of this kind; raises KeyError for one that is not known."""
    maker = _MADE.get(kind)
    modelled = kind in catalogue.COATS and bool(catalogue.standing(kind))
    if maker is not None and not (modelled and rng.random() < 0.5):
        return tuple(maker(rng))
    return _modelled(kind, rng)


def _modelled(kind: str, rng: np.random.Generator) -> Piece:
    choices = catalogue.standing(kind)
    parts = catalogue.model(kind, choices[rng.integers(len(choices))])
    match kind:
        case "chair" if rng.random() < 0.4:
            parts = catalogue.painted(parts, fabric2="wood")
        case "chair" if rng.random() < 0.3:
            parts = catalogue.painted(parts, wood="metal")
        case "couch" if rng.random() < 0.3:
            parts = catalogue.painted(parts, fabric="fabric2")
        case "oven" | "refrigerator" if rng.random() < 0.5:
            parts = catalogue.painted(parts, metal="white", white="metal")
        case "dining table":
            return tuple(laden(parts, rng))
    return parts


def moved(parts: Iterable[Solid], x: float, y: float, z: float, turn_rad: float = 0.0) -> list[Solid]:
    """Every part turned, then moved."""
    return [part.moved((x, y, z), turn_rad) for part in parts]


def laden(table: Piece, rng: np.random.Generator) -> list[Solid]:
    """The table with one to three small things on it."""
    low, high = solids.bounds(table)
    top = _top(table)
    parts = list(table)
    spots = rng.permutation([-0.28, 0.0, 0.28])[: rng.integers(1, 4)]
    for spot in spots:
        kind = str(rng.choice(["vase", "bottle", "book", "potted plant", "background"]))
        x, y = spot * (high[0] - low[0]), rng.uniform(-0.15, 0.15) * (high[1] - low[1])
        parts += moved(small(kind, rng), x, y, top, rng.uniform(0, 2 * np.pi))
    return parts


def small(kind: str, rng: np.random.Generator) -> list[Solid]:
    """What stands on other things."""
    maker = _MADE.get(kind)
    return list(_small_model(kind, rng) if maker is None else maker(rng))


def _small_model(kind: str, rng: np.random.Generator) -> Piece:
    return catalogue.model(kind, str(rng.choice(catalogue.SMALL[kind])))


def _top(parts: Piece) -> float:
    """The height at which most of the surface faces up."""
    corners = np.concatenate([part.corners_F33 for part in parts])
    up = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    z = corners[..., 2].mean(1)
    level = np.rint(z[up > 0] / _PLATE_M).astype(int)
    return float(np.bincount(level, up[up > 0]).argmax() * _PLATE_M + _PLATE_M / 2)


# --- small things -----------------------------------------------------------------------------------


def _vase(rng: np.random.Generator) -> list[Solid]:
    radius, height, waist = rng.uniform(0.06, 0.13), rng.uniform(0.22, 0.45), rng.uniform(1.8, 3.0)
    along = np.linspace(0, 1, 12)
    width = radius * (0.45 + 0.55 * np.sin(0.3 + waist * along))
    profile = [(0.0, 0.0), *zip(width, height * along, strict=True), (0.0, height * 0.97)]
    return [turned(profile, "vase", label("vase"))]


def _bottle(rng: np.random.Generator) -> list[Solid]:
    if rng.random() < 0.3:
        return list(_small_model("bottle", rng))
    r, h = rng.uniform(0.03, 0.05), rng.uniform(0.24, 0.34)
    profile = [(0.0, 0.0), (r, 0.0), (r, 0.62 * h), (r / 3, 0.8 * h), (r / 3, h), (0.0, h)]
    return [turned(profile, "glass", label("bottle"))]


def _book(rng: np.random.Generator) -> list[Solid]:
    """A pile."""
    parts, z = [], 0.0
    for _ in range(rng.integers(1, 5)):
        thick = rng.uniform(0.02, 0.05)
        size = (rng.uniform(0.15, 0.22), rng.uniform(0.2, 0.3), thick)
        book = box(size, f"book{rng.integers(BOOKS)}", label("book"))
        parts.append(book.moved((0, 0, z + thick / 2), rng.normal(0, 0.15)))
        z += thick
    return parts


def _microwave(_: np.random.Generator) -> list[Solid]:
    kind = label("microwave")
    return [
        box((0.48, 0.34, 0.28), "metal", kind, (0, 0, 0.14)),
        box((0.32, 0.012, 0.2), "black", kind, (-0.06, -0.172, 0.14)),
        box((0.02, 0.03, 0.2), "white", kind, (0.13, -0.18, 0.14)),
    ]


def _toaster(_: np.random.Generator) -> list[Solid]:
    kind = label("toaster")
    return [
        ball((0.15, 0.09, 0.11), "metal", kind, squareness=6).moved((0, 0, 0.11)),
        box((0.2, 0.03, 0.02), "black", kind, (0, 0.025, 0.215)),
        box((0.2, 0.03, 0.02), "black", kind, (0, -0.025, 0.215)),
        box((0.02, 0.04, 0.03), "black", kind, (0.155, 0, 0.15)),
    ]


def _clock(rng: np.random.Generator) -> list[Solid]:
    """Round and flat, its back at y = 0; on a wall."""
    if rng.random() < 0.3:
        return moved(_small_model("clock", rng), 0, -0.1, -0.4)
    kind, radius = label("clock"), rng.uniform(0.14, 0.22)
    face = turned([(0, 0), (radius, 0), (radius, 0.03), (radius * 0.9, 0.035), (0, 0.035)], "white", kind)
    hands = [
        box((0.014, radius * 0.8, 0.006), "black", kind, (0, radius * 0.35, 0.038)),
        box((radius * 0.6, 0.018, 0.006), "black", kind, (radius * 0.25, 0, 0.038)),
    ]
    return [upright(part) for part in (face, *hands)]


def upright(part: Solid) -> Solid:
    """What lay face up now faces -y, its upper end up."""
    tip = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)  # (x, y, z) -> (x, -z, y)
    return Solid(part.corners_F33 @ tip, part.normals_F33 @ tip, part.surface_F32, part.material, part.label)


# --- what stands on the floor -----------------------------------------------------------------------


def _bookcase(rng: np.random.Generator) -> list[Solid]:
    width, height, shelves = rng.uniform(0.7, 1.5), rng.uniform(1.2, 2.1), int(rng.integers(4, 7))
    gap = height / (shelves - 1)
    parts = [box((0.03, 0.32, height), "wood", at=(side * width / 2, 0, height / 2)) for side in (-1, 1)]
    parts.append(box((width, 0.015, height), "wood", at=(0, 0.15, height / 2)))
    for shelf in range(shelves):
        parts.append(box((width, 0.32, 0.025), "wood", at=(0, 0, shelf * gap + 0.012)))
        if shelf < shelves - 1:
            parts += _row_of_books(rng, width - 0.08, shelf * gap + 0.025, gap - 0.05)
    return parts


def _row_of_books(rng: np.random.Generator, width: float, z: float, room: float) -> list[Solid]:
    """Upright books with gaps, now and then another thing."""
    parts: list[Solid] = []
    x = -width / 2
    while x < width / 2 - 0.07:
        draw = rng.random()
        if draw < 0.05 and x < width / 2 - 0.3:
            kind = str(rng.choice(["vase", "bottle", "potted plant"]))
            thing = small(kind, rng)
            low, high = solids.bounds(thing)
            if high[2] < room and high[0] - low[0] < 0.3:
                parts += moved(thing, x + 0.15, -0.02, z)
            x += 0.3
        elif draw < 0.15:
            x += rng.uniform(0.05, 0.25)
        else:
            thick, tall = rng.uniform(0.022, 0.06), rng.uniform(0.55, 0.9) * room
            number = rng.integers(BOOKS)
            size = (thick, rng.uniform(0.16, 0.22), tall)
            parts.append(box(size, f"book{number}", label("book"), (x + thick / 2, -0.03, z + tall / 2)))
            x += thick + 0.003
    return parts


def _desk(rng: np.random.Generator) -> list[Solid]:
    width, tv = rng.uniform(1.1, 1.6), label("tv")
    parts = [box((width, 0.65, 0.035), "wood2", at=(0, 0, 0.73))]
    parts += [box((0.04, 0.6, 0.71), "wood2", at=(side * (width / 2 - 0.05), 0, 0.36)) for side in (-1, 1)]
    screen = rng.uniform(0.5, 0.7)
    parts += [
        box((screen, 0.03, 0.6 * screen), "black", tv, (0, 0.15, 0.88 + 0.3 * screen)),
        box((screen - 0.03, 0.032, 0.6 * screen - 0.03), "screen", tv, (0, 0.148, 0.88 + 0.3 * screen)),
        box((0.05, 0.04, 0.2), "black", tv, (0, 0.18, 0.84)),
        box((0.22, 0.16, 0.015), "black", tv, (0, 0.16, 0.757)),
        box((0.42, 0.14, 0.02), "black", at=(0, -0.1, 0.757)),
    ]
    return parts + moved(_book(rng), width / 2 - 0.25, 0.05, 0.75)


def _tv(rng: np.random.Generator) -> list[Solid]:
    """A set on a low cupboard."""
    width, kind, base = rng.uniform(0.9, 1.45), label("tv"), rng.uniform(0.35, 0.5)
    height, z = width * 0.57, base + 0.08 + width * 0.285
    parts = [
        box((1.6, 0.42, base - 0.06), "wood2", at=(0, 0, base / 2 + 0.03)),
        box((1.5, 0.36, 0.06), "black", at=(0, 0.02, 0.03)),
        box((width, 0.05, height), "black", kind, (0, 0.05, z)),
        box((width - 0.05, 0.052, height - 0.05), "screen", kind, (0, 0.047, z)),
        box((0.4, 0.2, 0.02), "black", kind, (0, 0.05, base + 0.01)),
        box((0.08, 0.04, 0.1), "black", kind, (0, 0.06, base + 0.05)),
    ]
    parts += [box((0.006, 0.43, base - 0.1), "black", at=(x, -0.001, base / 2 + 0.03)) for x in (-0.27, 0.27)]
    return parts + moved(small(str(rng.choice(["vase", "book", "potted plant"])), rng), 0.68, 0, base)


def _wardrobe(rng: np.random.Generator) -> list[Solid]:
    doors = int(rng.integers(2, 4))
    width = 0.55 * doors
    parts = [
        box((width, 0.58, 2.0), "wood", at=(0, 0.01, 1.04)),
        box((width - 0.04, 0.5, 0.05), "black", at=(0, 0, 0.02)),
    ]
    for door in range(doors):
        x = (door - (doors - 1) / 2) * 0.55
        parts.append(box((0.535, 0.02, 1.96), "cabinet", at=(x, -0.29, 1.04)))
        parts.append(box((0.015, 0.03, 0.25), "metal", at=(x + 0.21, -0.31, 1.05)))
    return parts


def _coffee_table(rng: np.random.Generator) -> list[Solid]:
    width, depth, z = rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.7), rng.uniform(0.35, 0.45)
    parts = [box((width, depth, 0.04), "wood2", at=(0, 0, z))]
    feet = [(x * (width / 2 - 0.06), y * (depth / 2 - 0.06)) for x in (-1, 1) for y in (-1, 1)]
    parts += [box((0.05, 0.05, z), "wood2", at=(x, y, z / 2)) for x, y in feet]
    return laden(tuple(parts), rng)


def _table(rng: np.random.Generator) -> list[Solid]:
    kind = label("dining table")
    if rng.random() < 0.4:
        radius = rng.uniform(0.5, 0.65)
        foot = [(0, 0), (0.3, 0), (0.28, 0.03), (0.06, 0.1), (0.05, 0.6), (0.14, 0.71), (0, 0.71)]
        top = cylinder(radius, 0.04, "wood", kind).moved((0, 0, 0.73))
        return laden((top, turned(foot, "wood", kind)), rng)
    width, depth = rng.uniform(1.2, 1.9), rng.uniform(0.75, 0.95)
    parts = [box((width, depth, 0.04), "wood", kind, (0, 0, 0.73))]
    feet = [(x * (width / 2 - 0.07), y * (depth / 2 - 0.07)) for x in (-1, 1) for y in (-1, 1)]
    parts += [box((0.07, 0.07, 0.71), "wood", kind, (x, y, 0.355)) for x, y in feet]
    return laden(tuple(parts), rng)


def _washstand(_: np.random.Generator) -> list[Solid]:
    kind = label("sink")
    return [
        box((0.7, 0.46, 0.72), "cabinet", at=(0, 0.02, 0.38)),
        box((0.72, 0.5, 0.04), "stone", at=(0, 0, 0.76)),
        ball((0.25, 0.18, 0.09), "white", kind, squareness=3).moved((0, -0.02, 0.8)),
        cylinder(0.014, 0.2, "metal", kind).moved((0, 0.18, 0.88)),
        box((0.02, 0.14, 0.02), "metal", kind, (0, 0.12, 0.97)),
        box((0.55, 0.02, 0.75), "mirror", at=(0, 0.24, 1.5)),
    ]


_MADE = {
    "vase": _vase,
    "bottle": _bottle,
    "book": _book,
    "microwave": _microwave,
    "toaster": _toaster,
    "clock": _clock,
    "bookcase": _bookcase,
    "desk": _desk,
    "tv": _tv,
    "wardrobe": _wardrobe,
    "coffee table": _coffee_table,
    "dining table": _table,
    "sink": _washstand,
}
