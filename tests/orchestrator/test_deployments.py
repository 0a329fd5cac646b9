"""Deployments as facts and what they owe: exported once, asked until answered, the newer order counts."""

from __future__ import annotations

import msgspec
import pytest
from finished import ref
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models.proof import Proof, TaskProof
from mas_edge.orchestrator.deployment import (
    Answered,
    Event,
    Export,
    Exported,
    NotExported,
    Ordered,
    Send,
    Target,
    fold,
    outcomes,
    owes,
    referenced,
)
from mas_edge.wire import messages as m

DEVICES = ("edge-1", "edge-2")
GROUPS = {"gravity+jerk": ("gravity", "jerk"), "exercise": ("exercise",)}


def order(request="s-1", devices=DEVICES, **changes) -> Ordered:
    targets = tuple(
        Target(group=group, tasks=tasks, round=6, weights=ref(f"w{group}"), devices=devices)
        for group, tasks in GROUPS.items()
    )
    return Ordered(request=request, workload="watch", targets=targets, **changes)


def exported(group, request="s-1") -> Exported:
    proof = Proof(
        digest="ab" * 32,
        size_bytes=9,
        precision="fp32",
        opset=20,
        inputs="held-out",
        examples=8,
        tasks=(TaskProof(task=GROUPS[group][0], max_abs_error=1e-6, mean_abs_error=1e-7),),
        versions={},
    )
    return Exported(request=request, group=group, file=ref(f"o{group}{request}"), proof=proof)


def answered(device, number, request="s-1", verdict="in use", **changes) -> Answered:
    group = list(GROUPS)[number]
    answer = m.Deployed(request=f"{request}.{number}", job="j", group=group, verdict=verdict, **changes)
    return Answered(device=device, answer=answer)


def after(*events, job="j"):
    found = ()
    for event in events:
        found = fold(found, job, event)
    return found


def sends(deployments) -> list[tuple[str, str]]:
    return [(each.device, each.message.group) for each in owes(deployments) if isinstance(each, Send)]


def exports(deployments) -> list[str]:
    return [each.group for each in owes(deployments) if isinstance(each, Export)]


ALL = (
    order(),
    *(exported(group) for group in GROUPS),
    *(answered(device, n) for device in DEVICES for n in range(2)),
)


def test_a_group_is_exported_and_then_asked_of_every_device_until_it_answered():
    assert exports(after(order())) == list(GROUPS)
    half = after(order(), exported("exercise"))
    assert exports(half) == ["gravity+jerk"]
    assert sends(half) == [("edge-1", "exercise"), ("edge-2", "exercise")]
    assert sends(after(order(), exported("exercise"), answered("edge-1", 1))) == [("edge-2", "exercise")]
    assert owes(after(*ALL)) == ()


def test_the_message_says_whose_model_it_is_which_rounds_are_in_it_and_where_its_file_is():
    made = exported("exercise")
    (first, _) = (each for each in owes(after(order(precision="int8"), made)) if isinstance(each, Send))
    assert first.message == m.Deploy(
        request="s-1.1",
        workload="watch",
        job="j",
        group="exercise",
        model=m.Model(
            workload="watch",
            job="j",
            group="exercise",
            round=6,
            tasks=("exercise",),
            file=made.file,
            precision="int8",
        ),
    )


def test_what_cannot_be_exported_is_asked_of_nobody_and_refused_in_words():
    found = after(order(), NotExported(request="s-1", group="exercise", reason="no ONNX form"))
    assert exports(found) == ["gravity+jerk"]
    states = {(each.group, each.state, each.why) for each in outcomes(found, found[0])}
    assert ("exercise", "refused", "not exported: no ONNX form") in states


def test_a_rollback_exports_nothing_and_asks_at_once_for_no_model():
    back = tuple(msgspec.structs.replace(each, weights=None) for each in order().targets[1:])
    found = after(Ordered(request="s-2", workload="watch", targets=back, rollback=True))
    assert exports(found) == []
    assert {each.message.model for each in owes(found)} == {None}
    assert [each.state for each in outcomes(found, found[0])] == ["asked", "asked"]


def test_a_newer_order_takes_the_place_of_an_older_one_on_the_devices_that_both_name():
    found = after(order(), exported("exercise"), order("s-2", ("edge-1",)))
    old = {(each.device, each.group): each.state for each in outcomes(found, found[0])}
    assert old["edge-1", "exercise"] == old["edge-1", "gravity+jerk"] == "superseded"
    assert (old["edge-2", "exercise"], old["edge-2", "gravity+jerk"]) == ("asked", "exporting")
    assert sends(found) == [("edge-2", "exercise")]
    assert [(each.request, each.group) for each in owes(found) if isinstance(each, Export)] == [
        ("s-1", "gravity+jerk"),
        *(("s-2", group) for group in GROUPS),
    ]


def test_orders_of_different_workloads_or_devices_leave_each_other_alone():
    other = msgspec.structs.replace(order("s-2"), workload="buildings")
    found = fold(after(order()), "k", other)
    assert len(exports(found)) == 4
    assert len(exports(after(order(), order("s-2", ("edge-3",))))) == 4


def test_weights_are_kept_until_they_are_exported_and_files_until_all_have_answered():
    weights = {target.weights.digest for target in order().targets}
    assert referenced(after(order())) == weights
    found = after(order(), exported("exercise"))
    assert referenced(found) == {ref("wgravity+jerk").digest, ref("oexercises-1").digest}
    assert referenced(after(*ALL)) == set()


def test_a_device_may_refuse_what_another_takes():
    found = after(order(), *ALL[1:3], answered("edge-1", 1, verdict="refused", why="worse"))
    by = {(each.device, each.group): (each.state, each.why) for each in outcomes(found, found[0])}
    assert by["edge-1", "exercise"] == ("refused", "worse")
    assert by["edge-2", "exercise"] == ("asked", "")


FACTS = st.lists(
    st.sampled_from(
        [
            *ALL,
            order("s-2", ("edge-1",)),
            exported("exercise", "s-2"),
            answered("edge-1", 1, "s-2", "refused"),
            answered("edge-9", 0),
            answered("edge-1", 0, "never"),
            NotExported(request="s-1", group="exercise", reason="x"),
        ]
    ),
    max_size=20,
)


@given(facts=FACTS)
def test_repeated_and_foreign_facts_change_nothing_and_stored_ones_give_the_same_again(facts):
    found = after(*facts)
    for event in facts:
        once = fold(found, "j", event)
        assert fold(once, "j", event) == once
    assert fold(found, "another", answered("edge-1", 0)) == found
    stored = [msgspec.json.encode(event) for event in facts]
    assert after(*(msgspec.json.decode(each, type=Event) for each in stored)) == found


@given(facts=FACTS)
def test_nobody_is_asked_twice_for_a_group_nor_after_the_answer(facts):
    found = after(*facts)
    asked = sends(found)
    assert len(set(asked)) == len(asked)
    for one in found:
        for each in outcomes(found, one):
            assert each.state in {"exporting", "asked"} or (each.device, each.group) not in [
                (send.device, send.message.group)
                for send in owes(found)
                if isinstance(send, Send) and send.message.request.startswith(f"{one.ordered.request}.")
            ]


@pytest.mark.parametrize("number", range(1, len(ALL)))
def test_what_is_owed_gets_less_with_every_fact(number):
    size = {"exporting": 2, "asked": 1}
    before, then = after(*ALL[:number]), after(*ALL[: number + 1])

    def left(found):
        return sum(size.get(each.state, 0) for each in outcomes(found, found[0]))

    assert left(then) < left(before)
