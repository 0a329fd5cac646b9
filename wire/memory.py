"""A broker in memory: the same ``Bus``, without sockets, and with faults on demand.

It serves a fleet in one process and every test that needs a broker to misbehave. Messages go straight
into the inboxes of the subscribers; retained messages and last wills are as in MQTT. ``Faults`` loses,
repeats and reorders deliveries with given probabilities, drawn from the given generator, so that a run
driven from one thread can be repeated exactly. A delayed message comes after the next one for the same
client, or when that client finds nothing else. Nothing is limited and nothing is written down.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from mas_edge.wire.inbox import Delivery, Inbox, matches

if TYPE_CHECKING:
    from mas_edge.wire.messages import WireError


@dataclass(frozen=True)
class Faults:
    """Probabilities that a delivery is lost, comes twice, or comes after later ones."""

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0


class Broker:
    """A broker for clients in this process; thread-safe."""

    def __init__(self, faults: Faults | None = None, rng: Random | None = None) -> None:
        self.faults = faults or Faults()
        self._rng = rng or Random(0)  # noqa: S311  faults, not secrets
        self._lock = threading.RLock()
        self._clients: dict[str, _Client] = {}
        self._retained: dict[str, bytes] = {}

    def connect(self, client_id: str, will: tuple[str, bytes] | None = None) -> _Client:
        """A bus. Who holds this client id already is thrown out, and its will is published."""
        with self._lock:
            self.kill(client_id)
            client = self._clients[client_id] = _Client(self, client_id, will)
            client.accept()
            return client

    def restart(self) -> None:
        """Forget everything; the clients come back by themselves, and no will is published."""
        with self._lock:
            self._retained.clear()
            for client in list(self._clients.values()):
                client.accept()

    def kill(self, client_id: str) -> None:
        """The end of a client's process, as the broker sees it: its will is published."""
        with self._lock:
            client = self.leave(client_id)
            if client is not None and client.will is not None:
                self.publish(*client.will, retain=True)

    def leave(self, client_id: str) -> _Client | None:
        """The client that was there, disconnected; None if there was none."""
        with self._lock:
            client = self._clients.pop(client_id, None)
            if client is not None:
                client.lose()
            return client

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """A message to all whose filters match; an empty retained one forgets what was retained."""
        with self._lock:
            if retain:
                self._retained[topic] = payload
                if not payload:
                    del self._retained[topic]
            for client in list(self._clients.values()):
                if any(matches(topic_filter, topic) for topic_filter in client.filters):
                    self._deliver(client, Delivery(topic, payload))

    def recall(self, client: _Client, topic_filter: str) -> None:
        """Deliver what is retained under a filter."""
        with self._lock:
            for topic, payload in sorted(self._retained.items()):
                if matches(topic_filter, topic):
                    self._deliver(client, Delivery(topic, payload))

    def _deliver(self, client: _Client, delivery: Delivery) -> None:
        if self._rng.random() < self.faults.lose:
            return
        times = 2 if self._rng.random() < self.faults.repeat else 1
        for _ in range(times):
            client.receive(delivery, late=self._rng.random() < self.faults.delay)


class _Client:
    """One ``Bus`` on a ``Broker``."""

    def __init__(self, broker: Broker, client_id: str, will: tuple[str, bytes] | None) -> None:
        self.will = will
        self.filters: set[str] = set()
        self.connections = 0
        self.connected = False
        self.last_error: WireError | None = None
        self.inflight = 0
        self.sent_bytes = 0
        self._broker, self._client_id = broker, client_id
        self._inbox = Inbox()
        self._held: list[Delivery] = []

    @property
    def received_bytes(self) -> int:
        return self._inbox.received_bytes

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if self.connected:
            self.sent_bytes += len(topic) + len(payload)
            self._broker.publish(topic, payload, retain=retain)

    def subscribe(self, topic_filter: str) -> None:
        self.filters.add(topic_filter)
        if self.connected:
            self._broker.recall(self, topic_filter)

    def unsubscribe(self, topic_filter: str) -> None:
        self.filters.discard(topic_filter)

    def get(self, timeout_s: float) -> Delivery | None:
        delivery = self._inbox.get(0 if self._held else timeout_s)
        if delivery is None and self._held:
            self._release()
            delivery = self._inbox.get(0)
        return delivery

    def close(self) -> None:
        if self.connected:
            self._broker.leave(self._client_id)

    # --- the broker's side ---

    def accept(self) -> None:
        """A broker took us in; what it had for us before is gone."""
        self._held.clear()
        self.connected, self.last_error = True, None
        self.connections += 1
        self._inbox.wake()
        for topic_filter in sorted(self.filters):
            self._broker.recall(self, topic_filter)

    def lose(self) -> None:
        """The connection ends."""
        self.connected = False
        self._inbox.wake()

    def receive(self, delivery: Delivery, *, late: bool) -> None:
        """Put a delivery into the inbox, a late one behind the next."""
        if late:
            self._held.append(delivery)
        else:
            self._inbox.put(delivery)
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for delivery in held:
            self._inbox.put(delivery)
