"""The agent's shell: bus, session, worker, meter, and the spool on disk, in one loop.

Each turn takes what the bus, the weights' fetcher and the worker have brought, turns it into events of
``edge_agent.session``, and carries out the actions. The daemon never imports torch: training happens in
the worker process. Finished answers lie in ``STATE/spool`` until the orchestrator says that they are
stored; weights lie by digest in ``STATE/blobs``; the bill of what is being done lies in
``STATE/account.json`` and is written at least every five seconds, so that a kill loses no joules.
Every few seconds it looks whether the device may train (``conditions``), and says so when that changes:
in the log, in its status, and to the fleet in the retained message on its alive topic.

It decides nothing about rounds or retries: see ``session`` and ``wire.retry``. A broker that is away, and a
disk that is full, are lines in the log, not its end.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent import session as s
from mas_edge.edge_agent.caps import Fence
from mas_edge.edge_agent.conditions import Conditions, judge
from mas_edge.edge_agent.facts import Observer
from mas_edge.edge_agent.spool import Spool
from mas_edge.edge_agent.trainer import Patience, Trainer
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore, Fetcher, Publisher
from mas_edge.wire.retry import Outbox

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

    from mas_edge.edge_agent.account import Account
    from mas_edge.edge_agent.config import TrainConfig
    from mas_edge.models.tasks import Source
    from mas_edge.wire.bus import Bus

log = logging.getLogger(__name__)

HELLO = "hello"
LOOK_S = 5.0
"""How often it is looked whether the device may train."""


class Agent:
    """One device of a fleet."""

    def __init__(  # noqa: PLR0913 - what an agent is made of, built in one place
        self,
        about: m.Hello,
        fleet: str,
        bus: Bus,
        state: Path,
        account: Account,
        sources: Mapping[str, Source],
        *,
        rng: random.Random,
        train: TrainConfig,
        conditions: Conditions = Conditions(),  # noqa: B008 - frozen, like the next
        patience: Patience = Patience(),  # noqa: B008
        observer: Observer | None = None,
        fence: Fence | None = None,
    ) -> None:
        self._about, self._fleet, self._bus, self._account = about, fleet, bus, account
        self._conditions, self._observer = conditions, observer or Observer()
        self._blobs = BlobStore(state / "blobs")
        self._spool = Spool(state / "spool", account.room)
        fence = fence or Fence()
        self._trainer = Trainer(state, self._blobs, account, sources, train, fence, about.caps, patience)
        self._progress: m.Progress | None = None
        self._online, self._look_s = False, 0.0
        self._outbox = Outbox(rng)
        device = about.device
        self._publisher = Publisher(
            bus,
            self._blobs,
            lambda digest, i: m.blob_topic(fleet, device, digest, i),
            gather_s=0.0,  # the orchestrator is the only reader
        )
        self._fetcher = Fetcher(
            bus,
            self._blobs,
            lambda _source, digest: m.blob_topic(fleet, m.EVERYONE, digest),
            lambda _source, need: self._say(need),
            rng=rng,
        )
        able = frozenset((offer.workload, task) for offer in about.workloads for task in offer.tasks)
        self._session = s.Session(able=able, spooled=self._spool.deliverable(self._blobs))
        self._connections = 0

    @property
    def busy(self) -> bool:
        """Whether there is an assignment in hand or an answer to deliver."""
        return self._session.doing is not None or bool(self._session.spooled)

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        self._notice()
        self._look()
        if self._bus.connections != self._connections:
            self._connected()
        wait_s = timeout_s
        while delivery := self._bus.get(wait_s):
            self._deliver(delivery.topic, delivery.payload)
            wait_s = 0.0
        for word in self._trainer.turn(self._session.doing):
            self._trained(word)
        now_s = time.monotonic()
        for topic, payload in self._outbox.due(now_s):
            self._bus.publish(topic, payload)
        self._publisher.pump(now_s)
        self._fetcher.pump(now_s)
        if self.busy:
            self._account.tick()

    def wait_s(self) -> float:
        """How long the next turn may wait: little while something is in hand."""
        return 0.02 if self._session.doing or (self.busy and self._online) else 0.5

    @property
    def status(self) -> str:
        """What the device does, in one line for people."""
        doing = s.in_words(self._session, self._progress)
        return doing if self._online else f"no broker; {doing}"

    @property
    def stuck(self) -> bool:
        """Whether the worker hangs and cannot be killed: only starting everything anew may help."""
        return self._trainer.stuck

    def reconfigure(self, conditions: Conditions, caps: m.Caps) -> None:
        """Go on under other conditions and caps; what is in hand is judged by them at once."""
        self._conditions, self._trainer.caps, self._look_s = conditions, caps, 0.0
        self._about = msgspec.structs.replace(self._about, caps=caps)
        self._look(anew=True)
        self._hello()

    def close(self) -> None:
        """Stop the worker and leave; an unfinished training is lost, a finished one is on disk."""
        self._trainer.close()
        if self._session.doing:
            self._account.lose()
        self._account.close()
        self._publish_alive(online=False)
        self._bus.close()

    # --- what the device may and does ----------------------------------------------------------

    def _look(self, *, anew: bool = False) -> None:
        """Every few seconds: judge if the device may train, say what changed; ``anew``: numbers count."""
        now_s, room = time.monotonic(), self._account.room
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        room.look()
        self._spool.write()
        facts = self._observer.facts(
            self._conditions,
            now_s=now_s,
            wall_s=time.time(),
            pids=self._trainer.pids,
            energy_today_j=self._account.energy_today_j,
            full_disk=room.full,
        )
        before = self._session.verdict
        verdict = judge(self._conditions, facts, before.names)
        self._step(s.Judged(verdict=verdict))
        if verdict.names != before.names or (anew and verdict.reasons != before.reasons):
            log.info("may not train now: %s" if verdict.reasons else "may train%s", verdict.words)
            self._publish_alive(online=True)

    def _trained(self, word: m.Progress | s.Answer) -> None:
        if isinstance(word, m.Progress):
            self._progress = word
            self._say(word)
        else:
            self._step(s.Finished(answer=word))

    # --- the bus -------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._connections = self._bus.connections
        device, now_s = self._about.device, time.monotonic()
        self._bus.subscribe(m.down_topic(self._fleet, device))
        self._publish_alive(online=True)
        self._outbox.again(now_s)
        self._fetcher.again(now_s)
        self._hello()

    def _notice(self) -> None:
        """A line where the connection came or went, however often it is tried in between."""
        if self._online == self._bus.connected:
            return
        self._online = self._bus.connected
        if self._online:
            log.info("connected to the broker")
        else:
            log.warning("the broker is away, it is tried until it is back: %s", self._bus.last_error)

    def _publish_alive(self, *, online: bool) -> None:
        reasons = self._session.verdict.reasons if online else ()
        alive = m.Alive(online=online, boot_id=self._about.boot_id, reasons=reasons)
        self._bus.publish(m.alive_topic(self._fleet, self._about.device), m.encode(alive), retain=True)

    def _hello(self) -> None:
        spooled = tuple(answer.key for answer in self._session.spooled)
        doing = self._session.doing.key if self._session.doing else None
        hello = msgspec.structs.replace(self._about, spooled=spooled, working_on=doing)
        self._ask(HELLO, hello)
        for answer in self._session.spooled:
            self._ask(answer.key, answer)

    def _say(self, message: m.Up) -> None:
        self._bus.publish(m.up_topic(self._fleet, self._about.device), m.encode(message))

    def _ask(self, name: str | m.Key, message: m.Up) -> None:
        topic = m.up_topic(self._fleet, self._about.device)
        self._outbox.put(name, topic, m.encode(message), time.monotonic())

    def _deliver(self, topic: str, payload: bytes) -> None:
        place = m.parse_topic(self._fleet, topic)
        if place is None:
            return
        if place.leaf == "blob":
            self._chunk(place.digest, place.index, payload)
            return
        try:
            message = m.decode_down(payload)
        except m.MessageRefused as error:
            log.warning("the orchestrator said something that is none of our messages: %s", error)
            return
        self._heard(message)

    def _chunk(self, digest: str, index: int, payload: bytes) -> None:
        whole = None
        with self._account.room.writing():
            whole = self._fetcher.receive(digest, index, payload, time.monotonic())
        if whole:
            self._step(s.Fetched(digest=whole.digest))

    def _heard(self, message: m.Down) -> None:
        match message:
            case m.Welcome(boot_id=self._about.boot_id):
                self._outbox.answered(HELLO)
            case m.Greet():
                self._hello()
            case m.Need():
                self._publisher.asked(message, "orchestrator", time.monotonic())
            case _:
                self._step(s.Received(message=message))

    # --- the session ---------------------------------------------------------------------------

    def _step(self, event: s.Event) -> None:
        self._session, actions = s.step(self._session, event)
        for action in actions:
            self._act(action)

    def _act(self, action: s.Action) -> None:
        match action:
            case s.Accept(key=key):
                self._account.begin(key)
                self._say(m.Accepted(key=key))
            case s.Fetch(ref=ref):
                self._clear(ref.digest)
                if self._blobs.has(ref.digest):
                    self._step(s.Fetched(digest=ref.digest))
                else:
                    self._fetcher.want(ref, m.EVERYONE, time.monotonic())
            case s.Train(assign=assign):
                if answer := self._trainer.begin(assign):
                    self._step(s.Finished(answer=answer))
            case s.Halt(assign=assign):
                self._account.lose()
                self._fetcher.drop(assign.weights.digest)
                self._account.end(assign.key)
                self._trainer.halt()
            case s.Spool(answer=answer):
                self._spool.add(answer)
                self._account.save()
                self._ask(answer.key, answer)
            case s.Resend(key=key):
                answer = next(a for a in self._session.spooled if a.key == key)
                self._ask(key, answer)
            case s.Forget(key=key):
                self._outbox.answered(key)
                self._spool.remove(key)
                self._account.end(key)

    def _clear(self, keep: str) -> None:
        """Only weights in use and updates not yet stored stay on disk."""
        spooled = {a.weights.digest for a in self._session.spooled if isinstance(a, m.Update) and a.weights}
        for digest in self._blobs.digests() - spooled - {keep}:
            self._blobs.remove(digest)
