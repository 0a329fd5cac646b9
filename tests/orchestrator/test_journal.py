"""What happened to a job, in words."""

from __future__ import annotations

import msgspec
import pytest
from finished import SPEC, events, heard
from test_job import spec
from test_stopping import World

from mas_edge.orchestrator.job import Abandoned, Resumed, Stopped
from mas_edge.orchestrator.rounds import GaveUp, Late, Lifted
from mas_edge.orchestrator.spec import Budget, Launched
from mas_edge.orchestrator.views.journal import Journal, beginning
from mas_edge.wire.messages import Key


def told(asked, happened):
    journal = Journal(asked)
    return [line for time_s, event in happened for line in journal.read(event, time_s)]


def test_what_a_job_is_asked_to_do_is_one_line():
    asked = msgspec.structs.replace(
        spec(),
        launched=(Launched(task="a", name="ants", owner="anna"),),
        budget=Budget(energy_j=500.0, time_s=60.0),
    )
    assert beginning(asked) == (
        "ants (a) by anna, b, c of watch on d1, d2: mas, 3 rounds, 2 of them merged, network micro, seed 1;"
        " at most 500 J, 60 s"
    )


def test_a_whole_job_is_told_in_order():
    world = World(spec(unseen=("9",)))
    world.play()
    lines = told(world.job.spec, [(0.0, event) for event in world.events])
    assert lines[0] == "first weights: 0 parameters"
    places = [
        lines.index(line)
        for line in (
            "round 1 of a+b+c: asks d1, d2 for 2 answers",
            "round 1 of a+b+c: d1 trained 10 examples",
            "round 1 of a+b+c: merged",
            "a+b begins with round 3",
            "round 3 of a+b: merged",
            "is judged on unseen clients",
            "a+b: evaluated on unseen clients",
            "done",
        )
    ]
    assert places == sorted(places)
    assert any(line.startswith("decided: a+b | c (") for line in lines)


def test_answers_are_told_with_what_they_cost_and_an_estimate_as_one():
    lines = told(SPEC, events())
    assert "round 1 of a+b: d1 trained 40 examples in 4.0 s, 3 J" in lines


KEY = Key(job="j", group="a+b+c", round=0, attempt=0, device="d1")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            GaveUp(key=KEY, reason="not-now", detail="too hot"),
            "round 1 of a+b+c: d1 gave up: not-now (too hot)",
        ),
        (Late(key=KEY), "round 1 of a+b+c: d1 answered too late, not merged"),
        (Stopped(tasks=("a",)), "stopped: ants"),
        (Stopped(), "stopped: the whole job"),
        (Resumed(), "resumed"),
        (Abandoned(reason="no torch"), "given up: no torch"),
    ],
)
def test_what_does_not_happen_every_day_is_told_too(event, line):
    asked = msgspec.structs.replace(spec(), launched=(Launched(task="a", name="ants"),))
    assert told(asked, [(0.0, event)])[0] == line


def test_joules_of_which_a_part_is_unknown_are_left_out():
    event = heard("d1", "a+b", 0, 1.0, None, None)
    assert told(SPEC, [(0.0, event)]) == ["round 1 of a+b: d1 trained 40 examples in 4.0 s"]


def test_a_device_that_may_train_again_is_told_of():
    assert told(SPEC, [(1.0, Lifted(device="d1"))]) == ["d1 may train again"]
