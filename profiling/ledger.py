"""Readings + processor time -> joules per task group and phase, with what is known of their error.

The device's time is cut into *slices* between two readings of its meter. Of each slice every phase of
every group that ran in it is charged four figures (see ``Spend``):

* window: the slice's energy for the part of the slice in which the phase ran; what a whole-device
  tracker shows. Not additive where groups overlap.
* dynamic: window less idle power x time. Never clamped: noise below zero stays, or sums would drift.
* attributed: the slice's dynamic energy x the phase's processor time / the host's busy time. Additive.
* exclusive: the part of the time in which certainly no other group ran; at 1 the first three differ by
  idle and background only.

So attributed + background + idle = total, which the ledger keeps in separate sums. Standard
uncertainties: u^2 = sampling and edges (independent per slice) + (gain x E)^2 + (T u_idle)^2 +
share^2, where gain and idle power are common to all slices and add linearly, and the share's part is
the resolution of the host's processor clock. That joules follow processor time at all is the model,
and is not in u. Source of the shares: the ratio of processor times above a measured baseline, as in
Green Metrics Tool and Kepler.

A ledger is a frozen value that msgspec writes and reads, so that an agent keeps it on disk and goes
on after a kill. One ledger belongs to one meter. Pure: no clock, no input or output. What several
devices cost together is ``bill``'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from mas_edge.profiling.figures import UNKNOWN, Figure, idling, measured
from mas_edge.profiling.traces import extend
from mas_edge.wire.messages import Key, Spend, Trace

LOST = "lost"
"""The phase that takes what an abandoned attempt has used."""

BUSY_U_S = 0.01 * (10 / 12) ** 0.5
"""Standard uncertainty of busy time: five tick counters of 10 ms, each cut off at two moments."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of the ledger's world."""


class Use(_Value, frozen=True):
    """What one phase of one group used inside a slice; ``examples`` that it finished training."""

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


class Slice(_Value, frozen=True):
    """The time between two readings: energy used (None: unknown), host busy seconds, who used it."""

    t0_ns: int
    t1_ns: int
    energy_j: float | None
    variance_j2: float = 0.0
    busy_s: float | None = None
    uses: tuple[Use, ...] = ()
    flags: tuple[str, ...] = ()


class Row(_Value, frozen=True):
    """What one phase of one round of a group has cost so far."""

    use: Use
    window: Figure
    dynamic: Figure
    attributed: Figure
    exclusive_s: float
    flags: tuple[str, ...] = ()


class Ledger(_Value, frozen=True):
    """All rows, the host's own sums, and the trace of the meter that they rest on."""

    rows: tuple[Row, ...] = ()
    total: Figure = Figure()
    idle: Figure = Figure()
    background: Figure = Figure()
    trace: Trace = Trace()


_Name: TypeAlias = tuple[str, str, int, str]


def charge(
    ledger: Ledger, piece: Slice, idle_w: float | None, idle_u_w: float | None = None, gain_u: float = 0.0
) -> Ledger:
    """The ledger after one more slice; ``idle_w`` None leaves dynamic and attributed unknown.

    ``gain_u`` is the meter's (``Sensor.gain_u``). Slices follow each other, with gaps where nobody
    looked; one that begins before the last has ended (another boot's clock) raises ValueError.
    """
    wall_s = (piece.t1_ns - piece.t0_ns) / 1e9
    total, idle, dynamic = _device(piece, wall_s, idle_w, idle_u_w or 0.0, gain_u)
    worked_s = sum(use.cpu_s for use in piece.uses)
    busy_s = None if piece.busy_s is None else max(piece.busy_s, worked_s)
    rows = {_name(row.use): row for row in ledger.rows}
    shared = Figure()
    for use in piece.uses:
        time_share, exclusive_s = _time(use, piece.uses, wall_s)
        attributed = _attributed(dynamic, use.cpu_s, busy_s)
        shared = shared.plus(attributed)
        row = Row(
            use=use,
            window=total.part(time_share),
            dynamic=dynamic.part(time_share),
            attributed=attributed,
            exclusive_s=exclusive_s,
            flags=piece.flags,
        )
        before = rows.get(_name(use))
        rows[_name(use)] = row if before is None else _merge(before, row)
    return Ledger(
        rows=tuple(rows.values()),
        total=ledger.total.plus(total),
        idle=ledger.idle.plus(idle),
        background=ledger.background.plus(UNKNOWN if busy_s is None else dynamic.less(shared)),
        trace=extend(ledger.trace, piece.t0_ns, piece.t1_ns, total.energy_j, total.variance_j2),
    )


def rows(ledger: Ledger, key: Key | None = None) -> tuple[Spend, ...]:
    """The rows as they are reported, of one training (whatever its attempt) or of all."""
    return tuple(_spend(row) for row in ledger.rows if key is None or _belongs(row, key))


def lose(ledger: Ledger, key: Key) -> Ledger:
    """The ledger after an attempt was abandoned: its rows become one, of phase ``lost``.

    It has trained nothing, so its examples count no more; a later attempt begins new rows beside it.
    """
    merged: dict[_Name, Row] = {}
    for row in ledger.rows:
        gone = _belongs(row, key)
        use = msgspec.structs.replace(row.use, phase=LOST, examples=0) if gone else row.use
        moved = msgspec.structs.replace(row, use=use)
        before = merged.get(_name(use))
        merged[_name(use)] = moved if before is None else _merge(before, moved)
    return msgspec.structs.replace(ledger, rows=tuple(merged.values()))


def _device(
    piece: Slice, wall_s: float, idle_w: float | None, idle_u_w: float, gain_u: float
) -> tuple[Figure, Figure, Figure]:
    """Total, idle and dynamic energy of the host over the slice."""
    if piece.energy_j is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    total = measured(piece.energy_j, piece.variance_j2, gain_u)
    if idle_w is None:
        return total, UNKNOWN, UNKNOWN
    idle = idling(idle_w, idle_u_w, wall_s, gain_u)
    return total, idle, total.less(idle)


def _attributed(dynamic: Figure, cpu_s: float, busy_s: float | None) -> Figure:
    if busy_s is None:
        return UNKNOWN
    if cpu_s <= 0.0:  # who did not work is charged nothing, also where nobody worked
        return dynamic.part(0.0)
    return dynamic.part(cpu_s / busy_s, min(BUSY_U_S / busy_s, 1.0))


def _time(use: Use, uses: Iterable[Use], wall_s: float) -> tuple[float, float]:
    """The phase's share of the slice, and the seconds of it in which no other group can have run."""
    own_s = others_s = 0.0
    for other in uses:
        if (other.job, other.group) == (use.job, use.group):
            own_s += other.wall_s
        else:
            others_s += other.wall_s
    whole_s = max(wall_s, own_s)
    if whole_s <= 0.0 or own_s <= 0.0:
        return 0.0, 0.0
    overlap_s = min(own_s, others_s)
    return use.wall_s / whole_s, use.wall_s * (1.0 - overlap_s / own_s)


def _merge(one: Row, other: Row) -> Row:
    peaks = [use.peak_rss_bytes for use in (one.use, other.use) if use.peak_rss_bytes is not None]
    use = msgspec.structs.replace(
        one.use,
        wall_s=one.use.wall_s + other.use.wall_s,
        cpu_s=one.use.cpu_s + other.use.cpu_s,
        examples=one.use.examples + other.use.examples,
        sent_bytes=one.use.sent_bytes + other.use.sent_bytes,
        received_bytes=one.use.received_bytes + other.use.received_bytes,
        peak_rss_bytes=max(peaks, default=None),
    )
    return Row(
        use=use,
        window=one.window.plus(other.window),
        dynamic=one.dynamic.plus(other.dynamic),
        attributed=one.attributed.plus(other.attributed),
        exclusive_s=one.exclusive_s + other.exclusive_s,
        flags=tuple(sorted({*one.flags, *other.flags})),
    )


def _spend(row: Row) -> Spend:
    figures = (row.window, row.dynamic, row.attributed)
    partial = any(figure.known and figure.unknown for figure in figures)
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
        peak_rss_bytes=use.peak_rss_bytes,
        sent_bytes=use.sent_bytes,
        received_bytes=use.received_bytes,
        flags=tuple(sorted({*row.flags, *(("partial",) if partial else ())})),
    )


def _belongs(row: Row, key: Key) -> bool:
    return (row.use.job, row.use.group, row.use.round) == (key.job, key.group, key.round)


def _name(use: Use) -> _Name:
    return (use.job, use.group, use.round, use.phase)
