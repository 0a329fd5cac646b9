"""What one sensor's host used while any of its agents was metered, whoever used it.

Agents on one host read one and the same sensor, so its total, its idle energy, what a GPU used that
several groups shared, and what nobody is charged for (background) count once, over the union of the
times in which its agents were metered. Background is total - idle - shared GPU - attributed, never
clamped. Of the facts about baseline, machine and sampling a host's bill keeps what was told last, and
the extremes. Pure: no clock, no input or output; rows are added up in ``bill``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from typing import TypeAlias, TypeVar

import msgspec

from mas_edge.profiling.traces import union
from mas_edge.wire.messages import Baseline, Machine, Profile, Refusal, Sampling, Sensor


class HostBill(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor over the time in which any of its agents was metered; ``devices`` share it.

    ``total_j`` = ``idle_j`` + ``attributed_j`` + ``shared_gpu_j`` + ``background_j``; of two baselines
    the later one is told. ``temperature_max_c`` is the highest that any training began or ended with.
    """

    sensor: Sensor | None
    devices: tuple[str, ...]
    metered_s: float
    total_j: float | None
    total_u_j: float | None
    idle_j: float | None
    attributed_j: float | None
    shared_gpu_j: float | None
    background_j: float | None
    baseline: Baseline | None
    machine: Machine | None
    temperature_max_c: float | None
    throttled: bool | None
    sampling: Sampling | None
    profiler_cpu_s: float | None
    refused: tuple[Refusal, ...]


Metered: TypeAlias = tuple[str, Profile]
"""A device's name and one of its bills."""


def host(pairs: Sequence[Metered]) -> HostBill:
    """The bill of one sensor from all profiles that rest on it, at least one, in any order."""
    profiles = [profile for _, profile in sorted(pairs, key=_ended)]
    sensor, metered = profiles[-1].sensor, union((p.trace, p.idle_w) for p in profiles)
    known = sensor is not None and metered.wall_s > 0
    total_j, idle_j = (metered.energy_j, metered.idle_j) if known else (None, None)
    attributed_j = known_sum(row.attributed_energy_j for p in profiles for row in p.rows)
    shared_gpu_j = known_sum(p.shared_gpu_j for p in profiles)
    variance_j2 = metered.variance_j2 + ((sensor.gain_u if sensor else 0.0) * metered.energy_j) ** 2
    return HostBill(
        sensor=sensor,
        devices=tuple(sorted({device for device, _ in pairs})),
        metered_s=metered.wall_s,
        total_j=total_j,
        total_u_j=float(variance_j2**0.5) if known else None,
        idle_j=idle_j,
        attributed_j=attributed_j,
        shared_gpu_j=shared_gpu_j,
        background_j=less(total_j, idle_j, shared_gpu_j, attributed_j),
        baseline=_last(p.baseline for p in profiles),
        machine=_last(p.machine for p in profiles),
        temperature_max_c=max(_told(p.machine.temperature_c for p in profiles if p.machine), default=None),
        throttled=max(_told(p.machine.throttled for p in profiles if p.machine), default=None),
        sampling=_sampling([p.sampling for p in profiles if p.sampling]),
        profiler_cpu_s=fsum(costs) if (costs := _told(p.profiler_cpu_s for p in profiles)) else None,
        refused=tuple(dict.fromkeys(refusal for p in profiles for refusal in p.refused)),
    )


def by_host(pairs: Iterable[Metered]) -> dict[str, list[Metered]]:
    """The pairs by the sensor that they rest on."""
    found: dict[str, list[Metered]] = {}
    for device, profile in pairs:
        found.setdefault(host_name(device, profile), []).append((device, profile))
    return found


def host_name(device: str, profile: Profile) -> str:
    """What is equal for profiles of one and the same sensor."""
    return profile.sensor.sensor_host if profile.sensor else f"no sensor on {device}"


def known_sum(values: Iterable[float | None]) -> float | None:
    """The sum, None if any part is unknown."""
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return fsum(known)


def less(whole: float | None, *parts: float | None) -> float | None:
    """The whole without the parts, None if any is unknown."""
    return known_sum([whole, *(None if part is None else -part for part in parts)])


def _ended(pair: Metered) -> tuple[int, str]:
    device, profile = pair
    return profile.trace.t_ns[-1] if profile.trace.t_ns else 0, device


_T = TypeVar("_T")


def _told(values: Iterable[_T | None]) -> list[_T]:
    return [value for value in values if value is not None]


def _last(values: Iterable[_T | None]) -> _T | None:
    told = _told(values)
    return told[-1] if told else None


def _sampling(told: Sequence[Sampling]) -> Sampling | None:
    """All agents' together: the rate is their mean, gaps and failures are counted by each of them."""
    if not told:
        return None
    return Sampling(
        wall_s=fsum(one.wall_s for one in told),
        samples=None if None in (counts := [one.samples for one in told]) else sum(_told(counts)),
        gaps=sum(one.gaps for one in told),
        failed_reads=sum(one.failed_reads for one in told),
    )
