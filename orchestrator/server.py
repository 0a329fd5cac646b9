"""The orchestrator's shell: it hears devices, keeps events, carries out what the jobs owe.

One loop, one deciding thread. A delivery from the bus becomes at most one event of one job; the event
is committed to the store, then ``orchestrator.job.step`` folds it, then whatever the job owes is
reconciled with what is under way: merging, carving and the torch child are handed to
``orchestrator.workshop``, rulings are taken and stored (``orchestrator.rulings``), and of all that the jobs
ask, ``orchestrator.schedule`` picks those that each device should work on, which
``orchestrator.dispatch`` tells it; ``orchestrator.rollout`` brings models to devices. Nothing else is
remembered, so a restart replays the events and goes on.
Job time counts only while the server runs.

Control messages only; which training is right is decided in ``job`` and ``rounds``.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from mas_edge.orchestrator import deployment
from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.dispatch import Dispatch
from mas_edge.orchestrator.docket import Docket
from mas_edge.orchestrator.events import Ask, Lifted, Select
from mas_edge.orchestrator.intake import Answer, Intake
from mas_edge.orchestrator.job import Action, Event, Job
from mas_edge.orchestrator.rollout import Rollout
from mas_edge.orchestrator.roster import DeviceFacts, Roster
from mas_edge.orchestrator.rulings import Ruled, ruling, rulings, waiting
from mas_edge.orchestrator.schedule import Contender, Schedule, asks
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.orchestrator.storage.shelf import Shelf
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import Fetcher, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.store import Store
    from mas_edge.orchestrator.workshop import Workshop
    from mas_edge.wire.blobs import BlobStore
    from mas_edge.wire.bus import Bus

log = logging.getLogger(__name__)

A_TURN = 256
"""Messages that are heard at most before the rest of the loop has its turn, however fast they come."""

SETTLE_S = 5.0
"""So long after it came to a broker the orchestrator gives devices to say that they are there."""


class Server:
    """All jobs of one store, on one bus."""

    def __init__(
        self,
        fleet: str,
        bus: Bus,
        store: Store[Event],
        blobs: BlobStore,
        workshop: Workshop,
        *,
        rng: random.Random,
        clock_s: Callable[[], float] = time.monotonic,
        shelf: Shelf | None = None,
    ) -> None:
        self._fleet, self._bus, self._store = fleet, bus, store
        self._workshop, self.shelf = workshop, shelf or Shelf(blobs)
        self._clock_s = clock_s
        self._publisher = Publisher(bus, blobs, lambda digest, i: m.blob_topic(fleet, m.EVERYONE, digest, i))
        self._fetcher = Fetcher(
            bus, blobs, lambda device, digest: m.blob_topic(fleet, device, digest), self._say, rng=rng
        )
        self._intake = Intake(blobs, self._fetcher)
        self._dispatch = Dispatch(fleet, bus, self._publisher, rng, (at.key for at in store.live()))
        self._roster, self._schedule = Roster(store.devices()), Schedule()
        self.rollout = Rollout(fleet, bus, store, self._publisher, workshop, self._roster, rng)
        self._docket = Docket(store, clock_s)
        self._waits: dict[tuple[str, str], Select] = {}  # (job, group): the selection that found too few
        self._connections, self._connected_s = 0, clock_s()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The state of every job, in the order in which they came."""
        return tuple(self._docket.jobs.values())

    @property
    def hellos(self) -> dict[str, m.Hello]:
        """What each device last said of itself, by name."""
        return dict(self._roster.hellos)

    def facts(self) -> tuple[DeviceFacts, ...]:
        """What is known of each device that ever said hello, by name."""
        return self._roster.facts(self._docket.usage.power_w)

    def would_plan(self, name: str) -> Decision | None:
        """The plan that a job owes or will owe, as it would be taken now; None if none is to come."""
        return self._docket.would_plan(name, self.facts)

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        if self._bus.connections != self._connections:
            self._connected()
        wait_s = timeout_s
        for _ in range(A_TURN):
            if (delivery := self._bus.get(wait_s)) is None:
                break
            with self.shelf.writing():
                self._deliver(delivery.topic, delivery.payload)
            wait_s = 0.0
        now_s = self._clock_s()
        self.shelf.look(now_s)
        with self.shelf.writing():
            for name, event in self._workshop.poll():
                self.happened(name, event)
        with self.shelf.writing():
            self._reconcile()
        self._dispatch.pump(now_s)
        self.rollout.pump(now_s)
        self._publisher.pump(now_s)
        self._fetcher.pump(now_s)

    def wait_s(self) -> float:
        """How long the next turn may wait: little while there is something to pump or to collect."""
        busy = self._workshop.busy or self._intake.awaited or self._bus.inflight or self._dispatch.waiting
        return 0.02 if busy else 0.2

    # --- jobs and events -----------------------------------------------------------------------

    def add(self, spec: JobSpec) -> None:
        """Store a job and take it up; raises SpecRefused, JobExists, NoRoom, and then nothing has changed."""
        self.shelf.admit()
        self._docket.add(spec)

    def happened(self, name: str, event: Event | deployment.Event) -> bool:
        """Store an event of a job or of a deployment, and only then let it count; whether it meant anything.

        Raises KeyError for a job that is not there, StoreFull if the disk is.
        """
        if isinstance(event, deployment.Event):
            changed = self.rollout.happened(name, event)
        else:
            changed = self._docket.happened(name, event)
        if changed:
            self.shelf.sweep(self.jobs, self._intake.awaited | self.rollout.referenced)
        return changed

    def _reconcile(self) -> None:
        """Do what the jobs owe; tell each device what it should be at."""
        for name in self._docket.jobs:
            if event := self._docket.plans(name, self.facts):
                self.happened(name, event)
            self._do_chores(name)
            self._rule(name)
        if not self.shelf.full:
            self.rollout.reconcile(self._docket.jobs, self.shelf.has, self._clock_s())
        for update in self._intake.unwanted(lambda key: self._docket.asked(key) is not None):
            self._too_late(update)
        contenders = [
            Contender(job=job.spec.name, priority=job.spec.priority, asks=asks(self._owed(job.spec.name)))
            for job in self.jobs
        ]
        slots = {name: hello.slots for name, hello in self._roster.hellos.items()}
        chosen = self._schedule.choose(contenders, self._dispatch.sent, self._docket.usage.seconds, slots)
        self._dispatch.want({ask.key: self._docket.assign(ask) for ask in chosen}, self._clock_s())

    def _owed(self, name: str) -> tuple[Action, ...]:
        return jobs.owes(self._docket.jobs[name], self._docket.time_s(name))

    def _do_chores(self, name: str) -> None:
        for action in self._owed(name):
            if not isinstance(action, Ask | Ruled | jobs.Plan) and not self.shelf.full:
                for event in self._workshop.undertake(self._docket.jobs[name], action):
                    self.happened(name, event)

    def _rule(self, name: str) -> None:
        """Take every ruling that the job wants, until it wants no more or too few devices are there."""
        wanted = rulings(self._owed(name))
        settled = self._clock_s() - self._connected_s >= SETTLE_S
        scene = (
            self._docket.scene(name, self.facts(), self._dispatch.sent, settled=settled) if wanted else None
        )
        while wanted and scene:
            action = wanted.pop(0)
            event = ruling(self._docket.jobs[name], action, scene)
            if event and self.happened(name, event):
                wanted = rulings(self._owed(name))
            elif isinstance(action, Select) and settled and self._waits.get((name, action.group)) != action:
                self._waits[name, action.group] = action  # a line a selection, however long it takes
                log.info("job %s: %s", name, waiting(self._docket.jobs[name], action, scene))

    # --- the bus -------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._connections, self._connected_s = self._bus.connections, self._clock_s()
        for topic in (m.up_topic(self._fleet), m.alive_topic(self._fleet)):
            self._bus.subscribe(topic)
        self._dispatch.again(self._connected_s)
        self.rollout.again(self._connected_s)
        self._fetcher.again(self._connected_s)

    def _say(self, device: str, message: m.Down) -> None:
        self._bus.publish(m.down_topic(self._fleet, device), m.encode(message))

    def _deliver(self, topic: str, payload: bytes) -> None:
        place = m.parse_topic(self._fleet, topic)
        if place is None:
            return
        if place.leaf == "blob":
            whole = self._fetcher.receive(place.digest, place.index, payload, self._clock_s())
            for update in self._intake.complete(whole.digest) if whole else ():
                self._about_key(update.key.device, update)
            return
        try:
            if place.leaf == "up":
                self._heard(place.device, m.decode_up(payload))
            elif place.leaf == "alive":
                self._presence(place.device, m.decode_alive(payload))
        except m.MessageRefused as error:
            log.warning("%s said something that is none of our messages: %s", place.device, error)

    def _presence(self, device: str, alive: m.Alive) -> None:
        if self._roster.lifts(device, alive):
            for job in self.jobs:
                self.happened(job.spec.name, Lifted(device=device))
        if news := self._roster.presence(device, alive):
            log.info("%s", news)
        self._store.set_presence(device, alive)
        if alive.online and device not in self._roster.hellos:
            self._say(device, m.Greet())
        elif not alive.online:
            for key in self._dispatch.working_on(device):
                words = "%s is gone; job %s waits for it: round %d of %s"
                log.warning(words, device, key.job, key.round, key.group)

    def _heard(self, device: str, message: m.Up) -> None:
        if isinstance(message, m.Hello):
            self._hello(device, message)
        elif isinstance(message, m.Need):
            self._publisher.asked(message, device, self._clock_s())
        elif isinstance(message, m.Deployed):
            self.happened(message.job, self.rollout.answer(device, message))
        elif message.key.device != device:
            log.warning("%s spoke for %s: ignored", device, message.key.device)
        elif device not in self._roster.hellos:
            self._say(device, m.Greet())
        else:
            self._about_key(device, message)

    def _hello(self, device: str, hello: m.Hello) -> None:
        if hello.device != device or not m.is_name(device):
            log.warning("%s says that it is %s: ignored", device, hello.device)
            return
        self._store.remember_device(hello)
        self._roster.hello(hello)
        self._say(device, m.Welcome(boot_id=hello.boot_id, store=self._store.identity))
        working_on = ((hello.working_on,) if hello.working_on else ()) + hello.beside
        for key in working_on:
            if self._docket.asked(key) is None:
                self._say(device, m.Cancel(key=key))
        self._dispatch.hello(device, working_on, self._clock_s())
        self.rollout.hello(device, self._clock_s())

    def _about_key(self, device: str, message: m.Accepted | m.Progress | Answer) -> None:
        ask = self._docket.asked(message.key)
        match message:
            case m.Progress():
                self._store.set_live(device, message)
            case m.Accepted():
                if ask is None:
                    self._say(device, m.Cancel(key=message.key))
                self._dispatch.heed(message.key)
            case _ if ask:
                self._answered(message, ask)
            case _:
                self._too_late(message)

    def _answered(self, message: Answer, ask: Ask) -> None:
        """Keep an answer as soon as it is whole, and tell the device; until then get its weights."""
        event, key = self._intake.event(message, ask, self._clock_s()), message.key
        self._dispatch.heed(key)
        if event is not None:
            self.happened(key.job, event)
            self._settled(key)

    def _too_late(self, message: Answer) -> None:
        """What nobody waits for any more: its bill is kept, once, and the device may forget it."""
        event, key = self._intake.late(message), message.key
        billed = event.examples or event.profile.rows
        if billed and self._docket.could_be(key) and not self._docket.usage.counted(key):
            self.happened(key.job, event)
        self._settled(key)

    def _settled(self, key: m.Key) -> None:
        self._dispatch.done(key)
        self._say(key.device, m.Stored(key=key))
