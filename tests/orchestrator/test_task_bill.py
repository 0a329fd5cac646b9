"""Bills of tasks: who pays what of a group's joules, and that nothing is lost or paid twice."""

from __future__ import annotations

from math import fsum

import msgspec
import pytest
from finished import MODEL, RAPL, SPEC, spend
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.cost_model import Shares
from mas_edge.orchestrator.observed import Observation, Observed
from mas_edge.orchestrator.reports.task_bill import shares_of, task_bills
from mas_edge.orchestrator.spec import ORCHESTRATOR, Launched
from mas_edge.profiling.bill import Billed

TASKS = ("a", "b", "c")
TRAINING = msgspec.structs.replace(SPEC.training, reproducible=False)
JOB = msgspec.structs.replace(SPEC, tasks=TASKS, partition=(("a",), ("b", "c")), training=TRAINING)


def row(group, joules, seconds=1.0, sensor=RAPL):
    return Billed(device="d1", sensor=sensor, spend=spend(group, 0, "forward", 0.0, seconds, joules))


def thirds(group):
    """A third of a group's cost is common, the rest divides in the tasks' order as 1 : 2 : 3."""
    total = sum(range(1, len(group) + 1))
    of = {task: 2 / 3 * (n + 1) / total for n, task in enumerate(group)}
    return Shares(common=1 / 3, of=of, how="fitted")


def joules(bills):
    return {bill.task: bill.energy_j for bill in bills}


def test_a_task_pays_its_decoder_and_an_equal_part_of_what_is_common():
    bills = task_bills(JOB, [row("a+b", 9.0)], thirds, {})
    assert joules(bills) == {"a": pytest.approx(1.5 + 2), "b": pytest.approx(1.5 + 4), "c": None}
    assert [part.how for part in bills[0].parts] == ["fitted"]


def test_a_task_that_trained_alone_pays_everything_and_the_orchestrators_work_is_divided_equally():
    bills = task_bills(JOB, [row("c", 4.0), row(ORCHESTRATOR, 3.0)], thirds, {})
    assert joules(bills) == {"a": pytest.approx(1), "b": pytest.approx(1), "c": pytest.approx(5)}
    assert [part.how for part in bills[2].parts] == ["alone", "equal"]


def test_a_task_that_left_its_group_pays_until_then():
    bills = task_bills(JOB, [row("a+b+c", 9.0), row("a+b", 9.0)], thirds, {})
    assert {part.group for part in bills[2].parts} == {"a+b+c"}
    assert {part.group for part in bills[0].parts} == {"a+b+c", "a+b"}


def test_a_task_in_a_group_whose_joules_are_unknown_has_an_unknown_bill_and_the_others_do_not():
    bills = task_bills(JOB, [row("a+b", None, sensor=None), row("a+b+c", 9.0), row("c", 1.0)], thirds, {})
    assert [bill.energy_j is None for bill in bills] == [True, True, False]
    assert all(bill.wall_s > 0 for bill in bills)


def test_a_bill_names_what_it_rests_on_and_who_pays():
    launched = (Launched(task="b", name="bees", owner="anna"),)
    job = msgspec.structs.replace(JOB, launched=launched)
    bill = task_bills(job, [row("b", 1.0, sensor=MODEL), row("b+c", 1.0)], thirds, {})[1]
    assert (bill.name, bill.owner, bill.methods) == ("bees", "anna", ("counter", "estimated"))


def test_what_a_device_did_for_another_job_in_the_meantime_is_not_on_the_bill():
    spent = msgspec.structs.replace(spend("a", 0, "upload", 0.0, 1.0, 5.0), job="other")
    bills = task_bills(JOB, [Billed(device="d1", sensor=RAPL, spend=spent), row("a", 2.0)], thirds, {})
    assert bills[0].energy_j == pytest.approx(2.0)


def test_who_is_served_by_a_group_also_pays_for_the_helpers_decoders():
    bills = task_bills(JOB, [row("a+b+c", 9.0), row("a+b", 9.0)], thirds, {"a+b+c": ("c",)})
    assert joules(bills) == {"a": pytest.approx(3.5), "b": pytest.approx(5.5), "c": pytest.approx(9)}
    bills = task_bills(JOB, [row("a+b+c", 9.0)], thirds, {"a+b+c": ("b", "c")})
    assert joules(bills) == {"a": None, "b": pytest.approx(2 + 2), "c": pytest.approx(3 + 2)}


groups = st.sampled_from(["a+b+c", "a+b", "b+c", "a", "b", "c", ORCHESTRATOR])
who_is_served = st.sampled_from([{}, {"a+b+c": ("c",)}, {"a+b": ("b",), "a+b+c": ("a", "c")}])
rows = st.lists(st.builds(row, groups, st.floats(0, 1e6), st.floats(0.001, 1e5)), max_size=12)


@given(rows, st.tuples(*[st.integers(1, 10**7)] * 4), st.booleans(), who_is_served)
def test_the_parts_sum_to_the_whole_whatever_the_model_says(billed, counts, reproducible, serves):
    parameters = dict(zip(("encoder", "decoder.a", "decoder.b", "decoder.c"), counts, strict=True))
    training = msgspec.structs.replace(JOB.training, reproducible=reproducible)
    job = msgspec.structs.replace(JOB, training=training)
    trainings = tuple(
        Observation(
            group=tuple(each.spend.group.split("+")),
            device="d1",
            round=0,
            examples=1,
            wall_s=each.spend.wall_s,
            energy_j=None,
        )
        for each in billed
        if each.spend.group != ORCHESTRATOR
    )
    bills = task_bills(job, billed, shares_of(job, parameters, Observed(trainings=trainings)), serves)
    for own, whole in (
        ("energy_j", "attributed_energy_j"),
        ("energy_u_j", "attributed_u_j"),
        ("wall_s", "wall_s"),
    ):
        total = fsum(getattr(each.spend, whole) for each in billed)
        assert fsum(getattr(bill, own) or 0.0 for bill in bills) == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_seconds_of_groups_of_different_tasks_move_the_shares_and_are_said_to_have():
    parameters = {"encoder": 100, "decoder.a": 100, "decoder.b": 100, "decoder.c": 100}

    def seen(*seconds):
        return Observed(
            trainings=tuple(
                Observation(group=group, device="d1", round=n, examples=1, wall_s=wall_s, energy_j=None)
                for n in range(20)
                for group, wall_s in zip((("a", "c"), ("b", "c")), seconds, strict=False)
            )
        )

    static = shares_of(JOB, parameters, seen())(("a", "b"))
    fitted = shares_of(JOB, parameters, seen(9.0, 3.0))(("a", "b"))
    assert (static.how, fitted.how) == ("static", "fitted")
    assert static.of["a"] == pytest.approx(static.of["b"])
    assert fitted.of["a"] > 1.2 * fitted.of["b"]


def test_what_a_device_billed_to_a_group_that_cannot_be_breaks_nothing_and_is_paid_by_all():
    bills = task_bills(JOB, [row("a+foo", 3.0), row("", 3.0), row("c", 1.0)], thirds, {})
    assert joules(bills) == {"a": pytest.approx(2), "b": pytest.approx(2), "c": pytest.approx(3)}
