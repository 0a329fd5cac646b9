"""The bill of what this agent does: slices of time, joules and processor time, kept over a kill.

From the moment an assignment is accepted until its answer is stored, time is cut into slices of about a
quarter of a second: at the worker's signs of life while it trains (its phases and their processor time
come with them), at the loop's turns while weights travel (phases ``fetch`` and ``upload``, with the
daemon's own processor time; while the worker trains that is phase ``runtime``). The pure ledger attributes
each slice. The ledger lies on disk, at most five seconds old: after a kill, what it holds of an unfinished
training is reported as phase ``lost``, so that no joule goes missing.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from mas_edge.profiling import ledger as books
from mas_edge.profiling.cpu import host_time, process_cpu_ns
from mas_edge.profiling.ledger import Ledger, Slice, Use
from mas_edge.profiling.meters import MeterUnavailable, between
from mas_edge.wire.host import boot_id, write_atomic
from mas_edge.wire.messages import Key, Profile, Trace

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mas_edge.profiling.meters import Meter, Reading
    from mas_edge.profiling.stopwatch import PhaseTime
    from mas_edge.wire.bus import Bus

log = logging.getLogger(__name__)

SLICE_S = 0.25
SAVE_S = 5.0
RESTING = "idle"
"""The worker's phase between two works, which is nobody's."""


class _Kept(msgspec.Struct, frozen=True):
    """What is on disk: the bill so far and whose training is unfinished."""

    boot: str
    key: Key | None
    ledger: Ledger


@dataclass(frozen=True)
class _Moment:
    """Everything that is counted, at one moment; slices are differences of two."""

    t_ns: int
    reading: Reading | None
    busy_s: float | None
    own_cpu_s: float
    sent_bytes: int
    received_bytes: int


class Account:
    """The agent's ledger and the meter behind it."""

    def __init__(self, path: Path, meter: Meter, bus: Bus, spooled: Collection[Key] = ()) -> None:
        """``spooled`` names the trainings whose bill stands in an answer on disk already."""
        self._path, self._meter, self._bus = path, meter, bus
        self._key: Key | None = None
        self._phase = "fetch"
        self._phases: dict[str, PhaseTime] = {}
        self._since: _Moment | None = None
        self._saved_s = time.monotonic()
        self._ledger = self._recover(spooled)

    @property
    def energy_j(self) -> float | None:
        """Attributed joules of the training in hand so far; None if unknown."""
        rows = books.rows(self._ledger, self._key) if self._key else ()
        known = [row.attributed_energy_j for row in rows if row.attributed_energy_j is not None]
        return sum(known) if known else None

    def begin(self, key: Key) -> None:
        """An assignment was accepted; said again, it changes nothing."""
        if self._key != key:
            self._slice(())
            self._key, self._phase, self._since = key, "fetch", self._since or self._now()

    def train(self, *, warm: bool) -> None:
        """The weights are here: the worker's signs of life make the slices; a new one counts from zero."""
        self._slice(())
        self._phase = "runtime"
        if not warm:
            self._phases = {}

    def tick(self) -> None:
        """A turn of the loop: a slice, if it is time for one and no worker makes them."""
        since = self._since
        if since and self._phase != "runtime" and time.monotonic_ns() - since.t_ns > SLICE_S * 1e9:
            self._slice(())

    def heard(
        self, phases: tuple[PhaseTime, ...], examples: int = 0, peak_rss_bytes: int | None = None
    ) -> None:
        """A sign of life of the worker; what it finished and its peak memory come with the last one."""
        uses = tuple(use for phase in phases if (use := self._use(phase)) is not None)
        self._phases = {phase.phase: phase for phase in phases}
        if uses and (examples or peak_rss_bytes):
            last = msgspec.structs.replace(uses[-1], examples=examples, peak_rss_bytes=peak_rss_bytes)
            uses = (*uses[:-1], last)
        if self._key:
            self._slice(uses)

    def bill(self, train_device: str) -> Profile:
        """All that was not billed yet; what follows (``upload``) comes with the next bill."""
        idle = self._meter.idle
        profile = Profile(
            rows=books.rows(self._ledger),
            sensor=self._meter.sensor,
            idle_w=idle.power_w if idle else None,
            idle_u_w=idle.u_w if idle else None,
            trace=self._ledger.trace,
            train_device=train_device,
        )
        self._ledger, self._phase = Ledger(), "upload"
        return profile

    def save(self) -> None:
        """Put the ledger on disk; after ``bill`` only once the bill itself is there."""
        self._saved_s = time.monotonic()
        write_atomic(self._path, msgspec.json.encode(_Kept(boot_id(), self._key, self._ledger)))

    def lose(self) -> None:
        """The training in hand is given up: its joules stay, as phase ``lost``."""
        if self._key:
            self._slice(())
            self._ledger = books.lose(self._ledger, self._key)
            self._phase = "upload"
            self.save()

    def end(self, key: Key) -> None:
        """The answer is stored, or not wanted: nothing is in hand, unless the next training is already."""
        if self._key != key:
            return
        self._slice(())
        self._key, self._since = None, None
        self.save()

    def close(self) -> None:
        """Put the rest on disk and let go of the meter."""
        self.save()
        self._meter.close()

    # --- inside --------------------------------------------------------------------------------

    def _use(self, phase: PhaseTime) -> Use | None:
        before = self._phases.get(phase.phase)
        wall_s = phase.wall_s - (before.wall_s if before else 0.0)
        cpu_s = phase.cpu_s - (before.cpu_s if before else 0.0)
        if self._key is None or phase.phase == RESTING or wall_s <= 0.0:
            return None
        key = self._key
        return Use(
            job=key.job,
            group=key.group,
            round=key.round,
            phase=phase.phase,
            wall_s=wall_s,
            cpu_s=max(cpu_s, 0.0),
        )

    def _slice(self, uses: tuple[Use, ...]) -> None:
        if self._since is None or self._key is None:
            return
        first, last = self._since, self._now()
        self._since = last
        wall_s = (last.t_ns - first.t_ns) / 1e9
        own = Use(
            job=self._key.job,
            group=self._key.group,
            round=self._key.round,
            phase=self._phase,
            wall_s=0.0 if self._phase == "runtime" else wall_s,
            cpu_s=last.own_cpu_s - first.own_cpu_s,
            sent_bytes=last.sent_bytes - first.sent_bytes,
            received_bytes=last.received_bytes - first.received_bytes,
        )
        idle = self._meter.idle
        self._ledger = books.charge(
            self._ledger,
            _cut(first, last, (*uses, own)),
            idle.power_w if idle else None,
            idle.u_w if idle else None,
            self._meter.sensor.gain_u,
        )
        if time.monotonic() - self._saved_s > SAVE_S:
            self.save()

    def _now(self) -> _Moment:
        reading = None
        try:
            reading = self._meter.read()
        except MeterUnavailable as error:
            log.warning("no reading: %s", error)
        return _Moment(
            t_ns=reading.t_ns if reading else time.monotonic_ns(),
            reading=reading,
            busy_s=_busy_s(),
            own_cpu_s=(process_cpu_ns(os.getpid()) or 0) / 1e9,
            sent_bytes=self._bus.sent_bytes,
            received_bytes=self._bus.received_bytes,
        )

    def _recover(self, spooled: Collection[Key]) -> Ledger:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return Ledger()
        except msgspec.MsgspecError as error:
            log.warning("%s is not a whole ledger (%s): what it held is lost", self._path, error)
            return Ledger()
        if kept.key in spooled:  # killed between the answer and the ledger: its joules are in the answer
            return Ledger()
        ledger = books.lose(kept.ledger, kept.key) if kept.key else kept.ledger
        if kept.boot != boot_id():  # the trace's clock began anew
            ledger = msgspec.structs.replace(ledger, trace=Trace())
        return ledger


def _cut(first: _Moment, last: _Moment, uses: tuple[Use, ...]) -> Slice:
    used = between(first.reading, last.reading) if first.reading and last.reading else None
    flags = tuple(f for f in used.flags if f != "short_window") if used else ("no_reading",)
    return Slice(
        t0_ns=first.t_ns,
        t1_ns=last.t_ns,
        energy_j=used.energy_j if used else None,
        variance_j2=used.variance_j2 if used else 0.0,
        busy_s=None if first.busy_s is None or last.busy_s is None else last.busy_s - first.busy_s,
        uses=uses,
        flags=flags,
    )


def _busy_s() -> float | None:
    try:
        return host_time().busy_s
    except OSError:
        return None
