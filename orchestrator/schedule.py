"""Which training each device does next, of all that the jobs ask of it.

A device trains one group at a time. What it was sent stays with it as long as that is asked for. Else the
job of the greatest priority goes first and, among equals, the one that has had the least of the device so
far, in seconds of that device. Within a job the earliest round comes first and, among equals, the group that
stands first in the plan: groups keep pace with each other.

Counted from its start, a job that comes late would have a device to itself until it has caught up with jobs
that are hours old; so a newcomer starts level with whoever has had the least (as the Linux scheduler places a
task that wakes: I. Molnar, "Modular Scheduler Core and CFS", kernel documentation sched-design-CFS). A job of
lower priority waits as long as a higher one has work for the device: that is what priority means here. Pure
but for the memory of where each newcomer started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import Ask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from mas_edge.wire.messages import Key


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A job, its priority (a greater one goes first), and what it asks of devices, in the plan's order."""

    job: str
    priority: int
    asks: tuple[Ask, ...]


def asks(owed: Iterable[object]) -> tuple[Ask, ...]:
    """What is asked of devices, of all that a job owes."""
    return tuple(action for action in owed if isinstance(action, Ask))


class Schedule:
    """Turns at the devices; remembers from where each job's seconds on a device count."""

    def __init__(self) -> None:
        self._ahead_s: dict[tuple[str, str], float] = {}  # (device, job): what it was given at its start

    def choose(
        self,
        contenders: Sequence[Contender],
        sent: Collection[Key],
        seconds: Callable[[str], Mapping[str, float]],
        slots: Mapping[str, int],
    ) -> tuple[Ask, ...]:
        """What the devices should do now, one training in each of the ``slots`` of a device.

        ``seconds(device)`` are those that each job has used of it.
        """
        offered: dict[str, list[tuple[Contender, Ask]]] = {}
        for contender in contenders:
            for ask in contender.asks:
                offered.setdefault(ask.key.device, []).append((contender, ask))
        return tuple(
            ask
            for device, offers in offered.items()
            for ask in self._in_turn(device, offers, sent, seconds(device))[: slots.get(device, 0)]
        )

    def _in_turn(
        self,
        device: str,
        offers: Sequence[tuple[Contender, Ask]],
        sent: Collection[Key],
        seconds: Mapping[str, float],
    ) -> list[Ask]:
        """What is asked of a device, the most urgent first."""
        used_s = self._used_s(device, {contender.job for contender, _ in offers}, seconds)
        ranked = sorted(
            offers,
            key=lambda offer: (
                offer[1].key not in sent,
                -offer[0].priority,
                used_s[offer[0].job],
                offer[0].job,
                offer[1].key.round,
            ),
        )
        return [ask for _, ask in ranked]

    def _used_s(self, device: str, names: Iterable[str], seconds: Mapping[str, float]) -> dict[str, float]:
        """Seconds of each of these jobs on the device, a newcomer's from the least of the others on."""
        names = list(names)
        used = {
            name: self._ahead_s[device, name] + seconds.get(name, 0.0)
            for name in names
            if (device, name) in self._ahead_s
        }
        level_s = min(used.values(), default=0.0)
        for name in names:
            if name not in used:
                self._ahead_s[device, name] = level_s - seconds.get(name, 0.0)
                used[name] = level_s
        return used
