"""A group's way through its rounds, without a bus, a clock or a disk."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import rounds
from mas_edge.orchestrator.rounds import Ask, Carved, GaveUp, Heard, Merge, Merged, Run
from mas_edge.wire.messages import BlobRef, Key, Update


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


def after(run: Run, *events, time_s: float = 0.0) -> Run:
    for event in events:
        run = rounds.step(run, event, time_s)
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
    run = a_run()
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
