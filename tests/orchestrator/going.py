"""A job on its way, event by event, as its store would hold it: what is owed is answered, as a fleet would.

Losses fall with the rounds and joules are what ``finished.profile`` bills, so that every part of a status has
something to show. Nothing here draws by chance.
"""

from __future__ import annotations

import msgspec
from finished import RAPL, profile, ref

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.job import Initialised, Job, Judge, Judged
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.rounds import Ask, Carve, Carved, Heard, Merge, Merged
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire import messages as m

TASKS = ("gravity", "jerk", "rotation", "exercise")
DEVICES = ("edge-1", "edge-2", "edge-3")
HELPS = {frozenset(TASKS[:2]), frozenset(TASKS[2:])}


def spec(name="evening", **changes) -> JobSpec:
    training = m.Training(
        workload="watch", network="micro", rounds=6, epochs=1, batch=8, lr=0.1, seed=1, reproducible=True
    )
    base = JobSpec(
        name=name,
        tasks=TASKS,
        training=training,
        policy="mas",
        groups=2,
        devices=DEVICES,
        merge_rounds=2,
        unseen=("9",),
    )
    return msgspec.structs.replace(base, **changes)


def sums() -> m.AffinitySums:
    values = [1.0 if i == j else 0.42 if frozenset((i, j)) in HELPS else -0.18 for i in TASKS for j in TASKS]
    n = len(values)
    return m.AffinitySums(
        tasks=TASKS,
        batches=(4,) * n,
        w=(40.0,) * n,
        ww=(400.0,) * n,
        wz=tuple(40 * z for z in values),
        wzz=tuple(40 * (z * z + 0.01) for z in values),
    )


def score(task: str, round_: int, **more) -> m.Score:
    loss = 12.0 * 0.78**round_ + 1.5 * TASKS.index(task)
    return m.Score(task=task, count=10.0, loss_sum=loss, **more)


def update(ask: Ask) -> m.Update:
    key = ask.key
    start_s = 10.0 * key.round + int(key.device.removeprefix("edge-"))
    return m.Update(
        key=key,
        weights=ref("u") if ask.train else None,
        examples=40 if ask.train else 0,
        trained=tuple(score(task, key.round) for task in ask.tasks) if ask.train else (),
        scores=tuple(score(task, key.round, constant_loss_sum=15.0) for task in ask.tasks)
        if ask.evaluate
        else (),
        affinity=sums() if ask.measure else None,
        profile=profile(key.group, key.round, start_s, 3.0, RAPL, key.job),
    )


def answer(job: Job, action, stored=()) -> jobs.Event:
    """What a sound world answers to an owed action."""
    match action:
        case jobs.Init():
            return Initialised(weights=ref("i"), fingerprint="f", parameters={"encoder": 5000, "gravity": 70})
        case Carve(group=group):
            return Carved(group=group, weights=ref("c"))
        case Merge(group=group, round=round_):
            return Merged(group=group, round=round_, weights=ref("w"))
        case Judge(group=group, tasks=tasks):
            scores = tuple(score(task, 4, constant_loss_sum=15.0) for task in tasks)
            return Judged(group=group, scores=scores)
        case Ask():
            return Heard(update=update(action))
        case jobs.Plan():
            return planned(situation(job, stored))
    raise AssertionError(action)


def owed_first(job: Job, stored, time_s: float) -> jobs.Event:
    """What comes of that which the job owes first: groups keep step with each other."""
    owed = jobs.owes(job, time_s)
    return answer(job, min(owed, key=lambda a: a.key.round if isinstance(a, Ask) else -1), stored)


def events(of: JobSpec) -> list[tuple[float, jobs.Event]]:
    """All events of a job, from the first weights to the end."""
    job, happened = Job(spec=of), []
    while not job.over:
        time_s = 1.0 + 2.5 * len(happened)
        event = owed_first(job, happened, time_s)
        job, _ = jobs.step(job, event, time_s)
        happened.append((time_s, event))
        assert len(happened) < 500
    return happened


def until(of: JobSpec, groups: int) -> int:
    """After how many of its events the job has so many groups."""
    job = Job(spec=of)
    for n, (time_s, event) in enumerate(events(of), 1):
        job, _ = jobs.step(job, event, time_s)
        if len(job.runs) == groups:
            return n
    raise AssertionError(of)


def hello(device: str, **changes) -> m.Hello:
    base = m.Hello(
        device=device,
        boot_id="b",
        versions=m.Versions(mas_edge="0", python="3"),
        workloads=(m.Offer(workload="watch", tasks=TASKS),),
        cpus=4,
        memory_bytes=4_000_000_000,
        sensor=RAPL,
    )
    return msgspec.structs.replace(base, **changes)


def fill(store, of: JobSpec, past: int | None = None) -> None:
    """A store with this job, its devices, and its first events."""
    store.add_job(of.name, msgspec.json.encode(of))
    for device in of.devices:
        store.remember_device(hello(device))
        store.set_presence(device, m.Alive(online=True, boot_id="b"))
    for time_s, event in events(of)[:past]:
        store.append(of.name, time_s, event)
