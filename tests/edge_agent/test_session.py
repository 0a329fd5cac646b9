"""What a device does about what it hears, without a bus or a worker."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.conditions import FREE, Verdict
from mas_edge.edge_agent.session import (
    EMPTY,
    Accept,
    Fetch,
    Fetched,
    Finished,
    Forget,
    Halt,
    Introduce,
    Judged,
    Received,
    Resend,
    Session,
    Spool,
    Train,
    step,
)
from mas_edge.edge_agent.status import in_words
from mas_edge.wire.messages import (
    Assign,
    BlobRef,
    Cancel,
    Declined,
    Key,
    Progress,
    Reason,
    Stored,
    Training,
    Update,
    Welcome,
)

TRAINING = Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)
ABLE = frozenset({("watch", "gravity"), ("watch", "jerk")})
IDLE = Session(able=ABLE)


def key(round_: int = 0) -> Key:
    return Key(job="j", group="gravity", round=round_, attempt=0, device="d1")


def assign(round_: int = 0, *, tasks=("gravity",), workload="watch") -> Assign:
    return Assign(
        key=key(round_),
        tasks=tasks,
        training=Training(workload=workload, network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1),
        weights=BlobRef(digest=f"w{round_}", size_bytes=1, chunk_bytes=1),
        fingerprint="f",
    )


def run(session: Session, *events):
    actions = ()
    for event in events:
        session, actions = step(session, event)
    return session, actions


def kinds(actions) -> list[type]:
    return [type(action) for action in actions]


TRAINING_NOW, _ = run(IDLE, Received(message=assign()), Fetched(digest="w0"))
SPOOLED, _ = run(TRAINING_NOW, Finished(answer=Update(key=key())))


def test_an_assignment_is_accepted_its_weights_fetched_and_then_trained():
    session, actions = run(IDLE, Received(message=assign()))
    assert kinds(actions) == [Accept, Fetch]
    session, actions = run(session, Fetched(digest="w0"))
    assert kinds(actions) == [Train]
    assert session.slots[0].stage == "training"


def test_an_answer_is_spooled_until_it_is_stored():
    assert SPOOLED.slots == (EMPTY,)
    session, actions = run(SPOOLED, Received(message=Stored(key=key())))
    assert actions == (Forget(key=key()),)
    assert session.spooled == ()


def test_a_finished_update_is_sent_again_and_never_trained_again():
    session, actions = run(SPOOLED, Received(message=assign()))
    assert actions == (Resend(key=key()),)
    assert session == SPOOLED


def test_an_old_assignment_that_is_settled_is_ignored():
    settled, _ = run(SPOOLED, Received(message=Stored(key=key())))
    assert run(settled, Received(message=assign())) == (settled, ())


def test_a_repeated_assignment_is_accepted_again_and_starts_nothing():
    assert run(TRAINING_NOW, Received(message=assign())) == (TRAINING_NOW, (Accept(key=key()),))


def test_another_assignment_halts_the_present_one():
    session, actions = run(TRAINING_NOW, Received(message=assign(1)))
    assert kinds(actions) == [Halt, Accept, Fetch]
    assert session.in_hand == (assign(1),)


def test_a_cancelled_training_is_halted_and_leaves_nothing():
    session, actions = run(TRAINING_NOW, Received(message=Cancel(key=key())))
    assert kinds(actions) == [Halt]
    assert session == IDLE


def test_a_task_without_data_here_is_declined_by_name():
    _, (spool,) = run(IDLE, Received(message=assign(tasks=("depth",))))
    assert isinstance(spool, Spool)
    assert isinstance(spool.answer, Declined)
    assert "depth" in spool.answer.detail
    _, (spool,) = run(IDLE, Received(message=assign(workload="buildings")))
    assert "buildings" in spool.answer.detail


def test_a_group_of_which_some_labels_are_here_is_trained():
    _, actions = run(IDLE, Received(message=assign(tasks=("gravity", "depth"))))
    assert kinds(actions) == [Accept, Fetch]


HOT = Verdict(reasons=(Reason(condition="temperature", detail="80 °C"),), again_s=60.0)
NIGHT = Verdict(reasons=(Reason(condition="hours", detail="it is 12:00"),), again_s=900.0)


def test_a_device_that_may_not_train_refuses_what_comes_and_says_when_it_looks_again():
    session, (spool,) = run(IDLE, Judged(verdict=NIGHT), Received(message=assign()))
    answer = spool.answer
    assert (answer.reason, answer.detail, answer.again_s) == ("not-now", "hours: it is 12:00", 900.0)
    assert session.slots == (EMPTY,)
    _, actions = run(session, Judged(verdict=FREE), Received(message=assign(1)))
    assert kinds(actions) == [Accept, Fetch]


def test_a_soft_reason_lets_a_round_that_has_begun_be_finished():
    session, actions = run(TRAINING_NOW, Judged(verdict=NIGHT))
    assert actions == ()
    assert session.slots[0].stage == "training"


def test_a_hard_reason_ends_a_round_that_has_begun_and_the_refusal_says_why():
    for begun in (TRAINING_NOW, run(IDLE, Received(message=assign()))[0]):
        session, (halt, spool) = run(begun, Judged(verdict=HOT))
        assert halt == Halt(assign=assign())
        assert (spool.answer.reason, spool.answer.detail) == ("not-now", "temperature: 80 °C")
        assert run(session, Judged(verdict=HOT)) == (session, ())


def test_weights_for_which_the_disk_has_no_room_are_not_waited_for_but_a_training_goes_on():
    full = Verdict(reasons=(Reason(condition="disk", detail="no room"),), again_s=60.0)
    session, (halt, spool) = run(run(IDLE, Received(message=assign()))[0], Judged(verdict=full))
    assert halt == Halt(assign=assign())
    assert (spool.answer.reason, session.slots) == ("not-now", (EMPTY,))
    assert run(TRAINING_NOW, Judged(verdict=full))[1] == ()


def test_an_update_that_is_finished_is_delivered_whatever_the_conditions_are():
    session, actions = run(SPOOLED, Judged(verdict=HOT), Received(message=assign()))
    assert actions == (Resend(key=key()),)
    assert isinstance(session.spooled[0], Update)


def test_what_a_device_does_is_said_in_one_line():
    progress = {key(): Progress(key=key(), phase="forward", step=3, steps=9)}
    assert in_words(IDLE, {}) == "idle"
    fetching, _ = run(IDLE, Received(message=assign()))
    assert in_words(fetching, {}) == "fetching the weights of gravity, round 1"
    assert in_words(TRAINING_NOW, progress) == "training gravity, round 1, step 3 of 9"
    assert in_words(TRAINING_NOW, {}) == "training gravity, round 1"
    assert in_words(TRAINING_NOW, {}, {key()}) == "waiting for memory for gravity, round 1"
    assert in_words(SPOOLED, progress) == "delivering 1 answer(s); idle"
    assert in_words(run(IDLE, Judged(verdict=HOT))[0], {}) == "may not train now: temperature: 80 °C"


ROUNDS = st.integers(0, 2)
EVENTS = st.one_of(
    ROUNDS.map(lambda r: Received(message=assign(r))),
    ROUNDS.map(lambda r: Received(message=Stored(key=key(r)))),
    ROUNDS.map(lambda r: Received(message=Cancel(key=key(r)))),
    ROUNDS.map(lambda r: Fetched(digest=f"w{r}")),
    ROUNDS.map(lambda r: Finished(answer=Update(key=key(r)))),
    st.sampled_from([HOT, NIGHT, FREE]).map(lambda verdict: Judged(verdict=verdict)),
)


@given(st.lists(EVENTS, max_size=40))
def test_nothing_is_trained_after_it_was_finished_and_nothing_is_lost_before_it_is_stored(events):
    session, finished, kept = IDLE, set(), set()
    for event in events:
        session, actions = step(session, event)
        for action in actions:
            match action:
                case Train(assign=a):
                    assert a.key not in kept
                case Spool(answer=answer):
                    finished.add(answer.key)
                    kept.add(answer.key)
                case Forget(key=k):
                    kept.discard(k)
        assert {answer.key for answer in session.spooled} == kept
        assert all((slot.doing is None) == (slot.stage == "idle") for slot in session.slots)
        assert not (session.in_hand and session.verdict.hard)


# --- several slots --------------------------------------------------------------------------------

TWO = Session(able=ABLE, slots=(EMPTY, EMPTY))


def of_group(group: str, round_: int = 0) -> Assign:
    key_ = Key(job="j", group=group, round=round_, attempt=0, device="d1")
    digest = BlobRef(digest=f"{group}{round_}", size_bytes=1, chunk_bytes=1)
    return msgspec.structs.replace(assign(), key=key_, weights=digest)


BOTH, _ = run(TWO, Received(message=of_group("a")), Received(message=of_group("b")))


def test_two_slots_hold_two_assignments_and_each_is_trained_when_its_weights_are_here():
    assert BOTH.in_hand == (of_group("a"), of_group("b"))
    session, actions = run(BOTH, Fetched(digest="b0"))
    assert actions == (Train(assign=of_group("b"), slot=1),)
    assert in_words(session, {}) == "fetching the weights of a, round 1; training b, round 1"


def test_two_groups_that_begin_with_the_same_weights_are_both_trained_when_these_are_here():
    twin = msgspec.structs.replace(of_group("b"), weights=of_group("a").weights)
    _, actions = run(TWO, Received(message=of_group("a")), Received(message=twin), Fetched(digest="a0"))
    assert actions == (Train(assign=of_group("a"), slot=0), Train(assign=twin, slot=1))


def test_the_next_assignment_of_a_group_takes_its_slot_whatever_the_other_does():
    session, actions = run(BOTH, Received(message=of_group("b", 1)))
    assert actions[0] == Halt(assign=of_group("b"), slot=1)
    assert session.in_hand == (of_group("a"), of_group("b", 1))


def test_a_cancel_halts_one_slot_and_an_answer_empties_one():
    session, actions = run(BOTH, Received(message=Cancel(key=of_group("a").key)))
    assert actions == (Halt(assign=of_group("a"), slot=0),)
    assert session.in_hand == (of_group("b"),)
    session, _ = run(BOTH, Finished(answer=Update(key=of_group("b").key)))
    assert session.in_hand == (of_group("a"),)


def test_a_device_whose_slots_are_all_taken_says_what_it_does_and_gives_up_nothing():
    assert run(BOTH, Received(message=of_group("c"))) == (BOTH, (Introduce(),))


def test_a_hard_reason_ends_what_is_done_in_every_slot():
    session, actions = run(BOTH, Judged(verdict=HOT))
    assert kinds(actions) == [Halt, Spool, Halt, Spool]
    assert session.in_hand == ()


GROUPS = st.sampled_from("abc")
IN_SLOTS = st.one_of(
    st.builds(lambda g, r: Received(message=of_group(g, r)), GROUPS, ROUNDS),
    st.builds(lambda g, r: Received(message=Stored(key=of_group(g, r).key)), GROUPS, ROUNDS),
    st.builds(lambda g, r: Received(message=Cancel(key=of_group(g, r).key)), GROUPS, ROUNDS),
    st.builds(lambda g, r: Fetched(digest=f"{g}{r}"), GROUPS, ROUNDS),
    st.builds(lambda g, r: Finished(answer=Update(key=of_group(g, r).key)), GROUPS, ROUNDS),
    st.sampled_from([HOT, NIGHT, FREE]).map(lambda verdict: Judged(verdict=verdict)),
    st.sampled_from("st").map(lambda store: Received(message=Welcome(boot_id="b", store=store))),
)


@given(st.integers(1, 3), st.lists(IN_SLOTS, max_size=40))
def test_what_is_accepted_stays_in_its_slot_until_it_is_answered_or_halted(number, events):
    session, hand = Session(able=ABLE, slots=(EMPTY,) * number), {}
    for event in events:
        session, actions = step(session, event)
        for action in actions:
            match action:
                case Accept(key=k, slot=slot):
                    assert hand.setdefault(slot, k) == k
                case Train(assign=a, slot=slot):
                    assert hand[slot] == a.key
                case Halt(assign=a, slot=slot):
                    assert hand.pop(slot) == a.key
                case Spool(answer=answer):
                    hand = {slot: k for slot, k in hand.items() if k != answer.key}
        assert {i: slot.doing.key for i, slot in enumerate(session.slots) if slot.doing} == hand
        groups = [k.group for k in hand.values()]
        assert len(set(groups)) == len(groups), "no group is trained twice at a time"


# --- another store --------------------------------------------------------------------------------


def welcome(store: str) -> Received:
    return Received(message=Welcome(boot_id="b", store=store))


def test_what_one_store_has_settled_is_new_to_another():
    settled, _ = run(SPOOLED, welcome("s1"), Received(message=Stored(key=key())))
    for same in ("s1", ""):
        assert run(settled, welcome(same), Received(message=assign()))[1] == ()
    _, actions = run(settled, welcome("s2"), Received(message=assign()))
    assert kinds(actions) == [Accept, Fetch]


def test_the_first_store_that_is_heard_of_changes_nothing_in_hand():
    session, actions = run(TRAINING_NOW, welcome("s1"))
    assert actions == ()
    assert session.in_hand == TRAINING_NOW.in_hand


def test_what_another_store_had_assigned_is_given_up_and_that_is_said():
    session, actions = run(TRAINING_NOW, welcome("s1"), welcome("s2"))
    assert actions == (Halt(assign=assign()), Introduce())
    assert session.in_hand == ()


def test_an_answer_for_another_store_is_kept_until_this_one_says_what_it_is_to_it():
    session, _ = run(SPOOLED, welcome("s1"), welcome("s2"))
    assert session.spooled == SPOOLED.spooled
    session, actions = run(session, Received(message=Stored(key=key())))
    assert (session.spooled, actions) == ((), (Forget(key=key()),))


def test_what_is_finished_is_not_forgotten_by_a_cancel_for_its_joules_count():
    assert run(SPOOLED, Received(message=Cancel(key=key()))) == (SPOOLED, ())
    _, actions = run(SPOOLED, Received(message=Cancel(key=key())), Received(message=Stored(key=key())))
    assert kinds(actions) == [Forget]
