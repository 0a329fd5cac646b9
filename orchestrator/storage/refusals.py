"""What devices were asked for and nobody could use: refused by them or by us, left out, or too late.

``lines`` says it event by event for people, ``counted`` per device and reason. The joules of all of it stand
in the bill under their group. Pure.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import GaveUp, Late, LeftOut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.job import Event

LEFT_OUT, TOO_LATE = "left-out", "too-late"
"""Reasons that no device says: an update absurd beside the others', and an answer that nobody waited for."""


class Refusals(msgspec.Struct, frozen=True, kw_only=True):
    """How often a device's work came to nothing, for a reason."""

    device: str
    reason: str
    times: int


def lines(events: Iterable[Event]) -> tuple[str, ...]:
    """A line each; a device that might not train a round says so again and again, and gets one."""
    found: dict[tuple[str, int | None], str] = {}
    for event in events:
        resting = isinstance(event, GaveUp) and event.again_s is not None
        for device, round_, group, reason, words in _of(event):
            line = f"{device}, round {round_} of {group}: {reason}{words}"
            found[line, None if resting else len(found)] = line
    return tuple(found.values())


def counted(events: Iterable[Event]) -> tuple[Refusals, ...]:
    """By device and reason, the devices in the order of their names."""
    times = Counter((device, reason) for event in events for device, _, _, reason, _ in _of(event))
    return tuple(Refusals(device=d, reason=reason, times=n) for (d, reason), n in sorted(times.items()))


def _of(event: Event) -> Iterable[tuple[str, int, str, str, str]]:
    """Device, round, group, reason and what there is to add."""
    match event:
        case GaveUp(key=key, reason=reason):
            yield key.device, key.round, key.group, reason, ""
        case Late(key=key):
            yield key.device, key.round, key.group, TOO_LATE, ""
        case LeftOut(round=round_, group=group, updates=updates):
            for each in updates:
                yield each.device, round_, group, LEFT_OUT, f" ({each.reason})"
