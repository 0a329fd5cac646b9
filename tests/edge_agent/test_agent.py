"""The agent on a device that is too hot, or whose disk is full; the test plays the orchestrator."""

from __future__ import annotations

import logging
import os
import random
import time
from contextlib import contextmanager

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.conditions import Conditions
from mas_edge.edge_agent.config import TrainConfig
from mas_edge.edge_agent.facts import Observer
from mas_edge.models.tasks import Source
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

LIMIT_S = 30.0
METER = "estimate:idle_w=2,max_w=10"
COOL = Conditions(temperature_c=70)
TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)


class Site:
    """An agent on a device whose temperature the test sets, and an orchestrator's ear."""

    def __init__(self, root, state=None) -> None:
        self.root, self.broker = root, Broker()
        self.heat(40)
        self.ear = self.broker.connect("orchestrator")
        self.ear.subscribe(m.up_topic("f"))
        self.ear.subscribe(m.alive_topic("f", "d1"))
        bus, state = self.broker.connect("d1"), state or root
        about = m.Hello(
            device="d1",
            boot_id="b",
            versions=m.Versions(mas_edge="0", python="3"),
            workloads=(m.Offer(workload="watch", tasks=("gravity",)),),
        )
        self.agent = Agent(
            about,
            "f",
            bus,
            state,
            Account(state / "account.json", open_one(METER), bus),
            {"watch": Source(clients=("1",))},
            rng=random.Random(1),
            train=TrainConfig(),
            conditions=COOL,
            observer=Observer(root),
        )
        self.weights = BlobStore(root / "theirs").add(bytes(1 << 20))
        self.agent.turn(0.0)  # it listens from now on

    def heat(self, degrees: float) -> None:
        zone = self.root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "temp").write_text(f"{degrees * 1000:.0f}\n")

    def look(self) -> None:
        """Let the agent look at its conditions now instead of a few seconds later."""
        self.agent.reconfigure(COOL, m.Caps())
        self.agent.turn(0.0)

    def say(self, message: m.Down) -> None:
        self.ear.publish(m.down_topic("f", "d1"), m.encode(message))

    def assign(self, attempt: int = 0) -> m.Key:
        key = m.Key(job="j", group="gravity", round=0, attempt=attempt, device="d1")
        self.say(
            m.Assign(key=key, tasks=("gravity",), training=TRAINING, weights=self.weights, fingerprint="f")
        )
        return key

    def give_weights(self) -> None:
        chunks = BlobStore(self.root / "theirs")
        for i in range(self.weights.chunks):
            self.ear.publish(
                m.blob_topic("f", m.EVERYONE, self.weights.digest, i), chunks.chunk(self.weights.digest, i)
            )

    def heard(self, kind):
        """The next message of this kind."""
        end_s = time.monotonic() + LIMIT_S
        while time.monotonic() < end_s:
            self.agent.turn(0.0)
            while delivery := self.ear.get(0.0):
                alive = m.parse_topic("f", delivery.topic).leaf == "alive"
                message = (m.decode_alive if alive else m.decode_up)(delivery.payload)
                if isinstance(message, kind):
                    return message
            time.sleep(0.01)
        raise TimeoutError(kind)

    def until_status(self, text: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while text not in self.agent.status:
            assert time.monotonic() < end_s, self.agent.status
            self.agent.turn(0.01)


@contextmanager
def a_site(root, **options):
    site = Site(root, **options)
    try:
        yield site
    finally:
        site.agent.close()
        site.ear.close()


def test_a_device_that_is_too_hot_says_so_to_all_and_declines_until_it_has_cooled(tmp_path):
    with a_site(tmp_path) as site:
        assert site.heard(m.Alive).reasons == ()
        site.heat(80)
        site.look()
        (reason,) = site.heard(m.Alive).reasons
        assert (reason.condition, reason.detail) == ("temperature", "80.0 °C, asked is less than 70.0 °C")
        key = site.assign()
        declined = site.heard(m.Declined)
        assert (declined.key, declined.reason, declined.again_s) == (key, "not-now", 60.0)
        site.say(m.Stored(key=key))
        site.until_status("may not train now: temperature: 80.0 °C")
        site.heat(67)
        site.look()
        (reason,) = site.heard(m.Alive).reasons
        assert reason.detail == "67.0 °C, asked is less than 65.0 °C"
        site.heat(60)
        site.look()
        assert site.heard(m.Alive).reasons == ()
        key = site.assign(attempt=1)
        assert site.heard(m.Accepted).key == key


def test_a_training_is_given_up_when_the_device_becomes_too_hot_and_its_joules_are_billed_as_lost(tmp_path):
    with a_site(tmp_path) as site:
        key = site.assign()
        site.heard(m.Need)
        site.give_weights()
        site.until_status("training gravity, round 1")
        site.heat(90)
        site.look()
        declined = site.heard(m.Declined)
        assert (declined.key, declined.reason) == (key, "not-now")
        site.say(m.Stored(key=key))
        site.until_status("may not train now")
        site.heat(40)
        site.look()
        site.assign(attempt=1)
        answer = site.heard(m.Declined)  # the weights are no weights; what counts is the bill
    assert "lost" in {row.phase for row in answer.profile.rows}


def test_an_agent_whose_disk_is_full_lives_says_so_and_goes_on_when_there_is_room(tmp_path, small, caplog):
    caplog.set_level(logging.INFO, "mas_edge")
    with a_site(tmp_path, state=small) as site:
        site.assign()
        site.heard(m.Need)
        (small / "ballast").write_bytes(bytes(os.statvfs(small).f_bavail * 4096))
        site.give_weights()
        site.heard(m.Need)
        site.look()
        (reason,) = site.heard(m.Alive).reasons
        assert reason.condition == "disk"
        declined = site.heard(m.Declined)  # no round waits for weights that have no room
        assert declined.reason == "not-now"
        site.say(m.Stored(key=declined.key))
        (small / "ballast").unlink()
        site.look()
        assert site.heard(m.Alive).reasons == ()
        site.assign(attempt=1)
        site.heard(m.Accepted)
        site.give_weights()
        site.until_status("training gravity, round 1")
    about_room = [record.getMessage() for record in caplog.records if record.name.endswith("room")]
    assert len(about_room) == 2, about_room
