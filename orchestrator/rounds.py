"""How a round of one task group goes, from its first assignment to the merged weights.

A *run* is one group's way through its rounds. In each round every device of the run gets an
``Assign`` with the current weights, and answers with an ``Update``; when the last one is in, the
updates are merged into the weights of the next round::

    starting --Carved--> collecting --last Heard--> merging --Merged--> collecting ... finished
                              |                                              ^
                              +--GaveUp too often--> failed                  +- closing: evaluate only

The weights that a device receives in round r are the result of round r-1, and it evaluates them
before it trains; so the last weights are evaluated by a closing round that trains nothing. A run
that hands its weights on to others (the merged run before a split) needs no closing round: its
heirs evaluate what they inherit.

``step`` is pure: late, foreign, repeated or impossible events change nothing. What a run wants done
is not remembered as a list of past commands: ``owes`` derives it from the state, so that a restart
is a replay of the events and nothing else. This module decides nothing about jobs or budgets.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.wire.messages import BlobRef, Key, Profile, Score, Update

RETRY_S = 2.0
"""Pause before a device that gave up is asked again, doubled each time."""


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
    """A device declined, broke, or sent something that was refused."""

    key: Key
    reason: str
    detail: str = ""
    profile: Profile = Profile()


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
    """A device that gave up in this round: how often, and when it may be asked again (job time)."""

    device: str
    times: int
    not_before_s: float
    reason: str


class Run(Value, frozen=True):
    """One group's way through its rounds; ``past`` is the round at which it stops training."""

    job: str
    group: str
    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    round: int
    past: int
    source: BlobRef
    weights: BlobRef | None = None
    phase: Literal["starting", "collecting", "merging", "finished", "failed"] = "starting"
    measure: bool = False
    closing: bool = True
    tries: int = 3
    heard: tuple[Contribution, ...] = ()
    trouble: tuple[Trouble, ...] = ()
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
            return _heard(run, event.update)
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


def _heard(run: Run, update: Update) -> Run:
    if run.trains and update.weights is None:
        return run
    contribution = Contribution(
        device=update.key.device, weights=update.weights, examples=update.examples, trained=update.trained
    )
    heard = tuple(sorted((*run.heard, contribution), key=lambda c: c.device))
    run = msgspec.structs.replace(run, heard=heard)
    if run.missing:
        return run
    return msgspec.structs.replace(run, phase="merging" if run.trains else "finished")


def _gave_up(run: Run, event: GaveUp, time_s: float) -> Run:
    device = event.key.device
    times = event.key.attempt + 1
    again_s = time_s + RETRY_S * 2 ** (times - 1)
    trouble = Trouble(device=device, times=times, not_before_s=again_s, reason=event.reason)
    others = tuple(t for t in run.trouble if t.device != device)
    run = msgspec.structs.replace(run, trouble=(*others, trouble))
    if times < run.tries:
        return run
    reason = f"{device} gave up round {run.round} of {run.group} {times} times: {event.reason}"
    detail = f" ({event.detail})" if event.detail else ""
    return msgspec.structs.replace(run, phase="failed", reason=reason + detail)


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
