"""What a fleet's trainings cost together: rows and their sums, per sensor, and in all.

Attributed joules add over devices. A device's total, its idle energy, what several groups' use of a GPU
took and what nobody is charged for (background) do not: agents on one host read one and the same
sensor. So these count once per ``sensor_host``: see ``hosts``. A sum with an unknown part is None,
flagged ``partial`` if another part was known; sums over more than one method or scope are flagged
``mixed``.

Standard uncertainties add linearly: the error that rows of a sensor share (gain, idle power) is the
greater part, so this is an upper bound that is close. Pure: no clock, no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

import msgspec

from mas_edge.profiling.hosts import HostBill, Metered, by_host, host, host_name, known_sum, less
from mas_edge.profiling.traces import overlap
from mas_edge.wire.messages import Rail, Sensor, Spend


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a bill."""


class Billed(_Value, frozen=True):
    """A row with where it comes from; ``sensor`` None: the device has no meter."""

    device: str
    sensor: Sensor | None
    spend: Spend


class Cost(_Value, frozen=True):
    """A sum of rows; the energies as in ``Spend``. ``methods`` are all that its joules rest on.

    ``peak_w`` is the greatest of the rows that know theirs, each of its own device.
    """

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
    peak_w: float | None
    rails: tuple[Rail, ...]
    peak_rss_bytes: int | None
    sent_bytes: int
    received_bytes: int
    methods: tuple[str, ...]
    flags: tuple[str, ...]


class FleetBill(_Value, frozen=True):
    """All of it.

    ``closing_error_j`` = total - idle - background - shared GPU - what the rows were attributed.
    """

    hosts: tuple[HostBill, ...]
    total_j: float | None
    total_u_j: float | None
    idle_j: float | None
    attributed_j: float | None
    shared_gpu_j: float | None
    background_j: float | None
    closing_error_j: float | None
    profiler_cpu_s: float | None
    methods: tuple[str, ...]
    flags: tuple[str, ...]


FIGURES = tuple(name for name in Spend.__struct_fields__ if name.endswith("_j"))
"""Names of the energies of a row and of their uncertainties."""


def fleet(profiles: Iterable[Metered]) -> FleetBill:
    """The bill of (device name, profile) pairs, in any order; profiles that hold nothing are left out."""
    metered = [pair for pair in profiles if pair[1].rows or pair[1].trace.t_ns]
    rows = billed(metered)
    hosts = tuple(host(pairs) for pairs in by_host(metered).values())
    named_j = known_sum(row.spend.attributed_energy_j for row in rows)

    def of_hosts(name: str) -> float | None:
        return known_sum(getattr(one, name) for one in hosts) if hosts else None

    total_j, idle_j, shared_j, background_j = map(
        of_hosts, ("total_j", "idle_j", "shared_gpu_j", "background_j")
    )
    return FleetBill(
        hosts=hosts,
        total_j=total_j,
        total_u_j=of_hosts("total_u_j"),
        idle_j=idle_j,
        attributed_j=of_hosts("attributed_j"),
        shared_gpu_j=shared_j,
        background_j=background_j,
        closing_error_j=less(total_j, idle_j, background_j, shared_j, named_j),
        profiler_cpu_s=of_hosts("profiler_cpu_s"),
        methods=_methods(rows),
        flags=_flags(rows, [one.total_j for one in hosts], [one.background_j for one in hosts]),
    )


def billed(profiles: Iterable[Metered]) -> tuple[Billed, ...]:
    """Every row with its device and sensor, corrected for what a device cannot know.

    Where another device of the same sensor was metered at the same time, ``exclusive_fraction`` is
    lowered to what is certain and the row is flagged ``overlapping``: such windows count joules twice.
    """
    pairs = list(profiles)
    hosts = by_host(pairs)
    found = []
    for device, profile in pairs:
        neighbours = [other.trace for name, other in hosts[host_name(device, profile)] if name != device]
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
    exclusive_s = known_sum(
        None if spend.exclusive_fraction is None else spend.exclusive_fraction * spend.wall_s
        for spend in spends
        if spend.wall_s
    )
    peaks = [spend.peak_rss_bytes for spend in spends if spend.peak_rss_bytes is not None]
    powers_w = [spend.peak_w for spend in spends if spend.peak_w is not None]
    return Cost(
        wall_s=wall_s,
        cpu_s=fsum(spend.cpu_s for spend in spends),
        examples=sum(spend.examples for spend in spends),
        **{name: known_sum(values) for name, values in figures.items()},
        exclusive_fraction=None if exclusive_s is None or not wall_s else exclusive_s / wall_s,
        peak_w=max(powers_w, default=None),
        rails=_rails(spends),
        peak_rss_bytes=max(peaks, default=None),
        sent_bytes=sum(spend.sent_bytes for spend in spends),
        received_bytes=sum(spend.received_bytes for spend in spends),
        methods=_methods(kept),
        flags=_flags(kept, *figures.values()),
    )


def _shared(row: Spend, share: float) -> Spend:
    if share <= 0.0:
        return row
    certain = None if row.exclusive_fraction is None else max(0.0, row.exclusive_fraction - share)
    flags = tuple(sorted({*row.flags, "overlapping"}))
    return msgspec.structs.replace(row, exclusive_fraction=certain, flags=flags)


def _rails(spends: Iterable[Spend]) -> tuple[Rail, ...]:
    sums: dict[str, list[float]] = {}
    for spend in spends:
        for rail in spend.rails:
            sums.setdefault(rail.name, []).append(rail.energy_j)
    return tuple(Rail(name=name, energy_j=fsum(parts)) for name, parts in sums.items())


def _methods(rows: Iterable[Billed]) -> tuple[str, ...]:
    return tuple(sorted({row.sensor.method for row in rows if row.sensor}))


def _flags(rows: Sequence[Billed], *columns: Sequence[float | None]) -> tuple[str, ...]:
    flags = {flag for row in rows for flag in row.spend.flags}
    if len({(row.sensor.method, row.sensor.scope) for row in rows if row.sensor}) > 1:
        flags.add("mixed")
    if any(None in column and any(value is not None for value in column) for column in columns):
        flags.add("partial")
    return tuple(sorted(flags))
