"""When a job is planned, what follows from it, and how a job ends whose budget is used up."""

from __future__ import annotations

import msgspec
import pytest
from finished import RAPL, profile
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.docket import Docket
from mas_edge.orchestrator.events import Absurd, LeftOut
from mas_edge.orchestrator.job import Exhausted, Initialised, Job, Plan, Planned, Stopped
from mas_edge.orchestrator.observed import learnt, observed
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.planning import alike, exhausted, jobs_alike, planned, preview, situation
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.reports import trade_off
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.reports.page import svg
from mas_edge.orchestrator.reports.runs import compose
from mas_edge.orchestrator.rounds import Ask, Carve, Carved, GaveUp, Heard, Merge, Merged, Select, Selected
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.spec import Budget, JobSpec
from mas_edge.orchestrator.views.journal import Journal
from mas_edge.wire.messages import AffinitySums, BlobRef, Score, Shortage, Training, Update

TASKS = ("a", "b", "c")
TRAINING = Training(workload="watch", network="micro", rounds=4, epochs=1, batch=8, lr=0.1, seed=1)
A_ROUND_J = 3.0
"""Of one device, as ``finished.profile`` bills it."""


def ref(name: str) -> BlobRef:
    return BlobRef(digest=name, size_bytes=1, chunk_bytes=1)


def spec(**changes) -> JobSpec:
    base = JobSpec(
        name="j", tasks=TASKS, training=TRAINING, policy="mas", devices=("d1", "d2"), merge_rounds=2
    )
    return msgspec.structs.replace(base, **changes)


def sums(tasks, own: float = -0.1) -> AffinitySums:
    n = len(tasks) ** 2
    pairs = [own if i == j else 0.2 if {i, j} == {"a", "b"} else -0.1 for i in tasks for j in tasks]
    return AffinitySums(
        tasks=tasks,
        batches=(50,) * n,
        w=(50.0,) * n,
        ww=(50.0,) * n,
        wz=tuple(50 * z for z in pairs),
        wzz=tuple(50 * (z * z + 0.001) for z in pairs),
    )


def answer(job: Job, action, stored):
    """What a sound world answers to an owed action."""
    match action:
        case jobs.Init():
            return Initialised(weights=ref("i"), fingerprint="f", parameters={"encoder": 60, "decoder.a": 10})
        case Plan():
            return planned(situation(job, stored))
        case Select(group=group, round=number, call=call):
            return Selected(
                group=group, round=number, call=call, devices=_devices(job, group), wanted=9, needed=1
            )
        case Carve(group=group):
            return Carved(group=group, weights=ref(f"carved {group}"))
        case Merge(group=group, round=number):
            return Merged(group=group, round=number, weights=ref(f"{group} {number}"))
    assert isinstance(action, Ask)
    key = action.key
    scores = tuple(Score(task=task, count=4.0, loss_sum=2.0, constant_loss_sum=4.0) for task in action.tasks)
    return Heard(
        update=Update(
            key=key,
            weights=ref(str(key)) if action.train else None,
            examples=40 if action.train else 0,
            scores=scores if action.evaluate else (),
            affinity=sums(action.tasks) if action.measure else None,
            profile=profile(key.group, key.round, 10.0 * key.round, A_ROUND_J, RAPL),
        )
    )


def _devices(job: Job, group: str) -> tuple[str, ...]:
    return next(run.devices for run in job.runs if run.group == group)


def never(*_):
    """Nothing."""


def play(of: JobSpec, *, until=never, ends=never):
    """The job played until it is over (or so far), and its events; ``ends`` may end it by an event."""
    job, stored, used_j = Job(spec=of), [], 0.0
    while not job.over and not until(job):
        event = ends(job, used_j) or answer(job, jobs.owes(job, 0.0)[0], stored)
        job, _ = jobs.step(job, event, float(len(stored)))
        stored.append((float(len(stored)), event))
        used_j += A_ROUND_J * isinstance(event, Heard)
        assert len(stored) < 400
    return job, stored


def test_a_job_is_planned_at_its_start_and_after_its_merged_rounds():
    job, stored = play(spec())
    kinds = [type(event).__name__ for _, event in stored]
    assert kinds[:2] == ["Initialised", "Planned"]
    assert kinds.count("Planned") == 2
    assert [len(plan.groups) for plan in job.plans] == [1, 2]
    assert job.decision == job.plans[1]
    assert job.decision.groups == (("a", "b"), ("c",))
    assert job.decision.energy_j.how == "fitted"


def _selfish(action, carries):
    """A device's answer where tasks help themselves most; held-out losses fall up to round ``carries``."""
    key = action.key
    learnt = [2.0 * 0.9**n for n in (key.round, min(key.round, carries))]
    trained, held = (
        tuple(Score(task=task, count=4.0, loss_sum=loss, constant_loss_sum=4.0) for task in action.tasks)
        for loss in learnt
    )
    update = Update(
        key=key,
        weights=ref(str(key)) if action.train else None,
        examples=40 if action.train else 0,
        trained=trained if action.train else (),
        scores=held if action.evaluate else (),
        affinity=sums(action.tasks, own=0.6) if action.measure else None,
    )
    return Heard(update=update)


def _played(of: JobSpec, carries: int, stop=never):
    """The job, over, whose held-out losses fall up to a round; ``stop`` may interfere with an event."""
    job, stored = Job(spec=of), []
    while not job.over:
        action = jobs.owes(job, 0.0)[0]
        event = _selfish(action, carries) if isinstance(action, Ask) else answer(job, action, stored)
        event = stop(job) or event
        job, _ = jobs.step(job, event, float(len(stored)))
        stored.append((float(len(stored)), event))
        assert len(stored) < 400
    return job, stored


LONG = spec(training=msgspec.structs.replace(TRAINING, rounds=30), merge_rounds=6)


def test_what_is_not_split_goes_on_together_and_is_decided_again_while_a_split_may_pay():
    job, stored = _played(LONG, carries=30)
    assert [run.tasks for run in job.runs] == [TASKS]
    assert [plan.again for plan in job.plans] == [0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 0]
    heard = [event.update for _, event in stored if isinstance(event, Heard) and event.update.weights]
    assert sorted(each.key.round for each in heard) == sorted([*range(30)] * 2)
    assert {each.key.round for each in heard if each.affinity} == {4, 5}
    assert job.merged_rounds == 24
    assert jobs.replay(LONG, stored) == job


def test_the_log_says_each_time_that_tasks_go_on_together():
    _, stored = _played(LONG, carries=30)
    journal = Journal(LONG)
    lines = [line for time_s, event in stored for line in journal.read(event, time_s)]
    later = [line for line in lines if line.startswith("not split yet, decided again after ")]
    assert [line.split()[6] for line in later] == [str(n) for n in range(8, 26, 2)]
    assert lines.count("the first stage begins") == 1


def test_what_was_left_out_is_not_learnt_from():
    _, stored = _played(LONG, carries=30)
    at, heard = next(
        (n, event) for n, (_, event) in enumerate(stored) if isinstance(event, Heard) and event.update.trained
    )
    key, plain = heard.update.key, learnt(stored)
    wild = tuple(msgspec.structs.replace(score, loss_sum=1e9) for score in heard.update.trained)
    changed = msgspec.structs.replace(heard, update=msgspec.structs.replace(heard.update, trained=wild))
    out = LeftOut(group=key.group, round=key.round, updates=(Absurd(device=key.device, reason="wild"),))
    events = [*stored[:at], (0.0, changed), *stored[at + 1 :], (0.0, out)]
    assert max(each.loss for each in learnt(events[:-1])) > 1e6
    assert [each.loss for each in learnt(events)] == pytest.approx([each.loss for each in plain])


def test_tasks_that_begin_to_memorise_are_split_then():
    job, stored = _played(LONG, carries=12)
    assert len(job.runs) == 2
    assert "memorise" in job.decision.why
    assert 12 < job.merged_rounds < 20
    assert job.merged_rounds == report(LONG, stored).merged_rounds
    assert all(run.round == 30 for run in job.runs)
    assert jobs.replay(LONG, stored) == job


def _at_its_second_decision():
    """A job that goes on together up to round 8, when its merged rounds are done."""
    job, stored = Job(spec=LONG), []
    while job.phase != "planning" or not job.runs:
        action = jobs.owes(job, 0.0)[0]
        event = _selfish(action, 30) if isinstance(action, Ask) else answer(job, action, stored)
        job, _ = jobs.step(job, event, 0.0)
        stored.append((0.0, event))
    return job, stored


def test_who_is_left_out_by_a_plan_that_goes_on_together_trains_no_more():
    job, _ = _at_its_second_decision()
    plan = Decision(groups=(TASKS,), devices=(("d2",),), again=8)
    on, _ = jobs.step(job, Planned(decision=plan, stage="split"), 0.0)
    assert on.runs[0].devices == ("d2",)
    assert (on.runs[0].round, on.runs[0].past) == (6, 8)


def test_a_plan_that_was_overtaken_by_rounds_changes_nothing():
    job, _ = _at_its_second_decision()
    late = Planned(decision=Decision(groups=(TASKS,), again=6), stage="split")
    assert jobs.step(job, late, 0.0)[0] == job


def test_a_job_that_ends_before_it_is_decided_again_reports_the_rounds_that_it_had():
    def ends(job):
        at_seven = job.runs and (job.runs[0].round, job.runs[0].past) == (7, 8)
        return Exhausted(reason="enough") if at_seven and not job.exhausted else None

    job, stored = _played(LONG, 30, ends)
    made = report(LONG, stored)
    assert (job.merged_rounds, made.merged_rounds) == (8, 7)
    assert made.final_rounds == {"a+b+c": 7}


def test_a_number_of_groups_and_a_single_task_are_decided_on_once():
    assert len(_played(msgspec.structs.replace(LONG, groups=1), carries=30)[0].plans) == 2
    assert len(_played(msgspec.structs.replace(LONG, tasks=("a",)), carries=30)[0].plans) == 2


def test_a_task_that_is_stopped_leaves_while_the_others_go_on_together():
    def stop(job):
        return Stopped(tasks=("c",)) if job.merged_rounds == 10 and not job.stopped else None

    job, _ = _played(LONG, 30, stop)
    assert job.phase == "done"
    assert [run.tasks for run in job.runs] == [("a", "b")]
    assert job.plans[-1].groups == (("a", "b"),)


def test_what_was_planned_is_repeated_and_not_planned_anew():
    _, stored = play(spec())
    other = Decision(groups=(("a",), ("b", "c")), devices=(("d2",), ("d1", "d2")))
    at = max(n for n, (_, event) in enumerate(stored) if isinstance(event, Planned))
    job = jobs.replay(spec(), [*stored[:at], (9.0, Planned(decision=other, stage="split"))])
    assert [run.tasks for run in job.runs] == [("a",), ("b", "c")]
    assert [run.devices for run in job.runs] == [("d2",), ("d1", "d2")]


def test_a_plan_that_nobody_asked_for_changes_nothing():
    job, _ = play(spec(), until=lambda job: job.phase == "first")
    assert jobs.step(job, Planned(decision=Decision(groups=(TASKS,))), 0.0)[0] == job


def test_the_first_weights_are_kept_while_the_job_is_planned():
    job, _ = play(spec(), until=lambda job: job.phase == "planning")
    assert jobs.referenced(job) == {"i"}
    assert jobs.owes(job, 0.0) == (Plan(stage="start"),)


def test_a_plan_that_cannot_be_ends_the_job_with_what_would_be_needed():
    job, _ = play(spec(), until=lambda job: job.phase == "planning")
    refused = Decision(groups=(TASKS,), refused="the budget cannot be met: 9 J would be needed")
    job, _ = jobs.step(job, Planned(decision=refused), 0.0)
    assert (job.phase, job.reason) == ("failed", refused.refused)


def test_tasks_that_begin_apart_for_want_of_memory_are_split_and_never_measured():
    job, _ = play(spec(), until=lambda job: job.phase == "planning")
    parts = Decision(groups=(("a", "b"), ("c",)), why="too large")
    job, _ = jobs.step(job, Planned(decision=parts), 0.0)
    assert (job.phase, job.decision, job.replans) == ("second", parts, ("too large",))
    assert [(run.past, run.measure, run.closing) for run in job.runs] == [(4, False, True)] * 2


# --- a budget that is used up ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "used_j", "time_s", "says"),
    [
        (Budget(energy_j=30.0), 29.9, 0.0, None),
        (Budget(energy_j=30.0), 30.0, 0.0, "the budget is used up: 30.0 J of 30.0 J used in round 1 of 4"),
        (Budget(time_s=60.0), 0.0, 59.0, None),
        (Budget(time_s=60.0), 0.0, 60.0, "the budget is used up: 60.0 s of 60.0 s passed in round 1 of 4"),
        (Budget(), 1e9, 1e9, None),
    ],
)
def test_a_budget_is_used_up_when_it_is(budget, used_j, time_s, says):
    job, _ = play(spec(budget=budget), until=lambda job: job.phase == "first")
    found = exhausted(job, used_j, time_s)
    assert (found.reason if found else None) == says


def test_a_group_that_was_stopped_has_no_say_in_which_round_the_budget_ended():
    asked = spec(policy="one-by-one", merge_rounds=0, budget=Budget(energy_j=30.0))
    job, _ = play(asked, until=lambda job: job.runs and job.runs[0].round == 1)
    job, _ = jobs.step(job, Stopped(tasks=("a",)), 0.0)
    going_on = (msgspec.structs.replace(run, round=3) for run in job.runs if run.tasks != ("a",))
    job = msgspec.structs.replace(job, runs=(job.runs[0], *going_on))
    assert (job.runs[0].phase, job.runs[0].round) == ("finished", 1)
    assert "in round 4 of 4" in exhausted(job, 30.0, 0.0).reason
    going_on = (msgspec.structs.replace(run, round=4) for run in job.runs[1:])
    assert exhausted(msgspec.structs.replace(job, runs=(job.runs[0], *going_on)), 30.0, 0.0) is None


@given(st.integers(1, 60), st.sampled_from(["mas", "all-in-one", "one-by-one"]))
def test_a_job_whose_budget_is_used_up_ends_after_the_round_that_it_is_at_and_evaluates_what_it_has(
    budget_j, policy
):
    asked = spec(policy=policy, merge_rounds=2 * (policy == "mas"), budget=Budget(energy_j=float(budget_j)))
    job, stored = play(asked, ends=lambda job, used_j: exhausted(job, used_j, 0.0))
    assert job.phase == "done"
    assert all(run.phase == "finished" for run in job.runs)
    ended = [n for n, (_, event) in enumerate(stored) if isinstance(event, Exhausted)]
    if not ended:
        return
    assert len(ended) == 1
    assert job.reason.startswith("the budget is used up: ")
    before = jobs.replay(asked, stored[: ended[0]])
    rounds_then = max(run.round for run in before.runs)
    after = [event.update for _, event in stored[ended[0] :] if isinstance(event, Heard)]
    assert max((each.key.round for each in after if each.weights), default=0) <= rounds_then
    heard = [event.update for _, event in stored if isinstance(event, Heard)]
    for run in job.runs:
        closing = [
            each.key.device for each in heard if (each.key.group, each.key.round) == (run.group, run.past)
        ]
        assert sorted(closing) == ["d1", "d2"]
    assert jobs.replay(asked, stored) == job


def test_the_report_of_a_job_that_ended_early_has_the_losses_of_its_last_weights():
    asked = spec(policy="all-in-one", merge_rounds=0, budget=Budget(energy_j=7.0))
    job, stored = play(asked, ends=lambda job, used_j: exhausted(job, used_j, 0.0))
    assert job.runs[0].past < 4
    made = report(asked, stored)
    assert [point.loss for point in made.held_out] == [0.5] * 3


def test_a_budget_that_is_used_up_ends_the_job_once():
    job, _ = play(spec(budget=Budget(energy_j=3.0)), until=lambda job: job.phase == "first")
    ended, _ = jobs.step(job, Exhausted(reason="no more"), 0.0)
    assert exhausted(ended, 99.0, 0.0) is None
    assert jobs.step(ended, Exhausted(reason="again"), 0.0)[0] == ended


# --- what was observed -----------------------------------------------------------------------------


def test_observed_is_what_a_round_cost_without_measuring_and_first_trainings_stand_apart():
    _, stored = play(spec())
    seen = observed(stored)
    assert [each.first for each in seen.trainings] == [True, True, *[False] * (len(seen.trainings) - 2)]
    assert {each.group for each in seen.trainings} == {TASKS, ("a", "b"), ("c",)}
    assert seen.trainings[0].energy_j == pytest.approx(3.0)
    assert seen.trainings[0].received_bytes == 1_000_000
    assert seen.waiting_s is not None


def test_joules_that_are_unknown_in_one_phase_are_unknown_and_refusals_are_kept():
    job, stored = play(spec(), until=lambda job: job.runs and job.runs[0].phase == "collecting")
    ask = jobs.owes(job, 0.0)[0]
    heard = answer(job, ask, stored).update
    blind = msgspec.structs.replace(heard.profile.rows[0], attributed_energy_j=None)
    bill = msgspec.structs.replace(heard.profile, rows=(blind, *heard.profile.rows[1:]))
    declined = GaveUp(key=ask.key, reason="memory", shortage=Shortage(micro_batch=1))
    seen = observed([(0.0, Heard(update=msgspec.structs.replace(heard, profile=bill))), (1.0, declined)])
    assert seen.trainings[0].energy_j is None
    assert seen.refused[0].group == TASKS


def test_jobs_are_alike_if_a_round_costs_the_same():
    assert alike(TRAINING, msgspec.structs.replace(TRAINING, seed=9, rounds=99, lr=0.5))
    assert not alike(TRAINING, msgspec.structs.replace(TRAINING, batch=16))


def test_a_docket_plans_from_its_store_and_learns_from_the_jobs_before(tmp_path):
    now_s = [0.0]
    store = open_store(tmp_path)
    docket = Docket(store, lambda: now_s[0])
    _, stored = play(spec())
    docket.add(spec())
    for time_s, event in stored:
        now_s[0] = time_s
        docket.happened("j", event)
    docket.add(spec(name="again", budget=Budget(energy_j=10.0)))
    docket.happened("again", answer(Job(spec=spec()), jobs.Init(tasks=TASKS), ()))
    event = docket.plans("again", tuple)
    assert "the budget cannot be met: a+b+c would take 25.0 " in event.decision.refused  # it took 24
    assert docket.usage.used_j("j") == pytest.approx(3.0 * sum(isinstance(e, Heard) for _, e in stored))
    store.close()


def test_a_launch_that_a_former_job_shows_to_be_too_dear_is_known_before_it_begins():
    job, stored = play(spec())
    asked = spec(name="again", budget=Budget(energy_j=10.0))
    assert [each.spec.name for each in jobs_alike(asked, [job])] == ["j"]
    assert "the budget cannot be met" in preview(asked, [(job, observed(stored))], ()).refused
    assert preview(asked, [], ()).refused == ""


# --- in the report ---------------------------------------------------------------------------------


def test_the_report_shows_the_trade_off_and_what_the_groups_cost_beside_what_was_expected():
    asked = spec()
    _, stored = play(asked)
    plan = DemoPlan(spec=asked, clients={"d1": ("1",), "d2": ("2",)})
    run = compose(asked, stored, manifest(plan, {}), wall_s=1.0)
    choices, outcome = trade_off.tables(run)
    assert [row[0] for row in choices.rows] == ["1", "2", "3"]
    assert choices.rows[1][1:3] == ("a+b | c", "0.1000 \N{PLUS-MINUS SIGN}0.0016")
    assert choices.rows[1][-1] == "chosen"
    assert [row[0] for row in outcome.rows] == ["a+b", "c"]
    assert [row[2] for row in outcome.rows] == ["6.00", "6.00"]  # two devices at 3 J
    drawn = svg(trade_off.chart(run.report.decision), "t")
    assert "expected J" in drawn
    assert "expected s" in drawn


def test_where_affinity_had_no_say_there_is_no_trade_off():
    assert trade_off.chart(None) is None
    assert trade_off.chart(Decision(groups=(("a",),))) is None
    assert trade_off.table(Decision(groups=(("a",),))) is None
