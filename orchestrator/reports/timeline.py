"""When what happened in a job: each host's power over time, and what each device was doing.

Devices stamp with the monotonic clocks of their hosts, the orchestrator with job time (seconds that it has
been running the job). A bill ends before its answer can arrive, so the smallest difference between the two
over all answers of a host puts its clock on job time, late by the fastest delivery at most. A *bar* is one
kind of work of a training on a device: phases that alternate batch by batch (load, forward, backward, ...)
are one kind. Bars come from ``Spend.t0_ns`` and ``t1_ns``; without them there are none. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.report import profiles
from mas_edge.orchestrator.rounds import Carved, Merged
from mas_edge.profiling.hosts import host_name
from mas_edge.profiling.traces import powers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mas_edge.orchestrator.job import Event
    from mas_edge.wire.messages import Profile

Kind: TypeAlias = Literal["fetch", "train", "evaluate", "upload", "lost", "orchestrator"]

KINDS: dict[str, Kind] = {
    "fetch": "fetch",
    "upload": "upload",
    "evaluate": "evaluate",
    "lost": "lost",
    "initialise": "orchestrator",
    "evaluate unseen": "orchestrator",
}
"""Kind of work of a phase; any other is training."""


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the timeline; all times are job time in seconds."""


class Bar(_Value, frozen=True):
    """A device was at this kind of work for a group's round from here to there, perhaps with pauses."""

    device: str
    group: str
    round: int
    kind: Kind
    t0_s: float
    t1_s: float


class Power(_Value, frozen=True):
    """A host's mean power between ``t0_s[k]`` and ``t1_s[k]``; no step where it was not metered."""

    sensor: str
    devices: tuple[str, ...]
    idle_w: float | None
    t0_s: tuple[float, ...]
    t1_s: tuple[float, ...]
    power_w: tuple[float, ...]


class Mark(_Value, frozen=True):
    """A moment of the job: a round's weights were merged, or the tasks were split into groups."""

    t_s: float
    what: Literal["merged", "split"]
    group: str
    round: int | None


class Timeline(_Value, frozen=True):
    """All of it."""

    powers: tuple[Power, ...]
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]


_Told: TypeAlias = "tuple[float, str, Profile]"
"""When, in job time, a device's bill was heard of."""


def timeline(stored: Iterable[tuple[float, Event]]) -> Timeline:
    """The timeline of a job's stored events (job time in seconds, event)."""
    events = list(stored)
    hosts: dict[str, list[_Told]] = {}
    for time_s, event in events:
        for device, profile in profiles([(time_s, event)]):
            hosts.setdefault(host_name(device, profile), []).append((time_s, device, profile))
    ahead_s = {name: _ahead_s(bills) for name, bills in hosts.items()}
    bars = [bar for name, bills in hosts.items() for bar in _bars(bills, ahead_s[name])]
    return Timeline(
        powers=tuple(power for name, bills in hosts.items() for power in _power(bills, ahead_s[name])),
        bars=tuple(sorted(bars, key=lambda bar: (bar.t0_s, bar.device))),
        marks=tuple(mark for time_s, event in events for mark in _mark(time_s, event)),
    )


def _ahead_s(bills: Sequence[_Told]) -> float:
    """What has to be added to a host's clock to make it job time."""
    return min((time_s - end_ns / 1e9 for time_s, _, bill in bills for end_ns in _ends_ns(bill)), default=0.0)


def _ends_ns(bill: Profile) -> Iterable[int]:
    return bill.trace.t_ns[-1:] or tuple(row.t1_ns for row in bill.rows if row.t1_ns is not None)


def _power(bills: Sequence[_Told], ahead_s: float) -> Iterable[Power]:
    steps = powers(bill.trace for _, _, bill in bills)
    last = bills[-1][2]
    if steps and last.sensor:
        yield Power(
            sensor=last.sensor.name,
            devices=tuple(sorted({device for _, device, _ in bills})),
            idle_w=last.idle_w,
            t0_s=tuple(step.t0_ns / 1e9 + ahead_s for step in steps),
            t1_s=tuple(step.t1_ns / 1e9 + ahead_s for step in steps),
            power_w=tuple(step.power_w for step in steps),
        )


def _bars(bills: Sequence[_Told], ahead_s: float) -> Iterable[Bar]:
    """One bar for each kind of work of a round in a bill, around all of its phases."""
    for _, device, bill in bills:
        around: dict[tuple[str, int, Kind], tuple[int, int]] = {}
        for row in bill.rows:
            if row.t0_ns is None or row.t1_ns is None or row.wall_s <= 0.0:
                continue
            name = (row.group, row.round, KINDS.get(row.phase, "train"))
            first_ns, last_ns = around.get(name, (row.t0_ns, row.t1_ns))
            around[name] = min(first_ns, row.t0_ns), max(last_ns, row.t1_ns)
        for (group, round_, kind), (t0_ns, t1_ns) in around.items():
            yield Bar(
                device=device,
                group=group,
                round=round_,
                kind=kind,
                t0_s=t0_ns / 1e9 + ahead_s,
                t1_s=t1_ns / 1e9 + ahead_s,
            )


def _mark(time_s: float, event: Event) -> Iterable[Mark]:
    match event:
        case Merged(group=group, round=round_):
            yield Mark(t_s=time_s, what="merged", group=group, round=round_)
        case Carved(group=group):
            yield Mark(t_s=time_s, what="split", group=group, round=None)
