"""Which devices a round asks, how many answers it wants, and how long it waits.

Of the devices that are there, may train, have labels of the group, have joules left today and are not benched
(``attendance``), so many are drawn as the round wants answers, and ``over_selection`` more. Each device gets
the key ``log(u) / w``, with its weight w and u in (0, 1) from SHA-256 of (seed, job, group, round, call,
device), and those with the greatest keys are taken: a weighted draw without replacement that depends on
nothing else, not on the order of the candidates. ``random`` gives all the same weight. ``resourceful`` gives
the product of relative speed (the fastest one's expected seconds over its own) and of the share of today's
joules that is left, but never less than ``LEAST_WEIGHT``: every device is drawn now and then, and one that
was never measured counts as the fastest, so that it is.

Source of the draw: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", IPL 97 (2006). Of
preferring fast clients while exploring others: Oort (OSDI '21), without its statistical utility: which
device's data help most is not measured. Over-selection and a quorum at a deadline: Bonawitz et al., "Towards
federated learning at scale" (MLSys 2019). Pure.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import attendance
from mas_edge.orchestrator.events import Selected, Value
from mas_edge.orchestrator.round_state import due

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from mas_edge.orchestrator.rounds import Run
    from mas_edge.orchestrator.spec import Participation

GENEROUS = 3.0
"""A deadline is so many times what the slowest of the asked may well take."""

SHORTEST_S = 60.0
"""No deadline that is made from measurements is shorter."""

UNKNOWN_S = 1800.0
"""Nor is one where somebody is asked who was never measured, so in a first round: half an hour for a board
of which nothing is known."""

LEAST_WEIGHT = 0.1
"""Of a device in the draw, the greatest being 1: so it is drawn at least about a tenth as often."""


class Candidate(Value, frozen=True):
    """A device of a group as a round may ask it.

    ``online`` None: nobody knows yet. ``labels``: it has those of a task of the group (None: nobody knows).
    ``budget_left`` is the share of today's joules that is left, None without a limit.
    """

    device: str
    online: bool | None = None
    may_train: bool = True
    labels: bool | None = None
    budget_left: float | None = None


def select(
    run: Run,
    there: Sequence[Candidate],
    participation: Participation,
    *,
    seed: int,
    time_s: float,
    settled: bool,
    missed: Iterable[str] = (),
) -> Selected | None:
    """Who is asked in the run's present round, or who else, at a job time; None as long as too few are there.

    Until the fleet has ``settled`` it waits for devices of which nobody knows whether they are there. Who
    was asked and has not answered goes on being asked, unless it is benched now and others can take its
    place: what is only slow is not stopped for nothing. A round that is overdue ends with its quorum; it ends
    at once if those who have answered are one and nobody else can be asked.
    """
    answered = {c.device for c in run.heard}
    if all(c.labels is False for c in there):  # they say so themselves, and leave the run, which ends it
        there = [msgspec.structs.replace(c, labels=None) for c in there]
    able = [c for c in there if c.labels is not False]
    if not settled and any(c.online is None for c in able):
        return None
    records = attendance.missed(run.records, run.asked_since(missed), time_s)
    asked = run.missing if run.cohort else ()
    known = {*answered, *asked}
    pausing = _pausing(run, time_s)
    free = [c for c in able if c.device not in known and not _unavailable(run, c, pausing, time_s)]
    kept = [device for device in asked if not (free and attendance.benched(records, device, time_s))]
    goal = min(participation.clients or len(able), len(able)) if run.trains else len(able)
    wanted = min(goal, len(answered) + len(kept) + len(free))
    needed = max(1, math.ceil(participation.quorum * goal - 1e-9))
    if wanted < needed:
        return None
    over = participation.over_selection if run.trains else 0.0
    more = math.ceil(max(0, wanted - len(answered)) * (1 + over) - 1e-9) - len(kept)
    ident = (str(seed), run.job, run.group, str(run.round), str(run.call))
    drawn = _drawn(free, max(0, more), ident, run, participation)
    devices = tuple(sorted((*kept, *drawn)))
    return Selected(
        group=run.group,
        round=run.round,
        devices=devices,
        wanted=needed if due(run, time_s) else wanted,
        needed=needed,
        deadline_s=deadline_s(participation, records, devices),
        call=run.call,
        missed=tuple(missed),
    )


def deadline_s(
    participation: Participation, records: attendance.Records, devices: Iterable[str]
) -> float | None:
    """How long a round waits that asks these, in seconds from now; None for ever."""
    if participation.deadline_s != "auto":
        return participation.deadline_s
    expected = [attendance.of(records, device).expected_s for device in devices]
    least_s = UNKNOWN_S if None in expected else SHORTEST_S
    return max([least_s, *(GENEROUS * value for value in expected if value is not None)])


def waits_for(run: Run, there: Sequence[Candidate], time_s: float) -> str:
    """What a group's round waits for that cannot be begun, in one line."""
    reasons = ((c.device, _unavailable(run, c, _pausing(run, time_s), time_s)) for c in there)
    why = "; ".join(f"{device} {reason}" for device, reason in reasons if reason)
    enough = f"{len(run.heard)} have answered" if run.heard else "nobody has answered"
    return f"round {run.round + 1} of {run.group} waits for devices ({enough}): {why or 'none is left'}"


def _pausing(run: Run, time_s: float) -> frozenset[str]:
    return frozenset(t.device for t in run.trouble if t.not_before_s > time_s)


def _unavailable(run: Run, candidate: Candidate, pausing: Collection[str], time_s: float) -> str:
    """Why a device cannot be asked now, in words; empty if it can."""
    record = attendance.of(run.records, candidate.device)
    bench = f"is benched for {record.benched_until_s - time_s:.0f} s more ({record.why})"
    reasons = {
        "has no labels of these tasks": candidate.labels is False,
        "is away": not candidate.online,
        "may not train now": not candidate.may_train,
        "has used its joules of today": candidate.budget_left == 0.0,
        bench: record.benched_until_s > time_s,
        "gave up and is asked again soon": candidate.device in pausing,
    }
    return next((words for words, holds in reasons.items() if holds), "")


def _drawn(
    free: Sequence[Candidate],
    number: int,
    ident: tuple[str, ...],
    run: Run,
    participation: Participation,
) -> list[str]:
    """So many of these devices, by a weighted draw without replacement."""
    fair = participation.select == "random"
    expected = {c.device: attendance.of(run.records, c.device).expected_s for c in free}
    fastest_s = min((value for value in expected.values() if value), default=1.0)

    def key(candidate: Candidate) -> tuple[float, str]:
        speed = fastest_s / (expected[candidate.device] or fastest_s)
        left = 1.0 if candidate.budget_left is None else candidate.budget_left
        weight = 1.0 if fair else max(LEAST_WEIGHT, speed * left)
        return math.log(_uniform(*ident, candidate.device)) / weight, candidate.device

    return [c.device for c in sorted(free, key=key, reverse=True)[:number]]


def _uniform(*ident: str) -> float:
    """A number in (0, 1) that these words alone decide."""
    digest = hashlib.sha256(msgspec.json.encode(ident)).digest()
    return (int.from_bytes(digest[:6], "big") + 1) / (2**48 + 1)
