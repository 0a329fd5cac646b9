"""A group's way through its rounds, without a bus, a clock or a disk."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import attendance, rounds
from mas_edge.orchestrator.rounds import (
    Ask,
    Carved,
    Close,
    Closed,
    GaveUp,
    Heard,
    Late,
    LeaveOut,
    LeftOut,
    Lifted,
    Merge,
    Merged,
    Run,
    Select,
    Selected,
)
from mas_edge.wire.messages import BlobRef, Key, Profile, Shortage, Spend, Update


def ref(name: str) -> BlobRef:
    return BlobRef(digest=name, size_bytes=1, chunk_bytes=1)


def a_run(**changes) -> Run:
    run = Run(
        job="j",
        group="a+b",
        tasks=("a", "b"),
        devices=("d1", "d2"),
        round=0,
        past=2,
        source=ref("w0"),
        weights=ref("w0"),
        phase="collecting",
    )
    return msgspec.structs.replace(run, **changes)


def update(device: str, round_: int = 0, attempt: int = 0, weights: str | None = "u") -> Heard:
    key = Key(job="j", group="a+b", round=round_, attempt=attempt, device=device)
    return Heard(update=Update(key=key, weights=ref(weights + device) if weights else None, examples=3))


def asks(run: Run, time_s: float = 0.0) -> list[Ask]:
    return [action for action in rounds.owes(run, time_s) if isinstance(action, Ask)]


def all_asked(run: Run) -> Selected:
    """The selection that asks everybody, for ever."""
    many = len(run.devices)
    return Selected(
        group=run.group, round=run.round, call=run.call, devices=run.devices, wanted=many, needed=1
    )


def after(run: Run, *events, time_s: float = 0.0) -> Run:
    """The run after these events; where it selects, it asks everybody."""
    for event in events:
        run = rounds.step(run, event, time_s)
        if run.phase == "selecting":
            run = rounds.step(run, all_asked(run), time_s)
    return run


def test_a_run_that_starts_owes_its_first_weights_and_then_asks_every_device():
    run = a_run(weights=None, phase="starting")
    assert rounds.owes(run, 0.0) == (rounds.Carve(group="a+b", tasks=("a", "b"), source=ref("w0")),)
    run = after(run, Carved(group="a+b", weights=ref("w1")))
    assert [(ask.key.device, ask.weights) for ask in asks(run)] == [("d1", ref("w1")), ("d2", ref("w1"))]


def test_the_round_merges_when_the_last_device_answered_and_in_the_order_of_devices():
    run = after(a_run(), update("d2"))
    assert [ask.key.device for ask in asks(run)] == ["d1"]
    run = after(run, update("d1"))
    (merge,) = rounds.owes(run, 0.0)
    assert isinstance(merge, Merge)
    assert [c.device for c in merge.updates] == ["d1", "d2"]


def test_weights_are_evaluated_one_round_later_and_the_last_ones_by_a_round_that_trains_nothing():
    run = a_run()
    seen = []
    while run.phase == "collecting":
        seen.append(next((ask.train, ask.evaluate) for ask in asks(run)))
        brings = "u" if run.trains else None
        run = after(run, update("d1", run.round, 0, brings), update("d2", run.round, 0, brings))
        if run.phase == "merging":
            run = after(run, Merged(group="a+b", round=run.round, weights=ref(f"m{run.round}")))
    assert seen == [(True, False), (True, True), (False, True)]
    assert run.phase == "finished"
    assert run.weights == ref("m1")


def test_a_run_that_hands_its_weights_on_has_no_closing_round():
    run = a_run(past=1, closing=False)
    run = after(run, update("d1"), update("d2"), Merged(group="a+b", round=0, weights=ref("m")))
    assert run.phase == "finished"


def test_a_device_that_gave_up_is_asked_again_under_a_new_attempt_after_a_pause():
    key = asks(a_run())[0].key
    run = after(a_run(), GaveUp(key=key, reason="worker-killed"), time_s=10.0)
    assert [ask.key.device for ask in asks(run, 10.0)] == ["d2"]
    again = asks(run, 10.0 + rounds.RETRY_S)[0].key
    assert (again.device, again.attempt) == ("d1", 1)
    assert after(run, update("d1", attempt=0)) == run
    assert len(after(run, update("d1", attempt=1)).heard) == 1


def test_a_run_fails_with_the_reason_when_a_device_gave_up_too_often():
    run = a_run(all_contribute=True)
    for attempt in range(3):
        key = Key(job="j", group="a+b", round=0, attempt=attempt, device="d1")
        run = after(run, GaveUp(key=key, reason="data", detail="no file"))
    assert run.phase == "failed"
    assert run.reason == "d1 gave up round 0 of a+b 3 times: data (no file)"
    assert rounds.owes(run, 99.0) == ()


def test_an_update_without_weights_is_not_taken_for_a_training():
    assert after(a_run(), update("d1", weights=None)) == a_run()


KEYS = st.builds(
    Key,
    job=st.sampled_from(["j", "other"]),
    group=st.sampled_from(["a+b", "a"]),
    round=st.integers(0, 3),
    attempt=st.integers(0, 2),
    device=st.sampled_from(["d1", "d2", "stranger"]),
)
EVENTS = st.one_of(
    KEYS.map(lambda key: Heard(update=Update(key=key, weights=ref("u"), examples=1))),
    KEYS.map(lambda key: GaveUp(key=key, reason="r")),
    st.builds(
        Merged, group=st.sampled_from(["a+b", "a"]), round=st.integers(0, 3), weights=st.just(ref("m"))
    ),
    st.builds(Carved, group=st.sampled_from(["a+b", "a"]), weights=st.just(ref("c"))),
)


@given(st.lists(EVENTS, max_size=30))
def test_no_events_in_any_order_go_back_a_round_or_count_a_device_twice(events):
    run = a_run()
    for event in events:
        before, run = run, rounds.step(run, event, 0.0)
        assert run.round >= before.round
        devices = [c.device for c in run.heard]
        assert len(set(devices)) == len(devices)
        assert set(devices) <= set(run.devices)
        assert rounds.step(run, event, 0.0) == run or isinstance(event, GaveUp | Merged)


@given(st.permutations([update("d1"), update("d2")]))
def test_the_order_of_answers_does_not_matter(events):
    assert after(a_run(), *events) == after(a_run(), update("d1"), update("d2"))


def not_now(run: Run, device: str, again_s: float = 60.0) -> GaveUp:
    """The refusal of the assignment that this device has now."""
    times = next((t.times for t in run.trouble if t.device == device), 0)
    key = Key(job="j", group="a+b", round=run.round, attempt=times, device=device)
    return GaveUp(key=key, reason="not-now", detail="temperature: 80 °C", again_s=again_s)


def test_a_round_does_not_wait_for_a_device_that_may_not_train_and_asks_it_again_in_the_next():
    run = a_run()
    run = after(run, not_now(run, "d2"), update("d1"))
    assert run.phase == "merging"
    run = after(run, Merged(group="a+b", round=0, weights=ref("m")))
    assert [ask.key.device for ask in asks(run)] == ["d1", "d2"]


def test_a_refusal_that_comes_last_ends_the_round_as_well():
    run = after(a_run(), update("d1"))
    assert after(run, not_now(run, "d2")).phase == "merging"


def test_a_device_that_has_been_asked_again_is_waited_for():
    run = a_run()
    run = after(run, not_now(run, "d2"))
    run = after(run, update("d1"), time_s=61.0)
    assert run.phase == "collecting"
    assert after(run, not_now(run, "d2"), time_s=62.0).phase == "merging"


def test_a_reproducible_job_waits_for_everyone():
    run = a_run(all_contribute=True)
    run = after(run, not_now(run, "d2"), update("d1"))
    assert run.phase == "collecting"
    assert [ask.key.attempt for ask in asks(run, 60.0)] == [1]


def test_a_device_that_may_not_train_and_then_fails_has_all_its_tries_left():
    run = a_run()
    for _ in range(5):
        run = after(run, not_now(run, "d1"))
    for attempt in (5, 6):
        run = after(
            run, GaveUp(key=Key(job="j", group="a+b", round=0, attempt=attempt, device="d1"), reason="x")
        )
    assert run.phase == "collecting"
    assert not run.trouble[0].resting


def test_a_device_that_broke_is_waited_for_though_it_rested_before():
    run = a_run()
    run = after(run, not_now(run, "d2"))
    run = after(run, GaveUp(key=Key(job="j", group="a+b", round=0, attempt=1, device="d2"), reason="x"))
    assert after(run, update("d1")).phase == "collecting"


HINTS = st.integers(-(10**12), 10**12).map(float)  # whole seconds: exact sums


@given(st.lists(st.tuples(st.sampled_from(["d1", "d2"]), HINTS), max_size=40))
def test_a_round_that_everybody_declines_neither_fails_nor_stops_asking_nor_floods(declines):
    run, time_s = a_run(), 0.0
    for device, again_s in declines:
        asked = {ask.key.device for ask in asks(run, time_s)}
        if device not in asked:
            time_s = max(t.not_before_s for t in run.trouble)
        before_s, run = time_s, after(run, not_now(run, device, again_s), time_s=time_s)
        (trouble,) = [t for t in run.trouble if t.device == device]
        assert run.phase == "collecting"
        assert rounds.RETRY_S <= trouble.not_before_s - before_s <= rounds.LONGEST_S
        assert trouble.not_before_s - before_s >= min(
            rounds.RETRY_S * 2 ** (trouble.times - 1), rounds.LONGEST_S
        )
    later_s = time_s + rounds.LONGEST_S
    assert [ask.key.device for ask in asks(run, later_s)] == ["d1", "d2"]
    for device in ("d1", "d2"):
        attempt = next((t.times for t in run.trouble if t.device == device), 0)
        run = after(run, update(device, attempt=attempt), time_s=later_s)
    assert run.phase == "merging"


# --- rounds that select -------------------------------------------------------------------------------


FIVE = ("d1", "d2", "d3", "d4", "d5")


def asked(run: Run, *devices: str, wanted=None, needed=1, deadline_s=60.0, missed=()) -> Selected:
    return Selected(
        group=run.group,
        round=run.round,
        call=run.call,
        devices=devices,
        wanted=len(devices) if wanted is None else wanted,
        needed=needed,
        deadline_s=deadline_s,
        missed=missed,
    )


def selecting(**changes) -> Run:
    return a_run(devices=FIVE, phase="selecting", **changes)


def closed(run: Run, *missed: str) -> Closed:
    return Closed(group=run.group, round=run.round, missed=missed)


def gave_up(run: Run, device: str, **changes) -> GaveUp:
    times = next((t.times for t in run.trouble if t.device == device), 0)
    key = Key(job="j", group="a+b", round=run.round, attempt=times, device=device)
    return GaveUp(key=key, reason=changes.pop("reason", "hung"), **changes)


def test_a_round_first_owes_a_choice_of_devices_and_then_asks_those():
    run = selecting()
    assert rounds.owes(run, 0.0) == (Select(group="a+b", round=0, call=0),)
    run = after(run, asked(run, "d2", "d4"), time_s=5.0)
    assert [(ask.key.device, ask.deadline_s) for ask in asks(run, 6.0)] == [("d2", 65.0), ("d4", 65.0)]
    assert after(run, update("d1")) == run


def test_the_round_ends_when_as_many_as_wanted_have_answered_and_the_others_are_asked_no_more():
    run = selecting()
    run = after(run, asked(run, *FIVE, wanted=3), *(update(d) for d in ("d1", "d3", "d5")))
    (merge,) = rounds.owes(run, 1.0)
    assert [c.device for c in merge.updates] == ["d1", "d3", "d5"]
    assert rounds.expected(run, update("d2").update.key) is None


def test_at_the_deadline_a_quorum_is_enough_and_who_was_silent_is_remembered():
    run = selecting()
    run = after(run, asked(run, "d1", "d2", "d3", needed=2), update("d1"), update("d2"))
    assert not [a for a in rounds.owes(run, 59.0) if isinstance(a, Close)]
    assert Close(group="a+b", round=0, missing=("d3",)) in rounds.owes(run, 60.0)
    assert after(run, closed(run, "d3"), time_s=59.0) == run
    run = after(run, closed(run, "d3"), time_s=60.0)
    assert run.phase == "merging"
    assert attendance.of(run.records, "d3").missed == 1


def test_short_of_a_quorum_the_round_goes_on_with_others_and_keeps_who_has_answered():
    run = selecting()
    run = after(run, asked(run, "d1", "d2", "d3", needed=2), update("d1"))
    assert after(run, closed(run), time_s=60.0) == run
    assert Select(group="a+b", round=0, call=1) in rounds.owes(run, 60.0)
    run = after(run, asked(run, "d3", "d4", wanted=3, needed=2, missed=("d3",)), time_s=60.0)
    assert [ask.key.device for ask in asks(run, 60.0)] == ["d3", "d4"]
    assert [c.device for c in run.heard] == ["d1"]
    run = after(run, update("d3"), time_s=70.0)
    assert attendance.of(run.records, "d3").seconds[-1] == 70.0  # since it was asked first
    assert Close(group="a+b", round=0, missing=("d4",)) in rounds.owes(run, 120.0)


def test_nobody_fails_for_being_waited_for():
    run = selecting()
    run = after(run, asked(run, "d1", "d2", needed=2))
    for number in range(1, 30):
        time_s = 60.0 * number
        assert Select(group="a+b", round=0, call=number) in rounds.owes(run, time_s)
        run = after(run, asked(run, "d1", "d2", needed=2, missed=("d1", "d2")), time_s=time_s)
    assert after(run, update("d1"), update("d2"), time_s=5000.0).phase == "merging"


def test_one_device_that_keeps_failing_is_benched_and_the_round_goes_on_without():
    run = selecting()
    run = after(run, asked(run, "d1", "d2", "d3", needed=2), update("d1"))
    for _ in range(3):
        run = after(run, gave_up(run, "d3"))
    assert (run.phase, run.missing) == ("collecting", ("d2",))
    assert attendance.benched(run.records, "d3", 1.0)
    run = after(run, update("d2"))
    assert run.phase == "merging"
    run = rounds.step(run, Merged(group="a+b", round=0, weights=ref("m")), 9.0)
    assert (run.phase, attendance.benched(run.records, "d3", 9.0)) == ("selecting", True)


def test_the_run_fails_when_so_many_keep_failing_that_no_quorum_is_left():
    run = a_run(phase="selecting")
    run = after(run, asked(run, "d1", "d2", needed=1))
    for device in ("d1", "d2"):
        assert run.phase == "collecting"
        for _ in range(3):
            run = after(run, gave_up(run, device, detail="no memory"))
    assert run.phase == "failed"
    assert run.reason == "d2 gave up round 0 of a+b 3 times: hung (no memory)"


def test_where_all_that_were_asked_are_benched_others_are_selected_at_once():
    run = selecting()
    run = after(run, asked(run, "d1", needed=1))
    for _ in range(3):
        run = after(run, gave_up(run, "d1"))
    assert rounds.owes(run, 1.0) == (Select(group="a+b", round=0, call=1),)


def test_a_device_without_the_labels_leaves_and_is_not_asked_again():
    run = a_run()
    run = after(run, gave_up(run, "d1", reason="no-data"))
    assert (run.devices, run.phase) == (("d2",), "collecting")
    run = after(run, gave_up(run, "d2", reason="no-data", detail="none of its tasks"))
    assert run.phase == "failed"
    assert run.reason == "no device has data for a+b: none of its tasks"


def test_a_group_that_has_learnt_something_ends_with_it_where_nobody_has_data_any_more():
    run = a_run(round=1, devices=("d1",))
    run = after(run, gave_up(run, "d1", reason="no-data"))
    assert (run.phase, run.reason) == ("finished", "no device has data for a+b: none of its labels")


def test_who_leaves_for_want_of_memory_cannot_be_missed_at_the_quorum():
    run = selecting()
    run = after(run, asked(run, *FIVE, needed=3), update("d1"))
    for device in FIVE[1:]:
        run = after(run, gave_up(run, device, shortage=Shortage(micro_batch=1)))
    assert run.phase == "merging"


def test_a_late_answer_moves_nothing_but_what_is_known_of_the_device():
    run = selecting(records=(attendance.Record(device="d1", missed=1),))
    row = Spend(job="j", group="a+b", round=0, phase="forward", wall_s=33.0, cpu_s=1.0)
    late = Late(key=update("d1").update.key, examples=3, profile=Profile(rows=(row,)))
    after_ = rounds.step(run, late, 0.0)
    assert attendance.of(after_.records, "d1") == attendance.Record(device="d1", seconds=(33.0,))
    assert msgspec.structs.replace(after_, records=run.records) == run


def far(device: str, distance: float, examples: int = 3, round_: int = 0) -> Heard:
    event = update(device, round_)
    return Heard(update=msgspec.structs.replace(event.update, examples=examples), distance=distance)


def test_an_absurd_update_is_left_out_named_and_held_against_its_device():
    run = selecting()
    run = after(run, asked(run, *FIVE), *(far(d, 1.0) for d in FIVE[:4]), far("d5", 11.0))
    (action,) = rounds.owes(run, 1.0)
    assert isinstance(action, LeaveOut)
    assert [each.device for each in action.updates] == ["d5"]
    assert action.updates[0].reason == (
        "its weights went 11 times as far from the base as the others' usually did, 10 at most"
    )
    run = after(run, LeftOut(group="a+b", round=0, updates=action.updates))
    (merge,) = rounds.owes(run, 1.0)
    assert [c.device for c in merge.updates] == list(FIVE[:4])
    assert attendance.of(run.records, "d5").failures == 1
    assert rounds.step(run, LeftOut(group="a+b", round=0, updates=action.updates), 1.0) == run


def test_who_trained_on_more_may_go_farther_in_proportion_and_two_cannot_tell():
    run = selecting()
    several = after(run, asked(run, *FIVE), *(far(d, 1.0) for d in FIVE[:4]), far("d5", 40.0, examples=15))
    assert isinstance(rounds.owes(several, 1.0)[0], Merge)
    two = after(run, asked(run, "d1", "d2"), far("d1", 1.0), far("d2", 1e9))
    assert isinstance(rounds.owes(two, 1.0)[0], Merge)


def test_a_reproducible_run_leaves_absurd_updates_out_too_and_holds_nothing_against_anybody():
    run = after(a_run(devices=FIVE, all_contribute=True), *(far(d, 1.0) for d in FIVE[1:]), far("d1", 99.0))
    (action,) = rounds.owes(run, 1.0)
    run = after(run, LeftOut(group="a+b", round=0, updates=action.updates))
    assert [c.device for c in run.heard] == list(FIVE[1:])
    assert run.records == ()


@st.composite
def histories(draw):
    """Events of a run that selects, in any order and at any time, possible ones and others."""
    number, device = st.integers(0, 2), st.sampled_from([*FIVE, "stranger"])
    key = st.builds(Key, job=st.just("j"), group=st.just("a+b"), round=number, attempt=number, device=device)
    event = st.one_of(
        key.map(lambda k: Heard(update=Update(key=k, weights=ref("u"), examples=1), distance=1.0)),
        st.builds(
            GaveUp, key=key, reason=st.sampled_from(["hung", "no-data"]), again_s=st.none() | st.just(9.0)
        ),
        st.builds(Late, key=key),
        st.builds(
            Selected,
            group=st.just("a+b"),
            round=number,
            call=number,
            devices=st.lists(device, max_size=5, unique=True).map(tuple),
            wanted=st.integers(1, 5),
            needed=st.integers(1, 5),
            deadline_s=st.none() | st.just(60.0),
        ),
        st.builds(Closed, group=st.just("a+b"), round=number, missed=st.lists(device, max_size=2).map(tuple)),
        st.builds(Merged, group=st.just("a+b"), round=number, weights=st.just(ref("m"))),
    )
    return draw(st.lists(st.tuples(st.integers(0, 200).map(float), event), max_size=40))


@given(histories())
def test_any_history_replays_equal_counts_nobody_twice_and_never_goes_back(history):
    history.sort(key=lambda item: item[0])
    run = selecting()
    for time_s, event in history:
        before, run = run, rounds.step(run, event, time_s)
        assert run.round >= before.round
        devices = [c.device for c in run.heard]
        assert len(set(devices)) == len(devices)
        if isinstance(event, Late):
            assert run.heard == before.heard
        rounds.owes(run, time_s)
    again = selecting()
    for time_s, event in history:
        again = rounds.step(again, event, time_s)
    assert again == run
    for _, event in history:
        assert msgspec.json.decode(msgspec.json.encode(event), type=rounds.Event) == event


@given(
    st.sets(st.sampled_from(FIVE), min_size=1),
    st.sets(st.sampled_from(FIVE)),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_a_round_always_ends_if_a_quorum_answers(devices, answers, needed, rng):
    run = selecting()
    needed = min(needed, len(devices))
    run = after(run, asked(run, *devices, needed=needed))
    there = rng.sample(sorted(devices & answers), len(devices & answers))
    for device in there:
        run = after(run, update(device))
    owed = rounds.owes(run, 60.0)
    if len(there) >= needed:
        ended = after(run, closed(run), time_s=60.0) if run.phase == "collecting" else run
        assert ended.phase == "merging"
        assert [c.device for c in ended.heard] == sorted(there)
    else:
        assert Select(group="a+b", round=0, call=1) in owed


def test_who_is_selected_again_after_others_had_its_place_is_asked_under_another_key():
    run = a_run(phase="selecting")
    first = Selected(group="a+b", round=0, devices=("d1",), wanted=1, needed=1, deadline_s=60.0)
    again = msgspec.structs.replace(first, call=1, devices=("d2",), missed=("d1",))
    run = rounds.step(rounds.step(run, first, 0.0), again, 60.0)
    assert [ask.key.device for ask in asks(run, 60.0)] == ["d2"]
    run = rounds.step(run, msgspec.structs.replace(again, call=2, devices=("d1", "d2"), missed=()), 120.0)
    assert [(ask.key.device, ask.key.attempt) for ask in asks(run, 120.0)] == [("d1", 1), ("d2", 0)]


def test_a_selection_that_finds_that_enough_have_answered_ends_the_round():
    run = a_run(phase="selecting", devices=("d1", "d2", "d3"))
    asked = Selected(group="a+b", round=0, devices=("d1", "d2", "d3"), wanted=3, needed=3, deadline_s=9.0)
    run = rounds.step(rounds.step(run, asked, 0.0), update("d1"), 1.0)
    late = msgspec.structs.replace(asked, call=1, devices=(), wanted=1, needed=1)
    assert rounds.step(run, late, 10.0).phase == "merging"


def test_a_device_that_may_train_again_is_asked_at_once_and_one_that_broke_is_not():
    run = rounds.step(a_run(phase="selecting"), all_asked(a_run()), 0.0)
    for device, again_s in (("d1", 900.0), ("d2", None)):
        key = Key(job="j", group="a+b", round=0, attempt=0, device=device)
        run = rounds.step(run, GaveUp(key=key, reason="r", again_s=again_s), 1.0)
    assert asks(run, 1.5) == []
    for device in ("d1", "d2"):
        run = rounds.step(run, Lifted(device=device), 1.5)
    assert [ask.key.device for ask in asks(run, 1.5)] == ["d1"]
    assert rounds.step(run, Lifted(device="d1"), 1.6) == run
