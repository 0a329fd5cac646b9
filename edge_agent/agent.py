"""The agent's shell: bus, session, workers, models, meter, and the spool on disk, in one loop.

Each turn takes what the bus, the weights' fetcher and the workers have brought, turns it into events of
``edge_agent.session``, and carries out the actions. The daemon never imports torch: training happens in
worker processes, one a slot. Finished answers lie in ``STATE/spool`` until the orchestrator says that they
are stored; weights lie by digest in ``STATE/blobs``; the bill of what is being done lies in
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
from mas_edge.edge_agent.deployer import Deployer
from mas_edge.edge_agent.facts import Observer
from mas_edge.edge_agent.pulse import Patience
from mas_edge.edge_agent.spool import Spool
from mas_edge.edge_agent.status import in_words
from mas_edge.edge_agent.trainers import Trainers
from mas_edge.edge_agent.uplink import Uplink
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore

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
        self._about, self._fleet, self._account = about, fleet, account
        self._conditions, self._observer = conditions, observer or Observer()
        self._blobs = BlobStore(state / "blobs")
        self._spool = Spool(state / "spool", account.room)
        fence = fence or Fence()
        self._trainers = Trainers(state, self._blobs, account, sources, train, fence, about.caps, patience)
        self._progress: dict[m.Key, m.Progress] = {}
        self._look_s = 0.0
        self._uplink = Uplink(about.device, fleet, bus, self._blobs, rng)
        able = frozenset((offer.workload, task) for offer in about.workloads for task in offer.tasks)
        slots = (s.EMPTY,) * train.slots
        self._deployer = Deployer(
            state, self._blobs, account, sources, train, fence, about, self._trainers, self._uplink
        )
        self._session = s.Session(able=able, slots=slots, spooled=self._spool.deliverable(self._blobs))

    @property
    def busy(self) -> bool:
        """Whether there is an assignment in hand or an answer to deliver."""
        return bool(self._session.in_hand or self._session.spooled)

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        again = self._uplink.reconnected()
        self._look()
        if again:
            self._publish_alive(online=True)
            self._hello()
        for delivery in self._uplink.heard(timeout_s):
            self._deliver(delivery.topic, delivery.payload)
        for word in self._trainers.turn([slot.doing for slot in self._session.slots]):
            self._trained(word)
        self._deployer.turn()
        self._uplink.pump()
        if self.busy:
            self._account.tick()

    def wait_s(self) -> float:
        """How long the next turn may wait: little while something is in hand."""
        doing = self._session.in_hand or self._deployer.busy
        return 0.02 if doing or (self.busy and self._uplink.online) else 0.5

    @property
    def status(self) -> str:
        """What the device does, in one line for people."""
        doing = in_words(self._session, self._progress, self._trainers.waiting, self._deployer.trying)
        if not self._uplink.online:
            return f"no broker; {doing}"
        return f"no orchestrator answers; {doing}" if self._uplink.in_vain(HELLO) else doing

    @property
    def stuck(self) -> bool:
        """Whether a worker hangs and cannot be killed: only starting everything anew may help."""
        return self._trainers.stuck

    def reconfigure(self, conditions: Conditions, caps: m.Caps) -> None:
        """Go on under other conditions and caps; what is in hand is judged by them at once."""
        self._conditions, self._look_s = conditions, 0.0
        self._trainers.limit(caps)
        self._deployer.caps = caps
        self._about = msgspec.structs.replace(self._about, caps=caps)
        self._look(anew=True)
        self._hello()

    def close(self) -> None:
        """Stop the workers and leave; an unfinished training is lost, a finished one is on disk."""
        self._deployer.close()
        self._trainers.close()
        for number, slot in enumerate(self._session.slots):
            if slot.doing:
                self._account.lose(slot=number)
        self._account.close()
        self._publish_alive(online=False)
        self._uplink.close()

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
            pids=(*self._trainers.pids, *self._deployer.pids),
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
            self._progress[word.key] = word
            self._uplink.say(word)
        else:
            self._progress.pop(word.key, None)
            self._step(s.Finished(answer=word))

    # --- the bus -------------------------------------------------------------------------------

    def _publish_alive(self, *, online: bool) -> None:
        reasons = self._session.verdict.reasons if online else ()
        alive = m.Alive(online=online, boot_id=self._about.boot_id, reasons=reasons)
        self._uplink.alive(alive)

    def _hello(self) -> None:
        spooled = tuple(answer.key for answer in self._session.spooled)
        doing = tuple(assign.key for assign in self._session.in_hand)
        first = doing[0] if doing else None
        hello = msgspec.structs.replace(
            self._about, spooled=spooled, working_on=first, beside=doing[1:], in_use=self._deployer.in_use
        )
        self._uplink.ask(HELLO, hello)
        for answer in self._session.spooled:
            self._uplink.ask(answer.key, answer)

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
            whole = self._uplink.receive(digest, index, payload)
        if whole:
            self._step(s.Fetched(digest=whole.digest))
            self._deployer.fetched(whole.digest)

    def _heard(self, message: m.Down) -> None:
        match message:
            case m.Welcome() if message.boot_id != self._about.boot_id:
                return  # to whom we were before
            case m.Greet():
                self._hello()
            case m.Need():
                self._uplink.needed(message)
            case m.Deploy():
                self._deployer.asked(message)
            case _:
                if isinstance(message, m.Welcome):
                    self._uplink.answered(HELLO)
                self._step(s.Received(message=message))

    # --- the session ---------------------------------------------------------------------------

    def _step(self, event: s.Event) -> None:
        self._session, actions = s.step(self._session, event)
        for action in actions:
            self._act(action)

    def _act(self, action: s.Action) -> None:
        match action:
            case s.Accept(key=key, slot=slot):
                self._account.begin(key, slot)
                self._uplink.say(m.Accepted(key=key))
            case s.Fetch(ref=ref):
                self._clear()
                if self._blobs.has(ref.digest):
                    self._step(s.Fetched(digest=ref.digest))
                else:
                    self._uplink.want(ref)
            case s.Train(assign=assign, slot=slot):
                if answer := self._trainers.begin(slot, assign):
                    self._step(s.Finished(answer=answer))
            case s.Halt(assign=assign, slot=slot):
                self._halt(assign, slot)
            case s.Introduce():
                self._hello()
            case _:
                self._act_on_answer(action)

    def _act_on_answer(self, action: s.Spool | s.Resend | s.Forget) -> None:
        match action:
            case s.Spool(answer=answer):
                self._spool.add(answer)
                self._account.save()
                self._uplink.ask(answer.key, answer)
            case s.Resend(key=key):
                answer = next(a for a in self._session.spooled if a.key == key)
                self._uplink.ask(key, answer)
            case s.Forget(key=key):
                self._uplink.answered(key)
                self._spool.remove(key)
                self._account.end(key)

    def _halt(self, assign: m.Assign, slot: int) -> None:
        self._progress.pop(assign.key, None)
        self._account.lose(slot=slot)
        if assign.weights.digest not in self._in_use:
            self._uplink.drop(assign.weights.digest)
        self._account.end(assign.key)
        self._trainers.halt(slot)

    @property
    def _in_use(self) -> set[str]:
        """Digests of the weights that are trained from, or will be."""
        return {assign.weights.digest for assign in self._session.in_hand}

    def _clear(self) -> None:
        """Only weights in use and updates not yet stored stay on disk."""
        spooled = {a.weights.digest for a in self._session.spooled if isinstance(a, m.Update) and a.weights}
        for digest in self._blobs.digests() - spooled - self._in_use - self._deployer.needed:
            self._blobs.remove(digest)
