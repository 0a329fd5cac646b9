"""What training a group has cost a device so far, read from a job's stored events.

An ``Observation`` is one round of one group on one device: its seconds, joules, bytes and memory, without
what measuring affinity took, for only merged rounds measure. ``observed`` makes them anew whenever it is to
be decided, a few times in a job, so that no state carries them along. A device's first training in a job
stands apart (``first``), as it starts the process that trains. Pure; what is made of it is ``cost_model``'s
business.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import GaveUp, Heard, LeftOut, Merged
from mas_edge.orchestrator.learning_curve import Evaluated
from mas_edge.profiling.ledger import LOST
from mas_edge.wire.messages import Shortage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mas_edge.wire.messages import Key, Profile, Score, Update

MEASURING = "affinity"
"""The phase of a training in which effects of tasks on each other are measured."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of what was observed."""


class Observation(_Value, frozen=True):
    """One round of a group on a device. ``wall_s`` and the rest leave out what measuring affinity took.

    ``energy_j`` is attributed energy; None is unknown. ``peak_bytes`` is the most that the training process
    had resident, ``allowed_bytes`` what it may have there.
    """

    group: tuple[str, ...]
    device: str
    round: int
    examples: int
    wall_s: float
    energy_j: float | None
    peak_bytes: int | None = None
    allowed_bytes: int | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    first: bool = False


class Refused(_Value, frozen=True):
    """A device declined a group for want of memory, and by which numbers."""

    group: tuple[str, ...]
    device: str
    shortage: Shortage


class Observed(_Value, frozen=True):
    """All that was observed, in the order of the events.

    ``waiting_s`` is by how much a merged round took longer than its slowest device, on average: transport,
    merging, the orchestrator's turns; None if no round was seen whole.
    """

    trainings: tuple[Observation, ...] = ()
    refused: tuple[Refused, ...] = ()
    waiting_s: float | None = None


def observed(stored: Iterable[tuple[float, object]]) -> Observed:
    """What a job's stored events (job time in seconds, event) say of costs."""
    trainings: list[Observation] = []
    refused: list[Refused] = []
    waits: list[float] = []
    began: dict[str, float] = {}  # group -> job time of its last merge
    slowest: dict[str, float] = {}  # group -> the longest training of the round
    for time_s, event in stored:
        match event:
            case Heard(update=update) if update.weights is not None and update.examples:
                first = all(known.device != update.key.device for known in trainings)
                trainings.append(_observation(update, first=first))
                busy_s = fsum(row.wall_s for row in update.profile.rows)
                slowest[update.key.group] = max(slowest.get(update.key.group, 0.0), busy_s)
            case GaveUp(key=key, shortage=Shortage() as shortage):
                group = tuple(key.group.split("+"))
                refused.append(Refused(group=group, device=key.device, shortage=shortage))
            case Merged(group=group_name):
                if group_name in began and len(began) == 1:  # groups side by side wait for each other
                    waits.append(max(0.0, time_s - began[group_name] - slowest.get(group_name, 0.0)))
                began[group_name] = time_s
                slowest[group_name] = 0.0
    waiting_s = fsum(waits) / len(waits) if waits else None
    return Observed(trainings=tuple(trainings), refused=tuple(refused), waiting_s=waiting_s)


def pooled(own: Observed, others: Iterable[Observed]) -> Observed:
    """What was observed in this job, with the trainings of jobs that trained in the same way before."""
    before = tuple(training for other in others for training in other.trainings)
    return msgspec.structs.replace(own, trainings=(*before, *own.trainings))


def evaluated(stored: Iterable[tuple[float, object]]) -> tuple[Evaluated, ...]:
    """The held-out losses that a job's groups have had so far, in the order in which they became known.

    Each is of the weights that a round began with, pooled over the devices that evaluated them.
    """
    sums: dict[tuple[str, int, str], tuple[float, float]] = {}
    for _, event in stored:
        if isinstance(event, Heard):
            _add(sums, event.update.key, event.update.scores)
    return _pooled(sums)


def learnt(stored: Iterable[tuple[float, object]]) -> tuple[Evaluated, ...]:
    """The losses that devices had on the examples that they trained on, in each round, pooled alike.

    Without those of updates that were left out for being absurd.
    """
    heard: dict[tuple[str, int, str], Update] = {}
    for _, event in stored:
        if isinstance(event, Heard):
            key = event.update.key
            heard[key.group, key.round, key.device] = event.update
        elif isinstance(event, LeftOut):
            for each in event.updates:
                heard.pop((event.group, event.round, each.device), None)
    sums: dict[tuple[str, int, str], tuple[float, float]] = {}
    for update in heard.values():
        _add(sums, update.key, update.trained)
    return _pooled(sums)


def joules(profile: Profile) -> float:
    """The attributed joules of a bill, as far as they are known."""
    return fsum(row.attributed_energy_j or 0.0 for row in profile.rows)


def _add(sums: dict[tuple[str, int, str], tuple[float, float]], key: Key, losses: Iterable[Score]) -> None:
    for each in losses:
        place = key.group, key.round, each.task
        loss, count = sums.get(place, (0.0, 0.0))
        sums[place] = loss + each.loss_sum, count + each.count


def _pooled(sums: Mapping[tuple[str, int, str], tuple[float, float]]) -> tuple[Evaluated, ...]:
    return tuple(
        Evaluated(group=tuple(group.split("+")), round=round_, task=task, loss=loss / count, count=count)
        for (group, round_, task), (loss, count) in sums.items()
        if count
    )


def _observation(update: Update, *, first: bool) -> Observation:
    rows = [row for row in update.profile.rows if row.phase not in {MEASURING, LOST}]
    peaks = [row.peak_rss_bytes for row in rows if row.peak_rss_bytes is not None]
    return Observation(
        group=tuple(update.key.group.split("+")),
        device=update.key.device,
        round=update.key.round,
        examples=update.examples,
        wall_s=fsum(row.wall_s for row in rows),
        energy_j=_sum([row.attributed_energy_j for row in rows]),
        peak_bytes=max(peaks, default=None),
        allowed_bytes=update.fit.allowed_bytes if update.fit else None,
        received_bytes=sum(row.received_bytes for row in rows),
        sent_bytes=sum(row.sent_bytes for row in rows),
        first=first,
    )


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return fsum(known) if known and len(known) == len(parts) else None
