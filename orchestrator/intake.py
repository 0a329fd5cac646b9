"""Answers of devices on their way to becoming events: whole, sound, and each only once.

An update names its weights by digest; they are fetched before it counts. What could not be merged, or
measured, or billed is refused here, in words, so that nothing a device sends can stop the orchestrator
now or when the stored event is replayed. Which answers are expected is ``orchestrator.rounds``' business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator import aggregate
from mas_edge.orchestrator.affinity import AffinityRefused, pool
from mas_edge.orchestrator.events import Ask, GaveUp, Heard, Late
from mas_edge.orchestrator.sound import MOST, AnswerRefused, check, sound_bill, sound_shortage, sound_words
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.wire.blobs import BlobStore, Fetcher

log = logging.getLogger(__name__)

REFUSED = "update-refused"
"""Why a device gave up whose update was not sound, in its event."""

Answer: TypeAlias = m.Update | m.Declined | m.Failed


class Intake:
    """Updates whose weights are on their way, one per training."""

    def __init__(self, blobs: BlobStore, fetcher: Fetcher) -> None:
        self._blobs, self._fetcher = blobs, fetcher
        self._awaited: dict[m.Key, tuple[m.Update, str]] = {}  # and the digest of its weights

    @property
    def awaited(self) -> set[str]:
        """Digests of weights that are on their way."""
        return {digest for _, digest in self._awaited.values()}

    def complete(self, digest: str) -> tuple[m.Update, ...]:
        """The updates that waited for these weights, which are here now."""
        return tuple(update for update, awaited in self._awaited.values() if awaited == digest)

    def event(self, message: Answer, ask: Ask, time_s: float) -> Heard | GaveUp | None:
        """What an answer comes to; None while its weights are on their way."""
        event = self._event(message, ask, time_s)
        if event is not None:
            self._forget(message.key)
        return event

    def late(self, message: Answer) -> Late:
        """What an answer comes to that nobody waits for any more; its weights are not waited for either."""
        self._forget(message.key)
        examples = message.examples if isinstance(message, m.Update) else 0
        profile = message.profile if sound_bill(message.profile) else m.Profile()
        return Late(key=message.key, examples=min(max(examples, 0), MOST), profile=profile)

    def unwanted(self, wanted: Callable[[m.Key], bool]) -> tuple[m.Update, ...]:
        """The updates whose weights are on their way though nobody wants them any more."""
        return tuple(update for update, _ in self._awaited.values() if not wanted(update.key))

    def _event(self, message: Answer, ask: Ask, time_s: float) -> Heard | GaveUp | None:
        key, profile = message.key, message.profile
        if not sound_bill(profile):
            log.warning("%s, round %s of %s: the bill cannot be, left out", key.device, key.round, key.group)
            profile = m.Profile()
        if not isinstance(message, m.Update):
            reason, detail = sound_words(message.reason), sound_words(message.detail)
            event = GaveUp(key=key, reason=reason, detail=detail, profile=profile)
            if isinstance(message, m.Failed):
                return event
            shortage = sound_shortage(message.shortage)
            return msgspec.structs.replace(event, shortage=shortage, again_s=message.again_s)
        try:
            distance = self._checked(message, ask)
        except (AnswerRefused, AffinityRefused, BlobRefused, aggregate.UpdateRefused) as error:
            log.warning("update of %s refused: %s", key.device, error)
            return GaveUp(key=key, reason=REFUSED, detail=str(error), profile=profile)
        if message.weights is not None and not self._blobs.has(message.weights.digest):
            self._await(message, message.weights, time_s)
            return None
        return Heard(update=msgspec.structs.replace(message, profile=profile), distance=distance)

    def _checked(self, update: m.Update, ask: Ask) -> float | None:
        """How far its weights are from those sent, None as long as they are not here; raises if unsound."""
        check(update, ask)
        if update.affinity is not None:
            pool([update.affinity])
        if update.weights is None or self._blobs.missing(update.weights):
            return None
        base = self._blobs.path(ask.weights.digest)
        return aggregate.screen(self._blobs.path(update.weights.digest), base)

    def _await(self, update: m.Update, ref: m.BlobRef, time_s: float) -> None:
        key = update.key
        if key in self._awaited and self._awaited[key][1] != ref.digest:
            self._forget(key)
        self._fetcher.want(ref, key.device, time_s)
        self._awaited[key] = update, ref.digest

    def _forget(self, key: m.Key) -> None:
        """Nothing is awaited under this key any more, nor asked for if nobody else has to send it."""
        if key in self._awaited:
            _, digest = self._awaited.pop(key)
            if digest not in self.awaited:
                self._fetcher.drop(digest)
