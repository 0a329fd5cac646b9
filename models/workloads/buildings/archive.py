"""A set of rendered views on disk: a memory map per building, and a page that says what the set is.

Every view is one record: its nine labels as they are stored in Taskonomy's pictures (8 or 16 bits), side
by side. A building is one ``CLIENT.npy``, an array of such records that ``numpy`` maps into memory without
reading it; ``set.json`` beside them names version, preset, seed, size and the SHA-256 of each file. The page
is written last, so that a set without one is unfinished. The set that ships with the package is one
compressed ``demo.npz`` with the same arrays.

Nothing here knows how views are made or what a network wants of them; numpy only.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.models.tasks import DataRefused, UnknownChoice
from mas_edge.models.workloads.buildings.records import FORMAT, LABELS
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array

PAGE = "set.json"
SHIPPED = Path(__file__).with_name("demo.npz")


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a set is: how to make it again, and what each building's file must be (SHA-256).

    ``unseen`` names those that nobody trains on.
    """

    format: int = FORMAT
    version: str
    preset: str
    seed: int
    pixels: int
    clients: dict[str, str]
    unseen: tuple[str, ...] = ()


def record(pixels: int) -> np.dtype[np.void]:
    """The type of one view: a field per label, (pixels, pixels) or (pixels, pixels, channels)."""
    fields = [
        (name, kind, (pixels, pixels) if channels == 1 else (pixels, pixels, channels))
        for name, (kind, channels) in LABELS.items()
    ]
    return np.dtype(fields)


def stack(views: list[dict[str, Array]]) -> NDArray[np.void]:
    """Records (views,) of what ``labels`` returned for each; there must be one at least."""
    together = np.empty(len(views), record(len(views[0]["rgb"])))
    for name in LABELS:
        together[name] = [view[name] for view in views]
    return together


def save_client(folder: Path, client: str, views: NDArray[np.void]) -> str:
    """Write one building's records; returns the SHA-256 that ``Page`` wants of it."""
    path = folder / f"{client}.npy"
    np.save(path, views, allow_pickle=False)
    return _sha256(path)


def save_page(folder: Path, page: Page) -> None:
    """Declare the set complete."""
    write_atomic(folder / PAGE, msgspec.json.format(msgspec.json.encode(page)))


def open_page(root: Path) -> Page:
    """What the set in this folder is; raises DataRefused naming the file."""
    path = root / PAGE
    try:
        page = msgspec.json.decode(path.read_bytes(), type=Page)
    except FileNotFoundError as error:
        raise DataRefused(f"{path}: there is no such file: not a set of buildings, or cut short") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise DataRefused(
            f"{path}: not the page of a set of buildings ({error}); make the set again"
        ) from error
    if page.format != FORMAT:
        raise DataRefused(
            f"{path}: a set of format {page.format}, this version reads {FORMAT}; make the set again"
        )
    return page


def open_client(root: Path, client: str, pixels: int) -> NDArray[np.void]:
    """A building's records, mapped into memory; raises DataRefused, or UnknownChoice for its name."""
    page, path = open_page(root), root / f"{client}.npy"
    if client not in page.clients:
        raise UnknownChoice(f"{root / PAGE} has no building {client!r}; it has {', '.join(page.clients)}")
    try:
        views = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataRefused(f"{path}: not the views of a building ({error}); make the set again") from error
    return _checked(path, views, pixels)


def verify(root: Path) -> Page:
    """The page, after reading every file of the set; raises DataRefused for the first that differs."""
    page = open_page(root)
    for client, digest in page.clients.items():
        open_client(root, client, page.pixels)
        if _sha256(root / f"{client}.npy") != digest:
            raise DataRefused(f"{root / client}.npy: changed since it was made; make the set again")
    return page


def pack(path: Path, clients: Mapping[str, NDArray[np.void]]) -> None:
    """Write a compressed set: the same records, in one file of arrays named ``CLIENT/LABEL``."""
    arrays = {f"{client}/{name}": views[name] for client, views in clients.items() for name in LABELS}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def unpack(path: Path, client: str, pixels: int) -> NDArray[np.void]:
    """A building's records out of a compressed set; raises DataRefused naming the file."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            parts = {name: file[f"{client}/{name}"] for name in LABELS}
    except FileNotFoundError as error:
        raise DataRefused(f"{path}: there is no such file; reinstall mas-edge") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataRefused(
            f"{path}: not the views of buildings, or damaged ({error}); reinstall it"
        ) from error
    views = np.empty(len(parts["rgb"]), record(pixels))
    for name, part in parts.items():
        if part.shape != views[name].shape or part.dtype != views[name].dtype:
            raise DataRefused(f"{path}: {client}/{name} is {part.dtype} {part.shape}; reinstall it")
        views[name] = part
    return views


def _checked(path: Path, views: Array, pixels: int) -> NDArray[np.void]:
    if views.dtype != record(pixels) or views.ndim != 1:
        raise DataRefused(
            f"{path}: not views of {pixels} x {pixels} pixels with all labels; make the set again"
        )
    return views


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
