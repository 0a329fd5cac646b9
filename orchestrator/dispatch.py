"""Assignments on their way to devices: each is told what it should work on, until it has heard.

What a device should do is decided elsewhere (``orchestrator.schedule``) and given here as a whole, as often
as one likes; only what changed is said. An ``Assign`` is repeated until the device says ``Accepted``, and
again after each ``Hello`` that does not know of it; what is not wanted any more is cancelled. Nothing of it
is stored: after a restart everything wanted is simply said again. What the devices last said that they were
at (``before``) is then not taken off them for something else that they could do as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.wire import messages as m
from mas_edge.wire.retry import Outbox

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Mapping

    from mas_edge.wire.blobs import Publisher
    from mas_edge.wire.bus import Bus


class Dispatch:
    """What the devices of a fleet were sent, and whether they have heard."""

    def __init__(
        self, fleet: str, bus: Bus, publisher: Publisher, rng: random.Random, before: Iterable[m.Key] = ()
    ) -> None:
        self._fleet, self._bus, self._publisher = fleet, bus, publisher
        self._outbox = Outbox(rng)
        self._before = frozenset(before)
        self._sent: dict[m.Key, m.Assign] = {}
        self._offered: set[str] = set()  # digests of the weights that those train from

    @property
    def sent(self) -> frozenset[m.Key]:
        """Keys of what devices were sent and have not answered, and of what they were at before us."""
        return self._before | self._sent.keys()

    @property
    def waiting(self) -> bool:
        """Whether something is repeated until it is heard."""
        return self._outbox.next_s() is not None

    def working_on(self, device: str) -> tuple[m.Key, ...]:
        """What the device was sent and has not answered."""
        return tuple(key for key in self._sent if key.device == device)

    def want(self, wanted: Mapping[m.Key, m.Assign], time_s: float) -> None:
        """These are all the assignments that should be worked on now."""
        for key in sorted(self._sent.keys() - wanted.keys()):
            self.done(key)
            self._bus.publish(m.down_topic(self._fleet, key.device), m.encode(m.Cancel(key=key)))
        for digest in self._offered - {assign.weights.digest for assign in wanted.values()}:
            self._offered.discard(digest)
            self._publisher.drop(digest)
        new = sorted(wanted.keys() - self._sent.keys())
        for digest in {wanted[key].weights.digest for key in new}:
            same = frozenset(key.device for key, it in wanted.items() if it.weights.digest == digest)
            self._publisher.expect(digest, same)
            self._offered.add(digest)
        for key in new:
            self._sent[key] = wanted[key]
            self._say(wanted[key], time_s)

    def heed(self, key: m.Key) -> None:
        """The device has this assignment: no need to say it again."""
        self._outbox.answered(key)

    def done(self, key: m.Key) -> None:
        """The device has answered it for good, or need not."""
        self.heed(key)
        self._sent.pop(key, None)

    def hello(self, device: str, working_on: Collection[m.Key], time_s: float) -> None:
        """The device has come, and is at that: told once more what else it should be at."""
        for key in self.working_on(device):
            if key not in working_on:
                self._say(self._sent[key], time_s)

    def again(self, time_s: float) -> None:
        """The connection is a new one: everything is said anew."""
        self._outbox.again(time_s)

    def pump(self, time_s: float) -> None:
        """Say what is due."""
        for topic, payload in self._outbox.due(time_s):
            self._bus.publish(topic, payload)

    def _say(self, assign: m.Assign, time_s: float) -> None:
        """Until the device says that it has it."""
        topic = m.down_topic(self._fleet, assign.key.device)
        self._outbox.put(assign.key, topic, m.encode(assign), time_s)
