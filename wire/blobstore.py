"""Binaries by content: a folder in which a file's name is its SHA-256.

A blob arrives in chunks of any order. Until it is whole it is one file with the suffix ``.part``: the
bytes at their places, then one byte per chunk that says whether it is there, so that after a kill -9
only the rest is asked for. When the last chunk has come, the part is cut to size, verified, synced and
renamed; one whose digest does not match is thrown away. (After a power cut a part may claim chunks that
never reached the disk; the digest finds that out.) Nothing here knows of topics or messages in flight:
that is ``mas_edge.wire.blobs``.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from mas_edge.wire.host import sync_file, sync_folder, write_atomic
from mas_edge.wire.messages import BlobRef, WireError, is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES = 512 << 10
"""How large a chunk is unless the store was told otherwise; bench/blobs.py says why."""
MAX_CHUNKS = 1 << 16
"""What claims to have more chunks is refused before any disk is taken."""
_READ_BYTES = 1 << 20


class BlobRefused(WireError, ValueError):
    """A reference, a digest or a chunk that cannot be right."""


class DigestMismatch(BlobRefused):
    """All chunks came and they are not the blob; they have been thrown away."""


class MissingBlob(WireError, KeyError):
    """The blob is not in this store, or not whole yet."""

    def __str__(self) -> str:
        return str(self.args[0])


class BlobStore:
    """A folder of blobs; one process writes it."""

    def __init__(self, root: Path, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._root, self._chunk_bytes = root, chunk_bytes
        root.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """The folder."""
        return self._root

    def add(self, data: bytes) -> BlobRef:
        """Keep these bytes; on disk when it returns."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            write_atomic(self._at(digest), data)
        return BlobRef(digest=digest, size_bytes=len(data), chunk_bytes=self._chunk_bytes)

    def adopt(self, path: Path) -> BlobRef:
        """Move a file of the same file system in; on disk when it returns."""
        digest = _digest_of(path)
        self._finish(path, digest)
        return self.ref(digest)

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here."""
        return self._at(digest).is_file()

    def path(self, digest: str) -> Path:
        """The file of a whole blob; raises MissingBlob."""
        if not self.has(digest):
            raise MissingBlob(f"blob {digest[:12]} is not in {self._root}")
        return self._at(digest)

    def ref(self, digest: str) -> BlobRef:
        """What to call the blob on the wire; raises MissingBlob."""
        size_bytes = self.path(digest).stat().st_size
        return BlobRef(digest=digest, size_bytes=size_bytes, chunk_bytes=self._chunk_bytes)

    def chunk(self, digest: str, index: int) -> bytes:
        """The bytes of one chunk; raises MissingBlob."""
        with self.path(digest).open("rb") as file:
            file.seek(index * self._chunk_bytes)
            return file.read(self._chunk_bytes)

    def missing(self, ref: BlobRef) -> tuple[tuple[int, int], ...]:
        """Half-open ranges of the chunks that are not here; raises BlobRefused."""
        _check(ref)
        if self.has(ref.digest):
            return ()
        part = self._part(ref.digest)
        if not _is_part_of(part, ref):
            return ((0, ref.chunks),)
        with part.open("rb") as file:
            file.seek(ref.size_bytes)
            return _gaps(file.read())

    def put_chunk(self, ref: BlobRef, index: int, payload: bytes) -> bool:
        """Keep a chunk; True if that made the blob whole (False too if it was whole before).

        Raises BlobRefused for a chunk that is none of this blob's, and DigestMismatch, with all chunks
        thrown away, if the last one shows that they are not the blob.
        """
        _check(ref)
        size_bytes = min(ref.chunk_bytes, ref.size_bytes - index * ref.chunk_bytes)
        if not 0 <= index < ref.chunks or len(payload) != size_bytes:
            raise BlobRefused(f"blob {ref.digest[:12]} has no chunk {index} of {len(payload)} bytes")
        if self.has(ref.digest):
            return False
        part = self._part(ref.digest)
        if not _is_part_of(part, ref):
            with part.open("wb") as file:
                file.truncate(ref.size_bytes + ref.chunks)
        with part.open("r+b") as file:
            file.seek(index * ref.chunk_bytes)
            file.write(payload)
            file.flush()  # the data is the kernel's before the byte that vouches for it
            file.seek(ref.size_bytes + index)
            file.write(b"\1")
            file.seek(ref.size_bytes)
            if b"\0" in file.read():
                return False
            file.truncate(ref.size_bytes)
        if _digest_of(part) != ref.digest:
            part.unlink()
            raise DigestMismatch(f"the chunks of blob {ref.digest[:12]} are not the blob: thrown away")
        self._finish(part, ref.digest)
        return True

    def remove(self, digest: str) -> None:
        """Forget a blob and what has come of it, if anything."""
        self._at(digest).unlink(missing_ok=True)
        self._part(digest).unlink(missing_ok=True)

    def digests(self) -> set[str]:
        """The whole blobs that are here."""
        return {path.name for path in self._root.iterdir() if is_digest(path.name)}

    def unfinished(self) -> set[str]:
        """The blobs of which only a part is here."""
        return {path.stem for path in self._root.glob("*.part") if is_digest(path.stem)}

    def used_bytes(self) -> int:
        """What blobs and parts take of the disk, as the lengths of their files."""
        return sum(self._sizes())

    def largest_bytes(self) -> int:
        """The length of the largest of these files; 0 if there is none."""
        return max(self._sizes(), default=0)

    def _sizes(self) -> Iterator[int]:
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):  # parts become blobs meanwhile
                yield path.stat().st_size

    def _at(self, digest: str) -> Path:
        if not is_digest(digest):  # it may come from the network, and it is about to name a file
            raise BlobRefused(f"not a SHA-256: {digest[:80]!r}")
        return self._root / digest

    def _part(self, digest: str) -> Path:
        return self._at(digest).with_suffix(".part")

    def _finish(self, path: Path, digest: str) -> None:
        sync_file(path)
        path.replace(self._at(digest))
        sync_folder(self._root)


def _check(ref: BlobRef) -> None:
    if ref.size_bytes < 0 or ref.chunk_bytes < 1 or ref.chunks > MAX_CHUNKS:
        raise BlobRefused(f"blob {ref.digest[:12]}: {ref.size_bytes} bytes in chunks of {ref.chunk_bytes}")


def _is_part_of(part: Path, ref: BlobRef) -> bool:
    """Whether this is a part of the blob, cut as the reference says; another cut has another length."""
    return part.is_file() and part.stat().st_size == ref.size_bytes + ref.chunks


def _gaps(there: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(gap.span() for gap in re.finditer(rb"\0+", there))


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
