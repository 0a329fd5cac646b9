"""Who brought what to a group: what was merged counts, and what came to nothing is named."""

from __future__ import annotations

import io

import msgspec
import pytest
from finished import SPEC, a_run, events, ref
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.events import Absurd, Closed, GaveUp, Heard, Late, LeftOut, Merged, Selected
from mas_edge.orchestrator.job import Initialised, Planned
from mas_edge.orchestrator.reports import tables
from mas_edge.orchestrator.storage.contributions import Contributed, contributions
from mas_edge.wire import messages as m

FREE = msgspec.structs.replace(SPEC.training, reproducible=False)
ONE = msgspec.structs.replace(
    SPEC, training=FREE, policy="all-in-one", partition=(), merge_rounds=0, unseen=()
)


def key(device: str, round_: int = 0, attempt: int = 0) -> m.Key:
    return m.Key(job="j", group="a+b", round=round_, attempt=attempt, device=device)


def update(device: str, round_: int = 0, tasks=("a", "b"), attempt: int = 0) -> Heard:
    trained = tuple(m.Score(task=task, count=30.0, loss_sum=1.0) for task in tasks)
    at = key(device, round_, attempt)
    return Heard(update=m.Update(key=at, weights=ref("u"), examples=40, trained=trained))


def selected(*devices: str, round_: int = 0, **more) -> Selected:
    return Selected(group="a+b", round=round_, devices=devices, wanted=len(devices), needed=1, **more)


def merged(round_: int = 0) -> Merged:
    return Merged(group="a+b", round=round_, weights=ref("w"))


def rows(*happened) -> dict[str, Contributed]:
    begun = (
        Initialised(weights=ref("i"), fingerprint="f", parameters={}),
        Planned(decision=Decision(groups=(("a", "b"),))),
    )
    stored = [(float(second), event) for second, event in enumerate((*begun, *happened))]
    return {row.device: row for row in contributions(ONE, stored)}


def labels(row: Contributed) -> dict[str, float | None]:
    return {each.task: each.examples for each in row.labelled}


def test_rounds_examples_and_labels_are_those_of_merged_updates():
    found = rows(
        selected("d1", "d2"),
        update("d1"),
        update("d2"),
        merged(),
        selected("d1", "d2", round_=1),
        update("d1", 1),
    )
    assert {d: (row.rounds, row.asked, row.examples) for d, row in found.items()} == {
        "d1": (1, 2, 40),
        "d2": (1, 2, 40),
    }
    assert labels(found["d1"]) == {"a": 30.0, "b": 30.0}
    assert all(row.even for row in found.values())


def test_a_device_without_a_tasks_labels_has_a_dash_there_and_not_a_zero():
    found = rows(selected("d1", "d2"), update("d1", tasks=("b",)), update("d2"), merged())
    assert labels(found["d1"]) == {"a": None, "b": 30.0}
    assert not found["d1"].even
    table = tables.contributions(tuple(found.values()), {})
    assert table.rows[0][table.headers.index("labels")] == "a –, b 30"


def test_an_update_that_was_left_out_counts_as_refused_and_brings_nothing():
    absurd = (Absurd(device="d2", reason="1e9 times as far as the others"),)
    found = rows(
        selected("d1", "d2"),
        update("d1"),
        update("d2"),
        LeftOut(group="a+b", round=0, updates=absurd),
        merged(),
    )
    assert (found["d2"].rounds, found["d2"].examples, found["d2"].refused) == (0, 0, 1)
    assert found["d1"].rounds == 1


GAVE_UP = {
    "update-refused": (1, 0, 0),
    "no-data": (0, 1, 0),
    "memory": (0, 1, 0),
    "not-now": (0, 1, 0),
    "crashed": (0, 0, 1),
    "disk": (0, 0, 1),
}


@pytest.mark.parametrize("reason", GAVE_UP)
def test_what_a_device_gave_up_is_told_apart_by_reason(reason):
    row = rows(selected("d1", "d2"), GaveUp(key=key("d1"), reason=reason))["d1"]
    assert (row.refused, row.declined, row.failed) == GAVE_UP[reason]
    assert [(each.reason, each.times) for each in row.reasons] == [(reason, 1)]


def test_late_answers_missed_deadlines_and_benchings_are_counted():
    found = rows(
        selected("d1", "d2", deadline_s=0.5),
        update("d1"),
        Closed(group="a+b", round=0, missed=("d2",)),
        merged(),
        Late(key=key("d2"), examples=40),
        selected("d1", "d2", round_=1, deadline_s=0.5),
        update("d1", 1),
        Closed(group="a+b", round=1, missed=("d2",)),
    )
    row = found["d2"]
    assert (row.rounds, row.asked, row.missed, row.late) == (0, 2, 2, 1)
    assert found["d1"].missed == found["d1"].late == 0


def test_a_device_that_fails_as_often_as_it_may_is_benched_once():
    tries = (GaveUp(key=key("d1", attempt=n), reason="crashed") for n in range(ONE.tries))
    row = rows(selected("d1", "d2"), *tries)["d1"]
    assert (row.failed, row.benched) == (ONE.tries, 1)


@given(st.lists(st.sampled_from([("d1", 0), ("d2", 0), ("d1", 1), ("d2", 1)]), max_size=6))
def test_nobody_brings_more_rounds_than_were_merged(answers):
    found = rows(*(update(device, round_) for device, round_ in answers), merged(0))
    assert all(row.rounds <= answers.count((row.device, 0)) for row in found.values())
    assert all(row.examples == 40 * row.rounds for row in found.values())


def test_the_report_has_a_row_per_group_and_device_in_the_order_of_the_groups():
    run = a_run()
    assert [(row.group, row.device) for row in run.contributions] == [
        (group, device) for group in ("a+b", "a", "b") for device in ("d1", "d2")
    ]
    assert all(row.rounds == 1 and row.asked is None for row in run.contributions)
    assert contributions(SPEC, events()) == run.contributions


def test_a_terminal_shows_who_contributed_only_where_it_is_uneven():
    run = a_run()
    for shown, expected in ((run, False), (_uneven(run), True)):
        out = io.StringIO()
        tables.job(Console(file=out, width=240), shown)
        assert ("Who contributed what" in out.getvalue()) is expected


def _uneven(run):
    first, *others = run.contributions
    return msgspec.structs.replace(run, contributions=(msgspec.structs.replace(first, late=1), *others))
