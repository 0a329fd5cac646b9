"""What an agent says, and how weights travel: its side of the bus.

Requests (Hello, answers) are repeated until they are answered (``wire.retry``), and at once on a new
connection; weights come and go in chunks (``wire.blobs``). A broker that comes or goes is one line in the
log. What is heard and what is to be said, the agent decides.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore, Fetcher, Publisher
from mas_edge.wire.retry import Outbox

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from mas_edge.wire.bus import Bus, Delivery

log = logging.getLogger(__name__)

IN_VAIN = 6
"""As often a thing is said before somebody should be told that nobody answers: 16 to 31 seconds."""


class Uplink:
    """One device on the bus of its fleet."""

    def __init__(self, device: str, fleet: str, bus: Bus, blobs: BlobStore, rng: random.Random) -> None:
        self._device, self._fleet, self._bus = device, fleet, bus
        self._outbox = Outbox(rng)
        self._publisher = Publisher(
            bus,
            blobs,
            lambda digest, i: m.blob_topic(fleet, device, digest, i),
            gather_s=0.0,  # the orchestrator is the only reader
        )
        self._fetcher = Fetcher(
            bus,
            blobs,
            lambda _source, digest: m.blob_topic(fleet, m.EVERYONE, digest),
            lambda _source, need: self.say(need),
            rng=rng,
        )
        self._connections = 0
        self.online = False

    def reconnected(self) -> bool:
        """Whether there is a new connection since this was called last: everything is due again."""
        self._notice()
        if self._bus.connections == self._connections:
            return False
        self._connections, now_s = self._bus.connections, time.monotonic()
        self._bus.subscribe(m.down_topic(self._fleet, self._device))
        self._outbox.again(now_s)
        self._fetcher.again(now_s)
        return True

    def heard(self, timeout_s: float) -> Iterator[Delivery]:
        """What has come, waiting at most so long for the first."""
        while delivery := self._bus.get(timeout_s):
            yield delivery
            timeout_s = 0.0

    def pump(self) -> None:
        """Say again what is due, and move chunks."""
        now_s = time.monotonic()
        for topic, payload in self._outbox.due(now_s):
            self._bus.publish(topic, payload)
        self._publisher.pump(now_s)
        self._fetcher.pump(now_s)

    def alive(self, alive: m.Alive) -> None:
        """Tell the fleet, and whoever joins later."""
        self._bus.publish(m.alive_topic(self._fleet, self._device), m.encode(alive), retain=True)

    def say(self, message: m.Up) -> None:
        """Once."""
        self._bus.publish(m.up_topic(self._fleet, self._device), m.encode(message))

    def ask(self, name: str | m.Key, message: m.Up) -> None:
        """Until it is answered; in place of what was asked under this name before."""
        topic = m.up_topic(self._fleet, self._device)
        self._outbox.put(name, topic, m.encode(message), time.monotonic())

    def answered(self, name: str | m.Key) -> None:
        """Ask no more."""
        self._outbox.answered(name)

    def in_vain(self, name: str | m.Key) -> bool:
        """Whether it was asked ``IN_VAIN`` times on this connection, and nobody has answered."""
        return self._outbox.times(name) >= IN_VAIN

    def want(self, ref: m.BlobRef) -> None:
        """Get these weights."""
        self._fetcher.want(ref, m.EVERYONE, time.monotonic())

    def drop(self, digest: str) -> None:
        """Want these weights no longer."""
        self._fetcher.drop(digest)

    def receive(self, digest: str, index: int, payload: bytes) -> m.BlobRef | None:
        """Take a chunk; the reference of the weights if that made them whole."""
        return self._fetcher.receive(digest, index, payload, time.monotonic())

    def needed(self, need: m.Need) -> None:
        """The orchestrator lacks chunks of an update."""
        self._publisher.asked(need, "orchestrator", time.monotonic())

    def close(self) -> None:
        """Leave."""
        self._bus.close()

    def _notice(self) -> None:
        """A line where the connection came or went, however often it is tried in between."""
        if self.online == self._bus.connected:
            return
        self.online = self._bus.connected
        if self.online:
            log.info("connected to the broker")
        else:
            log.warning("the broker is away, it is tried until it is back: %s", self._bus.last_error)
