"""What goes on, of the events and words that a store holds: told in parts or at once, it is the same."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import going
import msgspec
import pytest
from finished import RAPL, profile
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.events import Absurd, GaveUp, Late, LeftOut
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.spec import Budget, Launched
from mas_edge.orchestrator.views.follow import Follower, midnight_s
from mas_edge.orchestrator.views.status import recent, status
from mas_edge.orchestrator.views.status_values import Known, Status
from mas_edge.orchestrator.views.tally import Tally
from mas_edge.wire import messages as m

SPEC = going.spec()
EVENTS = going.events(SPEC)
STARTED, SPLIT = going.until(SPEC, 1), going.until(SPEC, 2)
NOON_S = 1_800_000_000.0


def told(of=SPEC, past=None, wall_s=NOON_S, extra=()) -> Tally:
    tally = Tally(of)
    for time_s, event in [*going.events(of)[:past], *extra]:
        tally.add(time_s, wall_s + time_s, event)
    return tally


def shown(*tallies, known=None, midnight_wall_s=0.0) -> Status:
    return status(tallies, known or {}, midnight_wall_s)


def known(device, *, online=True, reasons=(), progress=None) -> Known:
    alive = m.Alive(online=online, boot_id="b", reasons=reasons)
    return Known(
        hello=going.hello(device),
        alive=alive,
        alive_wall_s=NOON_S,
        progress=progress,
        last_seen_wall_s=NOON_S + 1,
    )


def owed(tally, device):
    """What a device is asked for."""
    asks = [a for a in jobs.owes(tally.job, 1e9) if getattr(a, "key", None) and a.key.device == device]
    return asks[0].key


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.booleans())
def test_who_follows_a_store_in_parts_sees_what_who_reads_it_at_once_sees(parts, two):
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        store = opened.enter_context(closing(open_store(Path(folder))))
        follower = Follower(opened.enter_context(closing(read_store(Path(folder)))))
        specs = [SPEC, going.spec("other", policy="one-by-one", merge_rounds=0)][: 1 + two]
        waiting = {each.name: iter(going.events(each)) for each in specs}
        for each in specs:
            store.add_job(each.name, msgspec.json.encode(each))
        for device in going.DEVICES:
            store.remember_device(going.hello(device))
        for n, part in enumerate(parts):
            name = specs[n % len(specs)].name
            for time_s, event in [e for _, e in zip(range(part), waiting[name], strict=False)]:
                store.append(name, time_s, event)
            follower.status(NOON_S)
        anew = Follower(opened.enter_context(closing(read_store(Path(folder)))))
        assert follower.status(NOON_S) == anew.status(NOON_S)


def test_the_tree_of_groups_shows_who_came_from_whom_and_how_far_each_went():
    (job,) = shown(told(past=SPLIT + 2)).jobs
    merged, *heirs = job.groups
    assert (merged.parent, merged.phase, merged.round, merged.rounds) == (None, "gone on", 2, 2)
    assert [(g.group, g.parent) for g in heirs] == [
        ("gravity+jerk", "gravity+jerk+rotation+exercise"),
        ("rotation+exercise", "gravity+jerk+rotation+exercise"),
    ]
    assert job.decision.groups == (("gravity", "jerk"), ("rotation", "exercise"))


def test_losses_and_joules_are_those_of_the_report():
    (job,) = shown(told()).jobs
    made = report(SPEC, EVENTS)
    for task, point in zip(job.tasks, made.held_out, strict=True):
        assert task.held_out == pytest.approx(point.loss)
        assert task.relative == pytest.approx(point.loss / point.constant_loss)
    assert math.fsum(group.energy.attributed_j for group in job.groups) == pytest.approx(
        job.energy.attributed_j
    )
    for own, whole in (
        ([task.energy.attributed_j for task in job.tasks], [g.energy.attributed_j for g in job.groups]),
        ([task.device_s for task in job.tasks], [group.device_s for group in job.groups]),
    ):
        assert math.fsum(own) == pytest.approx(math.fsum(whole), rel=1e-9)
    assert job.affinity == made.affinity
    assert (job.phase, job.share_done, job.left_s, job.waits_for) == ("done", 1.0, None, "")
    assert all(task.unseen_relative < 1 for task in job.tasks)


def test_tasks_pay_what_the_orchestrator_did_and_nothing_of_another_job_whose_group_has_the_same_name():
    own = profile("orchestrator", 0, 1.0, 4.0, RAPL, SPEC.name)
    group = "gravity+jerk+rotation+exercise"
    mixed = profile(group, 0, 1.0, 3.0, RAPL, SPEC.name)
    other = profile(group, 0, 1.0, 5.0, RAPL, "other")
    mixed = msgspec.structs.replace(mixed, rows=mixed.rows + other.rows)
    first = msgspec.structs.replace(EVENTS[0][1], profile=own)
    tally = Tally(SPEC)
    tally.add(1.0, NOON_S, first)
    for time_s, event in EVENTS[1:STARTED]:
        tally.add(time_s, NOON_S, event)
    tally.add(9.0, NOON_S, GaveUp(key=owed(tally, "edge-1"), reason="broke", profile=mixed))
    (job,) = shown(tally).jobs
    assert job.orchestrator.attributed_j == pytest.approx(4.0)
    assert job.groups[0].energy.attributed_j == pytest.approx(3.0)
    assert math.fsum(task.energy.attributed_j for task in job.tasks) == pytest.approx(7.0)
    assert job.energy.attributed_j == pytest.approx(7.0)
    beside = told(going.spec(name="other"), past=STARTED)
    alone, paid = (shown(*both).jobs[-1] for both in ([beside], [tally, beside]))
    assert (paid.energy.attributed_j or 0.0) - (alone.energy.attributed_j or 0.0) == pytest.approx(5.0)
    assert math.fsum(t.energy.attributed_j or 0.0 for t in paid.tasks) == pytest.approx(
        paid.energy.attributed_j
    )


@given(st.integers(0, len(EVENTS)))
def test_the_share_done_only_grows_after_the_split_and_time_is_left_until_the_end(past):
    (before,), (after,) = shown(told(past=past)).jobs, shown(told(past=past + 1)).jobs
    assert 0.0 <= before.share_done <= 1.0
    if past >= SPLIT:
        assert before.share_done <= after.share_done
    if before.left_s is not None:
        assert before.left_s > 0.0


def test_joules_that_nobody_measured_are_unknown_and_make_the_sum_the_least():
    blind = profile("gravity+jerk+rotation+exercise", 0, 1.0, None, None, SPEC.name)
    (job,) = shown(told(past=STARTED)).jobs
    assert job.energy.attributed_j is None
    tally = told(past=STARTED)
    key = owed(tally, "edge-1")
    tally.add(3.0, NOON_S, GaveUp(key=key, reason="broke", profile=blind))
    (job,) = shown(tally).jobs
    assert (job.energy.attributed_j, job.energy.complete) == (None, False)
    assert job.gave_up == 1
    known_j = profile("gravity+jerk+rotation+exercise", 0, 1.0, 3.0, RAPL, SPEC.name)
    again = msgspec.structs.replace(key, device="edge-2")
    tally.add(4.0, NOON_S, GaveUp(key=again, reason="update-refused", profile=known_j))
    (job,) = shown(tally).jobs
    assert job.energy.attributed_j == pytest.approx(3.0)
    assert not job.energy.complete
    assert (job.gave_up, job.refused) == (1, 1)


def test_what_brought_nothing_to_a_round_is_counted():
    tally = told(past=SPLIT)
    key = m.Key(job="evening", group="gravity+jerk+rotation+exercise", round=0, attempt=0, device="edge-1")
    tally.add(90.0, NOON_S, Late(key=key, examples=4))
    absurd = (Absurd(device="edge-2", reason="too far"), Absurd(device="edge-3", reason="too far"))
    tally.add(91.0, NOON_S, LeftOut(group="gravity+jerk", round=2, updates=absurd))
    (job,) = shown(tally).jobs
    assert (job.late, job.refused, job.gave_up) == (1, 2, 0)


def states(tally, **said) -> dict[str, tuple[str, str | None]]:
    found = shown(tally, known=said).devices
    return {device.name: (device.state, device.work.phase if device.work else None) for device in found}


def test_each_device_is_said_to_do_what_it_does():
    tally = told(past=STARTED + 1)
    progress = m.Progress(key=owed(tally, "edge-2"), phase="backward", step=3, steps=9, energy_j=0.5)
    stale = msgspec.structs.replace(
        progress, key=msgspec.structs.replace(progress.key, device="edge-3", round=7)
    )
    said = {
        "edge-2": known("edge-2", progress=progress),
        "edge-3": known("edge-3", progress=stale),
        "spare": known("spare"),
        "gone": known("gone", online=False),
        "hot": known("hot", reasons=(m.Reason(condition="temperature", detail="81 °C"),)),
        "mute": Known(hello=going.hello("mute")),
    }
    assert states(tally, **said) == {
        "edge-1": ("unseen", None),
        "edge-2": ("working", "backward"),
        "edge-3": ("asked", "asked"),
        "gone": ("away", None),
        "hot": ("declining", None),
        "mute": ("unknown", None),
        "spare": ("idle", None),
    }
    (job,) = shown(tally, known=said).jobs
    assert job.under_way_j == 0.5


def test_the_words_of_a_device_are_one_line_without_control_characters():
    evil = "\x1b]0;owned\x07\x1b[2J\nedge-9  idle"
    said = msgspec.structs.replace(
        known("edge-1", reasons=(m.Reason(condition=evil, detail=evil),)),
        hello=going.hello(
            "edge-1",
            sensor=msgspec.structs.replace(RAPL, name=evil, detail=evil),
            workloads=(m.Offer(workload=evil, tasks=(evil,)),),
        ),
    )
    tally = told(past=STARTED)
    progress = m.Progress(key=owed(tally, "edge-1"), phase=evil, step=1, steps=2)
    text = str(shown(tally, known={"edge-1": msgspec.structs.replace(said, progress=progress)}))
    assert "owned" in text
    assert "\\x" not in text
    assert "\\n" not in text


def test_a_job_says_in_a_line_whom_it_waits_for_and_why():
    tally = told(past=STARTED + 1)
    hot = (m.Reason(condition="temperature", detail="81 °C"),)
    said = {"edge-2": known("edge-2", online=False), "edge-3": known("edge-3", reasons=hot)}
    (job,) = shown(tally, known=said).jobs
    assert job.waits_for == (
        "round 1 of gravity+jerk+rotation+exercise: edge-2 (away),"
        " edge-3 (may not train now: temperature: 81 °C)"
    )
    many = told(going.spec(devices=tuple(f"edge-{n}" for n in range(12))), past=STARTED)
    assert shown(many).jobs[0].waits_for.endswith(" and 8 more")
    assert shown(told(past=0)).jobs[0].waits_for == "the first weights"


def test_a_device_that_may_not_be_asked_yet_is_benched_with_its_reason():
    tally = told(past=STARTED)
    key = owed(tally, "edge-1")
    tally.add(10.0, NOON_S, GaveUp(key=key, reason="broke", detail="no room"))
    (bench,) = next(d for d in shown(tally).devices if d.name == "edge-1").benched
    assert (bench.job, bench.group, bench.reason) == ("evening", key.group, "broke")
    assert bench.until_s > 10.0


def test_limits_say_what_is_left_of_them_and_a_days_joules_are_forgotten_at_midnight():
    limits = Budget(energy_j=1000.0, time_s=500.0, device_energy_j_per_day=50.0)
    tally = told(going.spec(budget=limits), past=STARTED + 4)
    used_j = math.fsum(bill.energy_j for bill in tally.bills.values())
    (job,) = shown(tally).jobs
    assert job.budget.energy_left_j == pytest.approx(1000.0 - used_j)
    assert job.budget.time_left_s == pytest.approx(500.0 - tally.time_s)
    today, tomorrow = (
        next(d for d in shown(tally, midnight_wall_s=moment).devices if d.name == "edge-1")
        for moment in (NOON_S - 1, NOON_S + 1e5)
    )
    assert (today.energy_today.attributed_j, today.budget_left_j) == (pytest.approx(3.0), pytest.approx(47.0))
    assert (tomorrow.energy_today.attributed_j, tomorrow.budget_left_j, tomorrow.energy.attributed_j) == (
        None,
        50.0,
        pytest.approx(3.0),
    )


def test_tasks_go_by_the_names_and_owners_under_which_they_were_launched():
    launched = (Launched(task="jerk", name="jerk-of-ann", owner="ann", target_loss=0.5),)
    (job,) = shown(told(going.spec(launched=launched), past=3)).jobs
    names = {task.task: (task.name, task.owner, task.target_loss) for task in job.tasks}
    assert names["jerk"] == ("jerk-of-ann", "ann", 0.5)
    assert names["gravity"] == ("gravity", "", None)


def test_a_stopped_job_waits_for_nobody_and_its_devices_are_idle():
    stopped = told(past=SPLIT + 1, extra=[(99.0, jobs.Stopped())])
    whole = shown(stopped, known={"edge-1": known("edge-1")})
    (job,) = whole.jobs
    assert (job.phase, job.waits_for, job.left_s) == ("stopped", "", None)
    assert {device.name: device.state for device in whole.devices} == {"edge-1": "idle"}


def test_jobs_that_were_over_long_ago_are_left_out_unless_they_are_asked_for():
    tallies = [told(going.spec(f"old-{n}", policy="all-in-one", merge_rounds=0, unseen=())) for n in range(4)]
    whole = shown(*tallies, told(past=3))
    assert [job.name for job in recent(whole, most=2).jobs] == ["old-2", "old-3", "evening"]
    assert [job.name for job in recent(whole, ("old-0",), most=1).jobs] == ["old-0", "old-3", "evening"]


def test_the_status_of_a_finished_fleet_reads_back_from_its_json():
    whole = shown(told(), known={"edge-1": known("edge-1")})
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Status) == whole


@given(st.floats(0, 4e9))
def test_midnight_is_at_most_a_long_day_ago(wall_s):
    assert 0 <= wall_s - midnight_s(wall_s) <= 25 * 3600 + 1


def test_the_first_weights_alone_are_a_job_without_losses():
    (job,) = shown(told(past=STARTED)).jobs
    assert job.parameters == 5070
    assert all(task.relative is None and task.curves == () for task in job.tasks)
