"""Rendered buildings as a data set: the set that ships with the package, or a larger one in a folder.

A building's records (``archive``) are handed, a label at a time, to the data set that also serves folders in
Taskonomy's layout, so that masks, normalisation and held-out views are the same thing there and here. The
shipped buildings are unpacked into memory, together and each label plane by plane, so that a batch is one
indexed copy per label; a folder's are mapped. Neither is normalised before a batch is.

Views are drawn at random, so that the last ones of a building are held out as well as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import DataRefused, UnknownChoice
from mas_edge.models.workloads import folder_data, layout
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.records import LABELS
from mas_edge.models.workloads.folder_files import Building

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array, Source, View
    from mas_edge.models.workloads.description import Description


def dataset(
    described: Description, shipped: Path | None, source: Source, view: View, held_out_share: float
) -> folder_data.Views:
    """The buildings' views; ``shipped`` is read if the source names no root.

    Raises DataRefused for files that are missing, damaged or of another format, UnknownChoice for a name.
    """
    if not 0 <= held_out_share < 1:
        raise DataRefused(f"held-out share {held_out_share}: use a number from 0 up to, not including, 1")
    opened = [building(described, shipped, source.root, client) for client in source.clients]
    parts = [(each, folder_data.in_view(each, view, held_out_share)) for each in opened]
    return folder_data.Views(described, parts if source.root or not parts else [_together(parts)])


def _together(parts: Sequence[tuple[Building, NDArray[np.int64]]]) -> tuple[Building, NDArray[np.int64]]:
    """The chosen views of all buildings as those of one, copied, each channel's pixels side by side."""
    views = tuple(building.views[row] for building, rows in parts for row in rows)
    stored = {
        name: np.concatenate([np.moveaxis(each.stored[name], 3, 1)[rows] for each, rows in parts])
        for name in LABELS
    }
    planes = {name: np.moveaxis(np.ascontiguousarray(each), 1, 3) for name, each in stored.items()}
    return Building("shipped", views, planes), np.arange(len(views))


def building(described: Description, shipped: Path | None, root: Path | None, client: str) -> Building:
    """One building, its labels memory-mapped or unpacked; raises as ``dataset`` does.

    A folder has the buildings that its page names, which may be more than are shipped.
    """
    known = (*described.clients, *described.unseen)
    if root is not None:
        views = archive.open_client(root, client, described.pixels)
    elif shipped is None:
        raise DataRefused(
            f"no buildings of {described.pixels} px are shipped: make them, and give their folder as root"
        )
    elif client in known:
        views = archive.unpack(shipped, client, described.pixels)
    else:
        raise UnknownChoice(f"there is no building {client!r}; there are {', '.join(known)}")
    return Building(client, tuple(layout.View(point, 0) for point in range(len(views))), stored(views))


def stored(views: NDArray[np.void]) -> dict[str, Array]:
    """Each label of the records, (N, S, S, C), not copied."""
    return {
        name: views[name] if channels > 1 else views[name][..., None]
        for name, (_, channels) in LABELS.items()
    }
