"""The buildings that are learnt from: rendered once per folder, as many views as a point wants.

The first 32 views of each building are those that ship. Where devices are to be *alike*, the views that
train are shuffled over the buildings; what is held out stays where it is, so that all points with as many
views are judged by the same pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comparison.points import HELD_OUT_SHARE
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.make import VERSION, require_ray_engine, views
from mas_edge.wire.folders import whole_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comparison.points import Point
    from mas_edge.models.workloads.buildings.make import Size

SEED = 1


def place(folder: Path, point: Point) -> Path | None:
    """Where a point's data are, made unless they are there (raises NoRayEngine); None for data that ship."""
    if not point.views:
        return None
    own, size = folder / f"buildings-{point.buildings}x{point.views}", point.size
    if not own.exists():
        require_ray_engine()
        _save(own, size, {client: views(size, SEED, client) for client in size.clients})
    if not point.mixed:
        return own
    if not (alike := own.with_name(f"{own.name}-mixed")).exists():
        opened = {client: archive.open_client(own, client, size.pixels) for client in size.clients}
        _save(alike, size, mixed(opened, size.clients[: size.seen], HELD_OUT_SHARE))
    return alike


def mixed(
    opened: dict[str, NDArray[np.void]], seen: tuple[str, ...], held_out_share: float
) -> dict[str, NDArray[np.void]]:
    """The same views, those that train shuffled over the seen clients; the last ones are held out."""
    trains = {
        client: len(opened[client]) - max(1, round(len(opened[client]) * held_out_share)) for client in seen
    }
    pool = np.concatenate([opened[client][: trains[client]] for client in seen])
    pool = pool[np.random.default_rng(SEED).permutation(len(pool))]
    parts = np.split(pool, np.cumsum([trains[client] for client in seen])[:-1])
    shuffled = {
        client: np.concatenate([part, opened[client][trains[client] :]])
        for client, part in zip(seen, parts, strict=True)
    }
    return {client: shuffled.get(client, np.array(rows)) for client, rows in opened.items()}


def _save(folder: Path, size: Size, clients: dict[str, NDArray[np.void]]) -> None:
    with whole_folder(folder) as partial:
        page = archive.Page(
            version=VERSION,
            preset="comparison",
            seed=SEED,
            pixels=size.pixels,
            clients={client: archive.save_client(partial, client, rows) for client, rows in clients.items()},
            unseen=size.clients[size.seen :],
        )
        archive.save_page(partial, page)
