"""Models on their way to devices: what was ordered, what of it is exported, who answered what.

A deployment is ordered once: models of some groups of a job, for some devices, or a rollback of them. Its
weights are those that the groups had at that moment. It then owes an export of each group to ONNX (done by
the orchestrator's torch child), and to each device a ``Deploy`` per group, until that device has answered.
A newer order for the same group of the same workload takes the place of an older one on the devices that
both name. What happened is stored as facts; folding them again restores everything, so that a restart goes
on where it was.

Whether a model is good enough for a device is decided there, by its own measurement. Pure.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.models.proof import Proof
from mas_edge.orchestrator.events import Fact, Value
from mas_edge.wire.messages import BlobRef, Deploy, Deployed, Model, Precision, Profile

MARGIN = 0.05
"""So much greater, as a share, may the held-out loss of a new model be than that of the one in use."""


class Target(Value, frozen=True):
    """A group that is deployed: the tasks that it is to serve, the rounds that are in its weights, and the
    devices that shall have it.

    ``weights`` are perhaps of more tasks; None: it is rolled back, and nothing is exported.
    """

    group: str
    tasks: tuple[str, ...]
    round: int
    weights: BlobRef | None
    devices: tuple[str, ...]


class Ordered(Fact, frozen=True):
    """Somebody wants these models in use, or, if ``rollback``, those in their place that were before."""

    request: str
    workload: str
    targets: tuple[Target, ...]
    precision: Precision = "fp32"
    margin: float = MARGIN
    rollback: bool = False


class Exported(Fact, frozen=True):
    """A group's network is an ONNX file on our disk that computes what the proof says; what that cost."""

    request: str
    group: str
    file: BlobRef
    proof: Proof
    profile: Profile = Profile()


class NotExported(Fact, frozen=True):
    """A group cannot be exported as it was ordered; the reason is for people."""

    request: str
    group: str
    reason: str


class Answered(Fact, frozen=True):
    """A device said what became of one group."""

    device: str
    answer: Deployed


Event: TypeAlias = Ordered | Exported | NotExported | Answered


class Deployment(Value, frozen=True):
    """One order of a job, and what has come of it."""

    job: str
    ordered: Ordered
    exports: tuple[Exported | NotExported, ...] = ()
    answers: tuple[Answered, ...] = ()

    def request(self, target: Target) -> str:
        """What the message of this group is called on the wire."""
        return f"{self.ordered.request}.{self.ordered.targets.index(target)}"

    def export(self, target: Target) -> Exported | NotExported | None:
        """What came of the group's export; None: nothing yet."""
        return next((each for each in self.exports if each.group == target.group), None)

    def by_device(self, target: Target) -> dict[str, Deployed]:
        """What devices answered for this group so far."""
        name = self.request(target)
        return {each.device: each.answer for each in self.answers if each.answer.request == name}


class Export(Value, frozen=True):
    """Owed: make an ONNX file of a group's network."""

    job: str
    request: str
    group: str
    tasks: tuple[str, ...]
    weights: BlobRef
    round: int
    precision: Precision


class Send(Value, frozen=True):
    """Owed: ask the device until it has answered."""

    device: str
    message: Deploy


State: TypeAlias = Literal["exporting", "asked", "in use", "refused", "rolled back", "superseded"]


class Outcome(Value, frozen=True):
    """What has become of one group on one device; ``why`` in words where it did not go well.

    ``file`` and ``max_abs_error``, the greatest difference of its outputs from torch's, are known once it is
    exported.
    """

    device: str
    group: str
    state: State
    why: str = ""
    file: BlobRef | None = None
    max_abs_error: float | None = None
    answer: Deployed | None = None


def fold(deployments: tuple[Deployment, ...], job: str, event: Event) -> tuple[Deployment, ...]:
    """All deployments after an event of this job; unchanged if it is repeated, or none of theirs."""
    if isinstance(event, Ordered):
        known = any(each.ordered.request == event.request for each in deployments)
        return deployments if known else (*deployments, Deployment(job=job, ordered=event))
    return tuple(_one(each, event) if each.job == job else each for each in deployments)


def _one(one: Deployment, event: Exported | NotExported | Answered) -> Deployment:
    replace = msgspec.structs.replace
    for target in one.ordered.targets:
        match event:
            case Answered(device=device, answer=answer) if (
                (answer.request, answer.group) == (one.request(target), target.group)
                and device in target.devices
                and device not in one.by_device(target)
            ):
                return replace(one, answers=(*one.answers, event))
            case Exported() | NotExported() if (event.request, event.group) == (
                one.ordered.request,
                target.group,
            ) and one.export(target) is None:
                return replace(one, exports=(*one.exports, event))
    return one


def owes(deployments: tuple[Deployment, ...]) -> tuple[Export | Send, ...]:
    """What is to be done, oldest order first; all of it may be done again without harm."""
    owed: list[Export | Send] = []
    for one, target, devices in _open(deployments):
        found = one.export(target)
        if target.weights is None or isinstance(found, Exported):
            owed += [Send(device=device, message=_message(one, target)) for device in devices]
        else:
            owed.append(_export(one, target, target.weights))
    return tuple(owed)


def referenced(deployments: tuple[Deployment, ...]) -> set[str]:
    """Digests of the weights and files that are still needed."""
    refs = set()
    for one, target, _ in _open(deployments):
        found = one.export(target)
        ref = found.file if isinstance(found, Exported) else target.weights
        refs |= {ref.digest} if ref else set()
    return refs


def outcomes(deployments: tuple[Deployment, ...], one: Deployment) -> tuple[Outcome, ...]:
    """What has become of one of them, a line per group and device."""
    later = {place for each in deployments[deployments.index(one) + 1 :] for place in _places(each)}
    found = []
    for target in one.ordered.targets:
        answers = one.by_device(target)
        for device in target.devices:
            outcome = _outcome(one, target, device, answers.get(device))
            waits = outcome.state in {"exporting", "asked"}
            if waits and (device, one.ordered.workload, target.group) in later:
                why = "a newer order for this group came"
                outcome = msgspec.structs.replace(outcome, state="superseded", why=why)
            found.append(outcome)
    return tuple(found)


def _outcome(one: Deployment, target: Target, device: str, answer: Deployed | None) -> Outcome:
    export = one.export(target)
    made = export if isinstance(export, Exported) else None
    state: State = "asked" if made or one.ordered.rollback else "exporting"
    why = ""
    if answer:
        state, why = answer.verdict, answer.why
    elif isinstance(export, NotExported):
        state, why = "refused", f"not exported: {export.reason}"
    return Outcome(
        device=device,
        group=target.group,
        state=state,
        why=why,
        file=made.file if made else None,
        max_abs_error=made.proof.max_abs_error if made else None,
        answer=answer,
    )


def _open(deployments: tuple[Deployment, ...]) -> list[tuple[Deployment, Target, tuple[str, ...]]]:
    """What is not done with, oldest first: a group of a deployment, the devices that have yet to answer."""
    found: list[tuple[Deployment, Target, tuple[str, ...]]] = []
    later: set[tuple[str, str, str]] = set()
    for one in reversed(deployments):
        workload = one.ordered.workload
        for target in reversed(one.ordered.targets):
            answers = one.by_device(target)
            silent = (device for device in target.devices if device not in answers)
            waiting = tuple(device for device in silent if (device, workload, target.group) not in later)
            if waiting and not isinstance(one.export(target), NotExported):
                found.append((one, target, waiting))
        later |= _places(one)
    return found[::-1]


def _places(one: Deployment) -> set[tuple[str, str, str]]:
    """(device, workload, group) that it is about."""
    return {
        (device, one.ordered.workload, target.group)
        for target in one.ordered.targets
        for device in target.devices
    }


def _export(one: Deployment, target: Target, weights: BlobRef) -> Export:
    return Export(
        job=one.job,
        request=one.ordered.request,
        group=target.group,
        tasks=target.tasks,
        weights=weights,
        round=target.round,
        precision=one.ordered.precision,
    )


def model(one: Deployment, target: Target, made: Exported) -> Model:
    """What the file is, as devices are told."""
    return Model(
        workload=one.ordered.workload,
        job=one.job,
        group=target.group,
        round=target.round,
        tasks=target.tasks,
        file=made.file,
        precision=one.ordered.precision,
    )


def _message(one: Deployment, target: Target) -> Deploy:
    made = one.export(target)
    return Deploy(
        request=one.request(target),
        workload=one.ordered.workload,
        job=one.job,
        group=target.group,
        model=model(one, target, made) if isinstance(made, Exported) else None,
        margin=one.ordered.margin,
    )
