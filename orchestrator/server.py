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
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator import aggregate
from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.affinity import AffinityRefused, pool
from mas_edge.orchestrator.job import Event, Job
from mas_edge.orchestrator.rounds import Ask, GaveUp, Heard
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

Answer: TypeAlias = m.Update | m.Declined | m.Failed


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
            bus, blobs, lambda device, digest: m.blob_topic(fleet, device, digest), self._need, rng=rng
        )
        self._jobs: dict[str, Job] = {}
        self._since_s: dict[str, float] = {}  # our clock when the job's time was zero
        self._sent: dict[str, m.Assign] = {}
        self._awaited: dict[str, m.Update] = {}  # digest -> the update whose weights are on their way
        self._known = set(store.devices())
        self._connections = 0
        self._resume()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The state of every job, in the order in which they came."""
        return tuple(self._jobs.values())

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        if self._bus.connections != self._connections:
            self._connected()
        wait_s = timeout_s
        while delivery := self._bus.get(wait_s):
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
        busy = self._workshop.busy or self._awaited or self._bus.inflight or self._outbox.next_s() is not None
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
        if after.phase != job.phase:
            log.info("job %s: %s%s", name, after.phase, f" ({after.reason})" if after.reason else "")
        self._remove_blobs()

    def _remove_blobs(self) -> None:
        """Throw away updates and weights that no job refers to any more."""
        kept = {digest for each in self._jobs.values() for digest in jobs.referenced(each)}
        for digest in self._blobs.digests() - kept - set(self._awaited):
            self._blobs.remove(digest)

    def _reconcile(self) -> None:
        wanted: dict[str, m.Assign] = {}
        for name, job in self._jobs.items():
            actions = jobs.owes(job, self._job_time_s(name))
            for device, ask in jobs.assignments(actions).items():
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
        if assign is None:
            del self._sent[device]
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

    def _need(self, device: str, need: m.Need) -> None:
        self._say(device, need)

    def _deliver(self, topic: str, payload: bytes) -> None:
        place = m.parse_topic(self._fleet, topic)
        if place is None:
            return
        if place.leaf == "blob":
            whole = self._fetcher.receive(place.digest, place.index, payload, self._clock_s())
            if whole and whole.digest in self._awaited:
                self._answered(self._awaited.pop(whole.digest))
            return
        try:
            if place.leaf == "up":
                self._heard(place.device, m.decode_up(payload))
            elif place.leaf == "alive" and m.decode_alive(payload).online and place.device not in self._known:
                self._say(place.device, m.Greet())
        except m.MessageRefused as error:
            log.warning("%s said something that is none of our messages: %s", place.device, error)

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
        if hello.device != device:
            log.warning("%s says that it is %s: ignored", device, hello.device)
            return
        self._store.remember_device(hello)
        self._known.add(device)
        self._say(device, m.Welcome(boot_id=hello.boot_id))
        sent = self._sent.get(device)
        if hello.working_on and (sent is None or hello.working_on != sent.key):
            self._say(device, m.Cancel(key=hello.working_on))
        if sent and hello.working_on != sent.key:
            self._outbox.put(device, m.down_topic(self._fleet, device), m.encode(sent), self._clock_s())

    def _about_key(self, device: str, message: m.Accepted | m.Progress | Answer) -> None:
        sent = self._sent.get(device)
        expected = sent is not None and sent.key == message.key
        match message:
            case m.Accepted() if expected:
                self._outbox.answered(device)
            case m.Accepted():
                self._say(device, m.Cancel(key=message.key))
            case m.Progress():
                self._store.set_live(device, message)
            case m.Update(weights=m.BlobRef() as ref) if expected and not self._blobs.has(ref.digest):
                self._outbox.answered(device)
                self._awaited[ref.digest] = message
                self._fetcher.want(ref, device, self._clock_s())
            case m.Update() | m.Declined() | m.Failed() if expected:
                self._answered(message)
            case _:
                self._say(device, m.Stored(key=message.key))

    def _answered(self, message: Answer) -> None:
        """A device's answer is whole: keep it, tell the device, drop what nobody wants."""
        key = message.key
        if key.job in self._jobs:
            self._happened(key.job, self._event(message))
        self._outbox.answered(key.device)
        self._say(key.device, m.Stored(key=key))

    def _event(self, message: Answer) -> Heard | GaveUp:
        if not isinstance(message, m.Update):
            profile = message.profile if isinstance(message, m.Failed) else m.Profile()
            return GaveUp(key=message.key, reason=message.reason, detail=message.detail, profile=profile)
        sent = self._sent.get(message.key.device)
        if message.weights is not None and sent is not None:
            try:
                aggregate.screen(
                    self._blobs.path(message.weights.digest), self._blobs.path(sent.weights.digest)
                )
                _check_affinity(message.affinity, sent.tasks)
            except (aggregate.UpdateRefused, AffinityRefused) as error:
                log.warning("update of %s refused: %s", message.key.device, error)
                return GaveUp(
                    key=message.key, reason="update-refused", detail=str(error), profile=message.profile
                )
        return Heard(update=message)


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


def _check_affinity(sums: m.AffinitySums | None, tasks: tuple[str, ...]) -> None:
    """Raises AffinityRefused for sums that could not be pooled with those of other devices."""
    if sums is None:
        return
    pool([sums])
    if sums.tasks != tasks:
        raise AffinityRefused(f"affinities of {', '.join(sums.tasks)}, asked for {', '.join(tasks)}")
