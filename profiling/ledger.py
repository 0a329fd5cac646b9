"""Readings + processor time -> joules per task group and phase, with what is known of their error.

The device's time is cut into *slices* between two readings of its meter. Of each slice every phase of
every group that ran in it is charged four figures (see ``Spend``):

* window: the slice's energy for the part of the slice in which the phase ran; what a whole-device
  tracker shows. Not additive where groups overlap.
* dynamic: window less idle power x time. Never clamped: noise below zero stays, or sums would drift.
* attributed: the slice's dynamic energy x the phase's processor time / the host's busy time. Additive.
* exclusive: the part of the time in which certainly no other group ran; at 1 the first three differ by
  idle and background only.

So attributed + background + idle + shared GPU = total, which the ledger keeps in separate sums. No counter
says whose work a GPU did: when phases of more than one group use it in a slice, what its rails took above
idle goes to ``shared_gpu`` and only the rest is shared by processor time (flag ``shared_gpu``; on a board
without such a rail all of it is, flagged ``gpu_by_cpu``).

Standard uncertainties: u^2 = sampling and edges (independent per slice) + (gain x E)^2 + (T u_idle)^2 +
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
from typing import TYPE_CHECKING

import msgspec

from mas_edge.profiling.figures import UNKNOWN, Figure, gpu_energy_j, idling, measured
from mas_edge.profiling.rows import Name, Row, Use, merge, named, spend
from mas_edge.profiling.traces import extend
from mas_edge.wire.messages import Key, Rail, Sampling, Spend, Trace

if TYPE_CHECKING:
    from mas_edge.profiling.meters import Energy

__all__ = [
    "BUSY_U_S", "LOST", "PEAK_S", "Ledger", "Slice", "Use", "charge", "lose", "metered", "part", "rows",
]  # fmt: skip

LOST = "lost"
"""The phase that takes what an abandoned attempt has used."""

BUSY_U_S = 0.01 * (10 / 12) ** 0.5
"""Standard uncertainty of busy time: five tick counters of 10 ms, each cut off at two moments."""


PEAK_S = 0.1
"""A slice shorter than this has no say in peak power: counters move in steps of a millisecond."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of the ledger's world."""


class Slice(_Value, frozen=True):
    """The time between two readings: energy used (None: unknown), host busy seconds, who used it.

    ``seen_s`` is the time in which ``uses`` were seen (None: the slice's own): a sampled meter's readings are
    of its newest sample, so that a slice may be shorter or longer. ``profiler_cpu_s`` is what reading and
    accounting took of the processor.
    """

    t0_ns: int
    t1_ns: int
    energy_j: float | None
    variance_j2: float = 0.0
    busy_s: float | None = None
    uses: tuple[Use, ...] = ()
    seen_s: float | None = None
    flags: tuple[str, ...] = ()
    rails: tuple[Rail, ...] = ()
    sampling: Sampling = Sampling()
    profiler_cpu_s: float = 0.0


class Ledger(_Value, frozen=True):
    """All rows, the host's own sums, and the trace of the meter that they rest on."""

    rows: tuple[Row, ...] = ()
    total: Figure = Figure()
    idle: Figure = Figure()
    shared_gpu: Figure = Figure()
    background: Figure = Figure()
    trace: Trace = Trace()
    sampling: Sampling | None = None
    profiler_cpu_s: float = 0.0


def metered(
    energy: Energy,
    busy_s: float | None,
    uses: tuple[Use, ...] = (),
    profiler_cpu_s: float = 0.0,
    seen_s: float | None = None,
) -> Slice:
    """The slice of a window in which the host was busy so long and these phases ran.

    It is one of many, so that being short and having few samples are no flags.
    """
    return Slice(
        t0_ns=energy.t0_ns,
        t1_ns=energy.t1_ns,
        energy_j=energy.energy_j,
        variance_j2=energy.variance_j2,
        busy_s=busy_s,
        uses=uses,
        seen_s=seen_s,
        flags=tuple(flag for flag in energy.flags if flag not in ("short_window", "few_samples")),
        rails=tuple(Rail(name=name, energy_j=value_j) for name, value_j in energy.by_rail_j.items()),
        sampling=energy.sampling,
        profiler_cpu_s=profiler_cpu_s + energy.cpu_s,
    )


def charge(
    ledger: Ledger,
    piece: Slice,
    idle_w: float | None,
    idle_u_w: float | None = None,
    gain_u: float = 0.0,
    idle_gpu_w: float | None = None,
) -> Ledger:
    """The ledger after one more slice; ``idle_w`` None leaves dynamic and attributed unknown.

    ``gain_u`` is the meter's (``Sensor.gain_u``), ``idle_gpu_w`` the part of the idle power that a GPU's
    rails have. Slices follow each other, with gaps where nobody looked; one that begins before the last
    has ended (another boot's clock) raises ValueError.
    """
    wall_s = (piece.t1_ns - piece.t0_ns) / 1e9
    total, idle, dynamic = _device(piece, wall_s, idle_w, idle_u_w or 0.0, gain_u)
    gpu, gpu_flags = _shared_gpu(piece, dynamic, (idle_gpu_w or 0.0) * wall_s, gain_u)
    rest = dynamic.less(gpu)
    worked_s = sum(use.cpu_s for use in piece.uses)
    busy_s = None if piece.busy_s is None else max(piece.busy_s, worked_s)
    rows = {named(row.use): row for row in ledger.rows}
    attributed = Figure()
    for use in piece.uses:
        time_share, exclusive_s = _time(use, piece.uses, wall_s if piece.seen_s is None else piece.seen_s)
        own = _attributed(rest, use.cpu_s, busy_s)
        attributed = attributed.plus(own)
        row = Row(
            use=use,
            window=total.part(time_share),
            dynamic=dynamic.part(time_share),
            attributed=own,
            exclusive_s=exclusive_s,
            peak_w=piece.energy_j / wall_s if piece.energy_j is not None and wall_s >= PEAK_S else None,
            rails=tuple(Rail(name=r.name, energy_j=r.energy_j * time_share) for r in piece.rails),
            t0_ns=piece.t0_ns,
            t1_ns=piece.t1_ns,
            flags=(*piece.flags, *(gpu_flags if use.gpu else ())),
        )
        before = rows.get(named(use))
        rows[named(use)] = row if before is None else merge(before, row)
    return Ledger(
        rows=tuple(rows.values()),
        total=ledger.total.plus(total),
        idle=ledger.idle.plus(idle),
        shared_gpu=ledger.shared_gpu.plus(gpu),
        background=ledger.background.plus(UNKNOWN if busy_s is None else rest.less(attributed)),
        trace=extend(ledger.trace, piece.t0_ns, piece.t1_ns, total.energy_j, total.variance_j2),
        sampling=_sampled(ledger.sampling, piece.sampling),
        profiler_cpu_s=ledger.profiler_cpu_s + piece.profiler_cpu_s,
    )


def rows(ledger: Ledger, key: Key | None = None) -> tuple[Spend, ...]:
    """The rows as they are reported, of one training (whatever its attempt) or of all."""
    return tuple(spend(row) for row in ledger.rows if key is None or _belongs(row, key))


def lose(ledger: Ledger, key: Key, peak_rss_bytes: int | None = None) -> Ledger:
    """The ledger after an attempt was abandoned: its rows become one, of phase ``lost``.

    It has trained nothing, so its examples count no more; a later attempt begins new rows beside it.
    ``peak_rss_bytes`` is what its worker had resident when it died.
    """
    merged: dict[Name, Row] = {}
    for row in ledger.rows:
        use = row.use
        if _belongs(row, key):
            peak = max(filter(None, (use.peak_rss_bytes, peak_rss_bytes)), default=None)
            use = msgspec.structs.replace(use, phase=LOST, examples=0, peak_rss_bytes=peak)
        moved = msgspec.structs.replace(row, use=use)
        before = merged.get(named(use))
        merged[named(use)] = moved if before is None else merge(before, moved)
    return msgspec.structs.replace(ledger, rows=tuple(merged.values()))


def part(ledger: Ledger, staying: Iterable[Key]) -> tuple[Ledger, Ledger]:
    """The ledger without the rows of these trainings, and one of these rows alone.

    The host's own sums and the trace are in the first: each counts once.
    """
    keys = tuple(staying)
    stay = tuple(row for row in ledger.rows if any(_belongs(row, key) for key in keys))
    gone = tuple(row for row in ledger.rows if row not in stay)
    return msgspec.structs.replace(ledger, rows=gone), Ledger(rows=stay)


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


def _time(use: Use, uses: Iterable[Use], seen_s: float) -> tuple[float, float]:
    """The phase's share of the time, and the seconds of it in which no other group can have run."""
    own_s = others_s = 0.0
    for other in uses:
        if (other.job, other.group) == (use.job, use.group):
            own_s += other.wall_s
        else:
            others_s += other.wall_s
    whole_s = max(seen_s, own_s)
    if whole_s <= 0.0 or own_s <= 0.0:
        return 0.0, 0.0
    overlap_s = min(own_s, others_s)
    return use.wall_s / whole_s, use.wall_s * (1.0 - overlap_s / own_s)


def _shared_gpu(
    piece: Slice, dynamic: Figure, idle_gpu_j: float, gain_u: float
) -> tuple[Figure, tuple[str, ...]]:
    """What a GPU that several groups used took above idle, and the flag of their rows."""
    nothing = dynamic.part(0.0)
    if len({(use.job, use.group) for use in piece.uses if use.gpu}) < 2:
        return nothing, ()
    gpu_j = gpu_energy_j({rail.name: rail.energy_j for rail in piece.rails})
    if gpu_j is None or not piece.energy_j or not dynamic.known:
        return nothing, ("gpu_by_cpu",)
    share = min(abs(gpu_j / piece.energy_j), 1.0)
    return measured(gpu_j - idle_gpu_j, piece.variance_j2 * share**2, gain_u), ("shared_gpu",)


def _sampled(one: Sampling | None, other: Sampling) -> Sampling:
    """Both together; a counter has no samples."""
    if one is None:
        return other
    unknown = one.samples is None or other.samples is None
    return Sampling(
        wall_s=one.wall_s + other.wall_s,
        samples=None if unknown else (one.samples or 0) + (other.samples or 0),
        gaps=one.gaps + other.gaps,
        failed_reads=one.failed_reads + other.failed_reads,
    )


def _belongs(row: Row, key: Key) -> bool:
    return (row.use.job, row.use.group, row.use.round) == (key.job, key.group, key.round)
