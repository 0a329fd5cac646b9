"""The files of a building in Taskonomy's layout, read once, checked, reduced and kept for memory-mapping.

Preparing reads every file of a building, so that what is wrong is found before a training starts, reduces
pictures to the wanted size, and keeps the stored values (uint8, uint16 or float32) as one npy per domain in
a cache folder named by a digest of the description and of the files' names, sizes and times, which is whole
or not there. Sizes are reduced by whole factors: class ids
and values that may be no label by the pixel in the middle, everything else by the mean over the valid pixels
of a box, so that no hole and no class is mixed into a value.

It normalises nothing: what is kept is what was stored.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.lib.format import open_memmap

from mas_edge.models.tasks import Array, DataRefused, UnknownChoice
from mas_edge.models.workloads import layout, pictures
from mas_edge.models.workloads.description import VERSION
from mas_edge.wire.folders import whole_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from mas_edge.models.workloads.description import Description

    Files: TypeAlias = Mapping[str, Mapping[layout.View, Path]]


@dataclass(frozen=True)
class Building:
    """A building's views in order, and per domain what is stored of them, (N, S, S, C) memory-mapped."""

    name: str
    views: tuple[layout.View, ...]
    stored: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.views)


def prepared(described: Description, root: Path, building: str, cache: Path) -> Building:
    """The building out of the cache, which is made if it is not there; raises as ``dataset``, and OSError."""
    files = _files(described, root, building)
    views = tuple(files[described.input.domain])
    place = cache / _digest(described, files)
    if not place.is_dir():
        with whole_folder(place) as partial:
            _read_all(described, files, partial)
    stored = {}
    for domain in files:
        path = place / f"{domain}.npy"
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataRefused(f"{path}: damaged ({error}); remove {place}, it is made again") from error
        stored[domain] = np.asarray(mapped)  # still mapped, without the subclass that makes rows slow
    return Building(building, views, stored)


def _files(described: Description, root: Path, building: str) -> dict[str, dict[layout.View, Path]]:
    """The files of each domain that the building has, by view, in the input's order."""
    picture, *domains = described.domains
    place = layout.folder(root, building, picture)
    if place is None:
        there = ", ".join(layout.buildings(root, picture)) or "none"
        raise UnknownChoice(f"{root}: no folder {picture!r} of building {building!r}; there are {there}")
    files = {picture: layout.views(place, picture)}
    for domain in domains:
        if place := layout.folder(root, building, domain):
            files[domain] = _beside(files[picture], place, domain)
    _refuse_unlabelled(described, f"{root}: building {building!r}", files)
    return files


def _beside(wanted: Mapping[layout.View, Path], place: Path, domain: str) -> dict[layout.View, Path]:
    """A domain's file for every picture; raises DataRefused for one that is missing."""
    found = layout.views(place, domain)
    for view, picture in wanted.items():
        if view not in found:
            raise DataRefused(
                f"{place / layout.file(domain, view)}.png: missing, but there is {picture}; add or remove"
            )
    return {view: found[view] for view in wanted}


def _refuse_unlabelled(described: Description, building: str, files: Files) -> None:
    """Raises DataRefused if there is no label at all, or none of the mask that some need."""
    labelled = [name for name in described.tasks if name in files]
    if not labelled:
        raise DataRefused(
            f"{building} has no folder of any task; there could be {', '.join(described.tasks)}"
        )
    masked = [name for name in labelled if described.tasks[name].masked]
    if masked and described.mask and described.mask.domain not in files:
        raise DataRefused(
            f"{building} has no {described.mask.domain}, the mask of {', '.join(masked)}; add it"
        )


def _digest(described: Description, files: Files) -> str:
    """What the cache of these files is called."""
    sha = hashlib.sha256(f"{VERSION} {msgspec.json.encode(described).decode()}".encode())
    for domain, by_view in files.items():
        for path in by_view.values():
            about = path.stat()
            sha.update(f"{domain} {path} {about.st_size} {about.st_mtime_ns}\0".encode())
    return sha.hexdigest()[:32]


def _read_all(described: Description, files: Files, out: Path) -> None:
    """Write one npy per domain, (N, S, S, C)."""
    views = list(files[described.input.domain])
    arrays: dict[str, np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        read = pool.map(partial(_read_view, described, files), views)
        for row, (view, stored) in enumerate(zip(views, read, strict=True)):
            for domain, values in stored.items():
                if domain not in arrays:
                    shape = (len(views), *values.shape)
                    arrays[domain] = open_memmap(out / f"{domain}.npy", "w+", values.dtype, shape)
                kind = arrays[domain].dtype
                if values.dtype != kind:
                    raise DataRefused(
                        f"{files[domain][view]}: {values.dtype} where others are {kind}; store one"
                    )
                arrays[domain][row] = values
    for array in arrays.values():
        array.flush()


def _read_view(described: Description, files: Files, view: layout.View) -> dict[str, Array]:
    """Every domain of one view, (S, S, C) as stored, checked and reduced."""
    whole = {domain: _read_whole(described, domain, by_view[view]) for domain, by_view in files.items()}
    picture, pixels = files[described.input.domain][view], described.pixels
    wanted = whole[described.input.domain].shape[:2]
    for domain, stored in whole.items():
        if stored.shape[:2] != wanted:
            raise DataRefused(
                f"{files[domain][view]}: {_size(stored.shape)}, but {picture} is {_size(wanted)}; store one"
            )
    if wanted[0] != wanted[1] or wanted[0] % pixels:
        raise DataRefused(
            f"{picture}: {_size(wanted)} is no whole multiple of {pixels} x {pixels}; change pixels, or crop"
        )
    mask = described.mask
    valid = mask.valid(whole[mask.domain]) if mask and mask.domain in whole else None
    return {domain: _reduced(described, domain, stored, valid) for domain, stored in whole.items()}


def _read_whole(described: Description, domain: str, path: Path) -> Array:
    """A file's first channels, (H, W, C); raises DataRefused for too few, or a class that does not exist."""
    stored = pictures.read(path)
    stored = stored[..., None] if stored.ndim == 2 else stored
    channels = stored_channels(described, domain)
    if stored.shape[2] < channels:
        raise DataRefused(f"{path}: {stored.shape[2]} channels where {domain} has {channels}")
    label = described.tasks.get(domain)
    if label and label.kind == "classes":
        known = stored[..., 0][~np.isin(stored[..., 0], label.ignore)]
        if known.size and known.max() >= label.channels:
            raise DataRefused(
                f"{path}: class {known.max()}; [tasks.{domain}] has channels = {label.channels}"
            )
    return stored[..., :channels]


def stored_channels(described: Description, domain: str) -> int:
    """How many channels of a domain's files are read."""
    if domain == described.input.domain:
        return 3
    label = described.tasks.get(domain)
    return label.channels if label and label.kind != "classes" else 1


def _reduced(described: Description, domain: str, stored_HWC: Array, valid_HW1: Array | None) -> Array:
    """(S, S, C): the middle pixel of each box where values cannot be mixed, else the valid pixels' mean."""
    label, mask = described.tasks.get(domain), described.mask
    factor = len(stored_HWC) // described.pixels
    if factor == 1:
        return stored_HWC
    if (label and (label.kind == "classes" or label.ignore)) or (mask and mask.domain == domain):
        return stored_HWC[factor // 2 :: factor, factor // 2 :: factor]
    masked = label is not None and label.masked
    total, count = _boxes(stored_HWC, valid_HW1 if masked else None, factor)
    mean = np.divide(total, count, where=count > 0, out=np.zeros(total.shape))
    exact = np.issubdtype(stored_HWC.dtype, np.integer)
    return (np.rint(mean) if exact else mean).astype(stored_HWC.dtype)


def _boxes(values_HWC: Array, valid_HW1: Array | None, factor: int) -> tuple[Array, Array]:
    """Sums of the valid pixels over boxes of factor x factor, and how many they are (broadcastable)."""
    wide = np.int64 if np.issubdtype(values_HWC.dtype, np.integer) else np.float64
    total = np.zeros((len(values_HWC) // factor, len(values_HWC) // factor, values_HWC.shape[2]), wide)
    count = np.full((1, 1, 1), factor**2) if valid_HW1 is None else np.zeros((*total.shape[:2], 1), np.int64)
    for corner in product(range(factor), repeat=2):
        every = tuple(slice(start, None, factor) for start in corner)
        if valid_HW1 is None:
            total += values_HWC[every]
        else:
            total += np.where(valid_HW1[every], values_HWC[every], 0)
            count += valid_HW1[every]
    return total, count


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"
