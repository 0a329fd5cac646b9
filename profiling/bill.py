"""What a fleet's trainings cost together: per task group and phase, per sensor, and in all.

Attributed joules add over devices. A device's total, its idle energy and what nobody is charged for
(background) do not: agents on one host read one and the same sensor. So these count once per
``sensor_host``, over the union of the times in which its agents were metered; where two traces
overlap, the later one is taken from the end of the earlier, interpolated. Background is
total - idle - attributed, never clamped. A sum with an unknown part is None, flagged ``partial`` if
another part was known; sums over more than one method or scope are flagged ``mixed``.

Standard uncertainties add linearly: the error that rows of a sensor share (gain, idle power) is the
greater part, so this is an upper bound that is close. Pure: no clock, no input or output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import fsum
from typing import TypeAlias, TypeVar

import msgspec

from mas_edge.profiling.traces import overlap, union
from mas_edge.wire.messages import Profile, Sensor, Spend


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a bill."""


class Billed(_Value, frozen=True):
    """A row with where it comes from; ``sensor`` None: the device has no meter."""

    device: str
    sensor: Sensor | None
    spend: Spend


class Cost(_Value, frozen=True):
    """A sum of rows; the energies as in ``Spend``. ``methods`` are all that its joules rest on."""

    wall_s: float
    cpu_s: float
    examples: int
    window_energy_j: float | None
    window_u_j: float | None
    dynamic_energy_j: float | None
    dynamic_u_j: float | None
    attributed_energy_j: float | None
    attributed_u_j: float | None
    exclusive_fraction: float | None
    peak_rss_bytes: int | None
    sent_bytes: int
    received_bytes: int
    methods: tuple[str, ...]
    flags: tuple[str, ...]


class Line(_Value, frozen=True):
    """One phase of a task group over all devices and rounds; ``phase`` None: all phases.

    ``j_per_example`` is attributed energy over the examples that the *group* trained, so that the
    phases' add up to the group's; None if it trained none.
    """

    job: str
    group: str
    phase: str | None
    devices: int
    rounds: int
    cost: Cost
    j_per_example: float | None


class HostBill(_Value, frozen=True):
    """One sensor over the time in which any of its agents was metered; ``devices`` share it."""

    sensor: Sensor | None
    devices: tuple[str, ...]
    metered_s: float
    total_j: float | None
    total_u_j: float | None
    idle_j: float | None
    attributed_j: float | None
    background_j: float | None


class FleetBill(_Value, frozen=True):
    """All of it; ``closing_error_j`` = total - idle - background - what the lines were attributed."""

    lines: tuple[Line, ...]
    hosts: tuple[HostBill, ...]
    total_j: float | None
    total_u_j: float | None
    idle_j: float | None
    attributed_j: float | None
    background_j: float | None
    closing_error_j: float | None
    methods: tuple[str, ...]
    flags: tuple[str, ...]


FIGURES = tuple(name for name in Spend.__struct_fields__ if name.endswith("_j"))
"""Names of the energies of a row and of their uncertainties."""

Metered: TypeAlias = tuple[str, Profile]


def fleet(profiles: Iterable[Metered]) -> FleetBill:
    """The bill of (device name, profile) pairs, in any order; profiles that hold nothing are left out."""
    metered = [pair for pair in profiles if pair[1].rows or pair[1].trace.t_ns]
    rows = billed(metered)
    lines = _lines(rows)
    hosts = tuple(_host(pairs) for pairs in _by_host(metered).values())
    total_j = _sum(host.total_j for host in hosts) if hosts else None
    idle_j = _sum(host.idle_j for host in hosts) if hosts else None
    background_j = _sum(host.background_j for host in hosts) if hosts else None
    named_j = _sum(line.cost.attributed_energy_j for line in lines if line.phase is None)
    return FleetBill(
        lines=lines,
        hosts=hosts,
        total_j=total_j,
        total_u_j=_sum(host.total_u_j for host in hosts) if hosts else None,
        idle_j=idle_j,
        attributed_j=_sum(host.attributed_j for host in hosts) if hosts else None,
        background_j=background_j,
        closing_error_j=_less(total_j, idle_j, background_j, named_j),
        methods=_methods(rows),
        flags=_flags(rows, [host.total_j for host in hosts], [host.background_j for host in hosts]),
    )


def billed(profiles: Iterable[Metered]) -> tuple[Billed, ...]:
    """Every row with its device and sensor, corrected for what a device cannot know.

    Where another device of the same sensor was metered at the same time, ``exclusive_fraction`` is
    lowered to what is certain and the row is flagged ``overlapping``: such windows count joules twice.
    """
    pairs = list(profiles)
    hosts = _by_host(pairs)
    found = []
    for device, profile in pairs:
        neighbours = [other.trace for name, other in hosts[_host_name(device, profile)] if name != device]
        share = overlap(profile.trace, neighbours)
        found += [
            Billed(device=device, sensor=profile.sensor, spend=_shared(row, share)) for row in profile.rows
        ]
    return tuple(found)


def sum_spend(rows: Iterable[Billed]) -> Cost:
    """The rows' sum."""
    kept = tuple(rows)
    spends = [row.spend for row in kept]
    figures = {name: [getattr(spend, name) for spend in spends] for name in FIGURES}
    wall_s = fsum(spend.wall_s for spend in spends)
    exclusive_s = _sum(
        None if spend.exclusive_fraction is None else spend.exclusive_fraction * spend.wall_s
        for spend in spends
        if spend.wall_s
    )
    peaks = [spend.peak_rss_bytes for spend in spends if spend.peak_rss_bytes is not None]
    return Cost(
        wall_s=wall_s,
        cpu_s=fsum(spend.cpu_s for spend in spends),
        examples=sum(spend.examples for spend in spends),
        **{name: _sum(values) for name, values in figures.items()},
        exclusive_fraction=None if exclusive_s is None or not wall_s else exclusive_s / wall_s,
        peak_rss_bytes=max(peaks, default=None),
        sent_bytes=sum(spend.sent_bytes for spend in spends),
        received_bytes=sum(spend.received_bytes for spend in spends),
        methods=_methods(kept),
        flags=_flags(kept, *figures.values()),
    )


def _lines(rows: Sequence[Billed]) -> tuple[Line, ...]:
    """A line for every phase of every group in order of appearance, then one for the group."""
    groups = _grouped(rows, lambda row: (row.spend.job, row.spend.group))
    lines = []
    for (job, group), of_group in groups.items():
        examples = sum(row.spend.examples for row in of_group)
        phases: dict[str | None, list[Billed]] = {
            **_grouped(of_group, lambda row: row.spend.phase),
            None: of_group,
        }
        for phase, of_phase in phases.items():
            cost = sum_spend(of_phase)
            joules = cost.attributed_energy_j
            lines.append(
                Line(
                    job=job,
                    group=group,
                    phase=phase,
                    devices=len({row.device for row in of_phase}),
                    rounds=len({row.spend.round for row in of_phase}),
                    cost=cost,
                    j_per_example=None if joules is None or not examples else joules / examples,
                )
            )
    return tuple(lines)


def _host(pairs: Sequence[Metered]) -> HostBill:
    sensor = pairs[0][1].sensor
    attributed = _sum(row.attributed_energy_j for _, profile in pairs for row in profile.rows)
    metered = union((profile.trace, profile.idle_w) for _, profile in pairs)
    known = sensor is not None and metered.wall_s > 0
    total_j, idle_j = (metered.energy_j, metered.idle_j) if known else (None, None)
    gain_u = sensor.gain_u if sensor else 0.0
    return HostBill(
        sensor=sensor,
        devices=tuple(sorted({device for device, _ in pairs})),
        metered_s=metered.wall_s,
        total_j=total_j,
        total_u_j=None if total_j is None else float((metered.variance_j2 + (gain_u * total_j) ** 2) ** 0.5),
        idle_j=idle_j,
        attributed_j=attributed,
        background_j=_less(total_j, idle_j, attributed),
    )


def _shared(row: Spend, share: float) -> Spend:
    if share <= 0.0:
        return row
    certain = None if row.exclusive_fraction is None else max(0.0, row.exclusive_fraction - share)
    flags = tuple(sorted({*row.flags, "overlapping"}))
    return msgspec.structs.replace(row, exclusive_fraction=certain, flags=flags)


def _by_host(pairs: Iterable[Metered]) -> dict[str, list[Metered]]:
    found: dict[str, list[Metered]] = {}
    for device, profile in pairs:
        found.setdefault(_host_name(device, profile), []).append((device, profile))
    return found


def _host_name(device: str, profile: Profile) -> str:
    return profile.sensor.sensor_host if profile.sensor else f"no sensor on {device}"


_K = TypeVar("_K")


def _grouped(rows: Iterable[Billed], key: Callable[[Billed], _K]) -> dict[_K, list[Billed]]:
    found: dict[_K, list[Billed]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _sum(values: Iterable[float | None]) -> float | None:
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return fsum(known)


def _less(whole: float | None, *parts: float | None) -> float | None:
    return _sum([whole, *(None if part is None else -part for part in parts)])


def _methods(rows: Iterable[Billed]) -> tuple[str, ...]:
    return tuple(sorted({row.sensor.method for row in rows if row.sensor}))


def _flags(rows: Sequence[Billed], *columns: Sequence[float | None]) -> tuple[str, ...]:
    flags = {flag for row in rows for flag in row.spend.flags}
    if len({(row.sensor.method, row.sensor.scope) for row in rows if row.sensor}) > 1:
        flags.add("mixed")
    if any(None in column and any(value is not None for value in column) for column in columns):
        flags.add("partial")
    return tuple(sorted(flags))
