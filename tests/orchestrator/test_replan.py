"""What becomes of groups that fit no device: divided as little as need be, moved, and never for ever."""

from __future__ import annotations

from itertools import chain

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator import replan, rounds
from mas_edge.orchestrator.job import Initialised, Job, Judged
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.replan import Unfit, divided
from mas_edge.orchestrator.rounds import Ask, Carve, Carved, GaveUp, Heard, Merge, Merged, Select, Selected
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire.messages import AffinitySums, BlobRef, Shortage, TaskBytes, Training, Update

TASKS = ("a", "b", "c", "d")
ENCODER = 100


def unfit(allowed, device="d1", peak=None, **needs) -> Unfit:
    decoders = tuple(TaskBytes(task=task, bytes=size) for task, size in needs.items())
    short = Shortage(
        micro_batch=1,
        needed_bytes=ENCODER + sum(needs.values()),
        allowed_bytes=allowed,
        encoder_bytes=ENCODER,
        decoders=decoders,
        peak_bytes=peak,
    )
    return Unfit(device=device, shortage=short, detail=f"allowed {allowed}")


# --- which parts ---------------------------------------------------------------------------------


def test_the_coarsest_partition_that_fits_is_the_most_even_one():
    assert divided(TASKS, [unfit(125, a=10, b=10, c=10, d=10)]) == (("a", "b"), ("c", "d"))
    assert divided(TASKS, [unfit(130, a=30, b=10, c=10, d=10)]) == (("a",), ("b", "c", "d"))
    assert divided(TASKS, [unfit(110, a=10, b=10, c=10, d=10)]) == (("a",), ("b",), ("c",), ("d",))


def test_a_part_has_to_fit_one_device_not_all():
    both = [unfit(109, "d1", a=10, b=10, c=10), unfit(120, "d2", a=10, b=10, c=10)]
    assert len(divided(TASKS[:3], both)) == 2


def test_a_worker_that_was_killed_says_more_than_what_was_allowed():
    assert len(divided(TASKS, [unfit(200, peak=125, a=10, b=10, c=10, d=10)])) == 2


def test_where_a_task_fits_nowhere_by_the_numbers_each_is_tried_alone():
    assert divided(TASKS, [unfit(109, a=10, b=1, c=1, d=1)]) == (("a",), ("b",), ("c",), ("d",))
    assert divided(("a",), [unfit(1, a=10)]) == ()


def test_without_numbers_the_group_is_halved():
    unknown = Unfit(device="d1", shortage=Shortage(micro_batch=8))
    assert divided(TASKS, [unknown]) == (("a", "b"), ("c", "d"))


NEEDS = st.fixed_dictionaries({task: st.integers(1, 50) for task in TASKS})


@given(NEEDS, st.integers(100, 300), st.integers(100, 300))
def test_parts_hold_every_task_once_fit_and_are_as_few_as_can_be(needs, one, other):
    devices = [unfit(one, "d1", **needs), unfit(other, "d2", **needs)]
    room = max(one, other) - ENCODER
    parts = divided(TASKS, devices)
    if max(needs.values()) > room:
        assert parts == tuple((task,) for task in TASKS)
        return
    assert sorted(chain(*parts)) == sorted(TASKS)
    assert all(sum(needs[task] for task in part) <= room for part in parts)
    assert len(parts) >= 2
    coarser = sum(needs.values()) / room
    assert len(parts) >= coarser
    if len(parts) > 2:  # no pair of parts would have fitted together, or other parts would be fewer
        assert not any(sum(needs[t] for t in (*p, *q)) <= room for p in parts for q in parts if p is not q)


# --- the life of a job in a world with too little memory -----------------------------------------


def ref(name: str) -> BlobRef:
    return BlobRef(digest=name, size_bytes=1, chunk_bytes=1)


def spec(policy="mas", **changes) -> JobSpec:
    training = Training(workload="w", network="n", rounds=3, epochs=1, batch=8, lr=0.1, seed=1)
    base = JobSpec(
        name="j",
        tasks=TASKS,
        training=training,
        policy=policy,
        devices=("d1", "d2"),
        merge_rounds=2 if policy in {"mas", "fixed"} else 0,
        partition=(("a", "b"), ("c", "d")) if policy == "fixed" else (),
    )
    return msgspec.structs.replace(base, **changes)


def sums(tasks) -> AffinitySums:
    n = len(tasks) ** 2
    return AffinitySums(
        tasks=tasks, batches=(2,) * n, w=(20.0,) * n, ww=(200.0,) * n, wz=(1.0,) * n, wzz=(1.0,) * n
    )


class World:
    """Devices with so much room beside the encoder, and tasks that need so much of it."""

    def __init__(self, rooms, needs, *, numbers=True, kept=None):
        self.rooms, self.needs, self.numbers = rooms, needs, numbers
        self.kept = kept or {}  # device -> round from which it has no room at all
        self.settled = set()
        self.said = []

    def answer(self, action, job=None):  # noqa: PLR0911 - one answer to each kind of action
        match action:
            case jobs.Plan():
                return planned(situation(job, self.said))
            case jobs.Init():
                return Initialised(weights=ref("init"), fingerprint="f", parameters={})
            case Select(group=group, round=number, call=call):
                return Selected(
                    group=group, round=number, call=call, devices=("d1", "d2"), wanted=2, needed=1
                )
            case Carve(group=group):
                return Carved(group=group, weights=ref(f"carved {group}"))
            case Merge(group=group, round=number):
                return Merged(group=group, round=number, weights=ref(f"{group} {number}"))
            case jobs.Judge(group=group):
                return Judged(group=group, scores=())
            case Ask():
                return self._trained(action)

    def _trained(self, ask):
        assert ask.key not in self.settled, "a device hears nothing that has the key of a stored answer"
        self.settled.add(ask.key)
        device, need = ask.key.device, sum(self.needs[task] for task in ask.tasks)
        room = 0 if ask.key.round >= self.kept.get(device, 99) else self.rooms[device]
        if need > room:
            known = unfit(ENCODER + room, device, **{task: self.needs[task] for task in ask.tasks})
            short = known.shortage if self.numbers else Shortage(micro_batch=8)
            refusal = GaveUp(key=ask.key, reason="memory", detail=known.detail, shortage=short)
            self.said.append((0.0, refusal))
            return refusal
        return Heard(
            update=Update(
                key=ask.key,
                weights=ref(f"{ask.key}") if ask.train else None,
                examples=1,
                affinity=sums(ask.tasks) if ask.measure else None,
            )
        )


def play(job, world, choose=lambda owed: owed[0]):
    """The job at its end, and how many events that took."""
    for number in range(2000):
        if job.over:
            return job, number
        job, _ = jobs.step(job, world.answer(choose(jobs.owes(job, 0.0)), job), 0.0)
    pytest.fail(f"it goes on for ever: {job}")


def trained(job):
    return sorted(task for run in job.runs for task in run.tasks)


def test_a_device_without_room_leaves_the_group_and_the_others_go_on():
    job, _ = play(Job(spec=spec("all-in-one")), World({"d1": 10, "d2": 100}, dict.fromkeys(TASKS, 10)))
    assert job.phase == "done"
    (run,) = job.runs
    assert run.devices == ("d2",)
    (note,) = job.replans
    assert "d1 cannot train a+b+c+d from round 1 on (allowed 110): it goes on without, on d2" in note


def test_merged_training_that_fits_nowhere_begins_split_and_affinity_is_unknown():
    job, _ = play(Job(spec=spec("mas")), World({"d1": 20, "d2": 20}, dict.fromkeys(TASKS, 10)))
    assert job.phase == "done"
    assert job.decision.groups == (("a", "b"), ("c", "d"))
    assert job.decision.score is None
    assert job.measured == ()
    assert [run.devices for run in job.runs] == [("d1", "d2")] * 2
    assert "a+b+c+d fits no device: it goes on as a+b | c+d" in job.decision.why
    assert "affinity is not measured" in job.decision.why
    assert job.replans[-1] == job.decision.why


def test_a_group_that_no_longer_fits_goes_on_in_parts_from_the_weights_that_it_has():
    world = World({"d1": 40, "d2": 40}, dict.fromkeys(TASKS, 10))
    job = Job(spec=spec("all-in-one"))
    while not any(run.round == 1 for run in job.runs):
        job, _ = jobs.step(job, world.answer(jobs.owes(job, 0.0)[0], job), 0.0)
    world.rooms = {"d1": 25, "d2": 5}
    job, _ = play(job, world)
    assert job.phase == "done"
    assert [run.group for run in job.runs] == ["a+b", "c+d"]
    assert {run.source for run in job.runs} == {ref("a+b+c+d 0")}
    assert {run.devices for run in job.runs} == {("d1",)}


def test_a_given_partition_comes_early_where_merged_training_fits_nowhere():
    job, _ = play(Job(spec=spec("fixed")), World({"d1": 20, "d2": 20}, dict.fromkeys(TASKS, 10)))
    assert job.phase == "done"
    assert job.decision.groups == (("a", "b"), ("c", "d"))


def test_a_given_partition_into_one_group_that_fits_nowhere_is_divided_too():
    asked = spec("fixed", partition=(TASKS,))
    job, _ = play(Job(spec=asked), World({"d1": 20, "d2": 20}, dict.fromkeys(TASKS, 10)))
    assert job.phase == "done"
    assert [run.group for run in job.runs] == ["a+b", "c+d"]


def test_a_task_that_fits_nowhere_fails_the_job_with_the_numbers():
    job, _ = play(Job(spec=spec("mas")), World({"d1": 20, "d2": 20}, {"a": 30, "b": 1, "c": 1, "d": 1}))
    assert job.phase == "failed"
    assert "a alone fits no device (d1: allowed 120; d2: allowed 120)" in job.reason
    assert "raise the memory limit" in job.reason


def test_a_trained_group_whose_last_weights_no_device_can_evaluate_is_done_without():
    world = World({"d1": 99, "d2": 99}, dict.fromkeys(TASKS, 10), kept={"d1": 3, "d2": 3})
    job, _ = play(Job(spec=spec("all-in-one")), world)
    assert job.phase == "done"
    assert job.runs[0].weights == ref("a+b+c+d 2")


@given(
    st.sampled_from(["mas", "fixed", "all-in-one", "one-by-one"]),
    st.fixed_dictionaries({"d1": st.integers(0, 60), "d2": st.integers(0, 60)}),
    st.fixed_dictionaries({task: st.integers(0, 30) for task in TASKS}),
    st.booleans(),
    st.dictionaries(st.sampled_from(["d1", "d2"]), st.integers(0, 3)),
    st.randoms(use_true_random=False),
)
def test_every_job_ends_with_all_its_tasks_or_with_a_reason(policy, rooms, needs, numbers, kept, rng):
    world = World(rooms, needs, numbers=numbers, kept=kept)
    job, events = play(Job(spec=spec(policy)), world, rng.choice)
    assert events < 150
    if job.phase == "done":
        assert trained(job) == sorted(TASKS)
        assert all(run.phase == "finished" for run in job.runs)
    else:
        assert "alone fits no device" in job.reason
    room = max(rooms.values())
    if not kept and numbers:
        assert (job.phase == "done") == (max(needs.values()) <= room)


@given(st.integers(0, 60), st.booleans())
def test_a_replay_divides_in_the_same_way(cut, numbers):
    world = World({"d1": 10, "d2": 25}, dict.fromkeys(TASKS, 10), numbers=numbers)
    job, events = Job(spec=spec()), []
    while not job.over:
        events.append(world.answer(jobs.owes(job, 0.0)[0], job))
        job, _ = jobs.step(job, events[-1], 0.0)
    world.settled.clear()
    world.said = [(0.0, event) for event in events[:cut] if isinstance(event, GaveUp)]
    assert play(jobs.replay(spec(), ((0.0, e) for e in events[:cut])), world)[0] == job


def test_a_refusal_that_comes_twice_counts_once():
    made = World({}, {}).answer(jobs.Init(tasks=TASKS))
    begun = planned(situation(jobs.replay(spec("all-in-one"), [(0.0, made)])))
    run = jobs.replay(spec("all-in-one"), [(0.0, made), (0.0, begun)]).runs[0]
    run = rounds.step(run, World({}, {}).answer(rounds.owes(run, 0.0)[0]), 0.0)
    ask = rounds.owes(run, 0.0)[0]
    refusal = World({"d1": 0}, dict.fromkeys(TASKS, 1)).answer(ask)
    once = rounds.step(run, refusal, 0.0)
    assert once.devices == ("d2",)
    assert rounds.step(once, refusal, 0.0) == once


def test_words_name_who_and_what():
    words = replan.moved("a+b", 0, unfit(9, a=1), ())
    assert words == "d1 cannot train a+b from round 1 on (allowed 9): it has no device left"
