"""What a group remembers of each device: how often it was chosen, how fast it is, if it can be relied on.

A device that fails as often as a job allows (``tries``, with nothing of it merged between), or that lets two
deadlines in a row pass, is *benched*: it is not chosen for a while, which doubles each time. When an update
of it has been merged all is forgiven: a device that comes back has usually been repaired or restarted.
A deadline that passed counts as a measurement too, of at least so many seconds: a device that is only slow
gets more time, as a sender does whose acknowledgement did not come.

All of it is folded from stored events in job time (``orchestrator.rounds``), so that a restart forgets
nothing. The doubling after a missed deadline is that of retransmission timers: RFC 6298, section 5.5.
Reproducible jobs choose nobody and remember nothing here. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import Value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

BENCH_S, LONGEST_BENCH_S = 60.0, 3600.0
"""How long a device is benched for the first time, in job time; doubled each time, to at most so long."""

PATIENCE = 2
"""So many deadlines in a row may a device let pass before it is benched."""

MOST_MISSED_S = 600.0
"""No missed deadline counts for more: a device that never answers must not hold rounds up ever longer."""

REMEMBERED = 5
"""Rounds whose seconds are remembered."""


class Record(Value, frozen=True):
    """What is known of one device; ``failures`` and ``missed`` are those since it was last of use.

    ``seconds`` are those of its last rounds, from being chosen to having answered; ``why`` it is benched.
    """

    device: str
    chosen: int = 0
    seconds: tuple[float, ...] = ()
    failures: int = 0
    missed: int = 0
    benchings: int = 0
    benched_until_s: float = 0.0
    why: str = ""

    @property
    def expected_s(self) -> float | None:
        """How long its next round may well take: the median and three times the median deviation from it."""
        if not self.seconds:
            return None
        middle = median(self.seconds)
        return middle + 3 * median(abs(value - middle) for value in self.seconds)


Records = tuple[Record, ...]
"""In the order of the devices' names."""


def of(records: Records, device: str) -> Record:
    """A device's record; an empty one if nothing is known of it."""
    at = _place(records, device)
    return records[at] if at < len(records) and records[at].device == device else Record(device=device)


def chosen(records: Records, devices: Iterable[str]) -> Records:
    """These were chosen once more."""
    for device in devices:
        record = of(records, device)
        records = _with(records, msgspec.structs.replace(record, chosen=record.chosen + 1))
    return records


def answered(records: Records, device: str, seconds: float) -> Records:
    """An answer came after so long."""
    record = of(records, device)
    return _with(records, msgspec.structs.replace(record, seconds=_measured(record, seconds), missed=0))


def merged(records: Records, devices: Iterable[str]) -> Records:
    """What these answered was good: what was held against them is forgotten."""
    for device in devices:
        record = of(records, device)
        records = _with(records, Record(device=device, chosen=record.chosen, seconds=record.seconds))
    return records


def late(records: Records, device: str, seconds: float) -> Records:
    """An answer came that was not wanted any more, of so many seconds of work (0: unknown)."""
    record = of(records, device)
    seconds_ = _measured(record, seconds) if seconds > 0 else record.seconds
    return _with(records, msgspec.structs.replace(record, seconds=seconds_, missed=0))


def failed(records: Records, device: str, reason: str, tries: int, time_s: float) -> Records:
    """A training failed; benched if that was once too often in a row."""
    record = of(records, device)
    record = msgspec.structs.replace(record, failures=record.failures + 1)
    if record.failures >= tries:
        record = _benched(record, f"failed {record.failures} times in a row: {reason}", time_s)
    return _with(records, record)


def missed(
    records: Records, since_s: Iterable[tuple[str, float]], time_s: float, kept: Collection[str] = ()
) -> Records:
    """These let a deadline pass; with each, since when it was asked. Who is ``kept`` is not benched."""
    for device, asked_s in since_s:
        before = of(records, device)
        seconds = _measured(before, min(time_s - asked_s, MOST_MISSED_S))
        record = msgspec.structs.replace(before, seconds=seconds, missed=before.missed + 1)
        if record.missed >= PATIENCE and device not in kept:
            record = _benched(record, f"no answer by {record.missed} deadlines in a row", time_s)
        records = _with(records, record)
    return records


def benched(records: Records, device: str, time_s: float) -> bool:
    """Whether the device is not to be chosen now."""
    return of(records, device).benched_until_s > time_s


def exhausted(records: Records, tries: int) -> set[str]:
    """The devices that have failed as often as they may, and nothing of them was merged since."""
    return {record.device for record in records if record.failures >= tries}


def _measured(record: Record, seconds: float) -> tuple[float, ...]:
    return (*record.seconds, seconds)[-REMEMBERED:]


def _benched(record: Record, why: str, time_s: float) -> Record:
    pause_s = min(BENCH_S * 2.0 ** min(record.benchings, 10), LONGEST_BENCH_S)
    return msgspec.structs.replace(
        record, benchings=record.benchings + 1, benched_until_s=time_s + pause_s, why=why
    )


def _with(records: Records, record: Record) -> Records:
    at = _place(records, record.device)
    past = at + (at < len(records) and records[at].device == record.device)
    return (*records[:at], record, *records[past:])


def _place(records: Records, device: str) -> int:
    """Where its record is, or would be."""
    return bisect_left(records, device, key=lambda each: each.device)
