"""Whole jobs under everything that can happen to them, by chance; and what must hold whatever does."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from played import TASKS, World

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.attendance import LONGEST_BENCH_S
from mas_edge.orchestrator.events import LeftOut, Merged
from mas_edge.orchestrator.spec import Budget, JobSpec, Participation
from mas_edge.wire.messages import Training

POLICIES = {
    "all-in-one": {},
    "one-by-one": {},
    "mas": {"merge_rounds": 2},
    "mas-verified": {"merge_rounds": 2},
    "tag": {"groups": 2},
    "hoa": {},
    "fixed": {"merge_rounds": 1, "partition": (("a", "b"), ("c",))},
}


def spec(name: str, rng: random.Random, devices: tuple[str, ...]) -> JobSpec:
    policy = rng.choice(tuple(POLICIES))
    reproducible = rng.random() < 0.15
    training = Training(
        workload="watch",
        network="micro",
        rounds=rng.randint(3, 5),
        epochs=1,
        batch=8,
        lr=0.1,
        seed=rng.randint(0, 9),
        reproducible=reproducible,
    )
    part = Participation(
        clients=rng.choice((None, rng.randint(1, len(devices)))),
        select=rng.choice(("random", "resourceful")),
        over_selection=rng.choice((0.0, 0.5, 2.0)),
        quorum=rng.choice((0.3, 0.5, 1.0)),
        deadline_s=rng.choice(("auto", 30.0, 120.0, None)),
    )
    budget = Budget(
        energy_j=rng.choice((None, None, 150.0)),
        time_s=rng.choice((None, None, 300.0)),
        device_energy_j_per_day=rng.choice((None, None, 400.0)),
    )
    return JobSpec(
        name=name,
        tasks=TASKS,
        training=training,
        policy=policy,
        devices=devices,
        priority=rng.choice((0, 0, 1)),
        participation=Participation() if reproducible else part,
        budget=Budget() if reproducible else budget,
        **POLICIES[policy],
    )


def holds_always(world: World) -> None:
    for job in world.server.jobs:
        lost = [digest for digest in jobs.referenced(job) if not world.blobs.has(digest)]
        assert not lost, f"{job.spec.name} has lost weights"
        time_s = world.server._docket.time_s(job.spec.name)
        for run in job.runs:
            assert len({c.device for c in run.heard}) == len(run.heard)
            assert all(each.benched_until_s <= time_s + LONGEST_BENCH_S for each in run.records)
    slots = {name: hello.slots for name, hello in world.server.hellos.items()}
    sent = Counter(key.device for key in world.server._dispatch._sent)
    coming = Counter(key.device for key in world.server._intake._awaited)
    assert all(sent[name] <= slots.get(name, 0) + coming[name] for name in sent), (sent, slots)


def holds_of_the_store(world: World) -> None:
    """What was stored is what stands, and every answer stands there once."""
    for job in world.server.jobs:
        stored = [(time_s, event) for _, time_s, event in world.store.events(job.spec.name)]
        assert jobs.replay(job.spec, stored) == job
        assert [time_s for time_s, _ in stored] == sorted(time_s for time_s, _ in stored)
    keys = [key for key, _ in world.answers()]
    assert len(keys) == len(set(keys)), "an answer was billed twice"


def holds_at_the_end(world: World) -> None:
    holds_of_the_store(world)
    kept = {digest for job in world.server.jobs for digest in jobs.referenced(job)}
    assert world.blobs.digests() == kept
    assert not world.blobs.unfinished()
    told_j = sum(r.wall_s for d in world.devices for a in d.told.values() for r in a.profile.rows)
    billed_j = sum(row.wall_s for _, profile in world.answers() for row in profile.rows)
    assert billed_j == pytest.approx(told_j), "joules are lost"
    for job in world.server.jobs:
        merged = [(event.group, event.round) for event in world.events(job.spec.name, Merged)]
        assert len(merged) == len(set(merged)), "a round was done twice"
        assert all(len(e.updates) for e in world.events(job.spec.name, LeftOut))


def play(root, seed: int, turns: int = 250) -> World:
    rng = random.Random(f"play {seed}")
    names = tuple(f"d{i}" for i in range(1, rng.randint(1, 5) + 1))
    labels = {name: TASKS if rng.random() < 0.7 or name == "d1" else ("a",) for name in names}
    world = World(root, seed, {name: (labels[name], rng.choice((1, 1, 2))) for name in names})
    waiting = [spec(f"j{i}", rng, names) for i in range(rng.randint(1, 3))]
    for turn in range(turns):
        if waiting and turn % 40 == 5:
            world.launch(waiting.pop())
        world.mischief()
        world.turn(rng.choice((0.2, 1.0, 5.0, 30.0)))
        holds_always(world)
    while waiting:
        world.launch(waiting.pop())
    world.clears()
    for _ in range(4000):
        world.turn(rng.choice((0.3, 2.0, 10.0, 300.0)))
        holds_always(world)
        if all(job.over for job in world.server.jobs) and not any(d.spool for d in world.devices):
            break
    return world


@pytest.mark.parametrize("seed", range(8))
def test_jobs_end_and_nothing_is_lost_whatever_happens(seed, tmp_path):
    world = play(tmp_path, seed)
    stand = [(job.spec.name, job.phase, job.reason) for job in world.server.jobs]
    assert all(phase in {"done", "failed"} for _, phase, _ in stand), stand
    assert not any(device.spool for device in world.devices)
    holds_at_the_end(world)
    world.close()
