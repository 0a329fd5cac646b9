"""The 66 furniture models that ship with the package, painted part by part.

The models (``furniture.npz``, see furniture.NOTICE.txt) are grey triangle soups in metres, standing on z = 0
with their backs towards +y. What hangs together is one part of a thing, a leg or a cushion; a part's share of
the surface tells which of a class's two or three materials it gets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import DataRefused
from mas_edge.models.workloads.buildings.frame import CLASSES
from mas_edge.models.workloads.buildings.solids import Solid, components, solid

if TYPE_CHECKING:
    from mas_edge.models.tasks import Array

MODELS = Path(__file__).with_name("furniture.npz")


@dataclass(frozen=True)
class Coat:
    """Materials of a class: of parts with at least ``share`` of the surface, of others, and of pots."""

    large: str
    small: str
    share: float = 0.1
    pot: str | None = None


COATS = {
    "background": Coat("wood2", "metal", 0.03),
    "bed": Coat("bedding", "wood", 0.15),
    "bottle": Coat("glass", "white", 0.2),
    "chair": Coat("fabric2", "wood", 0.2),
    "clock": Coat("wood", "white", 0.15),
    "couch": Coat("fabric", "wood", 0.015),
    "dining table": Coat("wood", "wood2", 0.05),
    "oven": Coat("white", "black", 0.2),
    "potted plant": Coat("leaf", "leaf", 0.0, pot="pot"),
    "refrigerator": Coat("metal", "black", 0.05),
    "sink": Coat("white", "metal", 0.12),
    "toilet": Coat("white", "wood", 0.05),
    "tv": Coat("black", "metal", 0.05),
}


SMALL = {"potted plant": ("107", "77"), "background": ("15",), "bottle": ("23", "64"), "clock": ("96",)}
"""Models that stand on furniture or hang on a wall."""

_UNFIT = {
    ("background", "121"),  # a chandelier
    ("bed", "87"),  # a cot
    ("chair", "26"),  # lost its seat when its triangles were thinned out
    ("potted plant", "102"),  # hangs
    ("potted plant", "126"),  # lost its stems
    ("toilet", "104"),  # a bidet
    ("tv", "22"),  # wants a cupboard
    ("tv", "52"),  # a cupboard
}
_IS = {("background", "1"): "chair"}


def standing(kind: str) -> tuple[str, ...]:
    """Models of a class that stand on the floor, sorted."""
    return tuple(name for name in _names().get(kind, ()) if name not in SMALL.get(kind, ()))


@cache
def model(kind: str, name: str) -> tuple[Solid, ...]:
    """A model's parts, painted and of one class; raises DataRefused if the package is damaged."""
    stored = _stored()
    vertices, faces = (stored[f"{kind}/{name}/{part}"] for part in "vf")
    kind = _IS.get((kind, name), kind)
    vertices, faces = vertices.astype(np.float32), faces.astype(np.int64)
    return tuple(_joined(_parts(vertices, faces, COATS[kind]), label(kind)))


def label(name: str) -> int:
    """The class id of a thing; what is no class is background."""
    return CLASSES.index(name) if name in CLASSES else CLASSES.index("background")


def _parts(vertices: Array, faces: Array, coat: Coat) -> list[tuple[str, Array]]:
    whole = _area(vertices, faces)
    height = vertices[:, 2].max()
    parts = []
    for part in components(vertices, faces):
        z = vertices[part][..., 2]
        if coat.pot and z.min() < 0.03 and z.max() < 0.6 * height:
            material = coat.pot
        else:
            material = coat.large if _area(vertices, part) >= coat.share * whole else coat.small
        parts.append((material, part))
    return [(material, vertices[part]) for material, part in parts]


def _joined(parts: list[tuple[str, Array]], label: int) -> list[Solid]:
    """One solid per material."""
    made = []
    for material in sorted({material for material, _ in parts}):
        corners = np.concatenate([part for name, part in parts if name == material])
        made.append(
            solid(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), material, label)
        )
    return made


def painted(parts: tuple[Solid, ...], **instead: str) -> tuple[Solid, ...]:
    """The same parts with other materials, by the material that they had."""
    return tuple(replace(part, material=instead.get(part.material, part.material)) for part in parts)


def _area(vertices: Array, faces: Array) -> float:
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


@cache
def _stored() -> dict[str, Array]:
    try:
        with np.load(MODELS, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError) as error:
        raise DataRefused(f"{MODELS}: not the furniture, or damaged ({error}); reinstall mas-edge") from error


@cache
def _names() -> dict[str, tuple[str, ...]]:
    """Fit models by class, in the file's order of numbers."""
    pairs = sorted({(int(name), kind) for kind, name, _ in (key.split("/") for key in _stored())})
    found: dict[str, tuple[str, ...]] = {}
    for number, kind in pairs:
        if (kind, str(number)) not in _UNFIT:
            found[kind] = (*found.get(kind, ()), str(number))
    return found
