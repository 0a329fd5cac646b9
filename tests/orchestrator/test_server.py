"""The server between a store and a bus: devices are played by the test, and nobody trains anything."""

from __future__ import annotations

import logging
import random

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.job import Abandoned, Initialised, Planned
from mas_edge.orchestrator.rounds import Carved, GaveUp, Heard, Selected
from mas_edge.orchestrator.server import A_TURN, Server
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.spec import JobSpec, first_groups
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)
SPEC = JobSpec(name="j", tasks=("a",), training=TRAINING, policy="all-in-one", devices=("d1", "d2"))


def weights(value: float) -> bytes:
    return save({"encoder.w": np.full(4, value, np.float32), "decoder.a.w": np.full(2, value, np.float32)})


class Device:
    """What a device says and hears."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.name, self.bus = name, broker.connect(name)
        self.bus.subscribe(m.down_topic("f", name))

    def say(self, message: m.Up) -> None:
        self.bus.publish(m.up_topic("f", self.name), m.encode(message))

    def hello(self, working_on: m.Key | None = None, **more) -> None:
        versions = m.Versions(mas_edge="0", python="3")
        hello = m.Hello(
            device=self.name,
            boot_id="b",
            versions=versions,
            workloads=(m.Offer(workload="watch", tasks=("a", "b")),),
            working_on=working_on,
        )
        self.say(msgspec.structs.replace(hello, **more))

    def messages(self) -> list[m.Down]:
        deliveries = (self.bus.get(0.0) for _ in range(100))
        return [m.decode_down(delivery.payload) for delivery in deliveries if delivery]

    def assigned(self) -> m.Assign:
        return [message for message in self.messages() if isinstance(message, m.Assign)][-1]


class Site:
    """A store with a job whose first weights exist, a server, and two devices."""

    def __init__(self, root) -> None:
        self.root, self.broker = root, Broker()
        self.store, self.meter = open_store(root), open_one("estimate:idle_w=2,max_w=10")
        self.blobs = BlobStore(root / "blobs")
        self.store.add_job("j", msgspec.json.encode(SPEC))
        first = self.blobs.add(weights(0.0))
        self.store.append("j", 0.0, Initialised(weights=first, fingerprint="f", parameters={}))
        self.store.append("j", 0.0, Planned(decision=Decision(groups=first_groups(SPEC))))
        self.workshop = Workshop(self.blobs, root, self.meter)
        self.devices = [Device(self.broker, name) for name in SPEC.devices]
        self.start()

    def start(self) -> None:
        """Start the server, or start it again; what is said from now on is in its first turn."""
        bus = self.broker.connect("orchestrator")
        bus.subscribe(m.up_topic("f"))
        bus.get(0.0)  # the news that it is connected
        self.server = Server("f", bus, self.store, self.blobs, self.workshop, rng=random.Random(1))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.server.turn(0.0)

    def events(self) -> list:
        """What happened since the first weights, but for the selections."""
        told = [event for _, _, event in self.store.events("j")][2:]
        return [event for event in told if not isinstance(event, Selected)]

    def answer(self, device: Device, key: m.Key, value: float, **changes) -> m.Update:
        """An update whose weights the orchestrator has already, unless another reference is given."""
        update = m.Update(key=key, weights=self.blobs.add(weights(value)), examples=8)
        update = msgspec.structs.replace(update, **changes)
        device.say(update)
        return update


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.turn(2)
    for device in made.devices:
        device.hello()
    made.turn(2)
    yield made
    made.workshop.close()
    made.store.close()
    made.meter.close()


def test_an_update_that_comes_first_after_a_restart_is_kept_and_not_only_said_to_be(site):
    device = site.devices[0]
    key = device.assigned().key
    site.start()
    site.answer(device, key, 1.0)
    site.turn()
    assert [event.update.key for event in site.events() if isinstance(event, Heard)] == [key]
    assert m.Stored(key=key) in device.messages()


def test_a_device_that_says_hello_during_a_restart_is_not_told_to_stop_what_is_wanted(site):
    device = site.devices[0]
    key = device.assigned().key
    site.start()
    device.hello(working_on=key)
    site.turn(2)
    assert not any(isinstance(message, m.Cancel) for message in device.messages())


def test_two_devices_with_the_same_bytes_are_both_kept_when_these_arrive(site):
    data = weights(3.0)
    ref = BlobStore(site.root / "elsewhere").add(data)
    for device in site.devices:
        device.say(m.Update(key=device.assigned().key, weights=ref, examples=8))
    site.turn()
    assert site.events() == []
    site.devices[0].bus.publish(m.blob_topic("f", "d1", ref.digest, 0), data)
    site.devices[1].bus.publish(m.blob_topic("f", "d2", ref.digest, 0), data)
    site.turn()
    heard = [event.update.key.device for event in site.events() if isinstance(event, Heard)]
    assert sorted(heard) == ["d1", "d2"]


SCORE = m.Score(task="a", count=1, loss_sum=1.0)
NONSENSE = {
    "a path for a digest": {"weights": m.BlobRef(digest="../../etc/passwd", size_bytes=9, chunk_bytes=9)},
    "weights of a petabyte": {"weights": m.BlobRef(digest="0" * 64, size_bytes=1 << 50, chunk_bytes=1 << 40)},
    "a million chunks": {"weights": m.BlobRef(digest="0" * 64, size_bytes=66_000, chunk_bytes=1)},
    "no weights": {"weights": None},
    "negative examples": {"examples": -5},
    "countless examples": {"examples": 1 << 60},
    "a negative count": {"trained": (msgspec.structs.replace(SCORE, count=-1.0),)},
    "a boundless loss": {"scores": (msgspec.structs.replace(SCORE, loss_sum=1e300),)},
    "an overlap of other classes": {
        "scores": (msgspec.structs.replace(SCORE, intersection=(1,), union=(1, 1)),)
    },
    "more in common than there is": {
        "scores": (msgspec.structs.replace(SCORE, intersection=(2,), union=(1,)),)
    },
    "a task of somebody else": {"scores": (msgspec.structs.replace(SCORE, task="b"),)},
    "a task twice": {"trained": (SCORE, SCORE)},
    "affinities unasked for": {
        "affinity": m.AffinitySums(tasks=("a",), batches=(1,), w=(1.0,), ww=(1.0,), wz=(1.0,), wzz=(1.0,))
    },
}


@pytest.mark.parametrize("name", NONSENSE)
def test_an_answer_that_cannot_be_is_refused_and_harms_nobody(name, site):
    device = site.devices[0]
    key = device.assigned().key
    site.answer(device, key, 1.0, **NONSENSE[name])
    site.turn(2)
    (event,) = site.events()
    assert isinstance(event, GaveUp)
    assert event.reason == "update-refused"
    assert m.Stored(key=key) in device.messages()
    site.start()
    site.turn()


def test_a_bill_that_cannot_be_is_left_out_and_the_update_counts(site):
    device = site.devices[0]
    trace = m.Trace(t_ns=(2, 1), energy_j=(0.0,), variance_j2=())
    site.answer(device, device.assigned().key, 1.0, profile=m.Profile(trace=trace))
    site.turn()
    (event,) = site.events()
    assert isinstance(event, Heard)
    assert event.update.profile == m.Profile()


def test_a_flood_of_messages_does_not_keep_the_server_from_its_work(site):
    device = site.devices[0]
    key = device.assigned().key
    for step in range(2 * A_TURN):
        device.say(m.Progress(key=key, phase="forward", step=step, steps=1))
    site.turn()
    assert site.store.live()[0].step < 2 * A_TURN - 1


def test_who_still_trains_for_a_job_that_failed_is_told_to_stop(site):
    second = site.devices[1]
    wanted = second.assigned().key
    second.say(m.Accepted(key=wanted))
    site.turn()
    assert site.server.happened("j", Abandoned(reason="no room"))
    site.turn()
    assert site.server.jobs[0].phase == "failed"
    assert m.Cancel(key=wanted) in second.messages()


TWO_GROUPS = JobSpec(name="k", tasks=("a", "b"), training=TRAINING, policy="one-by-one", devices=("d3",))


@pytest.fixture
def slots(tmp_path):
    """A job of two groups, and a device that has not said Hello yet."""
    made = Site(tmp_path)
    made.store.add_job("k", msgspec.json.encode(TWO_GROUPS))
    ref = made.blobs.add(weights(0.0))
    made.store.append("k", 0.0, Initialised(weights=ref, fingerprint="f", parameters={}))
    made.store.append("k", 0.0, Planned(decision=Decision(groups=first_groups(TWO_GROUPS))))
    for group in TWO_GROUPS.tasks:
        made.store.append("k", 0.0, Carved(group=group, weights=ref))
    made.devices = [Device(made.broker, "d3")]
    made.start()
    made.turn()
    yield made
    made.workshop.close()
    made.store.close()
    made.meter.close()


def assigned(device) -> list[str]:
    return [said.key.group for said in device.messages() if isinstance(said, m.Assign)]


def test_a_device_is_sent_as_many_trainings_as_it_has_slots_and_the_next_one_with_each_answer(slots):
    (device,) = slots.devices
    device.hello()
    slots.turn(2)
    assert assigned(device) == ["a"]
    device.hello(slots=2)
    slots.turn(2)
    assert set(assigned(device)) == {"a", "b"}
    slots.answer(device, m.Key(job="k", group="b", round=0, attempt=0, device="d3"), 1.0)
    slots.turn(2)
    assert "a" not in assigned(device), "what is in its other slot is not disturbed"


def test_a_device_is_told_to_stop_what_nobody_asks_of_any_of_its_slots(slots):
    (device,) = slots.devices
    wanted = m.Key(job="k", group="a", round=0, attempt=0, device="d3")
    old = msgspec.structs.replace(wanted, job="gone")
    device.hello()
    slots.turn(2)
    device.hello(working_on=wanted, beside=(old,), slots=2)
    slots.turn()
    cancelled = [said.key for said in device.messages() if isinstance(said, m.Cancel)]
    assert cancelled == [old]


def test_a_welcome_names_the_store(site):
    device = site.devices[0]
    device.hello()
    site.turn()
    (welcome,) = [said for said in device.messages() if isinstance(said, m.Welcome)][-1:]
    assert welcome.store == site.store.identity


KEY = m.Key(job="j", group="a", round=0, attempt=0, device="d1")
HOT = m.Reason(condition="temperature", detail="80.0 °C, asked is less than 70.0 °C")


def test_a_device_says_why_it_may_not_train_and_that_is_known_and_one_line(site, caplog):
    caplog.set_level(logging.INFO, "mas_edge.orchestrator.server")
    first = site.devices[0]
    for reasons in ((HOT,), (HOT,), ()):
        alive = m.Alive(online=True, boot_id="b", reasons=reasons)
        first.bus.publish(m.alive_topic("f", "d1"), m.encode(alive), retain=True)
        site.turn()
        assert site.store.presence()["d1"][0].reasons == reasons
    assert [record.getMessage() for record in caplog.records] == [
        "d1 may not train now: temperature: 80.0 °C, asked is less than 70.0 °C",
        "d1 may train again",
    ]


def test_a_device_that_may_not_train_does_not_hold_up_the_others_nor_fail_the_job(site):
    first, second = site.devices
    for attempt in range(SPEC.tries + 2):
        key = msgspec.structs.replace(KEY, attempt=attempt, device="d1")
        first.say(m.Declined(key=key, reason="not-now", detail="power: on battery", again_s=60.0))
    site.turn()
    site.answer(second, second.assigned().key, 1.0)
    site.turn(2)
    (run,) = site.server.jobs[0].runs
    assert (run.round, site.server.jobs[0].reason) == (1, "")
    assert [event.again_s for event in site.events() if isinstance(event, GaveUp)] == [60.0] * (
        SPEC.tries + 2
    )
