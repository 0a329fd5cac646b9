"""Rendered buildings written out as the files that Taskonomy's users know, and a ``dataset.toml``.

One PNG per view and domain, ``DOMAIN/taskonomy/BUILDING/point_P_view_0_domain_NAME.png``: 8 or 16 bits as
stored, so that reading gives the same numbers. Two channels (curvatures) go into a colour picture whose
third is 0; readers take the first two. The workload ``taskonomy`` reads them with Taskonomy's normalisation,
``folder`` with that of the buildings.

Source of the layout: ``workloads.layout``. It renders nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.models.tasks import DataRefused
from mas_edge.models.workloads import description, layout, pictures
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.dataset import building
from mas_edge.models.workloads.buildings.workload import DESCRIPTION
from mas_edge.wire.folders import whole_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.models.tasks import Array
    from mas_edge.models.workloads.description import Description
    from mas_edge.models.workloads.folder_files import Building


def export(out: Path, clients: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Write these buildings (None: all) of the shipped set, or of the one in ``root``; how many pictures.

    ``out`` is there when all is written. Raises UnknownChoice for a building, DataRefused for a damaged set
    or an ``out`` with something in it, FolderRefused, OSError.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataRefused(f"{out}: there is something already; name a new folder")
    described = DESCRIPTION if root is None else _of_set(archive.open_page(root))
    chosen = (*described.clients, *described.unseen) if clients is None else tuple(dict.fromkeys(clients))
    opened = [building(described, archive.SHIPPED, root, client) for client in chosen]
    kept = msgspec.structs.replace(
        described,
        clients=tuple(name for name in described.clients if name in chosen),
        unseen=tuple(name for name in described.unseen if name in chosen),
    )
    with whole_folder(out.absolute()) as partial:
        count = sum(write_building(partial, described, each) for each in opened)
        (partial / description.FILE).write_text(description.text(kept), encoding="utf-8")
    return count


def _of_set(page: archive.Page) -> Description:
    """What a set's files mean: sizes and buildings are its own, the rest is the workload's."""
    seen = tuple(name for name in page.clients if name not in page.unseen)
    return msgspec.structs.replace(DESCRIPTION, pixels=page.pixels, clients=seen, unseen=page.unseen)


def write_building(root: Path, described: Description, views: Building) -> int:
    """Write all views of one building; returns how many pictures.

    Raises OSError, and TypeError for values that PNG cannot hold.
    """
    count = 0
    for domain in described.domains:
        place = root / layout.PLACES[0].format(domain=domain, building=views.name)
        place.mkdir(parents=True, exist_ok=True)
        for view, values in zip(views.views, views.stored[domain], strict=True):
            pictures.write(place / f"{layout.file(domain, view)}.png", _as_picture(values))
            count += 1
    return count


def _as_picture(values: Array) -> Array:
    """What PNG can hold of (S, S, C): (S, S) of one channel, (S, S, 3) of two, the third 0."""
    match values.shape[2]:
        case 1:
            values = values[..., 0]
        case 2:
            values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=2)
    return np.ascontiguousarray(values)
