"""Sets of rendered buildings: how large each preset is, and making one, a building per process at a time.

The same (VERSION, preset, seed) always gives the same set; they name its folder under a cache, by hash. The
folder is there when it is whole, whatever is killed meanwhile. A building and each of its views have random
numbers of their own, so that neither the order nor the number of processes, nor the preset's other buildings,
change a picture; another instruction set may change last bits (see ``building``).

Only this needs the ray engine; it and the labels' libraries are imported when a set is made, so that a board
without them gets one clear line.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import DataRefused, UnknownChoice, WorkloadError
from mas_edge.models.workloads.buildings import archive, records
from mas_edge.wire.folders import whole_folder
from mas_edge.wire.host import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

VERSION = "1"
"""Of the renderer: changes whenever a picture does."""

SUPERSAMPLING = 2
"""Samples across a pixel."""

NEEDED = ("embreex", "scipy", "skimage", "trimesh")


class NoRayEngine(WorkloadError, LookupError):
    """What renders is not installed on this machine."""


@dataclass(frozen=True)
class Size:
    """How many buildings a set has (unseen ones last), and views of each."""

    seen: int
    unseen: int
    views: int
    pixels: int

    @property
    def clients(self) -> tuple[str, ...]:
        """The buildings' names."""
        return tuple(str(number + 1) for number in range(self.seen + self.unseen))


SIZES = {"tiny": Size(4, 1, 12, 16), "demo": Size(8, 2, 32, 32), "bench": Size(32, 4, 200, 64)}


def place(cache: Path, preset: str, seed: int) -> Path:
    """Where a set lies under a cache; raises UnknownChoice for the preset."""
    named = f"{VERSION} {records.FORMAT} {preset} {_size(preset)} {seed}"
    return cache / f"buildings-{preset}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"


def make(
    preset: str, seed: int, cache: Path, *, processes: int, progress: Callable[[int, int], None]
) -> Path:
    """The folder of the set, which is made unless it is there.

    ``progress`` hears how many buildings of how many are done. Raises UnknownChoice, NoRayEngine, DataRefused
    for a set that is there and damaged, FolderRefused for the cache, OSError.
    """
    size, folder = _size(preset), place(cache, preset, seed)
    if folder.exists():
        _verify(folder)
        return folder
    require_ray_engine()
    with whole_folder(folder) as partial:
        digests = _render_all(partial, size, seed, processes, progress)
        page = archive.Page(
            version=VERSION,
            preset=preset,
            seed=seed,
            pixels=size.pixels,
            clients=digests,
            unseen=size.clients[size.seen :],
        )
        archive.save_page(partial, page)
    return folder


def views(size: Size, seed: int, client: str) -> NDArray[np.void]:
    """One building's records, rendered here and now."""
    from mas_edge.models.workloads.buildings.building import draw_building  # noqa: PLC0415 - the ray engine
    from mas_edge.models.workloads.buildings.camera import draw_camera  # noqa: PLC0415
    from mas_edge.models.workloads.buildings.labels import labels  # noqa: PLC0415
    from mas_edge.models.workloads.buildings.render import render  # noqa: PLC0415

    building = draw_building(_rng(seed, int(client)))
    own = [_rng(seed, int(client), view) for view in range(size.views)]
    cameras = [(draw_camera(rng, building), rng) for rng in own]
    frames = render(building, cameras, size.pixels * SUPERSAMPLING)
    return archive.stack([labels(frame, size.pixels) for frame in frames])


def require_ray_engine() -> None:
    """Return if everything that renders is installed; raises NoRayEngine with what is missing."""
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            raise NoRayEngine(
                f"rendering needs {name} ({error}): pip install 'mas-edge[buildings]' "
                "(embreex is for x86-64; elsewhere copy a set that was made there, or use the shipped one)"
            ) from error


def _size(preset: str) -> Size:
    if preset not in SIZES:
        raise UnknownChoice(f"there is no set of buildings {preset!r}; there are {', '.join(SIZES)}")
    return SIZES[preset]


def _verify(folder: Path) -> None:
    try:
        archive.verify(folder)
    except DataRefused as error:
        raise DataRefused(f"{error}, after deleting {folder}") from error


def _render_all(
    folder: Path, size: Size, seed: int, processes: int, progress: Callable[[int, int], None]
) -> dict[str, str]:
    """Each building's file; returns their SHA-256 by client."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)
    try:
        waiting = {pool.submit(_render_one, folder, size, seed, client): client for client in size.clients}
        digests: dict[str, str] = {}
        progress(0, len(waiting))
        for done in as_completed(waiting):
            digests[waiting[done]] = done.result()
            progress(len(digests), len(waiting))
    finally:
        for worker in multiprocessing.active_children():  # after Ctrl-C they would finish what is queued
            worker.terminate()
        pool.shutdown(cancel_futures=True)
    return {client: digests[client] for client in size.clients}


def _begin() -> None:
    """Prepare a worker: it ends with its parent, which also hears Ctrl-C for it."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render_one(folder: Path, size: Size, seed: int, client: str) -> str:
    return archive.save_client(folder, client, views(size, seed, client))


def _rng(seed: int, *path: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))
