"""Partitions of a set: the search on bare masks, and partitions that people write."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.partitions import PartitionRefused, k_best, members, partition_from_text

WATCH = ("exercise", "gravity", "jerk", "rotation")


def test_a_mask_holds_the_elements_of_its_bits():
    assert members(3)[0b101].tolist() == [True, False, True]
    assert members(3).shape == (8, 3)


@given(st.integers(1, 6), st.data())
def test_with_room_for_all_every_partition_is_found_once(n, data):
    worth = np.array([-np.inf, *data.draw(st.lists(st.floats(-1, 1), min_size=2**n - 1, max_size=2**n - 1))])
    stirling = {
        1: [1],
        2: [1, 1],
        3: [1, 3, 1],
        4: [1, 7, 6, 1],
        5: [1, 15, 25, 10, 1],
        6: [1, 31, 90, 65, 15, 1],
    }
    found = k_best(worth, n, 100)
    assert [len({tuple(p) for p in partitions}) for partitions in found] == stirling[n]
    for partitions in found:
        totals = [sum(worth[mask] for mask in masks) for masks in partitions]
        assert totals == pytest.approx(sorted(totals, reverse=True))
        assert all(sum(masks) == 2**n - 1 for masks in partitions)


def test_forbidden_groups_are_in_no_partition():
    worth = np.array([-np.inf, 1, 1, -np.inf, 1, 1, 1, 1.0])
    assert k_best(worth, 3, 9) == [[[0b111]], [[0b001, 0b110], [0b101, 0b010]], [[0b001, 0b010, 0b100]]]
    worth[0b001] = -np.inf
    assert k_best(worth, 3, 9) == [[[0b111]], [[0b101, 0b010]], []]


@pytest.mark.parametrize(
    ("text", "tasks", "groups"),
    [
        ("exercise+gravity,jerk+rotation", WATCH, (("exercise", "gravity"), ("jerk", "rotation"))),
        ("rotation + jerk , gravity+exercise", WATCH, (("exercise", "gravity"), ("jerk", "rotation"))),
        ("gravity,rotation+exercise,jerk", WATCH, (("exercise", "rotation"), ("gravity",), ("jerk",))),
        ("sdnr,ka,tec", tuple("sdnrkatec"), (tuple("sdnr"), ("k", "a"), tuple("tec"))),
        ("ds,n", tuple("sdn"), (("s", "d"), ("n",))),
        ("s+d,n", tuple("sdn"), (("s", "d"), ("n",))),
        ("exercise", ("exercise",), (("exercise",),)),
    ],
)
def test_a_partition_is_read_into_the_order_of_the_tasks(text, tasks, groups):
    assert partition_from_text(text, tasks) == groups


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exercise+gravity,jerk", "missing: 'rotation'; write it like exercise\\+gravity,jerk"),
        ("exercise+gravity,jerk+rotation,jerk", "more than once: 'jerk'"),
        ("exercise+gravity,jerk+rotation+smell", "unknown: 'smell'"),
        ("exercise+gravity|jerk+rotation", "unknown: 'gravity\\|jerk'; missing: 'gravity', 'jerk'"),
        ("exercise+gravity,,jerk+rotation", "a group is empty; write it like"),
        ("", "missing: 'exercise', 'gravity', 'jerk', 'rotation'"),
    ],
)
def test_a_partition_that_is_none_says_what_is_wrong(text, words):
    with pytest.raises(PartitionRefused, match=words):
        partition_from_text(text, WATCH)


@given(st.permutations(WATCH), st.lists(st.booleans(), min_size=3, max_size=3))
def test_what_is_written_is_what_is_read(order, cuts):
    text = order[0] + "".join(("," if cut else "+") + task for cut, task in zip(cuts, order[1:], strict=True))
    groups = partition_from_text(text, WATCH)
    assert {frozenset(group) for group in groups} == {frozenset(part.split("+")) for part in text.split(",")}
    assert partition_from_text(",".join(map("+".join, groups)), WATCH) == groups
