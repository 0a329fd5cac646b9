"""What a device does, of what it said of itself and of what jobs wait for: the devices' half of a status.

A device works on what it told progress of, if somebody still waits for that answer; else it is asked for the
earliest round that waits for it. Its own words are shown as one line without control characters, which a
terminal would obey. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import rounds
from mas_edge.orchestrator.sound import sound_words
from mas_edge.orchestrator.views.outlook import OVER
from mas_edge.orchestrator.views.status_values import Bench, DeviceState, DeviceStatus, Energy, Known, Work
from mas_edge.orchestrator.views.tally import Bill
from mas_edge.wire.messages import Caps, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mas_edge.orchestrator.job import Job
    from mas_edge.orchestrator.rounds import Run
    from mas_edge.orchestrator.views.tally import Tally
    from mas_edge.wire.messages import InUse, Offer, Progress, Sensor


def devices_status(
    tallies: Collection[Tally], known: Mapping[str, Known], midnight_wall_s: float
) -> dict[str, DeviceStatus]:
    """Every device that was heard of or that a job names, by name and in that order."""
    going = [tally for tally in tallies if tally.job.phase not in OVER]
    asked = _asked(going)
    names = {*known, *(device for tally in going for device in tally.job.spec.devices)}
    found = {}
    for name in sorted(names):
        own = known.get(name, Known())
        work = _work(own.progress, going) or asked.get(name)
        benched = tuple(bench for tally in going for bench in _benched(name, tally))
        bills = [bill for tally in tallies for bill in tally.by_device.get(name, ())]
        left = [left_j for tally in going for left_j in _left_today_j(tally, name, midnight_wall_s)]
        found[name] = _device(name, own, work, benched, bills, min(left, default=None), midnight_wall_s)
    return found


def _device(
    name: str,
    known: Known,
    work: Work | None,
    benched: tuple[Bench, ...],
    bills: Collection[tuple[float, Bill]],
    left_j: float | None,
    midnight_wall_s: float,
) -> DeviceStatus:
    hello, alive = known.hello, known.alive
    today = [bill for wall_s, bill in bills if wall_s >= midnight_wall_s]
    return DeviceStatus(
        name=name,
        online=alive.online if alive else None,
        state=_state(known, work),
        since_wall_s=known.alive_wall_s,
        last_seen_wall_s=known.last_seen_wall_s,
        work=work,
        reasons=tuple(map(_sound_reason, alive.reasons)) if alive else (),
        benched=benched,
        cpus=hello.cpus if hello else None,
        memory_bytes=hello.memory_bytes if hello else None,
        caps=hello.caps if hello else Caps(),
        sensor=_sound_sensor(hello.sensor) if hello and hello.sensor else None,
        workloads=_sound_workloads(hello.workloads) if hello else {},
        energy=energy(Bill.sum(bill for _, bill in bills)),
        energy_today=energy(Bill.sum(today)),
        budget_left_j=left_j,
        in_use=tuple(map(_sound_in_use, hello.in_use)) if hello else (),
    )


def energy(bill: Bill) -> Energy:
    """A bill's joules as they are shown."""
    methods = tuple(sorted(bill.methods))
    return Energy(attributed_j=bill.energy_j, complete=bill.complete, methods=methods)


def _sound_reason(reason: Reason) -> Reason:
    return Reason(condition=sound_words(reason.condition), detail=sound_words(reason.detail))


def _sound_sensor(sensor: Sensor) -> Sensor:
    return msgspec.structs.replace(
        sensor, name=sound_words(sensor.name), detail=sound_words(sensor.detail), sensor_host=""
    )


def _sound_in_use(used: InUse) -> InUse:
    """With names that a terminal can show; they are ours, unless the device is not honest."""
    model = used.model
    named = {name: sound_words(getattr(model, name)) for name in ("workload", "job", "group")}
    tasks = tuple(map(sound_words, model.tasks))
    return msgspec.structs.replace(used, model=msgspec.structs.replace(model, **named, tasks=tasks))


def _sound_workloads(offers: Iterable[Offer]) -> dict[str, tuple[str, ...]]:
    return {sound_words(offer.workload): tuple(map(sound_words, offer.tasks)) for offer in offers}


def _work(progress: Progress | None, going: Collection[Tally]) -> Work | None:
    """What the device told of, if somebody still waits for it."""
    if progress is None:
        return None
    key = progress.key
    tally = next((tally for tally in going if tally.job.spec.name == key.job), None)
    if tally is None or not any(rounds.expected(run, key) for run in tally.job.runs):
        return None
    return Work(
        job=key.job,
        group=key.group,
        round=key.round,
        phase=sound_words(progress.phase),
        step=progress.step,
        steps=progress.steps,
        energy_j=progress.energy_j,
    )


def _asked(going: Collection[Tally]) -> dict[str, Work]:
    """Of each device that is waited for, the earliest round that does."""
    collecting = [
        (run, tally.job.spec.name) for tally in going for run in tally.job.runs if run.phase == "collecting"
    ]
    found: dict[str, Work] = {}
    for run, job in sorted(collecting, key=lambda of: of[0].round):
        work = Work(job=job, group=run.group, round=run.round, phase="asked")
        for device in run.missing:
            found.setdefault(device, work)
    return found


def _state(known: Known, work: Work | None) -> DeviceState:
    if known.hello is None and known.alive is None:
        return "unseen"
    if known.alive is not None and not known.alive.online:
        return "away"
    if work and work.phase != "asked":
        return "working"
    if known.alive is not None and known.alive.reasons:
        return "declining"
    if work:
        return "asked"
    return "idle" if known.alive else "unknown"


def activity(work: Work) -> str:
    """What a device does for an assignment, in a word; the phases of a training alternate batch by batch."""
    return {"asked": "asked", "evaluate": "evaluating"}.get(work.phase, "training")


def why(device: DeviceStatus | None, job: Job, run: Run | None) -> str:
    """Why a device has not answered yet, in words."""
    if device is None or device.state in {"unseen", "unknown", "away"}:
        return {"unseen": "never seen", "away": "away"}.get(device.state if device else "unseen", "asked")
    if device.reasons:
        return "may not train now: " + "; ".join(
            f"{each.condition}: {each.detail}" for each in device.reasons
        )
    bench = next((b for b in device.benched if run and (b.job, b.group) == (job.spec.name, run.group)), None)
    if bench:
        return f"asked again later: {bench.reason}"
    work = device.work
    if work is None or work.phase == "asked":
        return "asked"
    elsewhere = run is None or (work.job, work.group) != (job.spec.name, run.group)
    return f"at {work.group}" if elsewhere else activity(work)


def _benched(name: str, tally: Tally) -> Iterable[Bench]:
    for run in tally.job.runs:
        troubled = [(t.not_before_s, t.reason) for t in run.trouble if t.device == name]
        benched = [(record.benched_until_s, record.why) for record in run.records if record.device == name]
        until_s, reason = max((*troubled, *benched), default=(0.0, ""))
        if until_s > tally.time_s:
            yield Bench(job=tally.job.spec.name, group=run.group, until_s=until_s, reason=reason)


def _left_today_j(tally: Tally, name: str, midnight_wall_s: float) -> Iterable[float]:
    """What a limit per device and day of this job leaves, if it has one."""
    limit_j = tally.job.spec.budget.device_energy_j_per_day
    if limit_j is not None:
        bills = tally.by_device.get(name, ())
        yield limit_j - sum(bill.energy_j or 0.0 for wall_s, bill in bills if wall_s >= midnight_wall_s)
