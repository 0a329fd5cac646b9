"""What a device does about what it hears: the agent's state machine.

The same round as ``orchestrator.rounds``, seen from a device. It does one assignment at a time in each of
its slots, of which there is one unless it is configured otherwise::

    idle --Assign--> fetching --Fetched--> training --Finished--> idle, with a spooled answer
                        |                     |
                        +------ Cancel, or an Assign in its place: halted, nothing kept

An assignment takes the place of the last one of its group, else a free slot. Where there is none, the
orchestrator asks for more than it may, since a Cancel was lost: the only slot is given up for it, of several
none, but a new ``Hello`` shows the orchestrator what to cancel, and it repeats the assignment.

Every answer (an update, a refusal, a failure) is put on disk and repeated until the orchestrator says
``Stored``; only then is it forgotten, cancelled or not: its joules count. A finished update is never
trained again: an assignment that it answers is answered by it once more. An unfinished one leaves
nothing behind but its joules and is trained again from its assignment when that comes again, which it
does, since the orchestrator repeats it until it hears ``Accepted`` and again after every ``Hello``. A
device that may not train now (``edge_agent.conditions``) refuses what comes and says when it looks
again; what it has in hand it finishes, unless the reason is a hard one, or a full disk that the weights
would have to go to. An orchestrator whose store is another one than before has settled nothing and asked
for nothing yet.

``step(state, event) -> (state, actions)`` is pure; illegal, late and repeated events change
nothing. It knows no time: nothing here depends on it, repetition is ``wire.retry``'s.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.edge_agent.answers import not_now
from mas_edge.edge_agent.conditions import DISK, FREE, Verdict
from mas_edge.wire.messages import (
    Assign,
    BlobRef,
    Cancel,
    Declined,
    Down,
    Failed,
    Key,
    Stored,
    Update,
    Welcome,
)

Answer: TypeAlias = Update | Declined | Failed
REMEMBERED = 64
"""How many settled keys are remembered, so that an old repeated Assign is not taken for a new one."""


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the session's world."""


class Slot(_Value, frozen=True):
    """What is done in one slot."""

    doing: Assign | None = None
    stage: Literal["idle", "fetching", "training"] = "idle"

    def has(self, key: Key) -> bool:
        """Whether the assignment of this key is in hand here."""
        return self.doing is not None and self.doing.key == key


EMPTY = Slot()


class Session(_Value, frozen=True):
    """The device's state: what it does, what it has to deliver, what is settled."""

    able: frozenset[tuple[str, str]]
    """The (workload, task) pairs that this device can train or evaluate."""
    slots: tuple[Slot, ...] = (EMPTY,)
    spooled: tuple[Answer, ...] = ()
    settled: tuple[Key, ...] = ()
    verdict: Verdict = FREE
    store: str = ""
    """Whose memory ``settled`` is about, as it named itself; empty: not known."""

    @property
    def in_hand(self) -> tuple[Assign, ...]:
        """The assignments that are worked on, in the order of slots."""
        return tuple(slot.doing for slot in self.slots if slot.doing)

    def where(self, key: Key) -> int | None:
        """The slot that this assignment is in."""
        return next((i for i, slot in enumerate(self.slots) if slot.has(key)), None)

    def put(self, slot: int, what: Slot = EMPTY) -> Session:
        """The session with something else in a slot."""
        slots = (*self.slots[:slot], what, *self.slots[slot + 1 :])
        return msgspec.structs.replace(self, slots=slots)


class Received(_Value, frozen=True):
    """A message from the orchestrator."""

    message: Down


class Fetched(_Value, frozen=True):
    """The weights of this digest are whole on our disk."""

    digest: str


class Finished(_Value, frozen=True):
    """The worker is done, well or not; ``answer`` is what it comes to."""

    answer: Answer


class Judged(_Value, frozen=True):
    """The conditions under which the device trains were looked at."""

    verdict: Verdict


Event: TypeAlias = Received | Fetched | Finished | Judged


class Accept(_Value, frozen=True):
    """Say that the assignment is being worked on."""

    key: Key
    slot: int = 0


class Fetch(_Value, frozen=True):
    """Get the weights, if they are not there."""

    ref: BlobRef


class Train(_Value, frozen=True):
    """Hand the assignment to the slot's worker; its weights are on disk."""

    assign: Assign
    slot: int = 0


class Halt(_Value, frozen=True):
    """Stop the slot's worker, or the fetching, for this assignment; its joules count as lost."""

    assign: Assign
    slot: int = 0


class Spool(_Value, frozen=True):
    """Put the answer on disk and send it until it is stored."""

    answer: Answer


class Resend(_Value, frozen=True):
    """Send the spooled answer of this key at once."""

    key: Key


class Forget(_Value, frozen=True):
    """The answer of this key is settled: off the disk."""

    key: Key


class Introduce(_Value, frozen=True):
    """Say Hello again: what the orchestrator believes to be in hand is not."""


Action: TypeAlias = Accept | Fetch | Train | Halt | Spool | Resend | Forget | Introduce
Actions: TypeAlias = tuple[Action, ...]


def step(session: Session, event: Event) -> tuple[Session, Actions]:
    """The session after an event, and what to do, in order."""
    match event:
        case Received(message=message):
            return _received(session, message)
        case Fetched(digest=digest):
            return _fetched(session, digest)
        case Finished(answer=answer) if (slot := session.where(answer.key)) is not None:
            return _answered(session.put(slot), answer)
        case Judged(verdict=verdict):
            return _judged(msgspec.structs.replace(session, verdict=verdict))
    return session, ()


def _fetched(session: Session, digest: str) -> tuple[Session, Actions]:
    actions: Actions = ()
    for i, slot in enumerate(session.slots):
        if slot.stage == "fetching" and slot.doing and slot.doing.weights.digest == digest:
            session = session.put(i, Slot(doing=slot.doing, stage="training"))
            actions = (*actions, Train(assign=slot.doing, slot=i))
    return session, actions


def _judged(session: Session) -> tuple[Session, Actions]:
    verdict, actions = session.verdict, tuple[Action, ...]()
    for i, slot in enumerate(session.slots):
        in_vain = slot.stage == "fetching" and DISK in verdict.names
        if slot.doing and (verdict.hard or in_vain):
            session, spool = _answered(session.put(i), _not_now(slot.doing.key, verdict))
            actions = (*actions, Halt(assign=slot.doing, slot=i), *spool)
    return session, actions


def _not_now(key: Key, verdict: Verdict) -> Declined:
    return not_now(key, verdict.words, again_s=verdict.again_s)


def _received(session: Session, message: Down) -> tuple[Session, Actions]:
    match message:
        case Assign() if message.key not in session.settled:
            return _assigned(session, message)
        case Stored(key=key):
            return _settled(session, key)
        case Cancel(key=key):
            return _cancelled(session, key)
        case Welcome(store=store) if store not in {"", session.store}:
            return _welcomed(session, store)
    return session, ()


def _welcomed(session: Session, store: str) -> tuple[Session, Actions]:
    known, session = session.store, msgspec.structs.replace(session, store=store)
    if not known:
        return session, ()
    halts = tuple(Halt(assign=slot.doing, slot=i) for i, slot in enumerate(session.slots) if slot.doing)
    slots = tuple(EMPTY for _ in session.slots)
    session = msgspec.structs.replace(session, slots=slots, settled=())
    return session, (*halts, Introduce()) if halts else ()


def _assigned(session: Session, assign: Assign) -> tuple[Session, Actions]:
    key = assign.key
    if any(answer.key == key for answer in session.spooled):
        return session, (Resend(key=key),)
    if (slot := session.where(key)) is not None:
        return session, (Accept(key=key, slot=slot),)
    if (slot := _place(session, key)) is None:
        return session, (Introduce(),)
    before = session.slots[slot].doing
    halt = (Halt(assign=before, slot=slot),) if before else ()
    if refusal := _refusal(session, assign):
        session, actions = _answered(session.put(slot), refusal)
        return session, (*halt, *actions)
    session = session.put(slot, Slot(doing=assign, stage="fetching"))
    return session, (*halt, Accept(key=key, slot=slot), Fetch(ref=assign.weights))


def _place(session: Session, key: Key) -> int | None:
    """The slot for a new assignment: that of its group, else a free one, else the only one."""
    names = [slot.doing and (slot.doing.key.job, slot.doing.key.group) for slot in session.slots]
    for wanted in ((key.job, key.group), None):
        if wanted in names:
            return names.index(wanted)
    return 0 if len(names) == 1 else None


def _refusal(session: Session, assign: Assign) -> Declined | None:
    workload = assign.training.workload
    if not any((workload, task) in session.able for task in assign.tasks):
        detail = f"this device has no data for any of {', '.join(assign.tasks)} of workload {workload!r}"
        return Declined(key=assign.key, reason="no-data", detail=detail)
    return _not_now(assign.key, session.verdict) if session.verdict.reasons else None


def _answered(session: Session, answer: Answer) -> tuple[Session, Actions]:
    spooled = (*session.spooled, answer)
    return msgspec.structs.replace(session, spooled=spooled), (Spool(answer=answer),)


def _settled(session: Session, key: Key) -> tuple[Session, Actions]:
    if all(answer.key != key for answer in session.spooled):
        return session, ()
    spooled = tuple(answer for answer in session.spooled if answer.key != key)
    settled = (*session.settled, key)[-REMEMBERED:]
    return msgspec.structs.replace(session, spooled=spooled, settled=settled), (Forget(key=key),)


def _cancelled(session: Session, key: Key) -> tuple[Session, Actions]:
    slot = session.where(key)
    if slot is None:  # what is finished has a bill, which counts; it is kept until the orchestrator has it
        return session, ()
    doing = session.slots[slot].doing
    return session.put(slot), (Halt(assign=doing, slot=slot),) if doing else ()
