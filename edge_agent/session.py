"""What a device does about what it hears: the agent's state machine.

The same round as ``orchestrator.rounds``, seen from a device with one slot. It does one assignment
at a time::

    idle --Assign--> fetching --Fetched--> training --Finished--> idle, with a spooled answer
                        |                     |
                        +------ Cancel, or another Assign: halted, nothing kept

Every answer (an update, a refusal, a failure) is put on disk and repeated until the orchestrator
says ``Stored``; only then is it forgotten. A finished update is never trained again: an assignment
that it answers is answered by it once more. An unfinished one leaves nothing behind but its joules
and is trained again from its assignment when that comes again, which it does, since the orchestrator
repeats it until it hears ``Accepted`` and again after every ``Hello``. A device that may not train now
(``edge_agent.conditions``) refuses what comes and says when it looks again; what it has in hand it
finishes, unless the reason is a hard one, or a full disk that the weights would have to go to.

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
    Progress,
    Stored,
    Update,
)

Answer: TypeAlias = Update | Declined | Failed
REMEMBERED = 64
"""How many settled keys are remembered, so that an old repeated Assign is not taken for a new one."""


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the session's world."""


class Session(_Value, frozen=True):
    """The device's state: what it does, what it has to deliver, what is settled."""

    able: frozenset[tuple[str, str]]
    """The (workload, task) pairs that this device can train or evaluate."""
    doing: Assign | None = None
    stage: Literal["idle", "fetching", "training"] = "idle"
    spooled: tuple[Answer, ...] = ()
    settled: tuple[Key, ...] = ()
    verdict: Verdict = FREE


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


class Fetch(_Value, frozen=True):
    """Get the weights, if they are not there."""

    ref: BlobRef


class Train(_Value, frozen=True):
    """Hand the assignment to the worker; its weights are on disk."""

    assign: Assign


class Halt(_Value, frozen=True):
    """Stop the worker, or the fetching, for this assignment; its joules count as lost."""

    assign: Assign


class Spool(_Value, frozen=True):
    """Put the answer on disk and send it until it is stored."""

    answer: Answer


class Resend(_Value, frozen=True):
    """Send the spooled answer of this key at once."""

    key: Key


class Forget(_Value, frozen=True):
    """The answer of this key is settled: off the disk."""

    key: Key


Action: TypeAlias = Accept | Fetch | Train | Halt | Spool | Resend | Forget


def step(session: Session, event: Event) -> tuple[Session, tuple[Action, ...]]:
    """The session after an event, and what to do, in order."""
    match event:
        case Received(message=message):
            return _received(session, message)
        case Fetched(digest=digest) if session.stage == "fetching" and session.doing:
            if digest == session.doing.weights.digest:
                return msgspec.structs.replace(session, stage="training"), (Train(assign=session.doing),)
        case Finished(answer=answer) if session.doing and session.doing.key == answer.key:
            return _answered(session, answer)
        case Judged(verdict=verdict):
            return _judged(msgspec.structs.replace(session, verdict=verdict))
    return session, ()


def _judged(session: Session) -> tuple[Session, tuple[Action, ...]]:
    fetches_in_vain = session.stage == "fetching" and DISK in session.verdict.names
    if session.doing is None or not (session.verdict.hard or fetches_in_vain):
        return session, ()
    halt = Halt(assign=session.doing)
    session, actions = _answered(session, _not_now(session.doing.key, session.verdict))
    return session, (halt, *actions)


def _not_now(key: Key, verdict: Verdict) -> Declined:
    return not_now(key, verdict.words, again_s=verdict.again_s)


def _received(session: Session, message: Down) -> tuple[Session, tuple[Action, ...]]:
    match message:
        case Assign() if message.key not in session.settled:
            return _assigned(session, message)
        case Stored(key=key):
            return _settled(session, key)
        case Cancel(key=key):
            return _cancelled(session, key)
    return session, ()


def _assigned(session: Session, assign: Assign) -> tuple[Session, tuple[Action, ...]]:
    key = assign.key
    if any(answer.key == key for answer in session.spooled):
        return session, (Resend(key=key),)
    if session.doing and session.doing.key == key:
        return session, (Accept(key=key),)
    halt = (Halt(assign=session.doing),) if session.doing else ()
    session = msgspec.structs.replace(session, doing=assign, stage="fetching")
    workload = assign.training.workload
    if not any((workload, task) in session.able for task in assign.tasks):
        detail = f"this device has no data for any of {', '.join(assign.tasks)} of workload {workload!r}"
        session, actions = _answered(session, Declined(key=key, reason="no-data", detail=detail))
        return session, (*halt, *actions)
    if session.verdict.reasons:
        session, actions = _answered(session, _not_now(key, session.verdict))
        return session, (*halt, *actions)
    return session, (*halt, Accept(key=key), Fetch(ref=assign.weights))


def _answered(session: Session, answer: Answer) -> tuple[Session, tuple[Action, ...]]:
    spooled = (*session.spooled, answer)
    session = msgspec.structs.replace(session, doing=None, stage="idle", spooled=spooled)
    return session, (Spool(answer=answer),)


def _settled(session: Session, key: Key) -> tuple[Session, tuple[Action, ...]]:
    if all(answer.key != key for answer in session.spooled):
        return session, ()
    spooled = tuple(answer for answer in session.spooled if answer.key != key)
    settled = (*session.settled, key)[-REMEMBERED:]
    return msgspec.structs.replace(session, spooled=spooled, settled=settled), (Forget(key=key),)


def _cancelled(session: Session, key: Key) -> tuple[Session, tuple[Action, ...]]:
    if session.doing and session.doing.key == key:
        halt = Halt(assign=session.doing)
        return msgspec.structs.replace(session, doing=None, stage="idle"), (halt,)
    return _settled(session, key)


def in_words(session: Session, progress: Progress | None) -> str:
    """What the device does, in one line for people; ``progress`` is the worker's last word on it."""
    doing = session.doing
    if doing is None:
        waiting = f"may not train now: {session.verdict.words}" if session.verdict.reasons else "idle"
        return f"delivering {len(session.spooled)} answer(s); {waiting}" if session.spooled else waiting
    where = f"{doing.key.group}, round {doing.key.round + 1}"
    if session.stage == "fetching":
        return f"fetching the weights of {where}"
    at = f", step {progress.step} of {progress.steps}" if progress and progress.key == doing.key else ""
    return f"training {where}{at}"
