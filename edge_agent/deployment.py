"""What a device does about models that it is to infer with: the state machine of deployment.

A request brings a model for one task group of a workload, or asks to roll back to what was there before::

    asked --Fetched--> here --Measured--> in use                      no model was in use for the group
                        |          |
                        |          +--> the one in use is measured --Measured--> in use, or refused: worse
                        +--Unsound--> refused

Files come in any order; one model is measured at a time, in the order asked, and the one in use beside it on
the same examples; ``in_use.worse`` says which is refused. What was in use before stays on disk until the next
switch. A request that a later one for the same group finds waiting or measured is refused: it is out of date,
and must not come into use after a rollback.

Every request has one answer, remembered with what is in use in one value (``in_use.Kept``), which is on disk
before the answer is said: asked again, the device says the same, also after a kill at any instant.
``step(state, event) -> (state, actions)`` is pure; late and repeated events change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mas_edge.edge_agent.in_use import Kept, find, put, remember, worse
from mas_edge.wire.messages import BlobRef, Deploy, Deployed, InferenceProfile, InUse, Model


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value of deployment's world."""


class Measuring(_Value, frozen=True):
    """The request whose model is measured; once it was, the one in use is, on the same examples."""

    deploy: Deploy
    profile: InferenceProfile | None = None


class State(_Value, frozen=True):
    """Requests that wait, in order, which files are here, and what is measured."""

    able: frozenset[tuple[str, str]]
    """The (workload, task) pairs that this device has data for."""
    kept: Kept = Kept()
    waiting: tuple[Deploy, ...] = ()
    here: frozenset[str] = frozenset()
    measuring: Measuring | None = None

    @property
    def needed(self) -> frozenset[str]:
        """Digests of the files that must stay."""
        asked = [*self.waiting, *([self.measuring.deploy] if self.measuring else [])]
        models = [*self.kept.models, *(deploy.model for deploy in asked if deploy.model)]
        return frozenset(model.file.digest for model in models)


class Asked(_Value, frozen=True):
    """A request from the orchestrator, perhaps again."""

    deploy: Deploy


class Fetched(_Value, frozen=True):
    """The file of this digest is whole on our disk."""

    digest: str


class Measured(_Value, frozen=True):
    """The model in hand runs; ``held_out_share`` says of which examples its scores are."""

    profile: InferenceProfile
    held_out_share: float


class Unsound(_Value, frozen=True):
    """The model in hand could not be measured."""

    why: str


Event: TypeAlias = Asked | Fetched | Measured | Unsound


class Fetch(_Value, frozen=True):
    """Get the file, if it is not there."""

    ref: BlobRef


class Measure(_Value, frozen=True):
    """Run this model; on the share of its own job's held-out examples if none is given."""

    model: Model
    held_out_share: float | None = None


class Stop(_Value, frozen=True):
    """Nobody wants to know any more how the model in hand does."""


class Keep(_Value, frozen=True):
    """Put what is kept on disk, in one write, and only then say the answer."""

    answer: Deployed


class Say(_Value, frozen=True):
    """Say an answer again."""

    answer: Deployed


Action: TypeAlias = Fetch | Measure | Stop | Keep | Say
Actions: TypeAlias = tuple[Action, ...]


def step(state: State, event: Event) -> tuple[State, Actions]:
    """The state after an event, and what to do, in order."""
    match event:
        case Asked(deploy=deploy):
            return _asked(state, deploy)
        case Fetched(digest=digest):
            return _next(msgspec.structs.replace(state, here=state.here | {digest}))
        case Measured(profile=profile, held_out_share=share) if state.measuring:
            return _measured(state, state.measuring, profile, share)
        case Unsound(why=why) if state.measuring:
            return _unsound(state, state.measuring, why)
    return state, ()


# --- requests -------------------------------------------------------------------------------------


def _asked(state: State, deploy: Deploy) -> tuple[State, Actions]:
    known = [answer for answer in state.kept.answers if answer.request == deploy.request]
    if known:
        return state, (Say(answer=known[0]),)
    if state.measuring and state.measuring.deploy.request == deploy.request:
        return state, ()
    if any(each.request == deploy.request for each in state.waiting):
        file = deploy.model.file if deploy.model else None  # it may have come when the disk was full
        return state, (Fetch(ref=file),) if file and file.digest not in state.here else ()
    state, actions = _outdate(state, deploy)
    if deploy.model is None:
        state, more = _roll_back(state, deploy)
    elif why := _contradiction(state, deploy, deploy.model):
        state, more = _refuse(state, deploy, why)
    else:
        state = msgspec.structs.replace(state, waiting=(*state.waiting, deploy))
        more = (Fetch(ref=deploy.model.file),)
    return state, (*actions, *more)


def _outdate(state: State, deploy: Deploy) -> tuple[State, Actions]:
    """Refuse what waits for the same group, and what is measured for it."""
    now = (state.measuring.deploy,) if state.measuring else ()
    actions = tuple[Action, ...]()
    for old in [*state.waiting, *now]:
        if (old.workload, old.group) == (deploy.workload, deploy.group):
            waiting = tuple(each for each in state.waiting if each is not old)
            state = msgspec.structs.replace(state, waiting=waiting)
            state, more = _refuse(state, old, "a later request for this group came before it was judged")
            actions = (*actions, *((Stop(),) if old in now else ()), *more)
    return state, actions


def _contradiction(state: State, deploy: Deploy, model: Model) -> str:
    """Why there is no use in fetching the file; empty if there is."""
    if (model.workload, model.job, model.group) != (deploy.workload, deploy.job, deploy.group):
        return f"the request is for group {deploy.group!r} and its model for {model.group!r}"
    if not any((model.workload, task) in state.able for task in model.tasks):
        tasks = ", ".join(model.tasks)
        return (
            f"no data of workload {model.workload!r} here has labels of {tasks}, by which it could be judged"
        )
    return ""


def _roll_back(state: State, deploy: Deploy) -> tuple[State, Actions]:
    current = find(state.kept.in_use, deploy.workload, deploy.group)
    before = find(state.kept.before, deploy.workload, deploy.group)
    if current is None or current.model.job != deploy.job:
        of = f"that of job {current.model.job}" if current else "none"
        return _refuse(state, deploy, f"no model of job {deploy.job} is in use here, but {of}")
    if before is None:
        return _refuse(state, deploy, "there is no model from before")
    back = msgspec.structs.replace(before, previous=None)
    state = msgspec.structs.replace(state, kept=put(state.kept, back, None))
    return _answer(state, deploy, verdict="rolled back", running=current.profile, profile=before.profile)


# --- judging --------------------------------------------------------------------------------------


def _next(state: State) -> tuple[State, Actions]:
    """Measure the first that waits and whose file is here, if nothing is measured."""
    files = ((each, each.model) for each in state.waiting if each.model)
    ready = [(deploy, model) for deploy, model in files if model.file.digest in state.here]
    if state.measuring or not ready:
        return state, ()
    deploy, model = ready[0]
    waiting = tuple(each for each in state.waiting if each is not deploy)
    state = msgspec.structs.replace(state, waiting=waiting)
    current = find(state.kept.in_use, deploy.workload, deploy.group)
    if current and current.model.file == model.file:  # put in use anew: it serves the tasks that it shares
        before = find(state.kept.before, deploy.workload, deploy.group)
        state = msgspec.structs.replace(state, kept=put(state.kept, current, before))
        return _answer(state, deploy, verdict="in use", profile=current.profile)
    measuring = Measuring(deploy=deploy)
    return msgspec.structs.replace(state, measuring=measuring), (Measure(model=model),)


def _measured(state: State, now: Measuring, profile: InferenceProfile, share: float) -> tuple[State, Actions]:
    deploy = now.deploy
    current = find(state.kept.in_use, deploy.workload, deploy.group)
    if now.profile is None:
        if not any(score.count for score in profile.scores):
            return _refuse(state, deploy, "this device has no held-out labels of its tasks", profile)
        if current:
            state = msgspec.structs.replace(state, measuring=Measuring(deploy=deploy, profile=profile))
            return state, (Measure(model=current.model, held_out_share=share),)
        return _take(state, deploy, profile, None)
    if why := worse(now.profile, profile, deploy.margin):
        return _refuse(state, deploy, why, now.profile, profile)
    return _take(state, deploy, now.profile, profile)


def _unsound(state: State, now: Measuring, why: str) -> tuple[State, Actions]:
    """Refuse the new model; one in use that does not run any more is no reason to stay with it."""
    if now.profile is None:
        return _refuse(state, now.deploy, why)
    return _take(state, now.deploy, now.profile, None)


def _take(
    state: State, deploy: Deploy, profile: InferenceProfile, running: InferenceProfile | None
) -> tuple[State, Actions]:
    assert deploy.model is not None  # noqa: S101 - nothing else is measured
    current = find(state.kept.in_use, deploy.workload, deploy.group)
    previous = current.model if current else None
    new = InUse(model=deploy.model, profile=profile, previous=previous)
    state = msgspec.structs.replace(state, kept=put(state.kept, new, current))
    return _answer(state, deploy, verdict="in use", profile=profile, running=running)


def _refuse(
    state: State,
    deploy: Deploy,
    why: str,
    profile: InferenceProfile | None = None,
    running: InferenceProfile | None = None,
) -> tuple[State, Actions]:
    return _answer(state, deploy, verdict="refused", why=why, profile=profile, running=running)


def _answer(state: State, deploy: Deploy, **said: object) -> tuple[State, Actions]:
    """The request is settled; the next may be judged."""
    in_use = find(state.kept.in_use, deploy.workload, deploy.group)
    fields = {"request": deploy.request, "job": deploy.job, "group": deploy.group, "in_use": in_use, **said}
    answer = msgspec.convert(fields, Deployed, from_attributes=True)
    state = msgspec.structs.replace(state, kept=remember(state.kept, answer))
    if state.measuring and state.measuring.deploy.request == deploy.request:
        state = msgspec.structs.replace(state, measuring=None)
    state = msgspec.structs.replace(state, here=state.here & state.needed)
    state, actions = _next(state)
    return state, (Keep(answer=answer), *actions)
