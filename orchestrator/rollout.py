"""Carries out deployments: has models exported, asks devices until they have answered, keeps what they said.

What is owed follows from the stored facts alone (``orchestrator.deployment``) and is reconciled as often as
one likes; a restart says everything that is open anew. Exports are chores of ``orchestrator.workshop``, files
travel as blobs, and a ``Deploy`` is repeated until the device's ``Deployed`` is stored. What a device says
that it has in use is believed and shown; it is kept with its ``Hello``.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mas_edge.orchestrator import deployment
from mas_edge.orchestrator.deployment import Answered, Deployment, Event, Export, NotExported, Send
from mas_edge.orchestrator.sound import sound_words, unsound_inference
from mas_edge.orchestrator.store import StoreRefused
from mas_edge.profiling.report import joules, method
from mas_edge.wire import messages as m
from mas_edge.wire.retry import Outbox

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from mas_edge.orchestrator import job as jobs
    from mas_edge.orchestrator.job import Job
    from mas_edge.orchestrator.roster import Roster
    from mas_edge.orchestrator.store import Store
    from mas_edge.orchestrator.workshop import Workshop
    from mas_edge.wire.blobs import Publisher
    from mas_edge.wire.bus import Bus

log = logging.getLogger(__name__)

_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Happened(NamedTuple):
    """A stored fact of a deployment: its number, its job, and when, in Unix time."""

    number: int
    job: str
    event: Event
    wall_s: float


def facts(store: Store[jobs.Event], after: int = 0) -> tuple[Happened, ...]:
    """What happened to deployments after a number, in order; raises StoreRefused."""
    return tuple(
        Happened(number, job, _decoded(number, body), wall_s)
        for number, job, body, wall_s in store.deployments(after)
    )


def _decoded(number: int, body: bytes) -> Event:
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        why = f"event {number} of deployments cannot be read by this version: {error}"
        raise StoreRefused(why) from error


def stored(store: Store[jobs.Event]) -> tuple[Deployment, ...]:
    """Every deployment of a store, as it stands."""
    found: tuple[Deployment, ...] = ()
    for each in facts(store):
        found = deployment.fold(found, each.job, each.event)
    return found


class Rollout:
    """All deployments of one store, on one bus."""

    def __init__(
        self,
        fleet: str,
        bus: Bus,
        store: Store[jobs.Event],
        publisher: Publisher,
        workshop: Workshop,
        roster: Roster,
        rng: random.Random,
    ) -> None:
        self._fleet, self._bus, self._store = fleet, bus, store
        self._publisher, self._workshop, self._roster = publisher, workshop, roster
        self._outbox = Outbox(rng)
        self._said: dict[tuple[str, str], Send] = {}  # (device, request): what is repeated until answered
        self._keep(stored(store))

    def happened(self, job: str, event: Event) -> bool:
        """Store what happened, and only then let it count; whether it meant anything. Raises StoreFull."""
        after = deployment.fold(self.deployments, job, event)
        if after == self.deployments:
            return False
        self._store.add_deployment(job, msgspec.json.encode(event))
        self._keep(after)
        if isinstance(event, Answered):
            self._believe(event.device, event.answer)
        log.info("job %s: %s", job, in_words(event))
        return True

    def reconcile(self, jobs_: Mapping[str, Job], has: Callable[[str], bool], time_s: float) -> None:
        """Have exported what is to be, and ask who is to be asked; ``has``: whether weights are here."""
        for owed in self._owed:
            if isinstance(owed, Export) and has(owed.weights.digest):
                self._workshop.undertake(jobs_[owed.job], owed)
            elif isinstance(owed, Export):
                gone = NotExported(request=owed.request, group=owed.group, reason="its weights are gone")
                self.happened(owed.job, gone)
        sends = {(each.device, each.message.request): each for each in self._owed if isinstance(each, Send)}
        for name in self._said.keys() - sends.keys():
            self._outbox.answered(name)
            if (model := self._said.pop(name).message.model) and model.file.digest not in self.referenced:
                self._publisher.drop(model.file.digest)
        for name, send in sends.items():
            if name not in self._said:
                self._say(send, time_s)

    def answer(self, device: str, said: m.Deployed) -> Answered:
        """What a device's answer comes to; one that cannot be is a refusal, in words."""
        if why := unsound_inference(said):
            log.warning("%s: what it says of %s cannot be: %s", device, said.group, why)
            said = m.Deployed(
                request=said.request, job=said.job, group=said.group, verdict="refused", why=why
            )
        return Answered(device=device, answer=msgspec.structs.replace(said, why=sound_words(said.why)))

    def hello(self, device: str, time_s: float) -> None:
        """The device has come: told once more what it has not answered."""
        for (name, _), send in self._said.items():
            if name == device:
                self._say(send, time_s)

    def again(self, time_s: float) -> None:
        """The connection is a new one: everything is said anew."""
        self._outbox.again(time_s)

    def pump(self, time_s: float) -> None:
        """Say what is due."""
        for topic, payload in self._outbox.due(time_s):
            self._bus.publish(topic, payload)

    def _keep(self, deployments: tuple[Deployment, ...]) -> None:
        """All of them, what is owed for them, and the digests of the blobs that this takes."""
        self.deployments = deployments
        self._owed = deployment.owes(deployments)
        self.referenced = deployment.referenced(deployments)

    def _say(self, send: Send, time_s: float) -> None:
        name = send.device, send.message.request
        self._said[name] = send
        self._outbox.put(name, m.down_topic(self._fleet, send.device), m.encode(send.message), time_s)

    def _believe(self, device: str, answer: m.Deployed) -> None:
        """What it has in use now stands in what it last said of itself."""
        hello, now = self._roster.hellos.get(device), answer.in_use
        if hello is None or now is None:
            return
        place = now.model.workload, now.model.group
        others = tuple(each for each in hello.in_use if (each.model.workload, each.model.group) != place)
        after = msgspec.structs.replace(hello, in_use=(*others, now))
        if now not in hello.in_use:
            self._store.remember_device(after)
            self._roster.hellos[device] = after


def in_words(event: Event) -> str:
    """What happened, in a line."""
    match event:
        case deployment.Ordered(rollback=rollback, targets=targets, precision=precision):
            groups = ", ".join(target.group for target in targets)
            devices = ", ".join(dict.fromkeys(device for target in targets for device in target.devices))
            return f"to be {'rolled back' if rollback else f'deployed as {precision}'}: {groups} on {devices}"
        case deployment.Exported(group=group, file=file, proof=proof, profile=profile):
            found = f"{file.size_bytes / 1e6:.2f} MB, off by {proof.max_abs_error:.1g}"
            return f"{group} exported to ONNX, {found}, {_energy(profile)}"
        case deployment.NotExported(group=group, reason=reason):
            return f"{group} cannot be exported: {reason}"
        case Answered(device=device, answer=answer):
            return f"{device}: {answer.group} {answer.verdict}" + (f": {answer.why}" if answer.why else "")


def _energy(profile: m.Profile) -> str:
    """What was attributed to the torch child's work, as far as it is known."""
    known = [row.attributed_energy_j for row in profile.rows if row.attributed_energy_j is not None]
    of = f" J {method([profile.sensor.method])}" if profile.sensor else " J"
    return joules(math.fsum(known) if known else None, None) + of
