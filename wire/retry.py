"""When to say a thing again: backoff, and requests that are repeated until they are answered.

A broker may lose any message, so whoever asks keeps the request in an ``Outbox`` until the answer on
the level of the application has come. Intervals double from one second to thirty. A repetition waits
between half of its interval and all of it, so that a fleet spreads out and still no one hurries; a
reconnection waits anything from nothing to its interval. ("Equal" and "full" jitter: M. Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015.) There is no clock in here: the time is
always an argument, in seconds of any clock that does not go back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable
    from random import Random

FIRST_S = 1.0
LONGEST_S = 30.0
_DOUBLINGS = 16  # 2**16 s is far past LONGEST_S; more would only grow the number


def interval_s(attempt: int) -> float:
    """The undisturbed interval after ``attempt`` failures: 1, 2, 4, ... 30 seconds."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempt, _DOUBLINGS))


def full_jitter_s(attempt: int, rng: Random) -> float:
    """Somewhere in [0, interval]: for reconnecting, where nobody is waiting for an answer yet."""
    return rng.uniform(0, interval_s(attempt))


def equal_jitter_s(attempt: int, rng: Random) -> float:
    """Somewhere in [interval / 2, interval]: for asking again, where an answer may be on its way."""
    return rng.uniform(0.5, 1) * interval_s(attempt)


@dataclass
class _Request:
    topic: str
    payload: bytes
    due_s: float
    attempt: int = 0


class Outbox:
    """Requests that wait for an answer, by name."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._open: dict[Hashable, _Request] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._open

    def times(self, name: Hashable) -> int:
        """How often the request was said on this connection; 0 if it is not open."""
        request = self._open.get(name)
        return request.attempt if request else 0

    def put(self, name: Hashable, topic: str, payload: bytes, time_s: float) -> None:
        """A request that is due at once; it replaces one of the same name."""
        self._open[name] = _Request(topic, payload, time_s)

    def answered(self, name: Hashable) -> bool:
        """Whether the request was still open; it no longer is."""
        return self._open.pop(name, None) is not None

    def due(self, time_s: float) -> list[tuple[str, bytes]]:
        """Topic and payload of what is to be said now, oldest request first; each waits longer next time."""
        ready = [request for request in self._open.values() if request.due_s <= time_s]
        for request in ready:
            request.due_s = time_s + equal_jitter_s(request.attempt, self._rng)
            request.attempt += 1
        return [(request.topic, request.payload) for request in ready]

    def next_s(self) -> float | None:
        """The time at which something is due, None if nothing is open."""
        return min((request.due_s for request in self._open.values()), default=None)

    def again(self, time_s: float) -> None:
        """Everything is due at once and starts with short intervals: the connection is a new one."""
        for request in self._open.values():
            request.due_s, request.attempt = time_s, 0
