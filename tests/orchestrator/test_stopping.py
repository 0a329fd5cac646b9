"""Tasks that leave a job, jobs that stop and go on, and groups whose tasks are good enough before the end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_job import TASKS, answer, ref, spec, sums

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator import stopping
from mas_edge.orchestrator.job import Abandoned, Job, Resumed, Stopped
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.rounds import Ask, Carve, GaveUp, Heard, Merge, Selected
from mas_edge.orchestrator.spec import Launched
from mas_edge.orchestrator.stopping import curtailed, remaining
from mas_edge.wire.messages import Score

POLICIES = {
    "mas": {},
    "fixed": {"partition": (("a",), ("b", "c"))},
    "all-in-one": {},
    "one-by-one": {},
}
ROUNDS = 3


def job_spec(policy="mas", *, reproducible=False, **changes):
    made = spec(policy, **{**POLICIES[policy], **changes})
    training = msgspec.structs.replace(made.training, reproducible=reproducible)
    return msgspec.structs.replace(made, training=training)


class World:
    """Plays a job, and knows which decoders every weights hold; refuses what a device could not do."""

    def __init__(self, asked, loss=1.0) -> None:
        self.job, self.events, self.loss = Job(spec=asked), [], loss
        self.holds = {"init": set(asked.tasks)}

    def step(self, choose=lambda actions: actions[0]) -> None:
        action = choose(jobs.owes(self.job, 0.0))
        self.happened(planned(situation(self.job)) if isinstance(action, jobs.Plan) else self.answer(action))

    def answer(self, action):
        event = answer(action)
        match action:
            case Carve(tasks=tasks, source=source):
                assert set(tasks) <= self.holds[source.digest]
                self.holds[event.weights.digest] = set(tasks)
            case Merge(group=group, base=base):
                assert self.holds[base.digest] == set(group.split("+"))
                self.holds[event.weights.digest] = set(group.split("+"))
            case Ask(tasks=tasks, weights=weights):
                assert self.holds[weights.digest] == set(tasks)
                scores = [Score(task=t, count=2.0, loss_sum=2 * self.loss) for t in tasks if action.evaluate]
                measured = sums(tasks) if action.measure else None
                update = msgspec.structs.replace(event.update, scores=tuple(scores), affinity=measured)
                event = Heard(update=update)
        return event

    def happened(self, event) -> None:
        self.job, _ = jobs.step(self.job, event, 0.0)
        self.events.append(event)
        assert len(self.events) < 600

    def play(self, choose=lambda actions: actions[0]) -> Job:
        while not self.job.over:
            self.step(choose)
        return self.job

    def until(self, reached) -> None:
        while not reached(self.job):
            self.step()

    @property
    def keys(self):
        return [event.update.key for event in self.events if isinstance(event, Heard)]

    def rounds_of(self, task):
        return sorted({key.round for key in self.keys if task in key.group.split("+")})


moments = st.integers(0, 60)
some_tasks = st.sets(st.sampled_from(TASKS), min_size=1, max_size=2).map(lambda tasks: tuple(sorted(tasks)))
policies = st.sampled_from(sorted(POLICIES))


@given(policies, some_tasks, moments, st.booleans(), st.randoms(use_true_random=False))
def test_stopping_some_tasks_at_any_moment_leaves_the_others_every_round(policy, tasks, moment, whole, rng):
    asked = job_spec(policy, reproducible=whole, unseen=("9",))
    world = World(asked)
    for _ in range(moment):
        if not world.job.over:
            world.step(rng.choice)
    over = world.job.over
    world.happened(Stopped(tasks=tasks))
    job = world.play(rng.choice)
    assert job.phase == "done"
    for task in set(TASKS) - set(tasks):
        assert world.rounds_of(task) == [*range(ROUNDS + 1)]
        assert sum(task in run.tasks for run in job.runs) == 1
    if not over:
        assert set(job.stopped) == set(tasks)
    assert len(set(world.keys)) == len(world.keys)
    assert jobs.replay(asked, ((0.0, event) for event in world.events)) == job


@given(policies, moments, st.booleans(), st.randoms(use_true_random=False))
def test_a_job_that_is_stopped_at_any_moment_owes_nothing_and_goes_on_where_it_was(
    policy, moment, whole, rng
):
    asked = job_spec(policy, reproducible=whole)
    world = World(asked)
    for _ in range(moment):
        if not world.job.over:
            world.step(rng.choice)
    before = world.job
    world.happened(Stopped())
    if not before.over:
        assert (world.job.phase, jobs.owes(world.job, 0.0)) == ("stopped", ())
        assert jobs.referenced(world.job) == jobs.referenced(before)
        assert jobs.step(world.job, Stopped(), 0.0)[0] == world.job
    world.happened(Resumed())
    assert world.job.phase == before.phase
    assert world.play(rng.choice).phase == "done"
    assert all(world.rounds_of(task) == [*range(ROUNDS + 1)] for task in TASKS)
    assert len(set(world.keys)) == len(world.keys)


def test_what_a_device_had_finished_when_the_job_was_stopped_counts_after_it_goes_on():
    world = World(job_spec("all-in-one"))
    world.until(lambda job: job.runs and job.runs[0].phase == "collecting")
    ask = next(each for each in jobs.owes(world.job, 0.0) if isinstance(each, Ask))
    world.happened(Stopped())
    world.happened(world.answer(ask))
    assert [each.device for each in world.job.runs[0].heard] == [ask.key.device]
    assert jobs.owes(world.job, 0.0) == ()
    world.happened(Resumed())
    asked = {each.key.device for each in jobs.owes(world.job, 0.0) if isinstance(each, Ask)}
    assert ask.key.device not in asked


def test_a_device_is_asked_under_a_new_attempt_after_its_job_was_stopped():
    world = World(job_spec("all-in-one", reproducible=True))
    world.until(lambda job: job.runs and job.runs[0].phase == "collecting")
    before = {each.key for each in jobs.owes(world.job, 0.0)}
    world.happened(Stopped())
    world.happened(Resumed())
    after = {each.key for each in jobs.owes(world.job, 0.0)}
    assert {key.device for key in before} == {key.device for key in after}
    assert not before & after


def test_a_task_leaves_its_group_at_the_next_boundary_and_not_in_the_middle_of_a_round():
    world = World(job_spec("all-in-one", reproducible=True))
    world.until(lambda job: job.runs and job.runs[0].heard)
    world.happened(Stopped(tasks=("b",)))
    assert [run.group for run in world.job.runs] == ["a+b+c"]
    world.until(lambda job: job.runs[0].round == 1)
    (run,) = world.job.runs
    assert (run.group, run.phase, run.source) == ("a+c", "starting", ref("a+b+c 0"))


def test_a_group_of_one_task_ends_at_once_with_the_weights_that_it_has():
    world = World(job_spec("one-by-one", unseen=("9",)))
    world.until(lambda job: any(run.group == "b" and run.round == 1 for run in job.runs))
    world.happened(Stopped(tasks=("b",)))
    run = next(run for run in world.job.runs if run.group == "b")
    assert (run.phase, run.weights, run.reason) == ("finished", ref("b 0"), "stopped")
    job = world.play()
    assert set(job.judged) == {"a", "c"}
    assert "b 0" in jobs.referenced(job)


def test_a_stopped_task_has_no_say_in_the_split():
    world = World(job_spec("mas", groups=3))
    world.until(lambda job: job.measured)
    world.happened(Stopped(tasks=("c",)))
    job = world.play()
    assert job.decision.groups == (("a",), ("b",))
    assert {each.sums.tasks for each in job.measured} == {("a", "b")}


def test_what_was_measured_before_the_split_stays_beside_it_when_a_task_is_stopped_later():
    world = World(job_spec("mas", groups=1))
    world.until(lambda job: job.decision is not None)
    world.happened(Stopped(tasks=("c",)))
    job = world.play()
    assert {each.sums.tasks for each in job.measured} == {TASKS}
    assert {task for group in job.decision.groups for task in group} == set(TASKS)
    assert [run.tasks for run in job.runs] == [("a", "b")]


def test_when_the_last_task_is_stopped_so_is_the_job_and_it_can_go_on_with_that_one():
    world = World(job_spec("all-in-one"))
    for task in ("a", "b", "c"):
        world.happened(Stopped(tasks=(task,)))
    assert (world.job.phase, world.job.stopped) == ("stopped", ("a", "b"))
    world.happened(Resumed())
    assert world.play().phase == "done"
    assert world.rounds_of("c") == [*range(ROUNDS + 1)]
    assert world.rounds_of("a") == []


def test_a_job_without_some_of_its_tasks_is_asked_for_the_rest():
    rest = remaining(job_spec("fixed", groups=3), ("a",))
    assert (rest.tasks, rest.partition, rest.groups) == (("b", "c"), (("b", "c"),), 2)


def fail(world: World) -> None:
    while not world.job.over:
        ask = next(each for each in jobs.owes(world.job, 1e6) if isinstance(each, Ask))
        world.happened(GaveUp(key=ask.key, reason="no-disk"))


def test_a_failed_job_goes_on_with_its_troubles_forgotten_and_under_new_attempts():
    world = World(job_spec("all-in-one", reproducible=True))
    world.until(lambda job: job.runs and job.runs[0].phase == "collecting")
    fail(world)
    assert world.job.phase == "failed"
    given_up = {event.key for event in world.events if isinstance(event, GaveUp)}
    world.happened(Resumed())
    assert (world.job.phase, world.job.reason) == ("first", "")
    job = world.play()
    assert job.phase == "done"
    assert not given_up & set(world.keys)


def test_a_job_that_the_orchestrator_abandoned_begins_its_chore_anew():
    world = World(job_spec("all-in-one"))
    world.happened(Abandoned(reason="the torch child was killed"))
    world.happened(Resumed())
    assert world.job.phase == "initialising"
    assert world.play().phase == "done"


@pytest.mark.parametrize("phase", ["first", "done"])
def test_a_job_that_runs_or_is_done_cannot_be_resumed(phase):
    world = World(job_spec("all-in-one"))
    world.until(lambda job: job.phase == phase)
    assert jobs.step(world.job, Resumed(), 0.0)[0] == world.job


# --- good enough ------------------------------------------------------------------------------------


def targets(*losses):
    return tuple(
        Launched(task=task, name=task, target_loss=loss) for task, loss in zip(TASKS, losses, strict=True)
    )


@pytest.mark.parametrize(
    ("losses", "rounds"),
    [
        ((2.0, 2.0, 2.0), [0, 1, 2]),  # what round 1 received was good enough: it is the last that trains
        ((2.0, 2.0, None), [0, 1, 2, 3]),
        ((2.0, 2.0, 0.5), [0, 1, 2, 3]),
        ((1.0, 1.0, 1.0), [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("reproducible", [False, True])
def test_a_group_ends_early_when_every_task_has_reached_its_target(losses, rounds, reproducible):
    asked = job_spec("all-in-one", reproducible=reproducible, launched=targets(*losses))
    world = World(asked, loss=1.0)
    assert world.play().phase == "done"
    assert world.rounds_of("a") == rounds
    assert [key.round for key in world.keys][-1] == rounds[-1]
    (run,) = world.job.runs
    assert run.weights == ref(f"a+b+c {rounds[-1] - 1}")


def test_merged_tasks_that_are_all_good_enough_are_not_split():
    world = World(job_spec("mas", launched=targets(2.0, 2.0, 2.0)))
    job = world.play()
    assert (job.phase, [run.group for run in job.runs]) == ("done", ["a+b+c"])


def test_a_stopped_task_needs_no_target_for_the_others_to_be_good_enough():
    world = World(job_spec("all-in-one", launched=targets(2.0, 2.0, None)))
    world.until(lambda job: job.runs and job.runs[0].phase == "collecting")
    world.happened(Stopped(tasks=("c",)))
    world.play()
    assert world.rounds_of("a") == [0, 1, 2]


def test_where_half_of_the_devices_answer_two_rounds_in_a_row_have_to_be_good_enough():
    good, bad = (job_spec("all-in-one", launched=targets(loss, loss, loss)) for loss in (2.0, 0.5))
    world = World(good)
    world.until(lambda job: job.runs and (job.runs[0].round, job.runs[0].phase) == (1, "merging"))
    (run,) = world.job.runs
    half = msgspec.structs.replace(run, past=9, met=0, devices=(*run.devices, *"xy"[: len(run.heard)]))
    once = stopping.ended_if_enough(half, good, ())
    assert (once.past, once.met) == (9, 1)
    assert stopping.ended_if_enough(once, bad, ()).met == 0
    assert stopping.ended_if_enough(once, good, ()).past == run.round + 1


def test_a_round_that_was_stopped_and_then_ended_by_the_budget_asks_under_keys_that_nobody_has_answered():
    world = World(job_spec("all-in-one"))
    world.until(lambda job: job.runs and job.runs[0].phase == "selecting")
    devices = world.job.spec.devices
    asked = Selected(group="a+b+c", round=0, devices=devices, wanted=len(devices), needed=1)
    world.happened(asked)
    before = {each.key for each in jobs.owes(world.job, 0.0)}
    for again in (Stopped(), Resumed(), asked):
        world.happened(again)
    before |= {each.key for each in jobs.owes(world.job, 0.0)}
    world.step()  # the first device answers, under its second key
    for event in (Stopped(), Resumed(), jobs.Exhausted(reason="no joules are left"), asked):
        world.happened(event)
    after = {each.key for each in jobs.owes(world.job, 0.0)}
    assert {key.device for key in after} == set(devices)
    assert not before & after


def test_a_round_for_which_nobody_was_asked_yet_is_trained_no_more_when_the_budget_is_used_up():
    world = World(job_spec("all-in-one"))
    world.until(lambda job: job.runs and job.runs[0].phase == "selecting")
    (run,) = world.job.runs
    assert curtailed(run).past == run.round
    assert curtailed(msgspec.structs.replace(run, phase="collecting")).past == run.round + 1
