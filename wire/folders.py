"""Folders that are whole or not there, whatever is killed while they are made; and where caches are.

A folder is filled beside its place and renamed: rename(2) is atomic. Meanwhile it is locked (flock(2)), which
ends with the process, so that what a killed one left behind is told from what another is still making. It
promises nothing about a loss of power.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.wire.messages import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator


class FolderRefused(WireError, PermissionError):
    """A folder in which nothing can be made."""


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A new folder, which takes the name ``place`` when the block ends, and is removed if it raises.

    If another process was faster, its folder stays; what a killed one left behind is removed. Raises
    FolderRefused if nothing can be made beside ``place``.
    """
    with ExitStack() as locks:
        try:
            partial = _beside(place, locks)
        except OSError as error:
            raise FolderRefused(f"{place.parent}: {error.strerror}; name another folder") from error
        try:
            yield partial
            try:
                partial.rename(place)
            except OSError:
                if not (place.is_dir() and any(place.iterdir())):
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _beside(place: Path, locks: ExitStack) -> Path:
    """A locked folder of its own. Those of dead processes are not locked any more, and go."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent):
        for left in place.parent.glob(f".{glob.escape(place.name)}.*"):
            with suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left)
        partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        partial.mkdir()
        locks.enter_context(_locked(partial))
    return partial


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Where this user keeps what can be made again; see the XDG base directory specification."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".cache") / "mas-edge"
