"""Deployments of a finished job between a store, a bus and two devices that the test plays."""

from __future__ import annotations

import contextlib
import random
import re
import time

import msgspec
import pytest
from finished import SPEC, events
from test_deployments import exported
from test_server import Device

from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.deployment import owes
from mas_edge.orchestrator.job import Event
from mas_edge.orchestrator.launching import orders
from mas_edge.orchestrator.launching.desk import Desk
from mas_edge.orchestrator.launching.looks import Looker
from mas_edge.orchestrator.reports.in_use import answers, everywhere
from mas_edge.orchestrator.reports.page import Named, page
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker, Faults

FIGURES = m.InferenceProfile(
    scores=(m.Score(task="a", count=10.0, loss_sum=2.5),),
    latency_p50_s=0.002,
    latency_p95_s=0.003,
    inputs_per_s=900.0,
    peak_rss_bytes=90_000_000,
    energy_j=0.004,
    method="estimated",
)


class Site:
    """A store with a job that is done, a server with its desk, and two devices."""

    def __init__(self, root, broker=None) -> None:
        self.root, self.broker, self.open = root, broker or Broker(), contextlib.ExitStack()
        self.blobs, self.now_s = BlobStore(root / "blobs"), 100.0
        self.weights = self.blobs.add(b"no safetensors")
        with contextlib.closing(open_store(root)) as store:
            store.add_job("j", msgspec.json.encode(SPEC))
            for time_s, event in events():
                named = re.sub(
                    rb'"digest":"[^"]+"', b'"digest":"%s"' % self.weights.digest.encode(), encode(event)
                )
                store.append("j", time_s, msgspec.json.decode(named, type=Event))
        self.devices = [Device(self.broker, name) for name in SPEC.devices]
        self.start()

    def start(self) -> None:
        """Start, or start again after what could have been a kill."""
        self.open.close()
        self.store = self.open.enter_context(contextlib.closing(open_store(self.root)))
        meter = self.open.enter_context(contextlib.closing(open_one("estimate:idle_w=2,max_w=10")))
        workshop = self.open.enter_context(contextlib.closing(Workshop(self.blobs, self.root, meter)))
        bus = self.broker.connect("orchestrator")
        bus.subscribe(m.up_topic("f"))
        self.server = Server(
            "f", bus, self.store, self.blobs, workshop, rng=random.Random(1), clock_s=lambda: self.now_s
        )
        self.desk = Desk(self.server, self.store)

    def turn(self, seconds=0.0) -> None:
        self.now_s += seconds
        self.server.turn(0.0)

    def deploy(self, *devices, **changes):
        return self.desk.carry_out(orders.DeployThese(job="j", devices=devices, **changes))

    def export(self, made: orders.Deploying) -> None:
        """As if the torch child had done it before anything else."""
        for group in dict.fromkeys(each.group for each in made.outcomes):
            file = self.blobs.add(f"{made.precision} {group} {made.request}".encode())
            of = exported("exercise", made.request)
            self.server.happened("j", msgspec.structs.replace(of, group=group, file=file))

    def deployed(self, *devices, **changes) -> orders.Deploying:
        made = self.deploy(*devices, **changes)
        assert isinstance(made, orders.Deploying), made
        self.export(made)
        self.turn()
        return made

    def ask(self, question):
        with Looker(self.root) as look:
            return look(question)

    def states(self, made) -> dict:
        seen = self.ask(orders.Follow(request=made.request))
        return {(each.device, each.group): each.state for each in seen.outcomes}


def encode(event) -> bytes:
    return msgspec.json.encode(event)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.turn()
    for device in made.devices:
        device.hello()
    made.turn()
    yield made
    made.open.close()


def asked(device) -> list[m.Deploy]:
    return [message for message in device.messages() if isinstance(message, m.Deploy)]


def take(device, deploy: m.Deploy, verdict="in use", **changes) -> m.Deployed:
    """The answer of a device that takes a model, or does as it is told here."""
    used = m.InUse(model=deploy.model, profile=FIGURES) if deploy.model and verdict == "in use" else None
    answer = m.Deployed(
        request=deploy.request,
        job=deploy.job,
        group=deploy.group,
        verdict=verdict,
        profile=FIGURES,
        in_use=used,
    )
    answer = msgspec.structs.replace(answer, **changes)
    device.say(answer)
    return answer


def test_every_device_is_asked_for_every_group_and_what_it_says_is_kept(site):
    made = site.deployed()
    for device in site.devices:
        requests = asked(device)
        assert [each.group for each in requests] == ["a", "b"]
        assert all(site.blobs.has(each.model.file.digest) for each in requests)
        take(device, requests[0])
        take(device, requests[1], "refused", why="worse")
    site.turn()
    assert site.states(made) == {
        (name, group): state for name in SPEC.devices for group, state in (("a", "in use"), ("b", "refused"))
    }
    assert owes(site.server.rollout.deployments) == ()


def test_a_model_is_asked_for_again_until_it_is_answered_whatever_gets_lost_or_is_killed(site):
    made = site.deployed("d1")
    device = site.devices[0]
    assert len(asked(device)) == 2
    site.turn(2.0)
    assert len(asked(device)) == 2
    site.start()
    site.turn()
    site.turn(2.0)
    first = asked(device)
    assert {each.request for each in first} == {f"{made.request}.0", f"{made.request}.1"}
    for each in first[:2]:
        take(device, each)
        take(device, each)  # it comes twice
    site.turn()
    site.turn(60.0)
    assert asked(device) == []
    site.start()
    site.turn(60.0)
    assert asked(device) == []
    assert set(site.states(made).values()) == {"in use"}


@pytest.mark.parametrize("seed", range(3))
def test_all_is_answered_once_over_a_broker_that_loses_repeats_and_reorders(tmp_path, seed):
    site = Site(tmp_path, Broker(Faults(lose=0.3, repeat=0.2, delay=0.2), random.Random(seed)))
    site.turn()
    while len(site.server.hellos) < 2:
        for device in site.devices:
            device.hello()
        site.turn()
    made, turns, told = site.deployed(), 0, {}
    while owes(site.server.rollout.deployments):
        for device in site.devices:
            for each in asked(device):  # a device gives the same answer to the same request
                verdict = told.setdefault((device.name, each.request), ["in use", "refused"][len(told) % 2])
                take(device, each, verdict)
        site.turn(5.0)
        turns += 1
        assert turns < 200
        if turns == 2:
            site.start()
    states = site.states(made)
    names = {f"{made.request}.{number}": group for number, group in enumerate("ab")}
    assert states == {(device, names[request]): verdict for (device, request), verdict in told.items()}
    assert len(site.store.deployments()) == 1 + 2 + 4
    site.open.close()


def test_a_device_that_comes_back_is_asked_at_once(site):
    site.deployed("d1")
    asked(site.devices[0])
    site.turn(2.0)
    site.turn(0.1)
    asked(site.devices[0])
    site.devices[0].hello()
    site.turn()
    site.turn()
    assert len(asked(site.devices[0])) == 2


def test_the_file_stays_until_all_have_answered_and_goes_then(site):
    site.deployed("d1")
    requests = asked(site.devices[0])
    take(site.devices[0], requests[0])
    site.turn()
    assert [site.blobs.has(each.model.file.digest) for each in requests] == [False, True]
    take(site.devices[0], requests[1])
    site.turn()
    assert site.blobs.digests() == {site.weights.digest}


def test_what_a_device_has_in_use_shows_with_it_and_in_the_report(site):
    site.deployed("d1")
    first = asked(site.devices[0])[0]
    take(site.devices[0], first)
    site.turn()
    made = site.deployed("d1", precision="int8")
    for each in asked(site.devices[0]):
        take(site.devices[0], each, "refused", why="loss 0.300, in use 0.250", running=FIGURES)
    site.turn()

    (used,) = site.server.hellos["d1"].in_use
    assert used.model == first.model
    status = site.ask(orders.Look()).status
    assert next(each for each in status.devices if each.name == "d1").in_use == (used,)
    assert everywhere(status.devices).rows == (
        ("d1", "a", "j", "fp32", "0.2500", "2.00", "3.00", "900", "90", "4.000 est."),
    )

    run = site.ask(orders.Account(job="j")).run
    assert [(row.group, row.device, row.precision, row.state) for row in run.in_use] == [
        ("a", "d1", "fp32", "in use"),
        ("a", "d1", "int8", "refused"),
        ("b", "d1", "int8", "refused"),
    ]
    assert run.wall_s == events()[-1][0]
    text = page(Named("j", run))
    assert "In use" in text
    assert "4.000 est." in text
    told = answers("x", site.ask(orders.Follow(request=made.request)).outcomes)
    assert told.notes[0] == "d1, a: loss 0.300, in use 0.250"
    lines = [line.text for line in site.ask(orders.Tell(job="j")).lines]
    assert lines[-5:] == [
        "to be deployed as int8: a, b on d1",
        "a exported to ONNX, 0.00 MB, off by 1e-06, – J",
        "b exported to ONNX, 0.00 MB, off by 1e-06, – J",
        "d1: a refused: loss 0.300, in use 0.250",
        "d1: b refused: loss 0.300, in use 0.250",
    ]
    assert answers("x", (), brief=True).headers[3:] == ("loss\nbefore", "loss", "p50 ms", "mJ each")
    assert told.rows[0][:5] == ("d1", "a", "refused", "0.2500", "0.2500")


def test_a_rollback_asks_the_devices_that_have_the_jobs_models_and_exports_nothing(site):
    assert "no model of job j is in use there" in site.deploy("d1", rollback=True).text
    site.deployed("d1")
    for each in asked(site.devices[0]):
        take(site.devices[0], each)
    site.turn()
    made = site.deploy(rollback=True)
    site.turn()
    requests = asked(site.devices[0])
    assert [(each.group, each.model) for each in requests] == [("a", None), ("b", None)]
    assert asked(site.devices[1]) == []
    for each in requests:
        take(site.devices[0], each, "rolled back", profile=None)
    site.turn()
    assert set(site.states(made).values()) == {"rolled back"}


def test_a_rollback_is_refused_if_a_device_that_was_named_has_nothing_of_the_job(site):
    site.deployed("d1")
    for each in asked(site.devices[0]):
        take(site.devices[0], each)
    site.turn()
    assert "d2: no model of job j is in use there" in site.deploy("d1", "d2", rollback=True).text


def test_where_no_device_is_named_a_group_goes_to_those_that_can_judge_it(site):
    site.devices[0].hello(workloads=(m.Offer(workload="watch", tasks=("b",)),))
    site.devices[1].hello(workloads=(m.Offer(workload="buildings", tasks=("a", "b")),))
    site.turn()
    assert list(site.states(site.deployed())) == [("d1", "b")]
    assert set(site.states(site.deployed("d2"))) == {("d2", "a"), ("d2", "b")}  # it says no itself
    site.devices[0].hello(workloads=())
    site.turn()
    assert "no device has data of its tasks" in site.deploy().text


def test_orders_of_a_store_and_of_an_older_copy_of_it_never_have_the_same_name(tmp_path):
    names = set()
    for wall_s in (1000.0, 2000.0):
        site = Site(tmp_path / str(wall_s))
        site.turn()
        site.devices[0].hello()
        site.turn()
        made = Desk(site.server, site.store, wall_s=lambda wall_s=wall_s: wall_s).carry_out(
            orders.DeployThese(job="j", devices=("d1",))
        )
        names.add(made.request.removeprefix(site.store.identity[:12]))
        site.open.close()
    assert len(names) == 2


def test_the_model_in_use_stays_in_the_report_beside_a_later_one_that_was_refused(site):
    def order(verdict, **changes):
        site.deployed("d1")
        for each in asked(site.devices[0]):
            if each.group == "a":
                take(site.devices[0], each, verdict, **changes)
        site.turn()
        return [row.state for row in site.ask(orders.Account(job="j")).run.in_use]

    before = order("in use")
    assert before == ["in use"]
    first = site.server.hellos["d1"].in_use[0]
    assert order("refused", in_use=first) == ["in use", "refused"]
    assert order("in use") == ["in use"]
    site.deploy("d1", rollback=True)
    site.turn()
    for each in asked(site.devices[0]):
        take(site.devices[0], each, "rolled back", profile=None, in_use=first)
    site.turn()
    assert [row.state for row in site.ask(orders.Account(job="j")).run.in_use] == ["in use"]


def test_a_measurement_that_cannot_be_is_refused_and_not_believed(site):
    made = site.deployed("d1")
    first, second = asked(site.devices[0])
    wrong = msgspec.structs.replace(FIGURES, latency_p50_s=-1.0)
    take(site.devices[0], first, profile=wrong)
    twice = msgspec.structs.replace(FIGURES, scores=FIGURES.scores * 2)
    take(site.devices[0], second, profile=twice)
    site.turn()
    assert set(site.states(made).values()) == {"refused"}
    assert site.server.hellos["d1"].in_use == ()


@pytest.mark.slow
def test_weights_that_cannot_be_exported_end_the_deployment_in_words(site):
    made = site.deploy("d1")
    end_s = time.monotonic() + 60
    while "exporting" in site.states(made).values() and time.monotonic() < end_s:
        site.turn()
        time.sleep(0.02)
    found = site.ask(orders.Follow(request=made.request)).outcomes
    assert [each.state for each in found] == ["refused", "refused"]
    assert all(each.why.startswith("not exported: ") for each in found)
    assert site.server.jobs[0].phase == "done"
    assert asked(site.devices[0]) == []


def test_an_answer_about_another_group_than_was_asked_counts_for_nothing(site):
    made = site.deployed("d1")
    first, _ = asked(site.devices[0])
    take(site.devices[0], first, group="\x1b[2J")
    take(site.devices[0], first, job="k")
    take(site.devices[1], first)
    site.turn()
    assert set(site.states(made).values()) == {"asked"}


def test_weights_that_vanished_end_the_deployment_too_and_not_the_orchestrator(site):
    made = site.deploy("d1")
    site.blobs.remove(site.weights.digest)
    site.turn()
    assert set(site.states(made).values()) == {"refused"}
    assert "not here any more" in site.deploy("d1").text


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (orders.DeployThese(job="i"), "no job 'i'; there are j"),
        (orders.DeployThese(job="j", devices=("d3",)), "no device 'd3' has ever said hello"),
        (orders.DeployThese(job="j", rollback=True), "d1, d2: no model of job j is in use there"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused_and_leaves_nothing(site, order, says):
    answer = site.desk.carry_out(order)
    assert isinstance(answer, orders.Refused)
    assert says in answer.text
    assert site.store.deployments() == ()


def test_nothing_untrained_is_deployed(site):
    fresh = msgspec.structs.replace(SPEC, name="k")
    site.server.add(fresh)
    assert "nothing of it is trained yet" in site.desk.carry_out(orders.DeployThese(job="k")).text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--all", "--margin", "-1"), "--margin -1: use a number, 0 or more"),
        (("--to", "d1", "--wait", "nan"), "--wait nan: use a number, 0 or more"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_one_line_and_code_2(capsys, words, says):
    assert main(["deploy", "j", *words]) == 2
    assert capsys.readouterr().err == f"mas: {says}\n"
