"""How a round of one task group goes, from who is asked to the merged weights.

A *run* is one group's way through its rounds. In each round some devices are selected, each gets an
``Assign`` with the current weights and answers with an ``Update``; when enough are in, the updates are merged
into the weights of the next round::

    starting --Carved--> selecting --Selected--> collecting --> merging --Merged--> selecting ... finished
                                                     |                       closing: evaluate only ^
                                                     +--too many fail--> failed
                                                     +--no device has the memory--> unfit

The weights that a device receives in round r are the result of round r-1, and it evaluates them
before it trains; so the last weights are evaluated by a closing round that trains nothing. A run
that hands its weights on to others (the merged run before a split) needs no closing round: its
heirs evaluate what they inherit.

A round ends when as many as it wants have answered (the others are told to stop), when nobody is left to wait
for, or at its deadline with a quorum (``Closed``). Short of a quorum it asks others too and goes on: nothing
fails for having waited. A device that gives up is asked again after a pause; one that keeps failing, or stays
silent at deadlines, is benched (``attendance``), and only when so many keep failing that no quorum is
left has the run failed. A device that lacks the memory or the labels for the group leaves the run; a run
that all have left for want of memory is the job's business (``orchestrator.replan``). One that may not train
now is asked again when it may (``Lifted``), and not waited for beyond a quorum. In a reproducible job
(``all_contribute``) nobody is selected, benched or left behind: every device answers every round, or the run
fails.

``step`` is pure: late, foreign, repeated or impossible events change nothing. What a run wants done
is not remembered as a list of past commands: ``owes`` derives it from the state, so that a restart
is a replay of the events and nothing else. Who is selected is decided in ``orchestrator.selection``.
"""

from __future__ import annotations

import msgspec

from mas_edge.orchestrator import attendance
from mas_edge.orchestrator.events import (
    Action,
    Ask,
    Carve,
    Carved,
    Close,
    Closed,
    Contribution,
    Event,
    Fact,
    GaveUp,
    Heard,
    Late,
    LeaveOut,
    LeftOut,
    Lifted,
    Merge,
    Merged,
    Select,
    Selected,
    Value,
)
from mas_edge.orchestrator.round_state import (
    Cohort,
    Member,
    Run,
    Trouble,
    asked_anew,
    begun,
    due,
    enough,
    key_of,
    keys,
)
from mas_edge.orchestrator.setbacks import (
    LONGEST_S,
    NO_DATA,
    RETRY_S,
    deserted,
    gave_up,
    left_out,
    lifted,
    missed,
)
from mas_edge.orchestrator.sound import absurd
from mas_edge.wire.messages import BlobRef, Key

# fmt: off
__all__ = [
    "LONGEST_S", "NO_DATA", "RETRY_S", "Action", "Ask", "Carve", "Carved", "Close", "Closed", "Cohort",
    "Contribution", "Event", "Fact", "GaveUp", "Heard", "Late", "LeaveOut", "LeftOut", "Member", "Merge",
    "Merged", "Run", "Select", "Selected", "Trouble", "Value", "begun", "expected", "owes", "step",
]
# fmt: on


def step(run: Run, event: Event, time_s: float) -> Run:
    """The run after an event at a job time in seconds; the same run if the event means nothing to it."""
    after = run
    match event, run.phase:
        case Carved(group=run.group), "starting":
            after = begun(msgspec.structs.replace(run, weights=event.weights))
        case Selected(group=run.group, round=run.round, call=run.call), "selecting" | "collecting":
            after = run if run.all_contribute else _selected(run, event, time_s)
        case Closed(group=run.group, round=run.round), "collecting" if _may_close(run, time_s):
            after = _ended(missed(run, event.missed, time_s))
        case Heard(), "collecting" if _current(run, event.update.key):
            after = _heard(run, event, time_s)
        case GaveUp(), "collecting" if _current(run, event.key):
            after = gave_up(run, event, time_s)
            after = after if after.phase == "failed" else _collected(after, time_s)
        case Lifted(), _:
            after = lifted(run, event.device, time_s)
        case LeftOut(group=run.group, round=run.round), "merging" if not run.left_out:
            after = left_out(run, event, time_s)
        case Merged(group=run.group, round=run.round), "merging":
            after = _advance(run, event.weights)
        case Late(key=Key(job=run.job, group=run.group)), _ if not run.all_contribute:
            after = _late(run, event)
    return after


def expected(run: Run, key: Key) -> Ask | None:
    """What an answer under this key answers, sent now or not; None if the run waits for no such answer."""
    return _ask(run, key) if run.phase == "collecting" and _current(run, key) else None


def owes(run: Run, time_s: float) -> tuple[Action, ...]:
    """What has to be done for the run to go on, at a job time in seconds; asking twice is harmless."""
    match run.phase:
        case "starting":
            return (Carve(group=run.group, tasks=run.tasks, source=run.source),)
        case "selecting":
            return (Select(group=run.group, round=run.round, call=run.call),)
        case "collecting":
            pausing = {t.device for t in run.trouble if t.not_before_s > time_s}
            asks = (_ask(run, key) for key in keys(run) if key.device not in pausing)
            return (*asks, *_ending(run, time_s))
        case "merging":
            if not run.left_out and (updates := absurd(run.heard)):
                return (LeaveOut(group=run.group, round=run.round, updates=updates),)
            base = run.weights or run.source
            return (Merge(group=run.group, round=run.round, base=base, updates=run.heard),)
    return ()


def _ending(run: Run, time_s: float) -> tuple[Action, ...]:
    """What a round that has selected wants at its deadline, or when nobody is left to wait for."""
    if run.cohort is None or (run.missing and not due(run, time_s)):
        return ()
    if enough(run):
        return (Close(group=run.group, round=run.round, missing=run.missing),)
    return (Select(group=run.group, round=run.round, call=run.call),)


def _may_close(run: Run, time_s: float) -> bool:
    return run.cohort is not None and due(run, time_s) and enough(run)


def _ask(run: Run, key: Key) -> Ask:
    return Ask(
        key=key,
        tasks=run.tasks,
        weights=run.weights or run.source,
        train=run.trains,
        evaluate=run.round > 0,
        measure=run.measures,
        deadline_s=run.cohort.deadline_s if run.cohort else None,
    )


def _current(run: Run, key: Key) -> bool:
    return key.device in run.missing and key == key_of(run, key.device)


# --- who is asked, and who is still there -----------------------------------------------------------


def _selected(run: Run, event: Selected, time_s: float) -> Run:
    before = {m.device: m.since_s for m in run.cohort.members} if run.cohort else {}
    dropped = [device for device in run.missing if device in before and device not in event.devices]
    run = missed(run, event.missed, time_s, kept=event.devices)
    answered = {c.device for c in run.heard}
    devices = [d for d in run.devices if d in event.devices and d not in answered]
    cohort = Cohort(
        members=tuple(Member(device=d, since_s=before.get(d, time_s)) for d in devices),
        wanted=event.wanted,
        needed=event.needed,
        deadline_s=None if event.deadline_s is None else time_s + event.deadline_s,
    )
    records = attendance.chosen(run.records, [d for d in devices if d not in before])
    others = (t for t in run.trouble if t.device not in dropped)
    trouble = (*others, *(asked_anew(run, device) for device in dropped))
    run = msgspec.structs.replace(
        run, phase="collecting", cohort=cohort, call=event.call + 1, records=records, trouble=trouble
    )
    return _ended(run) if run.heard and len(run.heard) >= event.wanted else run


# --- answers ----------------------------------------------------------------------------------------


def _heard(run: Run, event: Heard, time_s: float) -> Run:
    update = event.update
    device = update.key.device
    if run.trains and update.weights is None:
        return run
    contribution = Contribution(
        device=device,
        weights=update.weights,
        examples=update.examples,
        trained=update.trained,
        scores=update.scores,
        distance=event.distance,
    )
    records = run.records
    for _, since_s in run.asked_since((device,)):
        records = attendance.answered(records, device, time_s - since_s)
    heard = tuple(sorted((*run.heard, contribution), key=lambda c: c.device))
    return _collected(msgspec.structs.replace(run, heard=heard, records=records), time_s)


def _late(run: Run, event: Late) -> Run:
    """What is slow is not silent: it was worked for so long as the bill says."""
    seconds = sum(row.wall_s for row in event.profile.rows)
    records = attendance.late(run.records, event.key.device, seconds)
    return msgspec.structs.replace(run, records=records)


# --- the end of a round -----------------------------------------------------------------------------


def _collected(run: Run, time_s: float) -> Run:
    """The run, onwards if nobody is waited for any more: who may be asked again now is."""
    if not run.devices and run.trains:
        return deserted(run)
    resting = {t.device for t in run.trouble if t.resting and t.not_before_s > time_s}
    excused = resting >= set(run.missing)
    if run.cohort:
        full = len(run.heard) >= min(run.cohort.wanted, len(run.devices))
        return _ended(run) if full or (excused and enough(run)) else run
    excused = excused and bool(run.heard) and not run.all_contribute
    return run if run.missing and not excused else _ended(run)


def _ended(run: Run) -> Run:
    return msgspec.structs.replace(run, phase="merging" if run.trains else "finished")


def _advance(run: Run, weights: BlobRef) -> Run:
    following, useful = run.round + 1, [c.device for c in run.heard] if run.cohort else []
    run = msgspec.structs.replace(run, records=attendance.merged(run.records, useful))
    run = begun(msgspec.structs.replace(run, round=following, weights=weights))
    return run if following < run.past or run.closing else msgspec.structs.replace(run, phase="finished")
