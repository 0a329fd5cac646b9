"""What a device does about what it hears, without a bus or a worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.conditions import FREE, Verdict
from mas_edge.edge_agent.session import (
    Accept,
    Fetch,
    Fetched,
    Finished,
    Forget,
    Halt,
    Judged,
    Received,
    Resend,
    Session,
    Spool,
    Train,
    in_words,
    step,
)
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
    assert session.stage == "training"


def test_an_answer_is_spooled_until_it_is_stored():
    assert SPOOLED.stage == "idle"
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
    assert session.doing.key == key(1)


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
    assert session.stage == "idle"
    _, actions = run(session, Judged(verdict=FREE), Received(message=assign(1)))
    assert kinds(actions) == [Accept, Fetch]


def test_a_soft_reason_lets_a_round_that_has_begun_be_finished():
    session, actions = run(TRAINING_NOW, Judged(verdict=NIGHT))
    assert actions == ()
    assert session.stage == "training"


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
    assert (spool.answer.reason, session.stage) == ("not-now", "idle")
    assert run(TRAINING_NOW, Judged(verdict=full))[1] == ()


def test_an_update_that_is_finished_is_delivered_whatever_the_conditions_are():
    session, actions = run(SPOOLED, Judged(verdict=HOT), Received(message=assign()))
    assert actions == (Resend(key=key()),)
    assert isinstance(session.spooled[0], Update)


def test_what_a_device_does_is_said_in_one_line():
    progress = Progress(key=key(), phase="forward", step=3, steps=9)
    assert in_words(IDLE, None) == "idle"
    assert (
        in_words(run(IDLE, Received(message=assign()))[0], None) == "fetching the weights of gravity, round 1"
    )
    assert in_words(TRAINING_NOW, progress) == "training gravity, round 1, step 3 of 9"
    other = Progress(key=key(1), phase="forward", step=3, steps=9)
    assert in_words(TRAINING_NOW, other) == "training gravity, round 1"
    assert in_words(SPOOLED, progress) == "delivering 1 answer(s); idle"
    assert in_words(run(IDLE, Judged(verdict=HOT))[0], None) == "may not train now: temperature: 80 °C"


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
        assert (session.doing is None) == (session.stage == "idle")
        assert not (session.doing and session.verdict.hard)
