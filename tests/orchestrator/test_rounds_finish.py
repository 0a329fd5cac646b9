"""Rounds that finish whatever devices do: a real server, store and broker; devices are played by the test.

A device trains by adding a number to every weight that it received, so that what was merged says who was.
"""

from __future__ import annotations

import logging
import random

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load, save

from mas_edge.orchestrator.events import Closed, GaveUp, Heard, Late, LeftOut, Lifted, Merged, Selected
from mas_edge.orchestrator.job import Initialised
from mas_edge.orchestrator.report import profiles, report
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.spec import Budget, JobSpec, Participation, SpecRefused, check
from mas_edge.orchestrator.storage.refusals import Refusals
from mas_edge.orchestrator.store import JobExists
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

TASKS = ("a", "b", "c")
TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1)
SPEC = JobSpec(
    name="j",
    tasks=TASKS,
    training=TRAINING,
    policy="all-in-one",
    devices=("d1", "d2", "d3"),
    participation=Participation(deadline_s=60.0),
)
TURN_S = 1.0


def weights(**values: float) -> bytes:
    """A network of which all numbers of a part are equal; parts not named are 0."""
    parts = {"encoder": "encoder.w", **{task: f"decoder.{task}.w" for task in TASKS}}
    return save({name: np.full(3, values.get(part, 0.0), np.float32) for part, name in parts.items()})


class Device:
    """Does what it is asked at once, unless ``behave`` makes something else of its answer."""

    def __init__(self, site: Site, name: str, tasks=TASKS) -> None:
        self.site, self.name, self.tasks = site, name, tasks
        self.bus = site.broker.connect(name)
        self.bus.subscribe(m.down_topic("f", name))
        self.step, self.examples = 1.0, 8
        self.behave = self.answer
        self.own = BlobStore(site.root / name)
        self.assigned: list[m.Assign] = []
        self.heard: list[m.Down] = []
        self.wall_s = 2.0

    def say(self, message: m.Up) -> None:
        self.bus.publish(m.up_topic("f", self.name), m.encode(message))

    def hello(self) -> None:
        offer = m.Offer(workload="watch", tasks=tuple(self.tasks))
        versions = m.Versions(mas_edge="0", python="3")
        self.say(m.Hello(device=self.name, boot_id="b", versions=versions, workloads=(offer,)))

    def alive(self, *, online: bool, reasons=()) -> None:
        alive = m.Alive(online=online, boot_id="b", reasons=reasons)
        self.bus.publish(m.alive_topic("f", self.name), m.encode(alive), retain=True)

    def turn(self) -> None:
        while delivery := self.bus.get(0.0):
            message = m.decode_down(delivery.payload)
            self.heard.append(message)
            if isinstance(message, m.Need):
                self.send(message)
            if isinstance(message, m.Assign) and message not in self.assigned:
                self.assigned.append(message)
                if answer := self.behave(message):
                    self.say(answer)

    def send(self, need: m.Need) -> None:
        for index in (i for first, past in need.ranges for i in range(first, past)):
            topic = m.blob_topic("f", self.name, need.digest, index)
            self.bus.publish(topic, self.own.chunk(need.digest, index))

    def answer(self, assign: m.Assign) -> m.Update:
        key, mine = assign.key, [task for task in assign.tasks if task in self.tasks]
        ref = None
        if assign.train:
            parts = load(self.site.blobs.path(assign.weights.digest).read_bytes())
            change = {name for name in parts if name.split(".")[-2] in {"encoder", *mine}}
            moved = {n: v + np.float32(self.step if n in change else 0) for n, v in parts.items()}
            ref = self.own.add(save(moved))
        examples = self.examples if assign.train else 0
        trained = tuple(m.Score(task=t, count=examples, loss_sum=1.0) for t in mine if assign.train)
        scores = tuple(m.Score(task=t, count=4.0, loss_sum=2.0) for t in mine if assign.evaluate)
        profile = m.Profile(rows=(self.spend(key, "train"),))
        return m.Update(
            key=key, weights=ref, examples=examples, trained=trained, scores=scores, profile=profile
        )

    def spend(self, key: m.Key, phase: str) -> m.Spend:
        return m.Spend(
            job=key.job,
            group=key.group,
            round=key.round,
            phase=phase,
            wall_s=self.wall_s,
            cpu_s=1.0,
            examples=self.examples,
            attributed_energy_j=5.0,
            window_energy_j=9.0,
        )


class Site:
    """A server on a clock that the test moves, a store with a job, and devices."""

    def __init__(self, root, spec: JobSpec, labels=None) -> None:
        self.root, self.spec, self.clock_s, self.broker = root, spec, 0.0, Broker()
        self.store, self.meter = open_store(root), open_one("estimate:idle_w=2,max_w=10")
        self.blobs = BlobStore(root / "blobs")
        self.workshop = Workshop(self.blobs, root, self.meter)
        self.put(spec)
        self.start()
        self.devices = {
            name: Device(self, name, (labels or {}).get(name, TASKS)) for name in ("d1", "d2", "d3")
        }

    def put(self, spec: JobSpec) -> None:
        """A job in the store whose first weights exist."""
        self.store.add_job(spec.name, msgspec.json.encode(spec))
        first = Initialised(weights=self.blobs.add(weights()), fingerprint="f", parameters={})
        self.store.append(spec.name, 0.0, first)

    def start(self) -> None:
        bus = self.broker.connect("orchestrator")
        self.server = Server(
            "f",
            bus,
            self.store,
            self.blobs,
            self.workshop,
            rng=random.Random(1),
            clock_s=lambda: self.clock_s,
        )
        self.server.turn(0.0)

    def turn(self, seconds: float = TURN_S) -> None:
        self.clock_s += seconds
        self.server.turn(0.0)
        for device in self.devices.values():
            device.turn()

    def run(self, until=lambda: False, turns: int = 400) -> None:
        for _ in range(turns):
            if until() or all(job.over for job in self.server.jobs):
                return
            self.turn()
        pytest.fail(f"it goes on for ever: {self.server.jobs}")

    def events(self, *kinds: type, job: str = "j") -> list:
        return [event for _, _, event in self.store.events(job) if isinstance(event, kinds)]

    def report(self, job: str = "j"):
        spec = next(each.spec for each in self.server.jobs if each.spec.name == job)
        return report(spec, [(time_s, event) for _, time_s, event in self.store.events(job)])

    def final(self, job: str = "j") -> dict[str, float]:
        (run,) = next(each for each in self.server.jobs if each.spec.name == job).runs
        parts = load(self.blobs.path(run.weights.digest).read_bytes())
        return {name.split(".")[-2]: float(value[0]) for name, value in parts.items()}

    def close(self) -> None:
        self.workshop.close()
        self.store.close()
        self.meter.close()


@pytest.fixture
def make(tmp_path):
    made = []

    def site(spec=SPEC, labels=None) -> Site:
        made.append(Site(tmp_path, spec, labels))
        for device in made[-1].devices.values():
            device.hello()
        return made[-1]

    yield site
    for each in made:
        each.close()


def ignore(_assign) -> None:
    """A device that hears, and says nothing."""


def test_without_trouble_everybody_takes_part_in_every_round(make):
    site = make()
    site.run()
    assert site.report().phase == "done"
    assert site.final() == {"encoder": 2.0, "a": 2.0, "b": 2.0, "c": 2.0}
    assert [event.devices for event in site.events(Selected)] == [SPEC.devices] * 3
    site.turn()
    assert not site.server._publisher._expected, "nobody is expected to ask for what nobody trains from"


def test_a_silent_device_is_waited_for_until_the_deadline_then_stopped_and_in_the_end_benched(make, caplog):
    caplog.set_level(logging.INFO)
    site = make()
    site.devices["d3"].behave = ignore
    site.run()
    assert site.report().phase == "done"
    assert [event.missed for event in site.events(Closed)] == [("d3",), ("d3",)]
    assert [event.devices for event in site.events(Selected)][2] == ("d1", "d2")
    assert 120 < site.clock_s < 140
    stopped = [message.key.round for message in site.devices["d3"].heard if isinstance(message, m.Cancel)]
    assert stopped == [0, 1]
    assert site.final()["encoder"] == 2.0
    assert "a+b+c: d3 is benched until" in caplog.text
    assert all(0 < assign.remaining_s <= 60 for assign in site.devices["d1"].assigned)


def test_a_slow_device_is_late_and_its_joules_count_as_lost_and_its_weights_never(make):
    site = make(msgspec.structs.replace(SPEC, participation=Participation(deadline_s=60.0, clients=2)))
    slow: list[m.Update] = []

    def later(device: Device):
        return lambda assign: slow.append(device.answer(assign))

    for name in ("d1", "d2", "d3"):
        site.devices[name].step = 100.0 if name == "d3" else 1.0
    site.devices["d3"].behave = later(site.devices["d3"])
    site.run()
    assert slow, "the draw with this seed asks d3"
    for update in slow * 2:  # repeated, as an agent does until it is told that it is stored
        site.devices["d3"].say(update)
    site.turn()
    site.turn()
    assert [event.key for event in site.events(Late)] == [update.key for update in slow]
    told = [message.key for message in site.devices["d3"].heard if isinstance(message, m.Stored)]
    assert set(told) == {update.key for update in slow}
    assert site.final()["encoder"] == 2.0
    events = [(time_s, event) for _, time_s, event in site.store.events("j")]
    lost = [r for device, bill in profiles(events) if device == "d3" for r in bill.rows if r.phase == "lost"]
    assert len(lost) == len(slow)
    assert {(row.attributed_energy_j, row.examples, row.group) for row in lost} == {(5.0, 0, "a+b+c")}
    assert Refusals(device="d3", reason="too-late", times=len(slow)) in site.report().refusals


def test_more_are_asked_than_wanted_and_who_comes_after_the_round_is_late(make):
    part = Participation(clients=2, over_selection=0.5, deadline_s=60.0)
    site = make(msgspec.structs.replace(SPEC, participation=part))
    site.run()
    assert [len(event.devices) for event in site.events(Selected)] == [3, 3, 3]
    training = [event.update.key.round for event in site.events(Heard) if event.update.weights]
    assert training == [0, 0, 1, 1]
    assert len(site.events(Late)) == 2
    assert not site.events(Closed)


def test_one_device_that_always_fails_does_not_fail_the_job_and_the_report_names_it(make):
    site = make()
    site.devices["d2"].behave = lambda assign: m.Failed(key=assign.key, reason="worker-killed")
    site.run()
    made = site.report()
    assert made.phase == "done"
    assert made.refusals == (Refusals(device="d2", reason="worker-killed", times=3),)
    assert made.gave_up == ("d2, round 0 of a+b+c: worker-killed",) * 3
    assert [event.devices for event in site.events(Selected)] == [SPEC.devices, ("d1", "d3"), ("d1", "d3")]


def test_a_device_that_was_benched_comes_back_and_is_forgiven(make):
    rounds = msgspec.structs.replace(TRAINING, rounds=4)
    site = make(msgspec.structs.replace(SPEC, training=rounds))
    broken = site.devices["d2"]
    broken.behave = lambda assign: m.Failed(key=assign.key, reason="worker-killed")
    site.run(lambda: site.server.jobs[0].runs[0].round == 1)
    site.devices["d1"].behave = site.devices["d3"].behave = ignore  # the round takes its time
    broken.behave = broken.answer
    for name in ("d1", "d3"):
        device = site.devices[name]
        site.run(lambda: site.server.jobs[0].runs[0].call == 2 or site.clock_s > 300)
        device.behave = device.answer
        for assign in device.assigned[-1:]:
            device.say(device.answer(assign))
    site.run()
    assert site.report().phase == "done"
    assert any(event.update.key.device == "d2" for event in site.events(Heard))


def test_a_job_fails_when_no_quorum_is_left(make):
    site = make()
    for name in ("d1", "d2"):
        site.devices[name].behave = lambda assign: m.Failed(key=assign.key, reason="no-torch")
    site.run()
    assert site.report().phase == "failed"
    assert "no-torch" in site.report().reason


def test_with_too_few_devices_it_waits_says_so_in_one_line_and_goes_on_when_they_come(make, caplog):
    caplog.set_level(logging.INFO, "mas_edge.orchestrator")
    site = make()
    for name in ("d1", "d3"):
        site.devices[name].alive(online=False)
    for _ in range(100):
        site.turn()
    assert not site.events(Selected)
    lines = [r.getMessage() for r in caplog.records if "waits for devices" in r.getMessage()]
    assert lines == [
        "job j: round 1 of a+b+c waits for devices (nobody has answered): d1 is away; d3 is away"
    ]
    site.devices["d1"].alive(online=True)
    site.run(lambda: bool(site.events(Merged)))
    assert site.events(Selected)[0].devices == ("d1", "d2")


def test_at_a_deadline_short_of_a_quorum_a_device_that_has_come_meanwhile_is_asked_too(make):
    part = Participation(quorum=0.6, deadline_s=60.0)
    site = make(msgspec.structs.replace(SPEC, participation=part))
    site.devices["d3"].alive(online=False)
    site.devices["d2"].behave = ignore
    site.turn()
    site.turn()
    site.devices["d3"].alive(online=True)
    site.run(lambda: bool(site.events(Merged)))
    first, second = site.events(Selected)[:2]
    assert (first.devices, second.devices) == (("d1", "d2"), ("d2", "d3"))
    assert second.missed == ("d2",)
    trained = [event.update.key.device for event in site.events(Heard)]
    assert trained == ["d1", "d3"]
    assert 55 < site.clock_s < 70


def test_after_a_restart_a_round_goes_on_with_the_devices_and_the_deadline_that_it_had(make):
    site = make()
    site.devices["d3"].behave = ignore
    for _ in range(30):
        site.turn()
    before = site.server.jobs
    site.clock_s += 1000.0  # a thousand seconds off
    site.start()
    assert site.server.jobs == before
    for device in site.devices.values():
        device.hello()
    site.run(lambda: bool(site.events(Closed)))
    assert len(site.events(Selected)) == 1
    assert 1055 < site.clock_s < 1095


def test_absurd_weights_are_left_out_named_and_counted_and_nan_is_refused(make):
    training = msgspec.structs.replace(TRAINING, rounds=3)
    site = make(msgspec.structs.replace(SPEC, training=training))
    mad = site.devices["d2"]
    mad.step = 1e6
    site.run(lambda: bool(site.events(Merged)))
    (left,) = site.events(LeftOut)
    assert [each.device for each in left.updates] == ["d2"]
    mad.step = float("nan")  # from the third round on: it has answered the second
    site.run()
    made = site.report()
    assert made.phase == "done"
    assert site.final()["encoder"] == 3.0
    assert made.refusals == (
        Refusals(device="d2", reason="left-out", times=2),
        Refusals(device="d2", reason="update-refused", times=1),
    )
    assert any("left-out (its weights went" in line for line in made.gave_up)


@pytest.mark.parametrize(
    "wrong",
    [
        {"examples": 0},
        {"examples": 9},  # its bill says 8
        {"trained": (m.Score(task="a", count=9.0, loss_sum=1.0),)},
    ],
)
def test_examples_that_cannot_be_are_refused(make, wrong):
    site = make()
    device = site.devices["d1"]
    device.behave = lambda assign: msgspec.structs.replace(device.answer(assign), **wrong)
    site.run(lambda: bool(site.events(Merged)))
    assert {event.reason for event in site.events(GaveUp)} == {"update-refused"}
    assert {event.key.device for event in site.events(GaveUp)} == {"d1"}


@pytest.mark.parametrize("reproducible", [False, True])
def test_a_fleet_in_which_devices_lack_labels_works_and_decoders_are_of_those_who_trained_them(
    make, reproducible
):
    labels = {"d1": ("a",), "d2": ("a", "b"), "d3": ("b", "c")}
    training = msgspec.structs.replace(TRAINING, rounds=1, reproducible=reproducible)
    participation = Participation() if reproducible else SPEC.participation
    site = make(msgspec.structs.replace(SPEC, training=training, participation=participation), labels)
    for name, step in {"d1": 1.0, "d2": 2.0, "d3": 4.0}.items():
        site.devices[name].step = step
    site.run()
    assert site.report().phase == "done", site.report().reason
    assert site.final() == pytest.approx({"encoder": 7 / 3, "a": 1.5, "b": 3.0, "c": 4.0}, rel=1e-6)


@pytest.mark.parametrize("reproducible", [False, True])
def test_groups_go_on_without_devices_that_have_none_of_their_labels(make, reproducible):
    labels = {"d1": ("a",), "d2": ("a", "b"), "d3": ("b", "c")}
    training = msgspec.structs.replace(TRAINING, rounds=1, reproducible=reproducible)
    participation = Participation() if reproducible else SPEC.participation
    spec = msgspec.structs.replace(SPEC, training=training, policy="one-by-one", participation=participation)
    site = make(spec, labels)
    for device in site.devices.values():

        def able(assign, device=device):
            if set(assign.tasks) & set(device.tasks):
                return device.answer(assign)
            return m.Declined(key=assign.key, reason="no-data")

        device.behave = able
    site.run()
    assert site.report().phase == "done", site.report().reason
    trained = {(e.update.key.group, e.update.key.device) for e in site.events(Heard)}
    assert trained == {("a", "d1"), ("a", "d2"), ("b", "d2"), ("b", "d3"), ("c", "d3")}
    if not reproducible:
        assert not site.events(GaveUp), "who lacks the labels is not even asked"


def test_a_device_that_has_used_its_joules_of_today_rests_until_tomorrow(make):
    spec = msgspec.structs.replace(
        SPEC, budget=Budget(device_energy_j_per_day=8.0), participation=Participation(deadline_s=None)
    )
    site = make(spec)
    site.run(lambda: len(site.events(Merged)) == 2)
    site.run(lambda: site.clock_s > 60, turns=100)
    assert len(site.events(Selected)) == 2  # five joules each, and then ten
    site.clock_s += 86_400.0
    site.run()
    assert site.report().phase == "done"


def test_a_job_that_is_added_while_another_runs_has_its_turns_and_both_finish(make):
    long = msgspec.structs.replace(TRAINING, rounds=8)
    site = make(msgspec.structs.replace(SPEC, training=long))
    site.run(lambda: len(site.events(Merged)) == 3)
    other = msgspec.structs.replace(SPEC, name="k", tasks=("a",), devices=("d1", "d2"))
    site.server.add(other)
    with pytest.raises(JobExists):
        site.server.add(other)
    with pytest.raises(SpecRefused):
        site.server.add(msgspec.structs.replace(SPEC, name="l", tasks=()))
    assert [job.spec.name for job in site.server.jobs] == ["j", "k"]
    small = save({"encoder.w": np.zeros(3, np.float32), "decoder.a.w": np.zeros(3, np.float32)})
    first = Initialised(weights=site.blobs.add(small), fingerprint="f", parameters={})
    assert site.server.happened("k", first)
    site.workshop.close()  # the torch child that was begun for it
    site.run()
    assert [job.phase for job in site.server.jobs] == ["done", "done"]
    order = [a.key.job for a in site.devices["d1"].assigned]
    assert order.index("k") < len(order) - 1 - order[::-1].index("j")


def test_what_a_device_says_of_jobs_and_rounds_that_never_were_harms_nobody(make):
    site = make()
    site.turn()
    key = m.Key(job="never", group="a", round=0, attempt=0, device="d1")
    site.devices["d1"].say(m.Update(key=key, examples=1))
    site.devices["d1"].say(m.Failed(key=msgspec.structs.replace(key, job="j", round=7), reason="r"))
    site.turn()
    told = [message.key.job for message in site.devices["d1"].heard if isinstance(message, m.Stored)]
    assert set(told) == {"never", "j"}
    site.run()
    assert site.report().phase == "done"
    assert not site.events(Late), "there is nothing to bill"


def test_what_is_known_of_devices_is_there_for_others(make):
    site = make()
    site.devices["d3"].alive(online=False)
    site.run(lambda: bool(site.events(Heard)))
    facts = {each.name: each for each in site.server.facts()}
    assert {name: fact.online for name, fact in facts.items()} == {"d1": True, "d2": True, "d3": False}
    assert facts["d1"].labels("watch") == frozenset(TASKS)
    assert facts["d1"].power_w == 4.5
    assert facts["d3"].power_w is None
    assert set(site.server.hellos) == {"d1", "d2", "d3"}


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"clients": 0}, "clients must be 1 to 3"),
        ({"clients": 4}, "clients must be 1 to 3"),
        ({"over_selection": -0.1}, "over_selection must be 0 to 4"),
        ({"quorum": 0.0}, "quorum must be more than 0"),
        ({"quorum": 1.5}, "quorum must be more than 0"),
        ({"deadline_s": 0.0}, "deadline_s must be more than 0"),
    ],
)
def test_a_participation_that_cannot_be_is_refused_with_what_to_change(part, says):
    with pytest.raises(SpecRefused, match=says):
        check(msgspec.structs.replace(SPEC, participation=Participation(**part)))


def test_a_reproducible_job_takes_no_choice_and_fedprox_no_push():
    training = msgspec.structs.replace(TRAINING, reproducible=True)
    with pytest.raises(SpecRefused, match="reproducible job asks every device"):
        check(msgspec.structs.replace(SPEC, training=training))
    with pytest.raises(SpecRefused, match="prox_mu must be 0 or more"):
        check(msgspec.structs.replace(SPEC, training=msgspec.structs.replace(TRAINING, prox_mu=-1.0)))


def test_a_bill_for_a_training_that_can_never_have_been_is_not_kept(make):
    site = make()
    site.turn()
    key = m.Key(job="j", group="a+b+c", round=0, attempt=3, device="d1")
    bill = m.Profile(rows=(site.devices["d1"].spend(key, "train"),))
    for change in ({"group": "a+z"}, {"round": 9}, {"round": -1}, {"attempt": -1}, {}):
        told = msgspec.structs.replace(key, **change)
        site.devices["d1"].say(m.Failed(key=told, reason="r", profile=bill))
    site.turn()
    assert [event.key for event in site.events(Late)] == [key]


def test_a_device_that_may_train_again_before_it_said_is_asked_at_once_also_after_a_restart(make):
    site = make(msgspec.structs.replace(SPEC, participation=Participation(quorum=1.0, deadline_s=None)))
    device = site.devices["d3"]

    def not_now(assign: m.Assign) -> m.Declined:
        return m.Declined(key=assign.key, reason="not-now", again_s=900.0)

    for restarted in (False, True):
        device.behave = not_now
        site.run(lambda n=int(restarted): len(site.events(GaveUp)) > n)
        device.alive(online=True, reasons=(m.Reason(condition="hours", detail="it is 12:00"),))
        before = len(device.assigned)
        for _ in range(30):
            site.turn()
        assert len(device.assigned) == before
        device.behave = device.answer
        device.alive(online=True)  # retained: so it is heard after a restart too
        if restarted:
            site.start()
        site.turn()
        site.turn()
        assert len(device.assigned) > before
    site.run()
    assert site.clock_s < 300
    assert [event.device for event in site.events(Lifted)] == ["d3", "d3"]


def test_after_a_restart_a_device_is_not_taken_off_what_it_is_at(make):
    site = make()
    site.devices["d1"].behave = ignore
    site.run(lambda: bool(site.devices["d1"].assigned))
    at = site.devices["d1"].assigned[0].key
    site.devices["d1"].say(m.Progress(key=at, phase="forward", step=1, steps=9))
    site.turn()
    site.put(msgspec.structs.replace(SPEC, name="a-first", priority=9))
    site.start()
    for _ in range(8):
        site.turn()
    assert {assign.key for assign in site.devices["d1"].assigned} == {at}
