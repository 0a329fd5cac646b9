"""How a round of one task group goes, from its first assignment to the merged weights.

A *run* is one group's way through its rounds. In each round every device of the run gets an
``Assign`` with the current weights, and answers with an ``Update``; when the last one is in, the
updates are merged into the weights of the next round::

    starting --Carved--> collecting --last Heard--> merging --Merged--> collecting ... finished
                              |                                              ^
                              +--GaveUp too often--> failed                  +- closing: evaluate only
                              +--GaveUp by all for want of memory--> unfit

The weights that a device receives in round r are the result of round r-1, and it evaluates them
before it trains; so the last weights are evaluated by a closing round that trains nothing. A run
that hands its weights on to others (the merged run before a split) needs no closing round: its
heirs evaluate what they inherit. A device that has too little memory for the group leaves the run, and is
asked no more; a run that all have left is unfit, and the job's business (``orchestrator.replan``). A device
that may not train now (on battery, too hot, ...) is asked again when it may. No round waits for one once all
others have answered, unless its job is reproducible; where nobody may, the round waits, and asks ever less.

``step`` is pure: late, foreign, repeated or impossible events change nothing. What a run wants done
is not remembered as a list of past commands: ``owes`` derives it from the state, so that a restart
is a replay of the events and nothing else. This module decides nothing about jobs or budgets.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.replan import Unfit
from mas_edge.wire.messages import BlobRef, Key, Profile, Score, Shortage, Update

RETRY_S = 2.0
"""Pause before a device that gave up is asked again, doubled each time."""

LONGEST_S = 900.0
"""No pause is longer: an operator may change a device's mind."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of the round's world."""


class Fact(Value, frozen=True, tag_field="kind", tag=str.lower):
    """Something that happened; stored before anything is done about it."""


class Carved(Fact, frozen=True):
    """The group's first weights were cut out of the weights that it starts from."""

    group: str
    weights: BlobRef


class Heard(Fact, frozen=True):
    """A device's update arrived whole, with its weights on our disk and found sound."""

    update: Update


class GaveUp(Fact, frozen=True):
    """A device declined, broke, or sent something that was refused.

    ``again_s``: it did nothing wrong but may not train now, and says when it looks again.
    """

    key: Key
    reason: str
    detail: str = ""
    profile: Profile = Profile()
    shortage: Shortage | None = None
    again_s: float | None = None


class Merged(Fact, frozen=True):
    """The updates of a round became new weights."""

    group: str
    round: int
    weights: BlobRef


Event: TypeAlias = Carved | Heard | GaveUp | Merged


class Contribution(Value, frozen=True):
    """What aggregation needs to know of a device's update."""

    device: str
    weights: BlobRef | None
    examples: int
    trained: tuple[Score, ...]


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


class Run(Value, frozen=True):
    """One group's way through its rounds; ``past`` is the round at which it stops training.

    ``all_contribute``: no round ends without every device, however long one may not train.
    """

    job: str
    group: str
    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    round: int
    past: int
    source: BlobRef
    weights: BlobRef | None = None
    phase: Literal["starting", "collecting", "merging", "finished", "unfit", "failed"] = "starting"
    measure: bool = False
    closing: bool = True
    all_contribute: bool = False
    tries: int = 3
    heard: tuple[Contribution, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    unfit: tuple[Unfit, ...] = ()
    reason: str = ""

    @property
    def trains(self) -> bool:
        """Whether the present round trains, or only evaluates what the last one brought."""
        return self.round < self.past

    @property
    def missing(self) -> tuple[str, ...]:
        """The devices whose answer the present round still waits for."""
        answered = {c.device for c in self.heard}
        return tuple(d for d in self.devices if d not in answered)


class Ask(Value, frozen=True):
    """Owed: this device should train (or evaluate) this round under this key."""

    key: Key
    tasks: tuple[str, ...]
    weights: BlobRef
    train: bool
    evaluate: bool
    measure: bool


class Carve(Value, frozen=True):
    """Owed: cut the group's encoder and decoders out of these weights."""

    group: str
    tasks: tuple[str, ...]
    source: BlobRef


class Merge(Value, frozen=True):
    """Owed: average these updates into the next weights."""

    group: str
    round: int
    base: BlobRef
    updates: tuple[Contribution, ...]


Action: TypeAlias = Ask | Carve | Merge


def step(run: Run, event: Event, time_s: float) -> Run:
    """The run after an event at a job time in seconds; the same run if the event means nothing to it."""
    match event, run.phase:
        case Carved(group=run.group), "starting":
            return msgspec.structs.replace(run, weights=event.weights, phase="collecting")
        case Heard(), "collecting" if _current(run, event.update.key):
            return _heard(run, event.update, time_s)
        case GaveUp(), "collecting" if _current(run, event.key):
            return _gave_up(run, event, time_s)
        case Merged(group=run.group, round=run.round), "merging":
            return _advance(run, event.weights)
    return run


def expected(run: Run, key: Key) -> Ask | None:
    """What an answer under this key answers, sent now or not; None if the run waits for no such answer."""
    return _ask(run, key.device) if run.phase == "collecting" and _current(run, key) else None


def owes(run: Run, time_s: float) -> tuple[Action, ...]:
    """What has to be done for the run to go on, at a job time in seconds; asking twice is harmless."""
    match run.phase:
        case "starting":
            return (Carve(group=run.group, tasks=run.tasks, source=run.source),)
        case "collecting":
            return tuple(_ask(run, device) for device in run.missing if _may_ask(run, device, time_s))
        case "merging":
            base = run.weights or run.source
            return (Merge(group=run.group, round=run.round, base=base, updates=run.heard),)
    return ()


def _ask(run: Run, device: str) -> Ask:
    return Ask(
        key=_key(run, device),
        tasks=run.tasks,
        weights=run.weights or run.source,
        train=run.trains,
        evaluate=run.round > 0,
        measure=run.measure and run.trains,
    )


def _key(run: Run, device: str) -> Key:
    attempt = next((t.times for t in run.trouble if t.device == device), 0)
    return Key(job=run.job, group=run.group, round=run.round, attempt=attempt, device=device)


def _current(run: Run, key: Key) -> bool:
    return key.device in run.missing and key == _key(run, key.device)


def _may_ask(run: Run, device: str, time_s: float) -> bool:
    return all(t.not_before_s <= time_s for t in run.trouble if t.device == device)


def _heard(run: Run, update: Update, time_s: float) -> Run:
    if run.trains and update.weights is None:
        return run
    contribution = Contribution(
        device=update.key.device, weights=update.weights, examples=update.examples, trained=update.trained
    )
    heard = tuple(sorted((*run.heard, contribution), key=lambda c: c.device))
    return _collected(msgspec.structs.replace(run, heard=heard), time_s)


def _collected(run: Run, time_s: float) -> Run:
    """The run, onwards if nobody is waited for any more: who may be asked again now is."""
    resting = {t.device for t in run.trouble if t.resting and t.not_before_s > time_s}
    excused = bool(run.heard) and not run.all_contribute and resting >= set(run.missing)
    if run.missing and not excused:
        return run
    if run.trains and not run.heard:
        return msgspec.structs.replace(run, phase="unfit")
    return msgspec.structs.replace(run, phase="merging" if run.trains else "finished")


def _gave_up(run: Run, event: GaveUp, time_s: float) -> Run:
    device = event.key.device
    if event.shortage is not None:
        left = tuple(d for d in run.devices if d != device)
        unfit = (*run.unfit, Unfit(device=device, shortage=event.shortage, detail=event.detail))
        return _collected(msgspec.structs.replace(run, devices=left, unfit=unfit), time_s)
    trouble = _trouble(run, event, time_s)
    others = tuple(t for t in run.trouble if t.device != device)
    run = msgspec.structs.replace(run, trouble=(*others, trouble))
    failures = trouble.times - trouble.excused
    if failures < run.tries:
        return _collected(run, time_s)
    reason = f"{device} gave up round {run.round} of {run.group} {failures} times: {event.reason}"
    detail = f" ({event.detail})" if event.detail else ""
    return msgspec.structs.replace(run, phase="failed", reason=reason + detail)


def _trouble(run: Run, event: GaveUp, time_s: float) -> Trouble:
    """The device's trouble with this round after it gave up once more."""
    device, times, resting = event.key.device, event.key.attempt + 1, event.again_s is not None
    excused = sum(t.excused for t in run.trouble if t.device == device) + resting
    pause_s = max(RETRY_S * 2.0 ** min(times - 1, 10), event.again_s or 0.0)
    return Trouble(
        device=device,
        times=times,
        not_before_s=time_s + min(pause_s, LONGEST_S),
        reason=event.reason,
        excused=excused,
        resting=resting,
    )


def _advance(run: Run, weights: BlobRef) -> Run:
    following = run.round + 1
    more = following < run.past or run.closing
    return msgspec.structs.replace(
        run,
        round=following,
        weights=weights,
        phase="collecting" if more else "finished",
        heard=(),
        trouble=(),
    )
