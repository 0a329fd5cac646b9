"""Messages between the thread of a connection and the thread that decides.

A connection puts what it receives into an ``Inbox``; the one deciding thread takes it out. Nothing is
decided here. ``matches`` is the rule of OASIS MQTT 3.1.1, section 4.7.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Delivery(NamedTuple):
    """One message that came."""

    topic: str
    payload: bytes


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic falls under an MQTT filter with ``+`` and ``#``.

    >>> matches("mas/1/site/+/up", "mas/1/site/pi-3/up"), matches("mas/#", "mas"), matches("#", "$SYS/load")
    (True, True, False)
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


class Inbox:
    """Messages on their way from a connection's thread to the thread that calls ``get``."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Delivery | None] = deque()
        self._bytes = 0
        self.received_bytes = 0

    def put(self, delivery: Delivery) -> None:
        """Add a message; never blocks."""
        size = len(delivery.topic) + len(delivery.payload)
        with self._changed:
            self._waiting.append(delivery)
            self._bytes += size
            self.received_bytes += size
            self._changed.notify_all()

    def wake(self) -> None:
        """Make one ``get`` return None."""
        with self._changed:
            self._waiting.append(None)
            self._changed.notify_all()

    def get(self, timeout_s: float) -> Delivery | None:
        """The oldest message, or None: after the timeout, or for a ``wake``."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout_s)
            delivery = self._waiting.popleft() if self._waiting else None
            if delivery is not None:
                self._bytes -= len(delivery.topic) + len(delivery.payload)
                self._changed.notify_all()
            return delivery

    def wait_for_room(self, limit_bytes: int, unless: Callable[[], bool]) -> None:
        """Return when no more than ``limit_bytes`` wait, or when ``unless()`` (looked at on each change)."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= limit_bytes or unless())
