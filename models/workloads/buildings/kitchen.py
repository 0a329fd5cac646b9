"""A kitchen's worktop: base and wall cupboards, an oven or a sink built in, and small machines on top.

The top is divided into slots of 60 cm with a thing each. Backs are towards +y, as of all furniture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.models.workloads.buildings.catalogue import label
from mas_edge.models.workloads.buildings.furniture import moved, small
from mas_edge.models.workloads.buildings.solids import Solid, ball, box, cylinder

if TYPE_CHECKING:
    import numpy as np

SLOT_M, TOP_M = 0.6, 0.9

_ON_TOP = ("microwave", "toaster", "bottles", "sink", "oven", "book", "vase")


def counter(rng: np.random.Generator) -> tuple[Solid, ...]:
    """Two to four slots, laden, with cupboards above."""
    slots = int(rng.integers(2, 5))
    width = slots * SLOT_M
    parts = [
        box((width, 0.02, 0.1), "black", at=(0, -0.24, 0.05)),
        box((width, 0.58, 0.76), "wood2", at=(0, 0.01, 0.48)),
        box((width + 0.03, 0.63, 0.04), "stone", at=(0, -0.01, TOP_M - 0.02)),
        box((width, 0.015, 0.5), "stone", at=(0, 0.295, 1.15)),
    ]
    things = rng.permutation(_ON_TOP)[:slots]
    for slot, thing in enumerate(map(str, things)):
        x = (slot - (slots - 1) / 2) * SLOT_M
        parts += _oven(x) if thing == "oven" else _front(x, 0.48, 0.76, -0.29)
        parts += _on_top(rng, thing, x)
        parts += [box((SLOT_M, 0.33, 0.65), "wood2", at=(x, 0.14, 1.75)), *_front(x, 1.75, 0.65, -0.035)]
    return tuple(parts)


def _front(x: float, z: float, height: float, y: float) -> list[Solid]:
    """A cupboard's door and its handle."""
    return [
        box((SLOT_M - 0.02, 0.02, height - 0.02), "cabinet", at=(x, y, z)),
        box((0.16, 0.025, 0.014), "metal", at=(x, y - 0.015, z + 0.3 * height)),
    ]


def _oven(x: float) -> list[Solid]:
    kind = label("oven")
    return [
        box((0.59, 0.03, 0.72), "metal", kind, (x, -0.29, 0.5)),
        box((0.5, 0.012, 0.4), "black", kind, (x, -0.308, 0.43)),
        box((0.46, 0.03, 0.025), "white", kind, (x, -0.325, 0.69)),
        *(
            box((0.035, 0.02, 0.035), "black", kind, (x + 0.12 * k, -0.31, 0.8))
            for k in (-1.5, -0.5, 0.5, 1.5)
        ),
        box((0.56, 0.5, 0.012), "black", kind, (x, 0, TOP_M + 0.005)),
    ]


def _on_top(rng: np.random.Generator, thing: str, x: float) -> list[Solid]:
    match thing:
        case "bottles":
            spots = [(x + 0.12 * (n - 1), rng.uniform(-0.05, 0.2)) for n in range(rng.integers(2, 4))]
            return [part for at in spots for part in moved(small("bottle", rng), *at, TOP_M)]
        case "sink":
            kind = label("sink")
            return [
                ball((0.25, 0.2, 0.03), "metal", kind, squareness=5).moved((x, -0.03, TOP_M)),
                box((0.4, 0.3, 0.01), "black", kind, (x, -0.03, TOP_M + 0.028)),
                cylinder(0.014, 0.28, "metal", kind).moved((x, 0.2, TOP_M + 0.14)),
                box((0.02, 0.18, 0.02), "metal", kind, (x, 0.12, TOP_M + 0.27)),
            ]
        case "oven":
            return []
        case _:
            return moved(small(thing, rng), x, 0.06, TOP_M, rng.normal(0, 0.08))
