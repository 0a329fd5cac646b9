"""Who is asked in a round and how long it waits, without a fleet."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import attendance, selection
from mas_edge.orchestrator.attendance import Record
from mas_edge.orchestrator.round_state import Cohort, Member, Run, Trouble
from mas_edge.orchestrator.rounds import Contribution
from mas_edge.orchestrator.selection import SHORTEST_S, UNKNOWN_S, Candidate, select
from mas_edge.orchestrator.spec import Participation
from mas_edge.wire.messages import BlobRef

NAMES = tuple(f"d{i}" for i in range(12))
W = BlobRef(digest="w", size_bytes=1, chunk_bytes=1)


def a_run(devices=NAMES, **changes) -> Run:
    run = Run(job="j", group="a", tasks=("a",), devices=tuple(devices), round=3, past=9, source=W, weights=W)
    return msgspec.structs.replace(run, **{"phase": "selecting", **changes})


def online(names=NAMES, **changes) -> list[Candidate]:
    return [Candidate(device=name, online=True, labels=True, **changes) for name in names]


def chosen(run, there, *, settled=True, time_s=100.0, seed=1, missed=(), **how):
    return select(run, there, Participation(**how), seed=seed, time_s=time_s, settled=settled, missed=missed)


candidates = st.lists(
    st.builds(
        Candidate,
        device=st.sampled_from(NAMES),
        online=st.sampled_from([True, True, False, None]),
        may_train=st.booleans(),
        labels=st.sampled_from([True, True, False, None]),
        budget_left=st.sampled_from([None, 1.0, 0.4, 0.0]),
    ),
    unique_by=lambda c: c.device,
)
how_ = st.fixed_dictionaries(
    {
        "clients": st.one_of(st.none(), st.integers(1, 12)),
        "select": st.sampled_from(["random", "resourceful"]),
        "over_selection": st.sampled_from([0.0, 0.3, 1.0]),
        "quorum": st.sampled_from([0.1, 0.5, 1.0]),
    }
)
records = st.lists(
    st.builds(
        Record,
        device=st.sampled_from(NAMES),
        seconds=st.lists(st.floats(0.1, 500), max_size=5).map(tuple),
        benched_until_s=st.sampled_from([0.0, 99.0, 101.0]),
    ),
    unique_by=lambda r: r.device,
).map(tuple)


@given(candidates, how_, records, st.randoms(use_true_random=False), st.integers(0, 9))
def test_the_order_of_candidates_decides_nothing_and_neither_does_asking_twice(there, how, known, rng, seed):
    run = a_run([c.device for c in there], records=known)
    mixed = rng.sample(there, len(there))
    assert chosen(run, there, seed=seed, **how) == chosen(run, mixed, seed=seed, **how)


@given(candidates, how_, records)
def test_only_who_is_able_is_asked_and_never_more_than_wanted_and_the_surplus(there, how, known):
    run = a_run([c.device for c in there], records=known)
    made = chosen(run, there, **how)
    if all(c.labels is False for c in there):  # they say so themselves when they are asked
        there = [msgspec.structs.replace(c, labels=True) for c in there]
    able = {
        c.device
        for c in there
        if c.online and c.may_train and c.labels is not False and c.budget_left != 0.0
        if attendance.of(known, c.device).benched_until_s <= 100.0
    }
    eligible = [c for c in there if c.labels is not False]
    goal = min(how["clients"] or len(eligible), len(eligible))
    if made is None:
        assert len(able) < max(1, how["quorum"] * goal)
        return
    assert set(made.devices) <= able
    assert made.wanted == min(goal, len(able))
    assert made.needed <= made.wanted
    assert len(made.devices) == min(len(able), -int(-made.wanted * (1 + how["over_selection"]) // 1))


def test_devices_of_which_none_has_the_labels_are_asked_so_that_they_decline_and_the_run_ends():
    there = [Candidate(device=d, online=True, labels=False) for d in ("d1", "d2")]
    assert chosen(a_run(["d1", "d2"]), there).devices == ("d1", "d2")
    assert chosen(a_run(["d1", "d2"]), [there[0], *online(["d2"])]).devices == ("d2",)


def test_the_surplus_is_not_a_device_too_many_by_rounding():
    many = tuple(f"d{i}" for i in range(120))
    assert 100 * 1.1 > 110
    assert len(chosen(a_run(many), online(many), clients=100, over_selection=0.1).devices) == 110


def test_every_device_has_its_turn_and_none_is_preferred_where_chance_decides():
    times = dict.fromkeys(NAMES, 0)
    for number in range(600):
        for device in chosen(a_run(round=number, past=999), online(), clients=3).devices:
            times[device] += 1
    assert all(100 < n < 200 for n in times.values()), times  # 150 expected, sd 11


def test_the_fast_and_the_rich_go_first_and_nobody_is_starved():
    fast = tuple(Record(device=name, seconds=(10.0 if name < "d2" else 1000.0,)) for name in NAMES)
    times = dict.fromkeys(NAMES, 0)
    for number in range(600):
        run = a_run(round=number, past=999, records=fast)
        for device in chosen(run, online(), clients=3, select="resourceful").devices:
            times[device] += 1
    quick = [n for name, n in times.items() if name < "d2"]
    slow = [n for name, n in times.items() if name >= "d2"]
    assert min(quick) > 2 * max(slow)
    assert min(slow) > 20
    assert sum(times.values()) == 1800


def test_a_device_with_less_of_its_budget_left_goes_less_often():
    there = [
        Candidate(device=n, online=True, labels=True, budget_left=0.2 if n < "d5" else 1.0) for n in NAMES
    ]
    poor = 0
    for number in range(400):
        made = chosen(a_run(round=number, past=999), there, clients=1, select="resourceful")
        poor += made.devices[0] < "d5"
    assert poor < 120  # an equal draw would give 233


def test_rounds_groups_and_seeds_draw_differently():
    draws = {chosen(a_run(round=r), online(), clients=4).devices for r in range(6)}
    draws |= {chosen(a_run(), online(), clients=4, seed=s).devices for s in range(2, 6)}
    assert len(draws) > 6


def test_a_closing_round_asks_everybody_who_is_there():
    made = chosen(a_run(round=9), online(), clients=2, over_selection=1.0)
    assert (made.devices, made.wanted) == (tuple(sorted(NAMES)), len(NAMES))


def test_before_the_fleet_has_settled_it_is_waited_for_who_may_still_come():
    there = [*online(NAMES[:3]), Candidate(device="d3")]
    run = a_run(NAMES[:4])
    assert chosen(run, there, settled=False) is None
    assert chosen(run, there).devices == NAMES[:3]
    assert chosen(run, [*there[:3], Candidate(device="d3", online=False)], settled=False).wanted == 3


def cohort(*names: str, since_s: float = 0.0) -> Cohort:
    members = tuple(Member(device=name, since_s=since_s) for name in names)
    return Cohort(members=members, wanted=len(names), needed=2, deadline_s=90.0)


def heard(*names: str) -> tuple[Contribution, ...]:
    return tuple(Contribution(device=name, weights=W, examples=1, trained=()) for name in names)


def test_short_of_a_quorum_others_are_asked_too_and_who_is_still_at_it_goes_on():
    run = a_run(phase="collecting", cohort=cohort("d0", "d1", "d2"), call=1, heard=heard("d1"))
    made = chosen(run, online(), clients=4, quorum=0.5, missed=("d0", "d2"))
    assert {"d0", "d2"} < set(made.devices)
    assert "d1" not in made.devices
    assert (len(made.devices), made.wanted, made.call, made.missed) == (3, 2, 1, ("d0", "d2"))


def test_who_lets_a_second_deadline_pass_is_replaced():
    once = (Record(device="d0", missed=1),)
    run = a_run(phase="collecting", cohort=cohort("d0", "d1", "d2"), call=1, records=once)
    made = chosen(run, online(), clients=3, missed=("d0", "d1"))
    assert "d0" not in made.devices
    assert {"d1", "d2"} < set(made.devices)


def test_who_is_only_slow_is_not_stopped_where_nobody_can_take_its_place():
    run = a_run(
        ("d0",), phase="collecting", cohort=cohort("d0"), call=1, records=(Record(device="d0", missed=1),)
    )
    made = chosen(run, online(("d0",)), missed=("d0",))
    assert made.devices == ("d0",)


def test_who_pauses_after_giving_up_is_not_selected_meanwhile():
    trouble = (Trouble(device="d0", times=1, not_before_s=101.0, reason="r"),)
    assert chosen(a_run(("d0",), trouble=trouble), online(("d0",))) is None
    assert chosen(a_run(("d0",), trouble=trouble), online(("d0",)), time_s=101.0).devices == ("d0",)


@pytest.mark.parametrize(
    ("seconds", "deadline_s"),
    [
        ({}, UNKNOWN_S),
        ({"d0": (30.0,)}, UNKNOWN_S),
        ({"d0": (3000.0,)}, 9000.0),
        ({"d0": (30.0,), "d1": (40.0,)}, 120.0),
        ({"d0": (1.0,), "d1": (1.0,)}, SHORTEST_S),
        ({"d0": (100.0, 140.0, 120.0), "d1": (1.0,)}, 3 * (120.0 + 3 * 20.0)),
        ({"d0": (5000.0,), "d1": (1.0,)}, 15000.0),
    ],
)
def test_a_deadline_is_generous_for_the_slowest_and_long_where_one_was_never_measured(seconds, deadline_s):
    known = tuple(Record(device=name, seconds=values) for name, values in seconds.items())
    assert selection.deadline_s(Participation(), known, ("d0", "d1")) == deadline_s
    assert selection.deadline_s(Participation(deadline_s=7.0), known, ("d0", "d1")) == 7.0
    assert selection.deadline_s(Participation(deadline_s=None), known, ("d0", "d1")) is None


def test_what_a_round_waits_for_is_one_line_that_names_each_device_and_its_reason():
    there = [
        Candidate(device="d0", online=False),
        Candidate(device="d1", online=True, may_train=False),
        Candidate(device="d2", online=True, labels=False),
        Candidate(device="d3", online=True, budget_left=0.0),
        Candidate(device="d4", online=True),
        Candidate(device="d5", online=True),
    ]
    benched = Record(device="d4", benched_until_s=160.0, why="no answer by 2 deadlines in a row")
    run = a_run([c.device for c in there], records=(benched,), heard=heard("d5"))
    assert selection.waits_for(run, there[:5], 100.0) == (
        "round 4 of a waits for devices (1 have answered): d0 is away; d1 may not train now; d2 has no labels"
        " of these tasks; d3 has used its joules of today; d4 is benched for 60 s more (no answer by 2"
        " deadlines in a row)"
    )


# --- what is remembered of a device -------------------------------------------------------------------


def test_a_device_that_keeps_failing_is_benched_for_longer_each_time_and_forgiven_when_it_is_of_use():
    known, pauses = (), []
    for time_s in (0.0, 1.0, 2.0, 100.0, 300.0):
        known = attendance.failed(known, "d0", "hung", 3, time_s)
        pauses.append(max(0.0, attendance.of(known, "d0").benched_until_s - time_s))
    assert pauses == [0.0, 0.0, 60.0, 120.0, 240.0]
    assert attendance.of(known, "d0").why == "failed 5 times in a row: hung"
    assert "d0" in attendance.exhausted(known, 3)
    known = attendance.answered(known, "d0", 12.0)
    assert "d0" in attendance.exhausted(known, 3)
    known = attendance.merged(known, ["d0"])
    assert attendance.of(known, "d0") == Record(device="d0", seconds=(12.0,))


def test_a_missed_deadline_counts_as_so_many_seconds_so_that_the_slow_get_more_time():
    known = attendance.missed((), [("d0", 10.0)], 70.0)
    assert attendance.of(known, "d0").expected_s == 60.0
    assert not attendance.benched(known, "d0", 70.0)
    known = attendance.missed(known, [("d0", 70.0)], 250.0)
    assert attendance.benched(known, "d0", 250.0)
    assert not attendance.benched(known, "d0", 310.0)


@given(st.lists(st.sampled_from(["answered", "failed", "missed"]), max_size=30))
def test_no_bench_is_for_ever(history):
    known = ()
    for step, what in enumerate(history):
        time_s = 100.0 * step
        if what == "answered":
            known = attendance.merged(attendance.answered(known, "d0", 5.0), ["d0"])
        elif what == "failed":
            known = attendance.failed(known, "d0", "r", 3, time_s)
        else:
            known = attendance.missed(known, [("d0", time_s)], time_s)
        record = attendance.of(known, "d0")
        assert record.benched_until_s <= time_s + attendance.LONGEST_BENCH_S
        assert len(record.seconds) <= attendance.REMEMBERED
        if what == "answered":
            assert not attendance.benched(known, "d0", time_s)


def test_where_a_quorum_has_answered_and_nobody_else_can_be_asked_the_round_waits_for_nobody():
    heard = tuple(Contribution(device=d, weights=W, examples=1, trained=()) for d in ("d0", "d1"))
    there = [*online(("d0", "d1")), Candidate(device="d2", online=False, labels=True)]
    made = chosen(a_run(("d0", "d1", "d2"), heard=heard), there)
    assert (made.devices, made.wanted, made.needed) == ((), 2, 2)


def test_who_is_kept_in_its_round_though_it_missed_deadlines_is_not_benched():
    once = (Record(device="d0", missed=1),)
    for kept, benched in ((("d0",), False), ((), True)):
        known = attendance.missed(once, [("d0", 0.0)], 60.0, kept)
        assert attendance.benched(known, "d0", 61.0) is benched
        assert attendance.of(known, "d0").missed == 2
