"""The life of a job under each policy, played through without a bus, a clock or a disk."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator import spec as specs
from mas_edge.orchestrator.job import Abandoned, Initialised, Job, Judge, Judged
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.rounds import Ask, Carve, Carved, GaveUp, Heard, Merge, Merged, Select, Selected
from mas_edge.orchestrator.spec import JobSpec, SpecRefused
from mas_edge.wire.messages import AffinitySums, BlobRef, Training, Update

TASKS = ("a", "b", "c")
HELPS = {("a", "b"), ("b", "a")}


def ref(name: str) -> BlobRef:
    return BlobRef(digest=name, size_bytes=1, chunk_bytes=1)


def spec(policy="mas", **changes) -> JobSpec:
    training = Training(workload="watch", network="micro", rounds=3, epochs=1, batch=8, lr=0.1, seed=1)
    base = JobSpec(
        name="j",
        tasks=TASKS,
        training=training,
        policy=policy,
        devices=("d1", "d2"),
        merge_rounds=2 if policy in {"mas", "fixed"} else 0,
    )
    return msgspec.structs.replace(base, **changes)


def sums(tasks=TASKS) -> AffinitySums:
    values = [1.0 if i == j else 0.5 if (i, j) in HELPS else -0.3 for i in tasks for j in tasks]
    n = len(values)
    return AffinitySums(
        tasks=tasks,
        batches=(2,) * n,
        w=(20.0,) * n,
        ww=(200.0,) * n,
        wz=tuple(20 * z for z in values),
        wzz=tuple(20 * z * z for z in values),
    )


def answer(action) -> jobs.Event:
    """What a sound world answers to an owed action."""
    match action:
        case jobs.Init():
            return Initialised(weights=ref("init"), fingerprint="f", parameters={})
        case Select(group=group, round=number, call=call):
            return Selected(group=group, round=number, call=call, devices=("d1", "d2"), wanted=2, needed=1)
        case Carve(group=group):
            return Carved(group=group, weights=ref(f"carved {group}"))
        case Merge(group=group, round=number):
            return Merged(group=group, round=number, weights=ref(f"{group} {number}"))
        case Judge(group=group):
            return Judged(group=group, scores=())
        case Ask(key=key):
            return Heard(
                update=Update(
                    key=key,
                    weights=ref(f"{key}") if action.train else None,
                    examples=10,
                    affinity=sums() if action.measure else None,
                )
            )


def play(job: Job, order=lambda actions: actions[0]) -> tuple[Job, list]:
    """Play to the end; the job and every event."""
    events = []
    while not job.over:
        owed = jobs.owes(job, 0.0)
        action = order(owed)
        event = planned(situation(job)) if isinstance(action, jobs.Plan) else answer(action)
        job, _ = jobs.step(job, event, 0.0)
        events.append(event)
        assert len(events) < 500
    return job, events


def trainings(events) -> list[tuple[str, int]]:
    return sorted({(e.update.key.group, e.update.key.round) for e in events if isinstance(e, Heard)})


def test_mas_merges_then_splits_by_affinity_and_goes_on_from_the_merged_weights():
    job, events = play(Job(spec=spec()))
    assert job.decision.groups == (("a", "b"), ("c",))
    assert ("a+b+c", 1) in trainings(events)
    assert [run.source for run in job.runs] == [ref("a+b+c 1")] * 2
    assert {("a+b", 2), ("a+b", 3), ("c", 2), ("c", 3)} <= set(trainings(events))


def test_only_the_merged_rounds_of_mas_measure_affinity():
    _, events = play(Job(spec=spec()))
    measured = {e.update.key.group for e in events if isinstance(e, Heard) and e.update.affinity}
    assert measured == {"a+b+c"}
    _, events = play(Job(spec=spec("all-in-one")))
    assert not any(e.update.affinity for e in events if isinstance(e, Heard))


@pytest.mark.parametrize(
    ("policy", "changes", "groups"),
    [
        ("all-in-one", {}, ["a+b+c"]),
        ("one-by-one", {}, ["a", "b", "c"]),
        ("fixed", {"partition": (("a",), ("b", "c"))}, ["a", "b+c"]),
        ("fixed", {"partition": (("a",), ("b", "c")), "merge_rounds": 0}, ["a", "b+c"]),
        ("mas", {"groups": 3}, ["a", "b", "c"]),
        ("mas", {"groups": 1}, ["a+b+c"]),
    ],
)
def test_each_policy_ends_with_its_groups_and_every_group_trains_every_round(policy, changes, groups):
    job, events = play(Job(spec=specs.check(spec(policy, **changes))))
    assert job.phase == "done"
    assert [run.group for run in job.runs] == groups
    for task in TASKS:
        rounds = [r for g, r in trainings(events) if task in g.split("+")]
        assert sorted(set(rounds)) == [0, 1, 2, 3]


def test_tasks_one_by_one_start_from_the_same_first_weights():
    _, events = play(Job(spec=spec("one-by-one")))
    assert [e.group for e in events if isinstance(e, Carved)] == ["a", "b", "c"]


def test_unseen_clients_are_judged_once_per_group_before_the_job_is_done():
    job, events = play(Job(spec=spec(unseen=("9",))))
    assert [e.group for e in events if isinstance(e, Judged)] == ["a+b", "c"]
    assert job.phase == "done"


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_devices_and_groups_answer_decides_nothing(rng):
    plain, _ = play(Job(spec=spec()))
    mixed, _ = play(Job(spec=spec()), rng.choice)
    assert [(r.group, r.weights) for r in mixed.runs] == [(r.group, r.weights) for r in plain.runs]
    assert mixed.decision == plain.decision


@given(st.integers(0, 60))
def test_a_replay_of_the_stored_events_gives_the_same_state(cut):
    _, events = play(Job(spec=spec()))
    job = Job(spec=spec())
    for event in events[:cut]:
        job, _ = jobs.step(job, event, 0.0)
    assert jobs.replay(spec(), ((0.0, e) for e in events[:cut])) == job
    assert play(job)[0] == play(Job(spec=spec()))[0]


@given(st.data())
def test_repeated_and_foreign_events_change_nothing(data):
    _, events = play(Job(spec=spec()))
    cut = data.draw(st.integers(1, len(events)))
    job = jobs.replay(spec(), ((0.0, e) for e in events[:cut]))
    again = data.draw(st.sampled_from(events[:cut]))
    assert jobs.step(job, again, 0.0)[0] == job


def test_a_group_that_fails_fails_the_job_with_its_reason():
    training = msgspec.structs.replace(spec().training, reproducible=True)
    job, _ = jobs.step(Job(spec=spec(training=training)), answer(jobs.Init(tasks=TASKS)), 0.0)
    job, _ = jobs.step(job, planned(situation(job)), 0.0)
    for time_s in (0.0, 100.0, 200.0):
        ask = next(a for a in jobs.owes(job, time_s) if a.key.device == "d1")
        job, _ = jobs.step(job, GaveUp(key=ask.key, reason="hung"), time_s)
    assert job.phase == "failed"
    assert "hung" in job.reason


def test_an_abandoned_job_is_over_and_stays_so():
    job, owed = jobs.step(Job(spec=spec()), Abandoned(reason="no room"), 0.0)
    assert (job.phase, job.reason, owed) == ("failed", "no room", ())
    assert jobs.step(job, answer(jobs.Init(tasks=TASKS)), 0.0)[0] == job


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"merge_rounds": 3}, "merge rounds must be 1 to 2"),
        ({"merge_rounds": 0}, "merge rounds must be 1 to 2"),
        ({"groups": 4}, "groups must be auto or 1 to 3"),
        ({"groups": 0}, "groups must be auto or 1 to 3"),
        ({"policy": "tag", "groups": 4}, "groups must be auto or 1 to 3"),
        ({"policy": "hoa", "groups": 0}, "groups must be auto or 1 to 3"),
        ({"policy": "mas-verified", "merge_rounds": 0}, "merge rounds must be 1 to 2"),
        ({"tasks": ()}, "needs tasks"),
        ({"tasks": ("a", "a")}, "each once"),
        ({"devices": ()}, "at least one device"),
        ({"policy": "fixed", "partition": (("a",), ("b",))}, "must name each of a, b, c once"),
        ({"name": "no/slash"}, "job name"),
    ],
)
def test_a_job_that_cannot_be_run_is_refused_with_what_to_change(changes, says):
    with pytest.raises(ValueError, match=says):
        specs.check(spec(**changes))
    assert issubclass(SpecRefused, ValueError)
