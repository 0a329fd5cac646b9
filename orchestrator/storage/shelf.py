"""The weights on the orchestrator's disk: which are kept, what gives way at the quota, a full disk.

What a job that is not done refers to is never thrown away, nor are the weights that a done job ended with,
unless ``keep_jobs`` says so: then, above the quota, those of the oldest done jobs go first, and their events,
bills and reports stay. At the quota no new job is taken; a job that runs is not stopped by it, because a
round that is half collected gives nothing back and would wait for ever.

A full disk stops nothing either. What could not be written was not acted on: devices repeat what nobody
confirmed, chunks are asked for again, chores are owed until their event is stored. So that part of a turn is
left out, the reason stands in the status, no chore is begun, and all goes on when there is room for the
largest blob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from mas_edge.orchestrator.job import referenced
from mas_edge.wire.room import PROBE_BYTES, Room

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from contextlib import AbstractContextManager

    from mas_edge.orchestrator.job import Job
    from mas_edge.wire.blobs import BlobStore

LOOK_S = 1.0
"""How often a disk that was full is tried."""


class NoRoom(OSError):
    """A job that is not taken because its weights would have no room; the text says what to do."""


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[storage]``: what weights may take, None all there is, and how many done jobs keep theirs above that.

    ``keep_jobs`` None: all do, and no job is taken until somebody made room.
    """

    quota_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    keep_jobs: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Shelf:
    """The blobs of some jobs."""

    def __init__(self, blobs: BlobStore, config: StorageConfig | None = None) -> None:
        self._blobs, self._config = blobs, config or StorageConfig()
        self._room = Room(blobs.root, "jobs wait, nothing is lost; make room there")
        self._look_s = 0.0
        self._awaited: frozenset[str] = frozenset()

    @property
    def full(self) -> str | None:
        """Why nothing can be written, None if it can."""
        return f"the disk is full: {self._room.full}" if self._room.full else None

    def has(self, digest: str) -> bool:
        """Whether a blob is here."""
        return self._blobs.has(digest)

    def writing(self) -> AbstractContextManager[None]:
        """Write in here: on a full disk the rest of the block is left out, and ``full`` says why."""
        return self._room.writing()

    def look(self, time_s: float) -> None:
        """Whether a full disk has room again; asked as often as one likes."""
        if self._room.full and time_s >= self._look_s:
            self._look_s = time_s + LOOK_S
            self._room.look(self._blobs.largest_bytes() + PROBE_BYTES)

    def sweep(self, jobs: Sequence[Job], awaited: Collection[str]) -> None:
        """Throw away what no job refers to and nobody waits for, and above the quota what may go."""
        kept = {digest for job in jobs for digest in referenced(job)} | set(awaited)
        here = self._blobs.digests() | self._awaited  # what is awaited no longer may be here in parts
        if all(job.over for job in jobs):
            here |= self._blobs.unfinished()  # what a kill -9 left: until now its sender might have come back
        self._awaited = frozenset(awaited)
        self._remove(here - kept)
        for digests in spare(jobs, self._config.keep_jobs):
            if not self._above_quota():
                break
            self._remove(digests)

    def admit(self) -> None:
        """Nothing if one more job may be taken; else NoRoom."""
        if self.full:
            raise NoRoom(f"no new job: {self.full}")
        if self._above_quota():
            used, quota = self._blobs.used_bytes(), self._config.quota_bytes or 0
            raise NoRoom(
                f"no new job: weights take {used / 1e6:.1f} MB in {self._blobs.root}, the quota is"
                f" {quota / 1e6:.1f} MB: raise [storage] quota_bytes, set keep_jobs, or wait for a job's end"
            )

    def _above_quota(self) -> bool:
        quota = self._config.quota_bytes
        return quota is not None and self._blobs.used_bytes() >= quota

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self._blobs.remove(digest)


def spare(jobs: Sequence[Job], keep_jobs: int | None) -> tuple[frozenset[str], ...]:
    """What may be thrown away at the quota, a set of digests a job, the oldest job's first.

    Jobs are given in the order in which they came. Only those that are done count, all but the newest
    ``keep_jobs`` of them (None: none may go); what another job refers to stays.
    """
    done = [job for job in jobs if job.phase == "done"]
    if keep_jobs is None:
        return ()
    old = done[: max(0, len(done) - keep_jobs)]
    names = {job.spec.name for job in old}
    kept = {digest for job in jobs if job.spec.name not in names for digest in referenced(job)}
    return tuple(frozenset(referenced(job) - kept) for job in old)
