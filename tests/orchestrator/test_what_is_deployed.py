"""What an order to deploy takes of a job: each task once, nothing on trial, for those who can judge it."""

from __future__ import annotations

import pytest
from test_overlapping import HOA, OVERLAP, TAG, TRIAL, VERIFIED, E, G, J, R, played

from mas_edge.orchestrator.job import Job, Stopped, step
from mas_edge.orchestrator.launching.deploying import DeployRefused, ordered
from mas_edge.orchestrator.launching.orders import DeployThese
from mas_edge.wire import messages as m


def hello(device, *tasks):
    return m.Hello(
        device=device,
        boot_id="b",
        versions=m.Versions(mas_edge="0", python="3"),
        workloads=(m.Offer(workload=TAG.training.workload, tasks=tasks),),
    )


HELLOS = {"d1": hello("d1", G, J, R, E), "d2": hello("d2", E)}


def targets(job, devices=(), hellos=HELLOS):
    order = DeployThese(job=job.spec.name, devices=devices)
    return ordered(order, job, hellos, lambda _: True, "r").targets


def at(spec, decisions=None, until=lambda _: False) -> Job:
    job = Job(spec=spec)
    for time_s, event in played(spec, decisions):
        job, _ = step(job, event, time_s)
        if until(job):
            break
    return job


def test_of_groups_that_overlap_each_is_deployed_for_the_tasks_that_it_serves():
    found = targets(at(TAG, {"split": OVERLAP}))
    assert [(each.group, each.tasks) for each in found] == [
        ("+".join(group), served) for group, served in zip(OVERLAP.groups, OVERLAP.serves, strict=True)
    ]
    tasks = [task for each in found for task in each.tasks]
    assert len(set(tasks)) == len(tasks)


def test_a_group_goes_to_the_devices_that_have_data_of_its_tasks_unless_some_are_named():
    job = at(TAG, {"split": OVERLAP})
    assert [each.devices for each in targets(job)] == [("d1",), ("d1", "d2")]
    assert [each.devices for each in targets(job, ("d2",))] == [("d2",), ("d2",)]
    assert [each.tasks for each in targets(job, hellos={"d2": HELLOS["d2"]})] == [(R, E)]


@pytest.mark.parametrize(("spec", "decisions"), [(HOA, {}), (VERIFIED, {"trial": TRIAL})])
def test_nothing_on_trial_is_deployed_also_when_the_job_was_stopped_meanwhile(spec, decisions):
    job = at(spec, decisions, lambda job: job.phase == "trial" and all(run.round for run in job.runs))
    stopped, _ = step(job, Stopped(), 1e6)
    assert stopped.phase == "stopped"
    for each in (job, stopped):
        with pytest.raises(DeployRefused, match="which of the groups on trial are used is not decided yet"):
            targets(each)
    assert targets(at(spec, decisions))
