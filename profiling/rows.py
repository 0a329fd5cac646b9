"""The rows of a ledger: what one phase of one round of a group has cost so far, and how rows add up.

A ``Use`` is what a phase used inside one slice of time, a ``Row`` the sum of its uses with their joules,
a ``Spend`` the row as it is reported. Pure arithmetic; what a slice charges to whom is ``ledger``'s.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from mas_edge.profiling.figures import Figure
from mas_edge.wire.messages import Rail, Spend

Name: TypeAlias = tuple[str, str, int, str]
"""Job, group, round and phase: what tells two rows apart."""


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one phase of one group used inside a slice; ``examples`` that it finished training.

    ``gpu`` says that it computed on a GPU.
    """

    job: str
    group: str
    round: int
    phase: str
    wall_s: float
    cpu_s: float
    examples: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    peak_rss_bytes: int | None = None
    gpu: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one phase of one round of a group has cost so far; fields as in ``Spend``."""

    use: Use
    window: Figure
    dynamic: Figure
    attributed: Figure
    exclusive_s: float
    t0_ns: int
    t1_ns: int
    peak_w: float | None = None
    rails: tuple[Rail, ...] = ()
    flags: tuple[str, ...] = ()


def named(use: Use) -> Name:
    """The name of the row that a use belongs to."""
    return (use.job, use.group, use.round, use.phase)


def merge(one: Row, other: Row) -> Row:
    """Both together, under the first one's name."""
    return Row(
        use=_together(one.use, other.use),
        window=one.window.plus(other.window),
        dynamic=one.dynamic.plus(other.dynamic),
        attributed=one.attributed.plus(other.attributed),
        exclusive_s=one.exclusive_s + other.exclusive_s,
        t0_ns=min(one.t0_ns, other.t0_ns),
        t1_ns=max(one.t1_ns, other.t1_ns),
        peak_w=_greater(one.peak_w, other.peak_w),
        rails=_rails(one.rails, other.rails),
        flags=tuple(sorted({*one.flags, *other.flags})),
    )


def spend(row: Row) -> Spend:
    """The row as it is reported, with what is to be said of its figures among its flags."""
    figures = (row.window, row.dynamic, row.attributed)
    flags = set(row.flags)
    if any(figure.known and figure.unknown for figure in figures):
        flags.add("partial")
    if any(figure.value_j is not None and figure.value_j < 0 for figure in figures):
        flags.add("below_noise")
    use = row.use
    return Spend(
        job=use.job,
        group=use.group,
        round=use.round,
        phase=use.phase,
        wall_s=use.wall_s,
        cpu_s=use.cpu_s,
        examples=use.examples,
        window_energy_j=row.window.value_j,
        window_u_j=row.window.u_j,
        dynamic_energy_j=row.dynamic.value_j,
        dynamic_u_j=row.dynamic.u_j,
        attributed_energy_j=row.attributed.value_j,
        attributed_u_j=row.attributed.u_j,
        exclusive_fraction=min(row.exclusive_s / use.wall_s, 1.0) if use.wall_s > 0 else None,
        peak_w=row.peak_w,
        rails=row.rails,
        t0_ns=row.t0_ns,
        t1_ns=row.t1_ns,
        peak_rss_bytes=use.peak_rss_bytes,
        sent_bytes=use.sent_bytes,
        received_bytes=use.received_bytes,
        flags=tuple(sorted(flags)),
    )


def _together(one: Use, other: Use) -> Use:
    return msgspec.structs.replace(
        one,
        wall_s=one.wall_s + other.wall_s,
        cpu_s=one.cpu_s + other.cpu_s,
        examples=one.examples + other.examples,
        sent_bytes=one.sent_bytes + other.sent_bytes,
        received_bytes=one.received_bytes + other.received_bytes,
        peak_rss_bytes=_greater(one.peak_rss_bytes, other.peak_rss_bytes),
        gpu=one.gpu or other.gpu,
    )


_N = TypeVar("_N", int, float)


def _greater(one: _N | None, other: _N | None) -> _N | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _rails(one: tuple[Rail, ...], other: tuple[Rail, ...]) -> tuple[Rail, ...]:
    sums = {rail.name: rail.energy_j for rail in one}
    for rail in other:
        sums[rail.name] = sums.get(rail.name, 0.0) + rail.energy_j
    return tuple(Rail(name=name, energy_j=energy_j) for name, energy_j in sums.items())
