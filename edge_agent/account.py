"""The bill of what this agent does: slices of time, joules and processor time, kept over a kill.

From the moment an assignment is accepted until its answer is stored, time is cut into slices of about a
quarter of a second: at the worker's signs of life while it trains (its phases and their processor time
come with them), at the loop's turns while weights travel (phases ``fetch`` and ``upload``, with the
daemon's own processor time; while the worker trains that is phase ``runtime``). The pure ledger attributes
each slice. A reading that fails makes its slice longer, up to five seconds. Each slot of the agent has a
training of its own in hand (``tabs``), and a slice has shares of all of them. The ledger lies on disk, at
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
from mas_edge.edge_agent.moments import Moment, cut, look, price
from mas_edge.edge_agent.tabs import Tab, daemons
from mas_edge.profiling import baseline as baselines
from mas_edge.profiling import ledger as books
from mas_edge.profiling import machine
from mas_edge.profiling.ledger import Ledger, Slice, Use
from mas_edge.wire.host import boot_id, write_atomic
from mas_edge.wire.messages import Baseline, Key, Profile, Spend, Trace
from mas_edge.wire.room import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from mas_edge.profiling.meters import Meter
    from mas_edge.profiling.stopwatch import PhaseTime
    from mas_edge.wire.bus import Bus
    from mas_edge.wire.messages import Refusal, Sensor

log = logging.getLogger(__name__)

SLICE_S = 0.25
SAVE_S = 5.0
DAYS = 8
"""Local dates of which the joules are kept."""
FULL_DISK = "what is spooled stays, nothing is trained until there is some"


class _Kept(msgspec.Struct, frozen=True):
    """What is on disk: the bill so far and whose trainings are unfinished."""

    boot: str
    keys: tuple[Key, ...]
    """Of the trainings in hand, those whose bill was not made yet."""
    ledger: Ledger
    days: tuple[tuple[str, float], ...] = ()
    """Attributed joules by local date, the day written last at the end."""


class Account:
    """The agent's ledger and the meter behind it."""

    def __init__(  # noqa: PLR0913 - what a bill rests on, built in one place
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
        slots: int = 1,
    ) -> None:
        """``spooled`` names the trainings whose bill stands in an answer on disk already.

        ``watch`` is called with every slice that is charged, in a ledger of its own; ``refused`` are the
        meters that were tried before this one; ``today`` says the local date. Raises BaselineRefused for a
        ``baseline.json`` that is none.
        """
        self._watch, self._refused = watch, refused
        self._path, self._meter, self._bus = path, meter, bus
        self.room, self._today = room or Room(path.parent, FULL_DISK), today
        self._days: tuple[tuple[str, float], ...] = ()
        self._stored = baselines.load(path.with_name("baseline.json"))
        self._machine = machine.look()
        self._idle = self._baseline()
        self._held: tuple[Use, ...] = ()
        self._tabs = tuple(Tab() for _ in range(slots))
        self._since: Moment | None = None
        self._saved_s = time.monotonic()
        self._ledger = self._recover(spooled)

    def energy_j(self, slot: int = 0) -> float | None:
        """Attributed joules of the slot's training so far; None if unknown."""
        key = self._tabs[slot].key
        rows = books.rows(self._ledger, key) if key else ()
        known = [row.attributed_energy_j for row in rows if row.attributed_energy_j is not None]
        return sum(known) if known else None

    @property
    def energy_today_j(self) -> float:
        """Joules that training took on this local date so far; those of unknown share count whole."""
        return dict(self._days).get(self._today(), 0.0)

    def begin(self, key: Key, slot: int = 0) -> None:
        """An assignment was accepted into a slot; said again, it changes nothing."""
        tab = self._tabs[slot]
        if tab.key != key:
            self._slice(flush=True)
            self._machine = machine.look()
            self._idle = self._baseline()
            tab.begin(key)
            self._since = self._since or look(self._meter, self._bus)

    def wait(self, slot: int) -> None:
        """The weights are here, but no memory for the training beside another."""
        self._slice()
        self._tabs[slot].doing = "wait"

    def train(self, slot: int = 0, *, warm: bool) -> None:
        """The weights are here: the worker's signs of life make the slices; a new one counts from zero."""
        self._slice()
        self._tabs[slot].train(warm=warm)

    def follow(self, pid: int | None, slot: int) -> None:
        """The slot's worker is this process."""
        if len(self._tabs) > 1:
            self._tabs[slot].follow(pid)

    def tick(self) -> None:
        """A turn of the loop: a slice, if it is time for one and no worker makes them."""
        if any(tab.key and tab.doing != "runtime" for tab in self._tabs) and self._due:
            self._slice()

    def heard(
        self,
        phases: tuple[PhaseTime, ...],
        examples: int = 0,
        peak_rss_bytes: int | None = None,
        slot: int = 0,
    ) -> None:
        """A sign of life of a worker; what it finished and its peak memory come with the last one."""
        tab = self._tabs[slot]
        uses = tab.heard(phases)
        if uses and (examples or peak_rss_bytes):
            last = msgspec.structs.replace(uses[-1], examples=examples, peak_rss_bytes=peak_rss_bytes)
            uses = (*uses[:-1], last)
        if tab.key:
            self._held += uses
            if len(self._tabs) == 1 or self._due:  # of several workers not each word ends a slice
                self._slice()

    def bill(self, train_device: str, slot: int = 0) -> Profile:
        """All that was not billed yet, less what other slots train; what follows comes with the next bill."""
        self._slice(flush=True)
        own, now = self._tabs[slot], machine.since(self._machine, machine.look())
        others = [tab.unbilled for tab in self._tabs if tab is not own and tab.unbilled]
        made, self._ledger = books.part(self._ledger, others)
        own.doing, own.billed = "upload", True
        return Profile(
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

    def moment(self) -> Moment:
        """The counters now, for ``price``."""
        return look(self._meter, self._bus)

    def price(self, since: Moment, use: Use) -> tuple[Spend, Sensor]:
        """What a use since then cost that is no training's and stands on no bill; and who says so."""
        now = look(self._meter, self._bus, since)
        return price(since, now, use, self._meter, self._idle), self._meter.sensor

    def save(self) -> None:
        """Put the ledger on disk; after ``bill`` only once the bill itself is there."""
        self._saved_s = time.monotonic()
        with self.room.writing():
            keys = tuple(tab.unbilled for tab in self._tabs if tab.unbilled)
            kept = _Kept(boot_id(), keys, self._ledger, self._days)
            write_atomic(self._path, msgspec.json.encode(kept))

    def lose(self, peak_rss_bytes: int | None = None, slot: int = 0) -> None:
        """The slot's training is given up: its joules stay, as phase ``lost``, and its peak memory."""
        tab = self._tabs[slot]
        if tab.key:
            self._slice()
            self._ledger = books.lose(self._ledger, tab.key, peak_rss_bytes)
            tab.doing = "upload"
            self.save()

    def end(self, key: Key) -> None:
        """The answer is stored, or not wanted: its slot has nothing in hand, unless the next is already."""
        for tab in self._tabs:
            if tab.key == key:
                self._slice()
                tab.key = None
                if not any(other.key for other in self._tabs):
                    self._since = None
                self.save()

    def close(self) -> None:
        """Put the rest on disk and let go of the meter."""
        self.save()
        self._meter.close()

    # --- inside --------------------------------------------------------------------------------

    @property
    def _due(self) -> bool:
        return self._since is not None and self._since.age_s > SLICE_S

    def _slice(self, *, flush: bool = False) -> None:
        """Charge the time since the last slice; without a reading it is put off, unless ``flush``."""
        if self._since is None:
            return
        start_s = time.thread_time()
        if len(self._tabs) > 1:
            self._held += tuple(use for tab in self._tabs for use in tab.silent())
        first, last = self._since, look(self._meter, self._bus, self._since)
        if last.reading is None and not flush and last.seen_ns - first.seen_ns < SAVE_S * 1e9:
            return
        uses, self._held, self._since = (*self._held, *daemons(self._tabs, first, last)), (), last
        self._charge(cut(first, last, uses, time.thread_time() - start_s))

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
        ledger, lost = kept.ledger, [key for key in kept.keys if key not in spooled]
        if len(lost) < len(kept.keys):  # killed between an answer and the ledger: that is in the answer
            _, ledger = books.part(ledger, lost)
        for key in lost:
            ledger = books.lose(ledger, key)
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
