"""Looks at a power sensor -> totals that never fall: what a sampled meter knows, sample by sample.

``advance`` takes the totals and one more look and gives the totals after it. Energy and variance of the
interval that the look ends are those of ``samples``; what it takes to judge an interval (its usual length,
the spread of the power) comes from the last few seconds. A look without a power, one with a total that
cannot be (negative, above 10 kW) and one whose clock stood still or went back is never a sample: it is
counted, as ``failed_read``, and the interval that spans it is integrated, as ``gap`` if it is long. A host
that slept makes a gap however short it looks. A rail that a look does not show is not known any more, and
its energy goes.

Pure: no clock and no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from mas_edge.profiling.samples import (
    GAP,
    Sample,
    are_slow,
    interval_j2,
    spread_w,
    trapezoid_j,
)

GREATEST_W = 10_000.0
"""More than any board draws: what says so is broken."""
RECENT = 50
"""How many samples the usual interval and the spread of the power are taken from."""


@dataclass(frozen=True)
class Look:
    """What a sensor said at a moment: total power, or None if nothing usable, and the power of its rails.

    ``u_w`` is the standard uncertainty of the total's resolution; ``flags`` say what else was noticed.
    """

    t_ns: int
    power_w: float | None
    by_rail_w: Mapping[str, float] = field(default_factory=dict)
    u_w: float = 0.0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Running:
    """All that was seen so far; ``interval_s`` is nominal, ``recent`` the newest samples.

    ``by_rail_j`` is of the same moments as ``energy_j``, and keeps the sign of a rail that feeds back.
    """

    interval_s: float
    recent: tuple[Sample, ...] = ()
    intervals_ns: tuple[int, ...] = ()
    count: int = 0
    energy_j: float = 0.0
    variance_j2: float = 0.0
    by_rail_w: Mapping[str, float] = field(default_factory=dict)
    by_rail_j: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)


def advance(running: Running, look: Look, *, slept: bool = False) -> Running:
    """The totals after one more look; ``slept``: the host was suspended since the one before."""
    last = running.recent[-1] if running.recent else None
    if look.power_w is None or not 0 <= look.power_w <= GREATEST_W:  # nor is NaN within
        return replace(running, flags=_raised(running.flags, *look.flags, "failed_read"))
    if last is None:
        rails = dict.fromkeys(look.by_rail_w, 0.0)
        first = Sample(look.t_ns, look.power_w, look.u_w)
        flags = _raised(running.flags, *look.flags)
        return replace(
            running, recent=(first,), count=1, by_rail_w=look.by_rail_w, by_rail_j=rails, flags=flags
        )
    if look.t_ns <= last.t_ns:
        return replace(running, flags=_raised(running.flags, *look.flags, "failed_read"))
    gap = slept or look.t_ns - last.t_ns > _limit_ns(running)
    sample = Sample(look.t_ns, look.power_w, look.u_w, gap)
    before = running.recent[-2] if len(running.recent) > 1 else None
    recent = (*running.recent[1 - RECENT :], sample)
    spread = spread_w(recent) if gap or are_slow(recent) else None
    return Running(
        interval_s=running.interval_s,
        recent=recent,
        intervals_ns=(*running.intervals_ns[1 - RECENT :], look.t_ns - last.t_ns),
        count=running.count + 1,
        energy_j=running.energy_j + trapezoid_j(last, sample),
        variance_j2=running.variance_j2 + interval_j2(before, last, sample, spread, gap=gap),
        by_rail_w=look.by_rail_w,
        by_rail_j=_rails_j(running, look, (look.t_ns - last.t_ns) / 1e9),
        flags=_raised(running.flags, *look.flags, *(("gap",) if gap else ())),
    )


def _limit_ns(running: Running) -> float:
    if len(running.intervals_ns) < 2:
        return GAP * running.interval_s * 1e9
    return GAP * median(running.intervals_ns)


def _rails_j(running: Running, look: Look, dt_s: float) -> dict[str, float]:
    return {
        rail: energy_j + (running.by_rail_w[rail] + look.by_rail_w[rail]) / 2 * dt_s
        for rail, energy_j in running.by_rail_j.items()
        if rail in look.by_rail_w
    }


def _raised(flags: Mapping[str, int], *more: str) -> Mapping[str, int]:
    return {**flags, **{flag: flags.get(flag, 0) + more.count(flag) for flag in more}} if more else flags
