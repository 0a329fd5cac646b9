"""Which devices there are, what each said of itself, and whether it is there now.

A device is *known* once it has said ``Hello``, for ever. Whether it is online is known only from what it, or
its last will, has said since the orchestrator started: until then nobody knows, which is not the same as
being away. Pure but for its own memory; storing and logging are the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.sound import sound_words
from mas_edge.wire.messages import Alive, Caps, Hello, Offer, Reason, Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a device. ``online`` None: it was not heard of since the orchestrator started.

    ``reasons``: why it may not train now. ``power_w`` is its mean power while it trained; None is unknown.
    """

    name: str
    online: bool | None = None
    reasons: tuple[Reason, ...] = ()
    offers: tuple[Offer, ...] = ()
    caps: Caps = Caps()
    cpus: int | None = None
    memory_bytes: int | None = None
    sensor: Sensor | None = None
    power_w: float | None = None

    @property
    def limit_bytes(self) -> int | None:
        """Memory that an agent with its worker may have: the cap, or all that the device has."""
        known = [size for size in (self.caps.memory_bytes, self.memory_bytes) if size is not None]
        return min(known, default=None)

    def labels(self, workload: str) -> frozenset[str]:
        """The tasks of a workload that it has labels for."""
        return frozenset(task for each in self.offers if each.workload == workload for task in each.tasks)


class Roster:
    """The devices of a fleet; ``hellos`` and ``alive`` are the last of each, by name."""

    def __init__(self, hellos: Mapping[str, Hello]) -> None:
        self.hellos: dict[str, Hello] = dict(hellos)
        self.alive: dict[str, Alive] = {}
        self._greeted: set[str] = set()

    def hello(self, hello: Hello) -> None:
        """It said what it is; that it is there follows, unless it says otherwise later."""
        self.hellos[hello.device] = hello
        self._greeted.add(hello.device)

    def lifts(self, device: str, alive: Alive) -> bool:
        """Whether this would be news that it may train: it had said otherwise, or nothing yet."""
        before = self.alive.get(device)
        return alive.online and not alive.reasons and (before is None or bool(before.reasons))

    def presence(self, device: str, alive: Alive) -> str:
        """It said that it is there, or its last will that it is not; what is new of whether it may train."""
        before = self.alive.get(device)
        self.alive[device] = alive
        if not alive.online:
            self._greeted.discard(device)
        if not alive.online or alive.reasons == (before.reasons if before else ()):
            return ""
        why = "; ".join(f"{reason.condition}: {reason.detail}" for reason in alive.reasons)
        return f"{device} may not train now: {sound_words(why)}" if why else f"{device} may train again"

    def facts(self, power_w: Callable[[str], float | None]) -> tuple[DeviceFacts, ...]:
        """What is known of each device that ever said hello, by name."""
        return tuple(self._facts(hello, power_w(name)) for name, hello in sorted(self.hellos.items()))

    def _facts(self, hello: Hello, power_w: float | None) -> DeviceFacts:
        alive = self.alive.get(hello.device)
        greeted = True if hello.device in self._greeted else None
        return DeviceFacts(
            name=hello.device,
            online=(alive.online or bool(greeted)) if alive else greeted,
            reasons=alive.reasons if alive else (),
            offers=hello.workloads,
            caps=hello.caps,
            cpus=hello.cpus,
            memory_bytes=hello.memory_bytes,
            sensor=hello.sensor,
            power_w=power_w,
        )
