"""The state of a task group between two events: where it stands, whom it asks, who has answered.

A ``Run`` is one group's way through its rounds. How events change it is in ``orchestrator.rounds``, what a
device's failure does to it in ``orchestrator.setbacks``. Nothing here decides. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from mas_edge.orchestrator.attendance import Record
from mas_edge.orchestrator.events import Contribution, Value
from mas_edge.orchestrator.replan import Unfit
from mas_edge.wire.messages import BlobRef, Key

if TYPE_CHECKING:
    from collections.abc import Iterable


class Trouble(Value, frozen=True):
    """A device that gave up in this round: how often, and when it may be asked again (job time).

    ``excused`` counts the times that it might not train; ``resting`` says that this is why it paused last.
    """

    device: str
    times: int
    not_before_s: float
    reason: str
    excused: int = 0
    resting: bool = False


class Member(Value, frozen=True):
    """A device that is asked in this round, since when (job time)."""

    device: str
    since_s: float


class Cohort(Value, frozen=True):
    """Who is asked in this round, and when it ends (``Selected``); the deadline is job time here."""

    members: tuple[Member, ...]
    wanted: int
    needed: int
    deadline_s: float | None = None


class Run(Value, frozen=True):
    """One group's way through its rounds; ``past`` is the round at which it stops training.

    ``all_contribute``: every device answers every round. Else each round has a ``cohort``, of which ``call``
    counts the selections, and ``records`` hold what is known of the devices. ``devices`` are those that have
    the memory and the labels, as far as is known. ``measure``: from round ``measure_from`` on affinities are
    measured. ``serves`` are the tasks for whose sake a group is trained that overlaps with others, empty: all
    of its tasks. In the last ``met`` rounds these had reached their target losses.
    """

    job: str
    group: str
    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    round: int
    past: int
    source: BlobRef
    weights: BlobRef | None = None
    phase: Literal["starting", "selecting", "collecting", "merging", "finished", "unfit", "failed"] = (
        "starting"
    )
    measure: bool = False
    measure_from: int = 0
    closing: bool = True
    all_contribute: bool = False
    tries: int = 3
    cohort: Cohort | None = None
    call: int = 0
    heard: tuple[Contribution, ...] = ()
    left_out: tuple[str, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    records: tuple[Record, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    reason: str = ""
    serves: tuple[str, ...] = ()
    met: int = 0

    @property
    def results(self) -> tuple[str, ...]:
        """The tasks whose results come from this group; the others only help to train them."""
        return self.serves or self.tasks

    @property
    def trains(self) -> bool:
        """Whether the present round trains, or only evaluates what the last one brought."""
        return self.round < self.past

    @property
    def measures(self) -> bool:
        """Whether the present round measures affinities."""
        return self.measure and self.trains and self.round >= self.measure_from

    @property
    def missing(self) -> tuple[str, ...]:
        """The devices whose answer the present round still waits for."""
        answered = {c.device for c in self.heard}
        asked = {m.device for m in self.cohort.members} if self.cohort else set(self.devices)
        return tuple(d for d in self.devices if d in asked and d not in answered)

    def asked_since(self, devices: Iterable[str]) -> tuple[tuple[str, float], ...]:
        """With each of these devices since when it is asked in this round; others are left out."""
        members = self.cohort.members if self.cohort else ()
        wanted = set(devices)
        return tuple((m.device, m.since_s) for m in members if m.device in wanted)


def begun(run: Run) -> Run:
    """The run at the start of its present round, its weights being there: all, or a choice, are asked."""
    return msgspec.structs.replace(
        run,
        phase="collecting" if run.all_contribute else "selecting",
        cohort=None,
        call=0,
        heard=(),
        left_out=(),
        trouble=(),
    )


def key_of(run: Run, device: str) -> Key:
    """The key under which a device is asked now; each time that it gave up in a round makes a new one."""
    attempt = next((t.times for t in run.trouble if t.device == device), 0)
    return Key(job=run.job, group=run.group, round=run.round, attempt=attempt, device=device)


def keys(run: Run) -> tuple[Key, ...]:
    """Those of all devices that the present round waits for."""
    attempts = {t.device: t.times for t in run.trouble}
    return tuple(
        Key(job=run.job, group=run.group, round=run.round, attempt=attempts.get(device, 0), device=device)
        for device in run.missing
    )


def asked_anew(run: Run, device: str) -> Trouble:
    """That a device is asked under a new key from now on: it remembers those that it was done with."""
    times = next((t.times for t in run.trouble if t.device == device), 0) + 1
    return Trouble(device=device, times=times, not_before_s=0.0, reason="asked anew", excused=times)


def enough(run: Run) -> bool:
    """Whether a quorum has answered; of devices that left the run none can be missed."""
    needed = min(run.cohort.needed, len(run.devices)) if run.cohort else len(run.devices)
    return bool(run.heard) and len(run.heard) >= needed


def due(run: Run, time_s: float) -> bool:
    """Whether the round's deadline has passed; it need not have one."""
    deadline_s = run.cohort.deadline_s if run.cohort else None
    return deadline_s is not None and time_s >= deadline_s
