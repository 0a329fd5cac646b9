"""The models of a device on disk: files by digest, and one small file that says which of them are in use.

``STATE/models`` is a store of blobs in which a file's name is its SHA-256; ``in-use.json`` beside them holds
what is in use, what was before, and the answers that were given, all in one value. A switch is one atomic
rename of that file, after the model's own file is whole and on the disk: whatever is killed, and whenever,
``in-use.json`` names one whole, verified model per group. Files that it does not name go afterwards.

``mas-agent infer`` reads the same folder while the daemon writes it. It decides nothing: ``deployment`` does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent.in_use import Kept
from mas_edge.wire.blobstore import BlobStore, MissingBlob
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

log = logging.getLogger(__name__)

FILE = "in-use.json"


class ModelsDamaged(ValueError):
    """An ``in-use.json`` that is none; the text names it and says what to do."""


def kept(root: Path) -> Kept:
    """What a folder of models says is in use; nothing if there is no such file. Raises ModelsDamaged."""
    try:
        return msgspec.json.decode((root / FILE).read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except msgspec.MsgspecError as error:
        raise ModelsDamaged(f"{root / FILE} is not a whole file of ours ({error}): deploy again") from error


class ModelFolder:
    """The folder as its daemon writes it."""

    def __init__(self, root: Path) -> None:
        self._root, self._files = root, BlobStore(root)

    def kept(self) -> Kept:
        """What is in use; a damaged file is set aside, as are models whose files are gone."""
        try:
            found = kept(self._root)
        except ModelsDamaged as error:
            log.warning("%s; it is set aside", error)
            (self._root / FILE).rename(self._root / f"{FILE}.broken")
            return Kept()
        here = self._files.digests()
        if gone := [model for model in found.models if model.file.digest not in here]:
            log.warning("files are gone of models of: %s", ", ".join(model.group for model in gone))
        return msgspec.structs.replace(
            found,
            in_use=tuple(each for each in found.in_use if each.model.file.digest in here),
            before=tuple(each for each in found.before if each.model.file.digest in here),
        )

    def keep(self, what: Kept) -> None:
        """On disk when this returns; before, nothing has changed. Raises OSError."""
        write_atomic(self._root / FILE, msgspec.json.encode(what))

    def has(self, digest: str) -> bool:
        """Whether the file is here."""
        return self._files.has(digest)

    def path(self, digest: str) -> Path:
        """The file of a model; raises MissingBlob."""
        return self._files.path(digest)

    def take(self, blobs: BlobStore, digest: str) -> bool:
        """Move a file in from among what was fetched, if it is there; whether it is here now."""
        if not self.has(digest):
            try:
                self._files.adopt(blobs.path(digest))
            except MissingBlob:
                return False
        return True

    def clear(self, needed: Collection[str]) -> None:
        """Remove all files but these."""
        for digest in self._files.digests() - set(needed):
            self._files.remove(digest)
