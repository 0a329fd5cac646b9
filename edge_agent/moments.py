"""Everything that an agent counts, at one moment, and the slice of time between two of them.

``look`` reads the meter, the processor time of host and daemon, and what the bus has carried. A meter that
does not answer leaves the joules of that moment unknown; time still passes, and never backwards, although
a sampled meter's reading is of its newest sample. What a slice costs whom is ``profiling.ledger``'s.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mas_edge.profiling import ledger as books
from mas_edge.profiling.cpu import host_time, process_cpu_ns
from mas_edge.profiling.ledger import Slice, Use
from mas_edge.profiling.meters import MeterUnavailable, between

if TYPE_CHECKING:
    from mas_edge.profiling.meters import Meter, Reading
    from mas_edge.wire.bus import Bus
    from mas_edge.wire.messages import Baseline, Spend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moment:
    """Counters at a moment of the monotonic clock; slices are differences of two.

    ``t_ns`` is the meter's, of its newest sample if it is sampled; all else was read at ``seen_ns``.
    """

    t_ns: int
    seen_ns: int
    reading: Reading | None
    busy_s: float | None
    own_cpu_s: float
    sent_bytes: int
    received_bytes: int

    @property
    def age_s(self) -> float:
        """Seconds since then."""
        return (time.monotonic_ns() - self.seen_ns) / 1e9


def look(meter: Meter, bus: Bus, before: Moment | None = None) -> Moment:
    """The counters now, not before ``before``."""
    reading = None
    try:
        reading = meter.read()
    except MeterUnavailable as error:
        log.warning("no reading: %s", error)
    seen_ns = time.monotonic_ns()
    t_ns = reading.t_ns if reading else seen_ns
    return Moment(
        t_ns=max(t_ns, before.t_ns) if before else t_ns,
        seen_ns=seen_ns,
        reading=reading,
        busy_s=_busy_s(),
        own_cpu_s=(process_cpu_ns(os.getpid()) or 0) / 1e9,
        sent_bytes=bus.sent_bytes,
        received_bytes=bus.received_bytes,
    )


def cut(first: Moment, last: Moment, uses: tuple[Use, ...], profiler_cpu_s: float) -> Slice:
    """The slice between them, its energy unknown if one of them has no reading."""
    busy_s = None if first.busy_s is None or last.busy_s is None else last.busy_s - first.busy_s
    if first.reading and last.reading:
        energy = replace(between(first.reading, last.reading), t0_ns=first.t_ns, t1_ns=last.t_ns)
        return books.metered(energy, busy_s, uses, profiler_cpu_s, (last.seen_ns - first.seen_ns) / 1e9)
    return Slice(
        t0_ns=first.t_ns,
        t1_ns=last.t_ns,
        energy_j=None,
        busy_s=busy_s,
        uses=uses,
        flags=("no_reading",),
        profiler_cpu_s=profiler_cpu_s,
    )


def price(first: Moment, last: Moment, use: Use, meter: Meter, idle: Baseline | None) -> Spend:
    """What one use between two moments cost, attributed as in a slice of the bill, and not put on it."""
    idle_w, idle_u_w, gpu_w = (idle.power_w, idle.u_w, idle.gpu_w) if idle else (None, None, None)
    piece = cut(first, last, (use,), 0.0)
    return books.rows(books.charge(books.Ledger(), piece, idle_w, idle_u_w, meter.sensor.gain_u, gpu_w))[0]


def _busy_s() -> float | None:
    try:
        return host_time().busy_s
    except OSError:
        return None
