"""Moving blobs: the receiver asks for the chunks it lacks, the owner publishes each of them once.

Whoever lacks a blob subscribes to its chunks and sends a ``Need``. The owner gathers needs for a moment,
or until all expected readers have asked, and publishes every asked-for chunk once: the broker fans it
out. Both directions run the same code: a ``Fetcher`` asks, a ``Publisher`` answers. What comes too late
for a gathering waits for the next. A need is repeated with backoff while nothing arrives, no sooner
than three times the last gap between two chunks, so that a slow link is not filled with repetitions.

Everything is driven by ``pump(time_s)``, which returns in how many seconds it wants to be called again,
None if it waits for a message. There is no clock and no thread in here; the bytes on disk are the
business of ``mas_edge.wire.blobstore``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mas_edge.wire.blobstore import BlobRefused, BlobStore, DigestMismatch, MissingBlob
from mas_edge.wire.messages import BlobRef, Need
from mas_edge.wire.retry import equal_jitter_s

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from mas_edge.wire.bus import Bus

__all__ = ["BlobRefused", "BlobStore", "DigestMismatch", "Fetcher", "MissingBlob", "Publisher"]

log = logging.getLogger(__name__)

GATHER_S = 0.2
MAX_INFLIGHT = 8
_FULL_S = 0.005  # how soon to look whether the broker has acknowledged something
_AWAY_S = 0.5
_PATIENCE = 3.0


@dataclass
class _Offer:
    """Chunks of one blob that were asked for: those of this gathering, and those of the next."""

    due_s: float
    now: set[int] = field(default_factory=set)
    later: set[int] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)


class Publisher:
    """Answers ``Need`` out of a store; ``topic(digest, index)`` says where a chunk goes."""

    def __init__(
        self,
        bus: Bus,
        store: BlobStore,
        topic: Callable[[str, int], str],
        *,
        gather_s: float = GATHER_S,
        max_inflight: int = MAX_INFLIGHT,
    ) -> None:
        self._bus, self._store, self._topic = bus, store, topic
        self._gather_s, self._max_inflight = gather_s, max_inflight
        self._expected: dict[str, frozenset[str]] = {}
        self._offers: dict[str, _Offer] = {}

    def expect(self, digest: str, readers: frozenset[str]) -> None:
        """Once all of these have asked for the blob there is no reason to gather longer."""
        self._expected[digest] = readers

    def asked(self, need: Need, by: str, time_s: float) -> None:
        """Someone needs chunks. What the store has not, or what the blob has not, is ignored."""
        try:
            chunks = self._store.ref(need.digest).chunks
        except (MissingBlob, BlobRefused) as error:
            log.info("%s asked in vain: %s", by, error)
            return
        offer = self._offers.setdefault(need.digest, _Offer(time_s + self._gather_s))
        asked = {i for first, past in need.ranges for i in range(max(first, 0), min(past, chunks))}
        open_still = time_s < offer.due_s
        (offer.now if open_still else offer.later).update(asked - offer.now)
        offer.readers.add(by)
        expected = self._expected.get(need.digest)
        if expected is not None and offer.readers >= expected:
            del self._expected[need.digest]
            offer.due_s = min(offer.due_s, time_s)

    def drop(self, digest: str) -> None:
        """Nobody shall have this blob of us any more."""
        self._offers.pop(digest, None)
        self._expected.pop(digest, None)

    def pump(self, time_s: float) -> float | None:
        """Publish what may go now; seconds until there may be more to do, None if nothing is asked for."""
        for digest, offer in list(self._offers.items()):
            if offer.due_s <= time_s and not self._publish(digest, offer):
                return _FULL_S if self._bus.connected else _AWAY_S
            if not offer.now:
                self._next_gathering(digest, offer, time_s)
        return min((max(offer.due_s - time_s, 0) for offer in self._offers.values()), default=None)

    def _publish(self, digest: str, offer: _Offer) -> bool:
        """Whether all of this gathering has gone out."""
        for index in sorted(offer.now):
            if self._bus.inflight >= self._max_inflight or not self._bus.connected:
                return False
            try:
                payload = self._store.chunk(digest, index)
            except MissingBlob:
                self.drop(digest)
                return True
            self._bus.publish(self._topic(digest, index), payload)
            offer.now.discard(index)
        return True

    def _next_gathering(self, digest: str, offer: _Offer, time_s: float) -> None:
        if offer.later:
            self._offers[digest] = _Offer(time_s + self._gather_s, now=offer.later)
        else:
            self._offers.pop(digest, None)


@dataclass
class _Want:
    """A blob on its way: from where, when to ask again, and how often we have asked in vain."""

    ref: BlobRef
    source: str
    due_s: float
    heard_s: float
    attempt: int = 0


class Fetcher:
    """Gets blobs into a store.

    ``chunk_filter(source, digest)`` is the topic filter of a blob's chunks, ``ask(source, need)`` sends a
    need to whoever has them.
    """

    def __init__(
        self,
        bus: Bus,
        store: BlobStore,
        chunk_filter: Callable[[str, str], str],
        ask: Callable[[str, Need], None],
        *,
        rng: Random,
    ) -> None:
        self._bus, self._store, self._filter, self._ask, self._rng = bus, store, chunk_filter, ask, rng
        self._wants: dict[str, _Want] = {}

    def want(self, ref: BlobRef, source: str, time_s: float) -> None:
        """Get this blob from there: subscribe, and ask at the next ``pump``. Again: no effect.

        Another source than before replaces it. Nothing happens if the blob is here; raises BlobRefused
        for a reference that cannot be right.
        """
        known = self._wants.get(ref.digest)
        if not self._store.missing(ref) or (known is not None and known.source == source):
            return
        self.drop(ref.digest)
        self._wants[ref.digest] = _Want(ref, source, time_s, time_s)
        self._bus.subscribe(self._filter(source, ref.digest))

    def receive(self, digest: str, index: int, payload: bytes, time_s: float) -> BlobRef | None:
        """Take a chunk; the reference if that made its blob whole. What nobody wants is ignored."""
        want = self._wants.get(digest)
        if want is None:
            return None
        try:
            whole = self._store.put_chunk(want.ref, index, payload)
        except DigestMismatch as error:
            log.warning("from %s: %s", want.source, error)
            want.due_s = time_s + equal_jitter_s(want.attempt, self._rng)
            want.attempt += 1
            return None
        except BlobRefused as error:
            log.warning("from %s: %s", want.source, error)
            return None
        if whole:
            self.drop(digest)
            return want.ref
        gap_s, want.heard_s, want.attempt = time_s - want.heard_s, time_s, 0
        want.due_s = time_s + max(equal_jitter_s(0, self._rng), _PATIENCE * gap_s)
        return None

    def drop(self, digest: str) -> None:
        """Want this blob no longer; what has come of it stays in the store."""
        want = self._wants.pop(digest, None)
        if want is not None:
            self._bus.unsubscribe(self._filter(want.source, digest))

    def pump(self, time_s: float) -> float | None:
        """Ask for what has not come; seconds until the next time, None if nothing is wanted."""
        for want in self._wants.values():
            if want.due_s <= time_s:
                self._ask(want.source, Need(digest=want.ref.digest, ranges=self._store.missing(want.ref)))
                want.due_s = time_s + equal_jitter_s(want.attempt, self._rng)
                want.attempt += 1
        return min((max(want.due_s - time_s, 0) for want in self._wants.values()), default=None)

    def again(self, time_s: float) -> None:
        """The connection is a new one: ask for everything at the next ``pump``."""
        for want in self._wants.values():
            want.due_s, want.heard_s, want.attempt = time_s, time_s, 0
