"""Where the files of a building's views lie: ``point_P_view_V_domain_NAME.png`` in a folder per domain.

The name is Taskonomy's; its folders have been released in several trees, and each is found by looking:

    DOMAIN/taskonomy/BUILDING/    as the Omnidata tool downloads it
    DOMAIN/BUILDING/              as the Tiny partition unpacks
    BUILDING_DOMAIN/              as one archive per building and domain unpacks
    BUILDING/DOMAIN/              as the sample building is published

Paths are listed, never derived from one another by replacing text: a root that is called ``rgb`` is a root.

Source: data/README.md of github.com/StanfordVL/taskonomy; docs.omnidata.vision. It opens no file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from mas_edge.models.tasks import DataRefused

PLACES = (
    "{domain}/taskonomy/{building}",
    "{domain}/{building}",
    "{building}_{domain}",
    "{building}/{domain}",
)

SPELT = {"segment_semantic": "segmentsemantic", "mask_valid": "depth_zbuffer"}
"""Domains whose files are named otherwise than their folder."""

_COMPONENT = "taskonomy"
"""What Omnidata calls it, among other data sets: no building."""

_NAME = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.(?:png|npy)")


class View(NamedTuple):
    """One picture of a building: views of one point look at the same spot."""

    point: int
    view: int


def folder(root: Path, building: str, domain: str) -> Path | None:
    """The folder with a building's files of this domain, or None if this root has none."""
    places = (root / place.format(domain=domain, building=building) for place in PLACES)
    return next((place for place in places if place.is_dir()), None)


def file(domain: str, view: View) -> str:
    """The name of a view's file as it is released, without its suffix."""
    return f"point_{view.point}_view_{view.view}_domain_{SPELT.get(domain, domain)}"


def views(place: Path, domain: str) -> dict[View, Path]:
    """The domain's files in a folder, in either spelling, sorted by point and view.

    Raises DataRefused if there is none, or two for one view.
    """
    found: dict[View, Path] = {}
    for path in sorted(place.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match or match[3] not in {domain, SPELT.get(domain)}:
            continue
        view = View(int(match[1]), int(match[2]))
        if view in found:
            raise DataRefused(f"{path}: {found[view].name} is of the same view; remove one of them")
        found[view] = path
    if not found:
        raise DataRefused(
            f"{place}: no file {file(domain, View(0, 0)).replace('0', 'N')}.png or .npy in this folder"
        )
    return dict(sorted(found.items()))


def buildings(root: Path, domain: str) -> tuple[str, ...]:
    """The buildings of which this root has a folder of this domain, sorted."""
    names = {name for place in PLACES for name in _matching(root, place, domain)}
    return tuple(sorted(name for name in names if folder(root, name, domain)))


def _matching(root: Path, place: str, domain: str) -> list[str]:
    before, after = place.format(domain=domain, building="*").split("*")
    found = [path.relative_to(root).as_posix() for path in root.glob(f"{before}*{after}") if path.is_dir()]
    names = [name[len(before) : len(name) - len(after)] for name in found]
    return [name for name in names if name not in {domain, _COMPONENT}]
