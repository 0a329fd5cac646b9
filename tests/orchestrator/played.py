"""A fleet that is played: real sessions of devices, a real server and store, chance in the place of training.

Every device takes what it is asked through ``edge_agent.session``, as an agent does, and then, by chance,
answers, is slow, silent or broken, lies, goes away, restarts, or may not train for a while. The clock is
moved by the test. ``World.clears`` ends all trouble: from then on every job has to end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from mas_edge.edge_agent import session as s
from mas_edge.edge_agent.conditions import FREE, Verdict
from mas_edge.orchestrator.events import GaveUp, Heard, Late
from mas_edge.orchestrator.job import Initialised, Resumed, Stopped
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.storage.shelf import Shelf
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.ledger import LOST
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker, Faults
from mas_edge.wire.retry import Outbox

TASKS = ("a", "b", "c")
HOT = Verdict(reasons=(m.Reason(condition="temperature", detail="80 °C"),), again_s=60.0)
SHUT = Verdict(reasons=(m.Reason(condition="hours", detail="it is 12:00"),), again_s=900.0)
SENSOR = m.Sensor(name="rapl", method="counter", scope="package", sensor_host="h")
MISDEEDS = ("absurd", "nan", "shape", "examples", "failed", "silent", "slow")


def first_weights(value: float = 0.0) -> bytes:
    parts = ("encoder.w", *(f"decoder.{task}.w" for task in TASKS))
    return save({name: np.full(3, value, np.float32) for name in parts})


@dataclass
class Training:
    """What a slot is at: when it ends, how it behaves, and what it has used by now is 1 J a second."""

    assign: m.Assign
    began_s: float
    ends_s: float
    base: bytes
    misdeed: str = ""


@dataclass
class Played:
    """One device."""

    world: World
    name: str
    tasks: tuple[str, ...]
    slots: int
    wickedness: float
    bus: object = None
    session: s.Session = None
    trainings: dict[m.Key, Training] = field(default_factory=dict)
    lost_j: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.world.seed} {self.name}")
        self.own = BlobStore(self.world.root / f"device-{self.name}")
        self.told: dict[m.Key, s.Answer] = {}
        self.spool: dict[m.Key, s.Answer] = {}
        self.boots = 0
        self.outbox = Outbox(self.rng)
        self.join()

    def join(self) -> None:
        """A new process on a new connection: what was in hand is lost, what is spooled is not."""
        self.boots += 1
        for training in self.trainings.values():
            self._lose(training)
        self.trainings.clear()
        self.outbox = Outbox(self.rng)
        self.fetching: dict[str, float] = {}
        able = frozenset(("watch", task) for task in self.tasks)
        verdict = self.session.verdict if self.session else FREE
        slots = (s.EMPTY,) * self.slots
        self.session = s.Session(able=able, slots=slots, spooled=tuple(self.spool.values()), verdict=verdict)
        will = m.encode(m.Alive(online=False, boot_id=self.boot))
        self.bus = self.world.broker.connect(self.name, will=(m.alive_topic("f", self.name), will))
        self.bus.subscribe(m.down_topic("f", self.name))
        self.introduce()

    @property
    def boot(self) -> str:
        return f"b{self.boots}"

    def leave(self) -> None:
        self.world.broker.kill(self.name)

    def introduce(self) -> None:
        alive = m.Alive(online=True, boot_id=self.boot, reasons=self.session.verdict.reasons)
        self.bus.publish(m.alive_topic("f", self.name), m.encode(alive), retain=True)
        doing = tuple(assign.key for assign in self.session.in_hand)
        hello = m.Hello(
            device=self.name,
            boot_id=self.boot,
            versions=m.Versions(mas_edge="0", python="3"),
            workloads=(m.Offer(workload="watch", tasks=self.tasks),),
            spooled=tuple(answer.key for answer in self.session.spooled),
            working_on=doing[0] if doing else None,
            beside=doing[1:],
            slots=self.slots,
            sensor=SENSOR,
        )
        self.ask("hello", hello)
        for answer in self.session.spooled:
            self.ask(answer.key, answer)

    def ask(self, name, message) -> None:
        topic = m.up_topic("f", self.name)
        self.outbox.put(name, topic, m.encode(message), self.world.clock_s)

    def judge(self, verdict: Verdict) -> None:
        self.step(s.Judged(verdict=verdict))
        alive = m.Alive(online=True, boot_id=self.boot, reasons=verdict.reasons)
        self.bus.publish(m.alive_topic("f", self.name), m.encode(alive), retain=True)

    def turn(self) -> None:
        if not self.bus.connected:
            return
        while delivery := self.bus.get(0.0):
            self.hear(m.decode_down(delivery.payload))
        now_s = self.world.clock_s
        for key, training in list(self.trainings.items()):
            if training.ends_s <= now_s and training.misdeed != "silent":
                del self.trainings[key]
                self.step(s.Finished(answer=self.answer(training)))
        for topic, payload in self.outbox.due(now_s):
            self.bus.publish(topic, payload)

    def hear(self, message: m.Down) -> None:
        match message:
            case m.Need(digest=digest, ranges=ranges) if self.own.has(digest):
                for i in (i for first, past in ranges for i in range(first, past)):
                    self.bus.publish(m.blob_topic("f", self.name, digest, i), self.own.chunk(digest, i))
            case m.Greet():
                self.introduce()
            case m.Welcome(boot_id=boot):
                if boot == self.boot:
                    self.outbox.answered("hello")
                    self.step(s.Received(message=message))
            case _:
                self.step(s.Received(message=message))

    def step(self, event: s.Event) -> None:
        self.session, actions = s.step(self.session, event)
        for action in actions:
            self.act(action)

    def act(self, action: s.Action) -> None:  # noqa: C901 - a case an action
        match action:
            case s.Accept(key=key):
                self.bus.publish(m.up_topic("f", self.name), m.encode(m.Accepted(key=key)))
            case s.Fetch(ref=ref):
                if self.world.blobs.has(ref.digest):  # an old Assign may name what is gone
                    self.step(s.Fetched(digest=ref.digest))
            case s.Train(assign=assign):
                self.trainings[assign.key] = self.training(assign)
                at = m.Progress(key=assign.key, phase="forward", step=1, steps=9)
                self.bus.publish(m.up_topic("f", self.name), m.encode(at))
            case s.Halt(assign=assign):
                if training := self.trainings.pop(assign.key, None):
                    self._lose(training)
            case s.Spool(answer=answer):
                self.told.setdefault(answer.key, answer)
                assert self.told[answer.key] == answer, "trained twice under one key"
                self.spool[answer.key] = answer
                self.ask(answer.key, answer)
            case s.Resend(key=key):
                self.ask(key, self.spool[key])
            case s.Forget(key=key):
                self.outbox.answered(key)
                self.spool.pop(key, None)
            case s.Introduce():
                self.introduce()

    def training(self, assign: m.Assign) -> Training:
        now_s, misdeed = self.world.clock_s, ""
        if self.rng.random() < self.wickedness * self.world.trouble:
            misdeed = self.rng.choice(MISDEEDS)
        takes_s = self.rng.uniform(1, 20) * (30 if misdeed == "slow" else 1)
        base = self.world.blobs.path(assign.weights.digest).read_bytes()
        return Training(assign, now_s, now_s + takes_s, base, misdeed)

    def _lose(self, training: Training) -> None:
        key = training.assign.key
        name = (key.job, key.group, key.round)
        self.lost_j[name] = self.lost_j.get(name, 0.0) + self.world.clock_s - training.began_s

    def bill(self, key: m.Key, used_s: float, examples: int) -> m.Profile:
        lost, self.lost_j = self.lost_j, {}
        rows = [_row(key.job, key.group, key.round, "forward", used_s, examples)]
        rows += [_row(*name, LOST, used, 0) for name, used in lost.items()]
        return m.Profile(rows=tuple(rows))

    def answer(self, training: Training) -> s.Answer:
        assign, misdeed = training.assign, training.misdeed
        key, used_s = assign.key, training.ends_s - training.began_s
        if misdeed == "failed":
            return m.Failed(key=key, reason="worker-killed", profile=self.bill(key, used_s, 0))
        examples = self.rng.randint(4, 12) if assign.train else 0
        mine = [task for task in assign.tasks if task in self.tasks]
        ref = None
        if assign.train:
            parts = load(training.base)
            step = {"absurd": 1e6, "nan": np.nan}.get(misdeed, self.rng.uniform(0.9, 1.1))
            moved = {name: value + np.float32(step) for name, value in parts.items()}
            if misdeed == "shape":
                moved["encoder.w"] = np.zeros(5, np.float32)
            ref = self.own.add(save(moved))
        return m.Update(
            key=key,
            weights=ref,
            examples=-1 if misdeed == "examples" else examples,
            trained=tuple(m.Score(task=t, count=examples, loss_sum=1.0) for t in mine if assign.train),
            scores=tuple(m.Score(task=t, count=4.0, loss_sum=2.0) for t in mine if assign.evaluate),
            affinity=_sums(assign.tasks) if assign.measure else None,
            profile=self.bill(key, used_s, examples),
        )


def _row(job: str, group: str, round_: int, phase: str, used: float, examples: int) -> m.Spend:
    return m.Spend(
        job=job,
        group=group,
        round=round_,
        phase=phase,
        wall_s=used,
        cpu_s=used,
        examples=examples,
        attributed_energy_j=used,
    )


def _sums(tasks) -> m.AffinitySums:
    n = len(tasks) ** 2
    return m.AffinitySums(
        tasks=tasks, batches=(4,) * n, w=(40.0,) * n, ww=(400.0,) * n, wz=(4.0,) * n, wzz=(0.8,) * n
    )


class Killed(Exception):
    """kill -9, right after an event was committed."""


class World:
    """An orchestrator and its fleet, all of it decided by a seed."""

    def __init__(self, root, seed: int, devices: dict[str, tuple[tuple[str, ...], int]]) -> None:
        self.root, self.seed, self.rng = root, seed, random.Random(seed)
        self.clock_s, self.trouble, self.kills_in = 100.0, 1.0, 0
        faulty = self.rng.random() < 0.5
        faults = Faults(lose=0.03, repeat=0.05, delay=0.05) if faulty else Faults()
        self.broker = Broker(faults, random.Random(seed))
        self.store, self.meter = open_store(root), open_one("estimate:idle_w=2,max_w=10")
        self.append, self.store.append = self.store.append, self._append
        self.blobs = BlobStore(root / "blobs")
        self.workshop = Workshop(self.blobs, root, self.meter)
        self.server = None
        self.start()
        wicked = self.rng.choice((0.0, 0.2, 0.6))
        self.devices = [
            Played(self, name, tasks, slots, wicked) for name, (tasks, slots) in sorted(devices.items())
        ]

    def start(self) -> None:
        before = self.server.jobs if self.server else ()
        bus = self.broker.connect("orchestrator")
        self.server = Server(
            "f",
            bus,
            self.store,
            self.blobs,
            self.workshop,
            rng=random.Random(self.seed),
            clock_s=lambda: self.clock_s,
            shelf=Shelf(self.blobs),
        )
        self.restarted(before, self.server.jobs)

    def restarted(self, before, after) -> None:
        """What stood before a kill stands after it."""
        old = {job.spec.name: job for job in before}
        for job in after:
            if job.spec.name in old and self.kills_in == 0:
                assert job == old[job.spec.name]

    def _append(self, job, time_s, event):
        """Stored; and then, now and then, nothing more of this process."""
        number = self.append(job, time_s, event)
        if self.kills_in:
            self.kills_in -= 1
            if not self.kills_in:
                self.kills_in = -1
                raise Killed
        return number

    def launch(self, spec) -> None:
        self.server.add(spec)
        first = Initialised(weights=self.blobs.add(first_weights()), fingerprint="f", parameters={})
        self.happened(spec.name, first)

    def happened(self, name, event) -> None:
        try:
            self.server.happened(name, event)
        except Killed:
            self.start()
            self.kills_in = 0

    def turn(self, seconds: float) -> None:
        self.clock_s += seconds
        try:
            self.server.turn(0.0)
        except Killed:
            self.start()
            self.kills_in = 0
        for device in self.devices:
            device.turn()

    def mischief(self) -> None:
        """Something happens that is nobody's plan."""
        device, roll = self.rng.choice(self.devices), self.rng.random()
        jobs = [job for job in self.server.jobs if job.phase != "done"]
        if roll < 0.04:
            self.start()
        elif roll < 0.08:
            self.kills_in = self.rng.randint(1, 4)
        elif roll < 0.12:
            device.leave() if device.bus.connected else device.join()
        elif roll < 0.14:
            device.join()
        elif roll < 0.2 and device.bus.connected:
            device.judge(FREE if device.session.verdict.reasons else self.rng.choice((HOT, SHUT)))
        elif roll < 0.23 and jobs:
            self.toggle(self.rng.choice(jobs))
        elif roll < 0.24:
            device.slots = 3 - device.slots
            device.join()

    def toggle(self, job) -> None:
        if job.phase in {"stopped", "failed"}:
            self.happened(job.spec.name, Resumed())
        elif self.rng.random() < 0.3 and len(job.spec.tasks) - len(job.stopped) > 1:
            left = [task for task in job.spec.tasks if task not in job.stopped]
            self.happened(job.spec.name, Stopped(tasks=(self.rng.choice(left),)))
        else:
            self.happened(job.spec.name, Stopped())

    def clears(self) -> None:
        """No more trouble: everybody is there, honest, and may train."""
        self.trouble, self.kills_in = 0.0, 0
        self.broker.faults = Faults()
        for device in self.devices:
            device.wickedness = 0.0
            device.judge(FREE)
            device.join()
        for job in self.server.jobs:
            if job.phase in {"stopped", "failed"}:
                self.happened(job.spec.name, Resumed())

    def events(self, name: str, *kinds: type) -> list:
        return [event for _, _, event in self.store.events(name) if isinstance(event, kinds)]

    def answers(self) -> list[tuple[m.Key, m.Profile]]:
        """Key and bill of all that was stored of devices."""
        found = []
        for job in self.server.jobs:
            for event in self.events(job.spec.name, Heard, GaveUp, Late):
                about = event.update if isinstance(event, Heard) else event
                found.append((about.key, about.profile))
        return found

    def close(self) -> None:
        self.workshop.close()
        self.store.close()
        self.meter.close()
