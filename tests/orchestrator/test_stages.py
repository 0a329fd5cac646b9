"""Policies that train groups in order to choose among them: trials, comparisons, groups that overlap."""

from __future__ import annotations

import random
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_job import TASKS, ref
from test_stopping import ROUNDS, World, some_tasks

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.decision import Decision, Trial
from mas_edge.orchestrator.job import Exhausted, Planned, Resumed, Stopped
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.rounds import Ask, GaveUp, Heard, Merged
from mas_edge.orchestrator.spec import Budget, JobSpec, check
from mas_edge.orchestrator.views.outlook import share_done
from mas_edge.wire.messages import Score, Shortage, Training

ALL = TASKS
PAIRS = tuple(combinations(TASKS, 2))
TRIED = {ALL: 3, ("a", "b"): 2, ("c",): 2}
"""For how many rounds groups are tried."""
LONG = 8
"""Rounds of a job with a trial: one is merged, three are tried."""
SHORT = Shortage(micro_batch=1)


def asked(policy: str, *, reproducible=False, **changes) -> JobSpec:
    rounds = LONG if policy == "mas-verified" else ROUNDS
    training = Training(
        workload="watch",
        network="micro",
        rounds=rounds,
        epochs=1,
        batch=8,
        lr=0.1,
        seed=1,
        reproducible=reproducible,
    )
    made = JobSpec(name="j", tasks=TASKS, training=training, policy=policy, devices=("d1", "d2"))
    merged = 1 if policy == "mas-verified" else 0
    return check(msgspec.structs.replace(made, **{"merge_rounds": merged, **changes}))


def trial(*partitions, lengths) -> Planned:
    tried = Trial(partitions=((ALL,), *partitions), groups=tuple(lengths), rounds=tuple(lengths.values()))
    return Planned(stage="trial", decision=Decision(groups=tried.groups, trial=tried))


class Fleet(World):
    """Plays a job; ``losses`` by (group, task), else by chance; some groups may fit nowhere.

    ``tried`` takes the place of the first plan of a trial.
    """

    def __init__(self, spec, losses=None, fits=lambda _: True, tried: Planned | None = None) -> None:
        super().__init__(spec)
        self.losses, self.fits, self.tried = (
            losses or {},
            fits,
            tried or trial((("a", "b"), ("c",)), lengths=TRIED),
        )

    def step(self, choose=lambda actions: actions[0]) -> None:
        action = choose(jobs.owes(self.job, 0.0))
        if isinstance(action, jobs.Plan):
            known = self.job.stopped or self.job.stage != "trial"
            event = planned(situation(self.job, self.stored)) if known else self.tried
            self.happened(event)
        elif isinstance(action, Ask) and action.train and not self.fits(action.tasks):
            self.happened(GaveUp(key=action.key, reason="memory", shortage=SHORT))
        else:
            self.happened(self.answer(action))

    def answer(self, action):
        event = super().answer(action)
        if not isinstance(action, Ask) or not action.evaluate:
            return event
        scores = tuple(
            Score(task=task, count=2.0, loss_sum=2 * self.loss_of(action.key.group, task))
            for task in action.tasks
        )
        return Heard(update=msgspec.structs.replace(event.update, scores=scores))

    def loss_of(self, group: str, task: str) -> float:
        return self.losses.get((group, task)) or random.Random(f"{group} {task}").uniform(0.2, 1.0)

    @property
    def stored(self):
        return [(0.0, event) for event in self.events]

    def trained(self, group: str) -> list[int]:
        """The rounds that a group was trained in, each once or the job has done something twice."""
        return [event.round for event in self.events if isinstance(event, Merged) and event.group == group]

    def reach(self, phase: str) -> None:
        self.until(lambda job: job.phase == phase)


def test_hoa_trains_every_task_and_every_pair_from_the_first_weights_and_no_pair_again():
    harm = {(f"{i}+{j}", task): 0.9 for i, j in PAIRS for task in (i, j)}
    fleet = Fleet(
        asked("hoa"),
        {**harm, ("a+b", "a"): 0.1, ("a+b", "b"): 0.1} | dict.fromkeys(((t, t) for t in TASKS), 0.5),
    )
    job = fleet.play()
    for group in (*TASKS, *map("+".join, PAIRS)):
        assert fleet.trained(group) == [*range(ROUNDS)]
    assert [(run.group, run.results) for run in job.runs] == [("a+b", ("a", "b")), ("c", ("c",))]


def test_tag_trains_the_chosen_groups_from_the_first_weights_after_a_whole_run_of_all_tasks():
    fleet = Fleet(asked("tag", groups=2))
    fleet.reach("second")
    assert fleet.trained("a+b+c") == [*range(ROUNDS)]
    assert len(fleet.job.measured) == ROUNDS * 2, "affinity is measured throughout"
    assert {run.source for run in fleet.job.runs} == {ref("init")}
    fleet.play()
    assert all(fleet.trained(run.group) == [*range(ROUNDS)] for run in fleet.job.runs)


@pytest.mark.parametrize(
    ("policy", "merged", "measured"),
    [("mas", 7, [5, 6]), ("mas", 1, [0]), ("mas", 2, [1]), ("tag", 0, [*range(ROUNDS)])],
)
def test_affinity_is_measured_in_the_last_third_of_the_merged_rounds_and_by_tag_throughout(
    policy, merged, measured
):
    training = msgspec.structs.replace(asked("tag").training, rounds=max(ROUNDS, merged + 1))
    fleet = Fleet(asked(policy, training=training, merge_rounds=merged))
    found: set[int] = set()
    while not fleet.job.over and fleet.job.decision is None:
        actions = jobs.owes(fleet.job, 0.0)
        found |= {each.key.round for each in actions if isinstance(each, Ask) and each.measure}
        fleet.step()
    assert sorted(found) == measured


def test_if_all_tasks_in_one_group_is_the_choice_of_tag_that_run_only_has_to_be_evaluated():
    fleet = Fleet(asked("tag", groups=1))
    job = fleet.play()
    assert [run.group for run in job.runs] == ["a+b+c"]
    assert fleet.trained("a+b+c") == [*range(ROUNDS)]
    assert max(key.round for key in fleet.keys) == ROUNDS


@pytest.mark.parametrize(
    ("better", "groups", "began"), [("a+b+c", ["a+b+c"], [4]), ("split", ["a+b", "c"], [3, 3])]
)
def test_of_what_was_tried_the_better_goes_on_from_where_its_trial_ended(better, groups, began):
    losses = {(group, task): 0.5 for group in ("a+b", "c", "a+b+c") for task in TASKS}
    losses |= {("a+b+c", task): 0.2 if better == "a+b+c" else 0.9 for task in TASKS}
    fleet = Fleet(asked("mas-verified"), losses)
    fleet.reach("trial")
    assert [run.source for run in fleet.job.runs] == [ref("a+b+c 0")] * 3
    fleet.reach("second")
    assert [run.round for run in fleet.job.runs] == began
    job = fleet.play()
    assert [run.group for run in job.runs] == groups
    for group in groups:
        first = 0 if group == "a+b+c" else 1
        assert fleet.trained(group) == [*range(first, LONG)]
    for group, rounds in TRIED.items():
        if "+".join(group) not in groups:
            assert max(fleet.trained("+".join(group))) == rounds


@pytest.mark.parametrize("stuck", [("a", "b"), ALL])
def test_what_fits_nowhere_on_trial_is_not_chosen(stuck):
    better = {
        (group, task): 0.2 if group == "+".join(stuck) else 0.5
        for group in ("a+b", "c", "a+b+c")
        for task in TASKS
    }
    fleet = Fleet(asked("mas-verified"), better)
    fleet.reach("trial")
    fleet.fits = lambda tasks: tasks != stuck
    job = fleet.play()
    assert job.phase == "done"
    assert stuck not in {run.tasks for run in job.runs}
    assert sorted(task for run in job.runs for task in run.results) == list(TASKS)


def test_pairs_that_fit_nowhere_are_left_out_of_the_comparison():
    fleet = Fleet(asked("hoa"), fits=lambda tasks: len(tasks) == 1)
    job = fleet.play()
    assert (job.phase, [run.group for run in job.runs]) == ("done", list(TASKS))
    assert not fleet.trained("a+b")


def test_a_decision_against_a_trial_is_final():
    fleet = Fleet(asked("mas-verified"))
    fleet.until(lambda job: job.phase == "planning" and job.stage == "trial")
    fleet.happened(Planned(stage="trial", decision=Decision(groups=(ALL,))))
    assert (fleet.job.phase, [run.round for run in fleet.job.runs]) == ("second", [1])
    assert fleet.play().phase == "done"


def test_a_task_that_is_stopped_on_trial_stays_until_its_end_and_then_leaves():
    fleet = Fleet(
        asked("mas-verified"),
        {(g, t): 0.1 if g != "a+b+c" else 0.9 for g in ("a+b", "c", "a+b+c") for t in TASKS},
    )
    fleet.reach("trial")
    before = fleet.job.runs
    fleet.happened(Stopped(tasks=("b",)))
    assert fleet.job.runs == before
    job = fleet.play()
    assert [run.group for run in job.runs] == ["a", "c"]
    assert fleet.trained("a+b") == [1, 2]
    assert fleet.trained("a") == [*range(3, LONG)]


def test_what_a_stopped_task_leaves_of_a_group_goes_on_as_the_group_of_that_name_if_it_was_on_trial():
    pair, other, a, c = ("a", "b"), ("b", "c"), ("a",), ("c",)
    tried = trial((pair, c), (a, other), lengths={ALL: 4, pair: 2, c: 2, a: 3, other: 3})
    better = {(g, t): 0.1 for g in ("a+b", "c") for t in TASKS}
    fleet = Fleet(asked("mas-verified"), better, tried=tried)
    fleet.reach("trial")
    fleet.happened(Stopped(tasks=("b",)))
    job = fleet.play()
    assert [run.group for run in job.runs] == ["a", "c"]
    assert fleet.trained("a") == [*range(1, LONG)]


def test_parts_of_a_group_that_fits_nowhere_any_more_train_no_round_that_they_had_on_trial():
    pair, alone = ("a", "b"), (("a",), ("b",), ("c",))
    tried = trial((pair, ("c",)), alone, lengths={ALL: 4, pair: 2, **dict.fromkeys(alone, 3)})
    better = {(g, t): 0.1 for g in ("a+b", "c") for t in TASKS}
    fleet = Fleet(asked("mas-verified"), better, tried=tried)
    fleet.reach("second")
    fleet.fits = lambda tasks: len(tasks) == 1
    assert fleet.play().phase == "done"
    assert fleet.trained("a+b") == [1, 2]
    assert fleet.trained("a") == fleet.trained("b") == [*range(1, LONG)]


def test_a_task_that_another_one_leaves_alone_trains_no_round_that_it_had_alone_on_trial():
    pair, alone = ("b", "c"), (("a",), ("b",), ("c",))
    tried = trial(alone, (("a",), pair), lengths={ALL: 4, pair: 2, **dict.fromkeys(alone, 4)})
    better = {("b+c", task): 0.1 for task in TASKS}
    fleet = Fleet(asked("mas-verified"), better, tried=tried)
    fleet.reach("second")
    assert [(run.group, run.round) for run in fleet.job.runs] == [("a", 5), ("b+c", 3)]
    fleet.happened(Stopped(tasks=("b",)))
    assert fleet.play().phase == "done"
    assert fleet.trained("b+c") == [1, 2]
    assert fleet.trained("c") == [*range(1, LONG)]


def test_the_pairs_of_a_task_that_is_stopped_end_at_once():
    fleet = Fleet(asked("hoa"))
    fleet.reach("trial")
    fleet.happened(Stopped(tasks=("b",)))
    going = [run.group for run in fleet.job.runs if run.phase != "finished"]
    assert going == ["a", "c", "a+c"]
    job = fleet.play()
    assert job.phase == "done"
    assert sorted(task for run in job.runs for task in run.results) == ["a", "c"]


def overlapping(fleet: Fleet) -> None:
    """Until tag has decided on two groups that share a task."""
    fleet.until(lambda job: job.phase == "planning" and job.stage == "split")
    groups, serves = (("a", "b"), ("b", "c")), (("a", "b"), ("c",))
    fleet.happened(Planned(stage="split", decision=Decision(groups=groups, serves=serves)))


def test_a_stopped_task_stays_as_a_helper_and_a_group_that_serves_nobody_ends():
    fleet = Fleet(asked("tag"))
    overlapping(fleet)
    fleet.happened(Stopped(tasks=("b",)))
    assert [run.group for run in fleet.job.runs] == ["a+b", "b+c"]
    fleet.happened(Stopped(tasks=("c",)))
    assert [run.phase == "finished" for run in fleet.job.runs] == [False, True]
    assert fleet.play().phase == "done"


def test_a_group_that_fits_nowhere_goes_on_without_its_helpers():
    fleet = Fleet(asked("tag"))
    overlapping(fleet)
    fleet.fits = lambda tasks: len(tasks) == 1
    job = fleet.play()
    assert [(run.group, run.results) for run in job.runs] == [("a", ("a",)), ("b", ("b",)), ("c", ("c",))]
    paying = report(job.spec, fleet.stored).serves
    assert (paying["a+b"], paying["b+c"]) == (("a", "b"), ("c",)), "what they used before stays theirs"


def test_what_hoa_chose_and_fits_nowhere_falls_back_on_the_tasks_alone():
    fleet = Fleet(asked("hoa"))
    fleet.until(lambda job: job.phase == "planning" and job.stage == "split")
    chosen = Decision(groups=(ALL, ("c",)), serves=(("a", "b"), ("c",)))
    fleet.happened(Planned(stage="split", decision=chosen))
    fleet.fits = lambda tasks: len(tasks) < 3
    job = fleet.play()
    assert [run.group for run in job.runs] == ["a", "b", "c"]
    assert all(fleet.trained(task) == [*range(ROUNDS)] for task in TASKS)


@pytest.mark.parametrize(("policy", "groups"), [("hoa", list(TASKS)), ("mas-verified", ["a+b+c"])])
def test_a_budget_that_is_used_up_on_trial_leaves_what_needs_no_choice(policy, groups):
    fleet = Fleet(asked(policy, budget=Budget(time_s=9.0)))
    fleet.until(lambda job: job.phase == "trial" and job.runs[0].round > 1)
    fleet.happened(Exhausted(reason="used up"))
    answers = len(fleet.keys)
    assert [run.group for run in fleet.job.runs] == groups
    job = fleet.play()
    assert job.phase == "done"
    assert {key.group for key in fleet.keys[answers:]} == set(groups)


policies = st.sampled_from(["tag", "hoa", "mas-verified"])
stops = st.lists(st.tuples(st.integers(0, 90), some_tasks), max_size=2)
numbers = st.sampled_from(["auto", 1, 2, 3])
splits = [(("a", "b"), ("c",)), (("a", "c"), ("b",)), (("a",), ("b", "c")), (("a",), ("b",), ("c",))]


@st.composite
def of_trials(draw):
    partitions = draw(st.lists(st.sampled_from(splits), min_size=1, max_size=2, unique=True))
    groups = dict.fromkeys(group for partition in partitions for group in partition)
    return trial(*partitions, lengths={ALL: 4, **{group: draw(st.integers(2, 4)) for group in groups}})


@given(policies, numbers, stops, st.booleans(), st.none() | st.integers(0, 120), st.integers(1, 3), st.data())
def test_whatever_happens_the_job_ends_and_every_task_that_is_left_is_served_once(
    policy, groups, leaving, whole, used_up, most, data
):
    spec = asked(policy, reproducible=whole, groups=groups, unseen=("9",))
    fleet = Fleet(spec, fits=lambda tasks: len(tasks) <= most, tried=data.draw(of_trials()))
    rng = data.draw(st.randoms(use_true_random=False))
    moments = dict(leaving)
    share = 0.0
    for moment in range(600):
        if fleet.job.over:
            break
        if moment in moments and len({*fleet.job.stopped, *moments[moment]}) < len(TASKS):
            fleet.happened(Stopped(tasks=moments[moment]))
        if moment == used_up and not whole:
            fleet.happened(Exhausted(reason="used up"))
        if moment % 50 == 49:
            fleet.happened(Stopped())
            fleet.happened(Resumed())
        if not fleet.job.over:
            fleet.step(rng.choice)
        share = share_done(fleet.job)
        assert 0.0 <= share <= 1.0
    job = fleet.job
    assert (job.phase, share) == ("done", 1.0)
    left = [task for task in TASKS if task not in job.stopped]
    assert sorted(t for run in job.runs for t in run.results if t in left) == left
    assert all(job.result(task).weights for task in left)
    assert len(set(fleet.keys)) == len(fleet.keys)
    done = [(event.group, event.round) for event in fleet.events if isinstance(event, Merged)]
    assert len(set(done)) == len(done), "a round was done twice"
    assert jobs.replay(spec, fleet.stored) == job


@given(policies, st.integers(0, 90))
def test_first_weights_stay_as_long_as_something_may_begin_with_them(policy, moment):
    fleet = Fleet(asked(policy))
    for _ in range(moment):
        if not fleet.job.over:
            fleet.step()
            kept = jobs.referenced(fleet.job)
            asked_for = {a.weights.digest for a in jobs.owes(fleet.job, 0.0) if isinstance(a, Ask)}
            assert asked_for <= kept
            if policy != "mas-verified" and fleet.job.initial and fleet.job.decision is None:
                assert "init" in jobs.referenced(fleet.job)


def test_a_decision_knows_the_losses_of_every_group_so_far():
    fleet = Fleet(asked("hoa"))
    fleet.until(lambda job: job.phase == "planning" and job.stage == "split")
    known = {
        (each.group, each.task): each
        for each in situation(fleet.job, fleet.stored).evaluated
        if each.round == ROUNDS
    }
    assert set(known) == {(g, t) for g in (*((t,) for t in TASKS), *PAIRS) for t in g}
    assert known[("a", "b"), "a"].loss == pytest.approx(fleet.loss_of("a+b", "a"))
    assert known[("a", "b"), "a"].count == 4.0
