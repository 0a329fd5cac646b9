"""The orchestrator's shell: it hears devices, keeps events, carries out what the jobs owe.

One loop, one deciding thread. A delivery from the bus becomes at most one event of one job; the event
is committed to the store, then ``orchestrator.job.step`` folds it, then whatever the job owes is
reconciled with what is under way: each device is sent the one assignment it should work on (repeated
until it says ``Accepted``, and again after each ``Hello``), and merging, carving and the torch child are
handed to ``orchestrator.workshop``. Nothing else is remembered, so a restart replays the events and
goes on. Job time counts only while the server runs.

Control messages only; which training is right is decided in ``job`` and ``rounds``.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator import rounds
from mas_edge.orchestrator.intake import Answer, Intake
from mas_edge.orchestrator.job import Event, Job
from mas_edge.orchestrator.rounds import Ask
from mas_edge.orchestrator.sound import sound_words
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import Fetcher, Publisher
from mas_edge.wire.retry import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.orchestrator.store import Store
    from mas_edge.orchestrator.workshop import Workshop
    from mas_edge.wire.blobs import BlobStore
    from mas_edge.wire.bus import Bus

log = logging.getLogger(__name__)


A_TURN = 256
"""Messages that are heard at most before the rest of the loop has its turn, however fast they come."""


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
    ) -> None:
        self._fleet, self._bus, self._store, self._blobs = fleet, bus, store, blobs
        self._workshop = workshop
        self._clock_s = clock_s
        self._outbox = Outbox(rng)
        self._publisher = Publisher(bus, blobs, lambda digest, i: m.blob_topic(fleet, m.EVERYONE, digest, i))
        self._fetcher = Fetcher(
            bus, blobs, lambda device, digest: m.blob_topic(fleet, device, digest), self._say, rng=rng
        )
        self._intake = Intake(blobs, self._fetcher)
        self._jobs: dict[str, Job] = {}
        self._since_s: dict[str, float] = {}  # our clock when the job's time was zero
        self._sent: dict[str, m.Assign] = {}
        self._known = set(store.devices())
        self._alive: dict[str, m.Alive] = {}
        self._connections = 0
        self._resume()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The state of every job, in the order in which they came."""
        return tuple(self._jobs.values())

    @property
    def alive(self) -> dict[str, m.Alive]:
        """What each device last said of being there, and of why it may not train, by name."""
        return dict(self._alive)

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        if self._bus.connections != self._connections:
            self._connected()
        wait_s = timeout_s
        for _ in range(A_TURN):
            if (delivery := self._bus.get(wait_s)) is None:
                break
            self._deliver(delivery.topic, delivery.payload)
            wait_s = 0.0
        for name, event in self._workshop.poll():
            self._happened(name, event)
        self._reconcile()
        now_s = self._clock_s()
        for topic, payload in self._outbox.due(now_s):
            self._bus.publish(topic, payload)
        self._publisher.pump(now_s)
        self._fetcher.pump(now_s)

    def wait_s(self) -> float:
        """How long the next turn may wait: little while there is something to pump or to collect."""
        busy = (
            self._workshop.busy
            or self._intake.awaited
            or self._bus.inflight
            or self._outbox.next_s() is not None
        )
        return 0.02 if busy else 0.2

    # --- jobs and events -----------------------------------------------------------------------

    def _resume(self) -> None:
        now_s = self._clock_s()
        for name, body in self._store.jobs():
            job, time_s = Job(spec=msgspec.json.decode(body, type=JobSpec)), 0.0
            for _, time_s, event in self._store.events(name):
                job, _owed = jobs.step(job, event, time_s)
            self._jobs[name] = job
            self._since_s[name] = now_s - time_s

    def _job_time_s(self, name: str) -> float:
        return self._clock_s() - self._since_s[name]

    def _happened(self, name: str, event: Event) -> None:
        job, time_s = self._jobs[name], self._job_time_s(name)
        after, _owed = jobs.step(job, event, time_s)
        if after == job:
            return
        self._store.append(name, time_s, event)
        self._jobs[name] = after
        for note in after.replans[len(job.replans) :]:
            log.warning("job %s: %s", name, note)
        if after.phase != job.phase:
            log.info("job %s: %s%s", name, after.phase, f" ({after.reason})" if after.reason else "")
        self._remove_blobs()

    def _remove_blobs(self) -> None:
        """Throw away updates and weights that no job refers to any more."""
        kept = {digest for each in self._jobs.values() for digest in jobs.referenced(each)}
        for digest in self._blobs.digests() - kept - self._intake.awaited:
            self._blobs.remove(digest)

    def _reconcile(self) -> None:
        wanted: dict[str, m.Assign] = {}
        sent = {assign.key for assign in self._sent.values()}
        for name, job in self._jobs.items():
            actions = jobs.owes(job, self._job_time_s(name))
            for device, ask in jobs.assignments(actions, sent).items():
                if device in self._known:
                    wanted.setdefault(device, _assign(job, ask))
            for action in actions:
                if not isinstance(action, Ask):
                    for event in self._workshop.undertake(job, action):
                        self._happened(name, event)
        for device in self._sent.keys() | wanted.keys():
            assign = wanted.get(device)
            if assign != self._sent.get(device):
                self._send_assign(device, assign, readers=wanted)

    def _send_assign(self, device: str, assign: m.Assign | None, readers: dict[str, m.Assign]) -> None:
        if assign is None:  # not answered, and no longer wanted
            self._say(device, m.Cancel(key=self._sent.pop(device).key))
            self._outbox.answered(device)
            return
        self._sent[device] = assign
        same = frozenset(d for d, a in readers.items() if a.weights == assign.weights)
        self._publisher.expect(assign.weights.digest, same)
        self._outbox.put(device, m.down_topic(self._fleet, device), m.encode(assign), self._clock_s())

    # --- the bus -------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._connections = self._bus.connections
        for topic in (m.up_topic(self._fleet), m.alive_topic(self._fleet)):
            self._bus.subscribe(topic)
        now_s = self._clock_s()
        self._outbox.again(now_s)
        self._fetcher.again(now_s)

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
        before = self._alive.get(device)
        self._alive[device] = alive
        if alive.online and alive.reasons != (before.reasons if before else ()):
            why = "; ".join(f"{reason.condition}: {reason.detail}" for reason in alive.reasons)
            log.info("%s %s", device, f"may not train now: {sound_words(why)}" if why else "may train again")
        if alive.online and device not in self._known:
            self._say(device, m.Greet())
        elif not alive.online and device in self._sent:
            key = self._sent[device].key
            log.warning(
                "%s is gone; job %s waits for it: round %d of %s", device, key.job, key.round, key.group
            )

    def _heard(self, device: str, message: m.Up) -> None:
        if isinstance(message, m.Hello):
            self._hello(device, message)
        elif isinstance(message, m.Need):
            self._publisher.asked(message, device, self._clock_s())
        elif message.key.device != device:
            log.warning("%s spoke for %s: ignored", device, message.key.device)
        elif device not in self._known:
            self._say(device, m.Greet())
        else:
            self._about_key(device, message)

    def _hello(self, device: str, hello: m.Hello) -> None:
        if hello.device != device or not m.is_name(device):
            log.warning("%s says that it is %s: ignored", device, hello.device)
            return
        self._store.remember_device(hello)
        self._known.add(device)
        self._say(device, m.Welcome(boot_id=hello.boot_id))
        sent = self._sent.get(device)
        if hello.working_on and self._asked(hello.working_on) is None:
            self._say(device, m.Cancel(key=hello.working_on))
        if sent and hello.working_on != sent.key:
            self._outbox.put(device, m.down_topic(self._fleet, device), m.encode(sent), self._clock_s())

    def _asked(self, key: m.Key) -> Ask | None:
        """What an answer under this key would answer; it may have been sent before a restart."""
        job = self._jobs.get(key.job)
        if job is None or job.over:
            return None
        return next((ask for run in job.runs if (ask := rounds.expected(run, key))), None)

    def _about_key(self, device: str, message: m.Accepted | m.Progress | Answer) -> None:
        ask = self._asked(message.key)
        match message:
            case m.Progress():
                self._store.set_live(device, message)
            case m.Accepted():
                if ask is None:
                    self._say(device, m.Cancel(key=message.key))
                self._heed(message.key)
            case _ if ask:
                self._answered(message, ask)
            case _:
                self._say(device, m.Stored(key=message.key))

    def _heed(self, key: m.Key) -> None:
        """The device has this assignment: no need to say it again."""
        if (sent := self._sent.get(key.device)) and sent.key == key:
            self._outbox.answered(key.device)

    def _answered(self, message: Answer, ask: Ask) -> None:
        """Keep an answer as soon as it is whole, and tell the device; until then get its weights."""
        event, key = self._intake.event(message, ask, self._clock_s()), message.key
        self._heed(key)
        if event is None:
            return
        self._happened(key.job, event)
        if (sent := self._sent.get(key.device)) and sent.key == key:
            del self._sent[key.device]
        self._say(key.device, m.Stored(key=key))


def _assign(job: Job, ask: Ask) -> m.Assign:
    return m.Assign(
        key=ask.key,
        tasks=ask.tasks,
        training=job.spec.training,
        weights=ask.weights,
        fingerprint=job.fingerprint,
        train=ask.train,
        evaluate=ask.evaluate,
        measure=ask.measure,
    )
