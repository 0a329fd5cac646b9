"""A device, and an orchestrator played by hand: the agent is real, and so are its trials and workers."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.config import TrainConfig
from mas_edge.edge_agent.in_use import find
from mas_edge.edge_agent.model_folder import kept
from mas_edge.models.tasks import Source
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

LIMIT_S = 120.0
TASKS, GROUP = ("gravity", "jerk"), "gravity+jerk"
TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)


class Site:
    """An agent with the watch data of one person, and an orchestrator's ear and blobs."""

    def __init__(self, root, state=None) -> None:
        self.root, self.broker = root, Broker()
        self.ear = self.broker.connect("orchestrator")
        self.ear.subscribe(m.up_topic("f"))
        self.blobs = BlobStore(root / "theirs")
        bus, self.state = self.broker.connect("d1"), state or root / "state"
        self.state.mkdir(exist_ok=True)
        about = m.Hello(
            device="d1",
            boot_id="b",
            versions=m.Versions(mas_edge="0", python="3"),
            workloads=(m.Offer(workload="watch", tasks=TASKS),),
        )
        self.agent = Agent(
            about,
            "f",
            bus,
            self.state,
            Account(self.state / "account.json", open_one("estimate:idle_w=2,max_w=10"), bus),
            {"watch": Source(clients=("1",))},
            rng=random.Random(1),
            train=TrainConfig(),
        )
        self.agent.turn(0.0)  # it listens from now on

    def say(self, message: m.Down) -> None:
        self.ear.publish(m.down_topic("f", "d1"), m.encode(message))

    def deploy(self, file: bytes, request: str, job="j", **changes) -> m.Deploy:
        ref = self.blobs.add(file)
        model = m.Model(workload="watch", job=job, group=GROUP, round=3, tasks=TASKS, file=ref)
        order = m.Deploy(request=request, workload="watch", job=job, group=GROUP, model=model, **changes)
        self.say(order)
        return order

    def assign(self) -> m.Key:
        key = m.Key(job="j", group="gravity", round=0, attempt=0, device="d1")
        weights = self.blobs.add(bytes(1000))
        self.say(m.Assign(key=key, tasks=("gravity",), training=TRAINING, weights=weights, fingerprint="f"))
        return key

    def heard(self, kind):
        """The next message of this kind; chunks that are needed are given meanwhile."""
        end_s = time.monotonic() + LIMIT_S
        while time.monotonic() < end_s:
            for message in self.said():
                if isinstance(message, kind):
                    return message
        raise TimeoutError(kind)

    def until_status(self, text: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while self.agent.status != text:
            assert time.monotonic() < end_s, self.agent.status
            list(self.said())

    def said(self):
        """What the agent says in a turn."""
        self.agent.turn(0.005)
        while delivery := self.ear.get(0.0):
            message = m.decode_up(delivery.payload)
            if isinstance(message, m.Need):
                self.give(message)
            yield message

    def give(self, need: m.Need) -> None:
        for first, past in need.ranges:
            for i in range(first, past):
                chunk = self.blobs.chunk(need.digest, i)
                self.ear.publish(m.blob_topic("f", m.EVERYONE, need.digest, i), chunk)

    @property
    def in_use(self) -> m.InUse | None:
        return find(kept(self.state / "models").in_use, "watch", GROUP)


@contextmanager
def a_site(root, **options):
    site = Site(root, **options)
    try:
        yield site
    finally:
        site.agent.close()
        site.ear.close()
