"""The bill of what this agent does: slices of time, joules and processor time, kept over a kill.

From the moment an assignment is accepted until its answer is stored, time is cut into slices of about a
quarter of a second: at the worker's signs of life while it trains (its phases and their processor time
come with them), at the loop's turns while weights travel (phases ``fetch`` and ``upload``, with the
daemon's own processor time; while the worker trains that is phase ``runtime``). The pure ledger attributes
each slice. A reading that fails makes its slice longer, up to five seconds. The ledger lies on disk, at
most five seconds old: after a kill, what it holds of an unfinished training is reported as phase ``lost``, so
that no joule goes missing.

The idle power is what the meter or its user states, else that of ``baseline.json`` beside the ledger (made
by ``mas-profile baseline``), as long as sensor and machine are as they were when it was measured, which is
looked at when a training begins. Without one, dynamic and attributed energy are unknown.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent.facts import today
from mas_edge.edge_agent.moments import Moment, cut, look
from mas_edge.edge_agent.room import Room
from mas_edge.profiling import baseline as baselines
from mas_edge.profiling import ledger as books
from mas_edge.profiling import machine
from mas_edge.profiling.ledger import Ledger, Slice, Use
from mas_edge.wire.host import boot_id, write_atomic
from mas_edge.wire.messages import Baseline, Key, Profile, Spend, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from mas_edge.profiling.meters import Meter
    from mas_edge.profiling.stopwatch import PhaseTime
    from mas_edge.wire.bus import Bus
    from mas_edge.wire.messages import Refusal

log = logging.getLogger(__name__)

SLICE_S = 0.25
SAVE_S = 5.0
DAYS = 8
"""Local dates of which the joules are kept."""
RESTING = "idle"
"""The worker's phase between two works, which is nobody's."""


class _Kept(msgspec.Struct, frozen=True):
    """What is on disk: the bill so far and whose training is unfinished."""

    boot: str
    key: Key | None
    ledger: Ledger
    days: tuple[tuple[str, float], ...] = ()
    """Attributed joules by local date, the day written last at the end."""


class Account:
    """The agent's ledger and the meter behind it."""

    def __init__(
        self,
        path: Path,
        meter: Meter,
        bus: Bus,
        spooled: Collection[Key] = (),
        watch: Callable[[Ledger], None] | None = None,
        refused: tuple[Refusal, ...] = (),
        *,
        room: Room | None = None,
        today: Callable[[], str] = today,
    ) -> None:
        """``spooled`` names the trainings whose bill stands in an answer on disk already.

        ``watch`` is called with every slice that is charged, in a ledger of its own; ``refused`` are the
        meters that were tried before this one; ``today`` says the local date. Raises BaselineRefused for a
        ``baseline.json`` that is none.
        """
        self._watch, self._refused = watch, refused
        self._path, self._meter, self._bus = path, meter, bus
        self.room, self._today = room or Room(path.parent), today
        self._days: tuple[tuple[str, float], ...] = ()
        self._stored = baselines.load(path.with_name("baseline.json"))
        self._machine = machine.look()
        self._idle = self._baseline()
        self._held: tuple[Use, ...] = ()
        self._key: Key | None = None
        self._phase = "fetch"
        self._phases: dict[str, PhaseTime] = {}
        self._since: Moment | None = None
        self._saved_s = time.monotonic()
        self._ledger = self._recover(spooled)

    @property
    def energy_j(self) -> float | None:
        """Attributed joules of the training in hand so far; None if unknown."""
        rows = books.rows(self._ledger, self._key) if self._key else ()
        known = [row.attributed_energy_j for row in rows if row.attributed_energy_j is not None]
        return sum(known) if known else None

    @property
    def energy_today_j(self) -> float:
        """Joules that training took on this local date so far; those of unknown share count whole."""
        return dict(self._days).get(self._today(), 0.0)

    def begin(self, key: Key) -> None:
        """An assignment was accepted; said again, it changes nothing."""
        if self._key != key:
            self._slice((), flush=True)
            self._machine = machine.look()
            self._idle = self._baseline()
            self._key, self._phase, self._since = key, "fetch", self._since or look(self._meter, self._bus)

    def train(self, *, warm: bool) -> None:
        """The weights are here: the worker's signs of life make the slices; a new one counts from zero."""
        self._slice(())
        self._phase = "runtime"
        if not warm:
            self._phases = {}

    def tick(self) -> None:
        """A turn of the loop: a slice, if it is time for one and no worker makes them."""
        since = self._since
        if since and self._phase != "runtime" and since.age_s > SLICE_S:
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
        self._slice((), flush=True)
        made, now = self._ledger, machine.since(self._machine, machine.look())
        profile = Profile(
            rows=_throttled(books.rows(made)) if now.throttled else books.rows(made),
            sensor=self._meter.sensor,
            idle_w=self._idle.power_w if self._idle else None,
            idle_u_w=self._idle.u_w if self._idle else None,
            trace=made.trace,
            train_device=train_device,
            shared_gpu_j=made.shared_gpu.value_j,
            shared_gpu_u_j=made.shared_gpu.u_j,
            baseline=self._idle,
            machine=now,
            sampling=made.sampling,
            profiler_cpu_s=made.profiler_cpu_s,
            refused=self._refused,
        )
        self._ledger, self._phase = Ledger(), "upload"
        return profile

    def save(self) -> None:
        """Put the ledger on disk; after ``bill`` only once the bill itself is there."""
        self._saved_s = time.monotonic()
        with self.room.writing():
            kept = _Kept(boot_id(), self._key, self._ledger, self._days)
            write_atomic(self._path, msgspec.json.encode(kept))

    def lose(self, peak_rss_bytes: int | None = None) -> None:
        """The training in hand is given up: its joules stay, as phase ``lost``, and its peak memory."""
        if self._key:
            self._slice((), peak_rss_bytes)
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

    def _slice(
        self, uses: tuple[Use, ...], peak_rss_bytes: int | None = None, *, flush: bool = False
    ) -> None:
        """Charge the time since the last slice; without a reading it is put off, unless ``flush``."""
        if self._since is None or self._key is None:
            return
        start_s = time.thread_time()
        first, last = self._since, look(self._meter, self._bus, self._since)
        if last.reading is None and not flush and last.seen_ns - first.seen_ns < SAVE_S * 1e9:
            self._held += uses
            return
        uses, self._held, self._since = (*self._held, *uses), (), last
        wall_s = (last.seen_ns - first.seen_ns) / 1e9
        own = Use(
            job=self._key.job,
            group=self._key.group,
            round=self._key.round,
            phase=self._phase,
            wall_s=0.0 if self._phase == "runtime" else wall_s,
            cpu_s=last.own_cpu_s - first.own_cpu_s,
            sent_bytes=last.sent_bytes - first.sent_bytes,
            received_bytes=last.received_bytes - first.received_bytes,
            peak_rss_bytes=peak_rss_bytes,
        )
        self._charge(cut(first, last, (*uses, own), time.thread_time() - start_s))

    def _charge(self, piece: Slice) -> None:
        idle, gain_u, before = self._idle, self._meter.sensor.gain_u, self._ledger
        idle_w, idle_u_w, gpu_w = (idle.power_w, idle.u_w, idle.gpu_w) if idle else (None, None, None)
        self._ledger = books.charge(before, piece, idle_w, idle_u_w, gain_u, gpu_w)
        spent_j = training_j(self._ledger) - training_j(before)
        self._days = spend(self._days, self._today(), spent_j)
        if self._watch is not None:
            self._watch(books.charge(Ledger(), piece, idle_w, idle_u_w, gain_u, gpu_w))
        if time.monotonic() - self._saved_s > SAVE_S:
            self.save()

    def _baseline(self) -> Baseline | None:
        """The idle power that holds now."""
        if self._meter.idle or self._stored is None:
            return baselines.stated(self._meter.idle)
        wrong = baselines.mismatch(self._stored, self._meter.sensor, self._machine)
        if wrong:
            log.warning("the stored baseline does not hold: %s; measure it anew", wrong)
        return None if wrong else self._stored

    def _recover(self, spooled: Collection[Key]) -> Ledger:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return Ledger()
        except msgspec.MsgspecError as error:
            log.warning("%s is not a whole ledger (%s): what it held is lost", self._path, error)
            return Ledger()
        self._days = kept.days
        if kept.key in spooled:  # killed between the answer and the ledger: its joules are in the answer
            return Ledger()
        ledger = books.lose(kept.ledger, kept.key) if kept.key else kept.ledger
        if kept.boot != boot_id():  # the trace's clock began anew
            ledger = msgspec.structs.replace(ledger, trace=Trace())
        return ledger


def _throttled(rows: Sequence[Spend]) -> tuple[Spend, ...]:
    return tuple(msgspec.structs.replace(row, flags=tuple(sorted({*row.flags, "throttled"}))) for row in rows)


def training_j(ledger: Ledger) -> float:
    """What is neither idle nor others' work; what is not known to be is not taken off."""
    return ledger.total.energy_j - ledger.idle.energy_j - ledger.background.energy_j


def spend(days: tuple[tuple[str, float], ...], today: str, energy_j: float) -> tuple[tuple[str, float], ...]:
    """Joules by date after some more today.

    Several dates are kept, so that a clock that jumps (a board without a battery for it begins in another
    year) finds today's sum when it is set right again.
    """
    spent_j = dict(days).get(today, 0.0) + max(energy_j, 0.0)
    others = tuple(each for each in days if each[0] != today)
    return (*others, (today, spent_j))[-DAYS:]
