"""Jobs that train groups only to choose, or whose groups overlap, as status, report and pictures show it."""

from __future__ import annotations

import math

import going
import pytest
from msgspec.structs import replace

from mas_edge.orchestrator.decision import Decision, Trial
from mas_edge.orchestrator.job import Job, Planned, replay, step
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.reports import tables, trade_off
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.reports.pictures import curves
from mas_edge.orchestrator.reports.runs import compose
from mas_edge.orchestrator.reports.summary import trajectory
from mas_edge.orchestrator.views import outlook
from mas_edge.orchestrator.views.journal import Journal
from mas_edge.orchestrator.views.status import status
from mas_edge.orchestrator.views.tally import Tally

G, J, R, E = going.TASKS
TAG = going.spec("tagged", policy="tag", merge_rounds=0, groups=2)
OVERLAP = Decision(groups=((G, J), (G, R, E)), serves=((G, J), (R, E)))
HOA = going.spec("compared", policy="hoa", merge_rounds=0, groups="auto")
VERIFIED = going.spec("tried", policy="mas-verified")
TRIED = (going.TASKS, (G, J), (R, E))
TRIAL = Decision(groups=TRIED, trial=Trial(partitions=(TRIED[:1], TRIED[1:]), groups=TRIED, rounds=(2, 2, 2)))


def played(spec, decisions=None):
    """The events of a job of which some stages are decided here."""
    known, job, happened = decisions or {}, Job(spec=spec), []
    while not job.over:
        time_s = 1.0 + 2.5 * len(happened)
        if job.phase == "planning" and job.stage in known:
            event = Planned(stage=job.stage, decision=known[job.stage])
        else:
            event = going.owed_first(job, happened, time_s)
        job, _ = step(job, event, time_s)
        happened.append((time_s, event))
    return happened


def told(spec, events):
    tally = Tally(spec)
    for time_s, event in events:
        tally.add(time_s, 1e9 + time_s, event)
    return status([tally], {}, 0.0).jobs[0]


def composed(spec, events):
    return compose(spec, events, manifest(DemoPlan(spec=spec, clients={}), {}), wall_s=99.0)


JOBS = {
    "tag": (TAG, played(TAG, {"split": OVERLAP})),
    "hoa": (HOA, played(HOA, {"split": OVERLAP})),
    "mas-verified": (VERIFIED, played(VERIFIED, {"trial": TRIAL})),
}


@pytest.mark.parametrize("policy", JOBS)
def test_every_joule_of_every_group_that_was_trained_is_paid_by_the_tasks(policy):
    spec, events = JOBS[policy]
    job, run = told(spec, events), composed(spec, events)
    groups = math.fsum(group.energy.attributed_j for group in job.groups)
    assert math.fsum(task.energy.attributed_j for task in job.tasks) == pytest.approx(groups)
    assert math.fsum(bill.energy_j for bill in run.task_bills) == pytest.approx(groups)


@pytest.mark.parametrize("policy", JOBS)
def test_a_task_has_its_losses_from_the_group_that_serves_it(policy):
    spec, events = JOBS[policy]
    job, made = told(spec, events), report(spec, events)
    serving = {task: g for g in made.groups for task in made.serves.get(g, tuple(g.split("+")))}
    assert {point.task: point.group for point in made.held_out} == serving
    assert {point.task: point.group for point in made.unseen} == serving
    assert {task.task: task.group for task in job.tasks} == serving
    assert [task.held_out for task in job.tasks] == [point.loss for point in made.held_out]
    assert len(trajectory(composed(spec, events))) == spec.training.rounds


def test_a_helper_pays_nothing_for_a_group_and_is_shown_as_one():
    job, made = told(*JOBS["tag"]), report(*JOBS["tag"])
    (whole, first, second) = job.groups
    assert [group.parent for group in job.groups] == [None, whole.group, whole.group]
    assert (whole.phase, first.serves, second.serves) == ("gone on", (G, J), (R, E))
    assert made.serves == {first.group: (G, J), second.group: (R, E)}
    of = {bill.task: {part.group for part in bill.parts} for bill in composed(*JOBS["tag"]).task_bills}
    assert of[G] == {whole.group, first.group}


def test_pairs_that_were_only_compared_are_dropped_and_those_that_were_chosen_stay():
    job = told(*JOBS["hoa"])
    assert len(job.groups) == 4 + 6 + 1
    chosen = {task.group for task in job.tasks}
    assert {group.group: group.phase for group in job.groups} == {
        group.group: "finished" if group.group in chosen else "dropped" for group in job.groups
    }


def test_candidates_hang_below_the_merged_group_and_the_losers_are_dropped():
    job = told(*JOBS["mas-verified"])
    whole, *others = job.groups
    assert whole.phase == "finished", "all losses are alike, so nothing speaks for a split"
    assert [(group.parent, group.phase, group.round) for group in others] == [(whole.group, "dropped", 4)] * 2


def test_the_report_says_what_every_partition_on_trial_came_to():
    lines = tables.split(report(*JOBS["mas-verified"]))
    assert lines[0].startswith("Not split: ")
    assert lines[1:] == (
        f"On trial: {'+'.join(going.TASKS)}: held-out loss 3.18",
        f"On trial: {G}+{J} | {R}+{E}: held-out loss 3.18, the same, with more groups",
    )


@pytest.mark.parametrize("policy", ["tag", "hoa"])
def test_where_no_other_number_of_groups_was_looked_at_there_is_no_trade_off(policy):
    spec = {"tag": TAG, "hoa": HOA}[policy]
    events = played(spec)
    assert report(spec, events).decision.score is not None
    assert trade_off.tables(composed(spec, events)) == ()


def test_what_fits_nowhere_on_trial_holds_up_nobody():
    spec, events = JOBS["mas-verified"]
    began = next(n for n, (_, event) in enumerate(events) if getattr(event, "stage", "") == "trial")
    job = replay(spec, events[: began + 1])
    stuck, *others = job.runs
    job = replace(job, runs=(replace(stuck, phase="unfit", devices=()), *others))
    assert outlook.slowest(job).group == others[0].group
    assert outlook.waits_for(job, lambda _: "idle").startswith(f"round 3 of {others[0].group}: ")


@pytest.mark.parametrize("policy", JOBS)
def test_each_task_has_a_line_of_the_group_that_serves_it_in_colour(policy):
    spec, events = JOBS[policy]
    made = report(spec, events)
    for task, axes in zip(spec.tasks, curves(made).axes, strict=False):
        coloured = {line.get_label() for line in axes.lines if str(line.get_color()).startswith("C")}
        assert coloured == {point.group for point in made.held_out if point.task == task}


def test_the_journal_says_when_a_trial_begins_and_what_is_trained_in_it():
    spec, events = JOBS["mas-verified"]
    journal = Journal(spec)
    lines = [line for time_s, event in events for line in journal.read(event, time_s)]
    assert any("the trial begins" in line for line in lines)
    assert any(f"{G}+{J} begins with round 3" in line for line in lines)


@pytest.mark.parametrize("policy", JOBS)
def test_where_a_job_is_can_be_told_at_every_moment(policy):
    spec, events = JOBS[policy]
    tally = Tally(spec)
    for number, (time_s, event) in enumerate(events):
        tally.add(time_s, 1e9 + time_s, event)
        if number % 5 == 0:
            (job,) = status([tally], {}, 0.0).jobs
            assert 0.0 <= job.share_done <= 1.0
            assert job.phase != "trial" or job.at.startswith("round ")
