"""What it does to a task group that a device gives up, fails, stays silent, or has not what the group takes.

In a round that has selected its devices, one that fails is asked again after a pause; failing on, it is
benched and the round goes on without it, until so few can be relied on that no quorum is left. Where every
device must contribute, the run has failed when one has used up its tries. A device with too little memory,
or without labels, leaves the run for good. Pure; folded by ``orchestrator.rounds``.
"""

from __future__ import annotations

import msgspec

from mas_edge.orchestrator import attendance
from mas_edge.orchestrator.events import GaveUp, LeftOut
from mas_edge.orchestrator.replan import Unfit
from mas_edge.orchestrator.round_state import Run, Trouble

RETRY_S = 2.0
"""Pause before a device that gave up is asked again, doubled each time."""

LONGEST_S = 900.0
"""No pause is longer: an operator may change a device's mind."""

NO_DATA = "no-data"
"""A device's reason to decline a group of whose tasks it has no labels."""


def gave_up(run: Run, event: GaveUp, time_s: float) -> Run:
    """The run after a device that it waits for gave up; failed, if it cannot go on."""
    device = event.key.device
    if event.shortage is not None or event.reason == NO_DATA:
        return _left(run, event)
    trouble = _trouble(run, event, time_s)
    others = tuple(t for t in run.trouble if t.device != device)
    run = msgspec.structs.replace(run, trouble=(*others, trouble))
    if run.cohort and not trouble.resting:
        run = _failed(run, device, event.reason, time_s)
    if _can_go_on(run, trouble):
        return run
    failures = attendance.of(run.records, device).failures if run.cohort else trouble.times - trouble.excused
    reason = f"{device} gave up round {run.round} of {run.group} {failures} times: {event.reason}"
    detail = f" ({event.detail})" if event.detail else ""
    return msgspec.structs.replace(run, phase="failed", reason=reason + detail)


def _can_go_on(run: Run, trouble: Trouble) -> bool:
    """Whether a quorum is possible; without a choice of devices, whether this one has tries left."""
    if run.cohort is None:
        return trouble.times - trouble.excused < run.tries
    unable = attendance.exhausted(run.records, run.tries) - {c.device for c in run.heard}
    able = [device for device in run.devices if device not in unable]
    return len(able) >= min(run.cohort.needed, len(run.devices))


def _left(run: Run, event: GaveUp) -> Run:
    """The run without a device that has too little memory for the group, or none of its labels."""
    device = event.key.device
    left = tuple(d for d in run.devices if d != device)
    run = msgspec.structs.replace(run, devices=left, reason=event.detail)
    if event.shortage is None:
        return run
    unfit = Unfit(device=device, shortage=event.shortage, detail=event.detail)
    return msgspec.structs.replace(run, unfit=(*run.unfit, unfit), reason="")


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


def lifted(run: Run, device: str, time_s: float) -> Run:
    """The run after a device may train again; the same run if it does not pause for that reason."""
    trouble = tuple(
        msgspec.structs.replace(each, not_before_s=time_s)
        if each.device == device and each.resting and each.not_before_s > time_s
        else each
        for each in run.trouble
    )
    return msgspec.structs.replace(run, trouble=trouble) if trouble != run.trouble else run


def missed(run: Run, devices: tuple[str, ...], time_s: float, kept: tuple[str, ...] = ()) -> Run:
    """The run after these devices let a deadline pass; those that are ``kept`` are waited for further."""
    records = attendance.missed(run.records, run.asked_since(devices), time_s, kept)
    return msgspec.structs.replace(run, records=records)


def _failed(run: Run, device: str, reason: str, time_s: float) -> Run:
    """The run after a device of a cohort failed; benched, it is out of the cohort."""
    records = attendance.failed(run.records, device, reason, run.tries, time_s)
    run = msgspec.structs.replace(run, records=records)
    if run.cohort is None or not attendance.benched(records, device, time_s):
        return run
    members = tuple(m for m in run.cohort.members if m.device != device)
    return msgspec.structs.replace(run, cohort=msgspec.structs.replace(run.cohort, members=members))


def deserted(run: Run) -> Run:
    """The run that all devices have left: over with what it has learnt, or failed before its first round."""
    if run.unfit:
        return msgspec.structs.replace(run, phase="unfit")
    reason = f"no device has data for {run.group}: {run.reason or 'none of its labels'}"
    over = run.weights is not None and run.round > 0  # what a stopped task left behind, say
    return msgspec.structs.replace(run, phase="finished" if over else "failed", reason=reason)


def left_out(run: Run, event: LeftOut, time_s: float) -> Run:
    """The run without the updates that are absurd; their devices have failed this round."""
    reasons = {each.device: each.reason for each in event.updates}
    kept = tuple(c for c in run.heard if c.device not in reasons)
    if not kept:
        return run
    for device in sorted({c.device for c in run.heard} & reasons.keys() if run.cohort else ()):
        run = _failed(run, device, reasons[device], time_s)
    return msgspec.structs.replace(run, heard=kept, left_out=tuple(sorted(reasons)))
