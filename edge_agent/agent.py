"""The agent's shell: bus, session, worker, meter, and the spool on disk, in one loop.

Each turn takes what the bus, the weights' fetcher and the worker have brought, turns it into events of
``edge_agent.session``, and carries out the actions. The daemon never imports torch: training happens in
the worker process. Finished answers lie in ``STATE/spool`` until the orchestrator says that they are
stored; weights lie by digest in ``STATE/blobs``; the bill of what is being done lies in
``STATE/account.json`` and is written at least every five seconds, so that a kill loses no joules.

It decides nothing about rounds or retries: see ``session`` and ``wire.retry``.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent import session as s
from mas_edge.edge_agent.spool import Spool
from mas_edge.edge_agent.work import Beat, Broke, Done, Work, WorkerProcess
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


class Agent:
    """One device of a fleet."""

    def __init__(
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
    ) -> None:
        self._about, self._fleet, self._bus = about, fleet, bus
        self._state, self._account, self._sources = state, account, sources
        self._train_config = train
        self._blobs = BlobStore(state / "blobs")
        self._spool = Spool(state / "spool")
        self._worker = WorkerProcess(state / "worker.log")
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
        self._session = s.Session(able=able, spooled=tuple(filter(self._deliverable, self._spool.answers())))
        self._connections = 0

    def _deliverable(self, answer: s.Answer) -> bool:
        """An update whose weights the disk has lost is dropped: the orchestrator asks for it again."""
        if (
            not isinstance(answer, m.Update)
            or answer.weights is None
            or self._blobs.has(answer.weights.digest)
        ):
            return True
        log.warning("the weights of %s are gone from the disk: it will be trained again", answer.key)
        self._spool.remove(answer.key)
        return False

    @property
    def busy(self) -> bool:
        """Whether there is an assignment in hand or an answer to deliver."""
        return self._session.doing is not None or bool(self._session.spooled)

    def turn(self, timeout_s: float) -> None:
        """Hear what there is, waiting at most so long for the first message, and act on it."""
        if self._bus.connections != self._connections:
            self._connected()
        wait_s = timeout_s
        while delivery := self._bus.get(wait_s):
            self._deliver(delivery.topic, delivery.payload)
            wait_s = 0.0
        for word in self._worker.heard():
            self._word(word)
        now_s = time.monotonic()
        for topic, payload in self._outbox.due(now_s):
            self._bus.publish(topic, payload)
        self._publisher.pump(now_s)
        self._fetcher.pump(now_s)
        if self.busy:
            self._account.tick()

    def wait_s(self) -> float:
        """How long the next turn may wait: little while something is in hand."""
        return 0.02 if self.busy else 0.5

    def close(self) -> None:
        """Stop the worker and leave; an unfinished training is lost, a finished one is on disk."""
        if self._session.doing:
            self._account.lose()
        self._worker.close()
        self._account.close()
        offline = m.Alive(online=False, boot_id=self._about.boot_id)
        self._bus.publish(m.alive_topic(self._fleet, self._about.device), m.encode(offline), retain=True)
        self._bus.close()

    # --- the bus -------------------------------------------------------------------------------

    def _connected(self) -> None:
        self._connections = self._bus.connections
        device, now_s = self._about.device, time.monotonic()
        self._bus.subscribe(m.down_topic(self._fleet, device))
        alive = m.Alive(online=True, boot_id=self._about.boot_id)
        self._bus.publish(m.alive_topic(self._fleet, device), m.encode(alive), retain=True)
        self._outbox.again(now_s)
        self._fetcher.again(now_s)
        self._hello()

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
            whole = self._fetcher.receive(place.digest, place.index, payload, time.monotonic())
            if whole:
                self._step(s.Fetched(digest=whole.digest))
            return
        try:
            message = m.decode_down(payload)
        except m.MessageRefused as error:
            log.warning("the orchestrator said something that is none of our messages: %s", error)
            return
        self._heard(message)

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

    # --- the worker ----------------------------------------------------------------------------

    def _word(self, word: Beat | Done | Broke) -> None:
        doing = self._session.doing
        if isinstance(word, Done):
            self._account.heard(word.phases, word.examples, word.peak_rss_bytes)
        else:
            self._account.heard(word.phases)
        if doing is None or not self._worker.means(word):
            return
        key = doing.key
        match word:
            case Beat():
                energy_j = self._account.energy_j
                self._say(
                    m.Progress(key=key, phase=word.phase, step=word.step, steps=word.steps, energy_j=energy_j)
                )
            case Done():
                self._step(s.Finished(answer=self._update(doing, word)))
            case Broke(reason="fingerprint" | "data"):
                self._account.lose()
                declined = m.Declined(key=key, reason=word.reason, detail=word.detail)
                self._step(s.Finished(answer=declined))
            case Broke():
                self._account.lose()
                failed = m.Failed(
                    key=key, reason=word.reason, detail=word.detail, profile=self._account.bill("cpu")
                )
                self._step(s.Finished(answer=failed))

    def _update(self, assign: m.Assign, done: Done) -> m.Update:
        ref = self._blobs.adopt(self._result) if assign.train else None
        profile = self._account.bill(done.train_device)
        return m.Update(
            key=assign.key,
            weights=ref,
            examples=done.examples,
            trained=done.trained,
            scores=done.scores,
            affinity=done.affinity,
            profile=profile,
        )

    @property
    def _result(self) -> Path:
        """Where the worker puts its weights: it does one work after the other, so one place is enough."""
        return self._state / "result.safetensors"

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
                self._train(assign)
            case s.Halt(assign=assign):
                self._account.lose()
                self._fetcher.drop(assign.weights.digest)
                self._account.end(assign.key)
                self._worker.halt()
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

    def _train(self, assign: m.Assign) -> None:
        source = self._sources[assign.training.workload]
        self._account.train(warm=self._worker.pid is not None)
        self._worker.start(
            Work(
                assign=assign,
                weights=str(self._blobs.path(assign.weights.digest)),
                result=str(self._result),
                clients=source.clients,
                root=str(source.root) if source.root else None,
                train_device=self._train_config.device,
                threads=self._train_config.threads,
            )
        )
