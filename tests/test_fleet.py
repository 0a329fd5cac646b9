"""All of it together in one process: orchestrator and agents on the in-memory broker, real workers.

Only the training processes and the torch child are processes of their own; everything else is turned by
the test, one after the other, so that a bus that loses, repeats and reorders is the same one each time.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager

import msgspec
import pytest

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.config import TrainConfig
from mas_edge.models.tasks import Source
from mas_edge.orchestrator.job import Heard
from mas_edge.orchestrator.plan import DemoOptions, demo_plan
from mas_edge.orchestrator.report import profiles, report
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.service import open_store
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.bill import billed, fleet
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker, Faults

LIMIT_S = 120.0
METER = "estimate:idle_w=2,max_w=10"


class Fleet:
    """An orchestrator and its agents, turned by hand."""

    def __init__(self, root, plan, broker: Broker, caps=None) -> None:
        self.root, self.plan, self.broker, self.caps = root, plan, broker, caps or {}
        self.meter = open_one(METER)
        self._orchestrate("state")
        self.agents = [self._agent(device, clients) for device, clients in plan.clients.items()]

    def _orchestrate(self, name: str) -> None:
        state = self.root / name
        state.mkdir(exist_ok=True)
        self.store = open_store(state)
        if not self.store.jobs():
            self.store.add_job(self.plan.spec.name, msgspec.json.encode(self.plan.spec))
        self.blobs = BlobStore(state / "blobs")
        self.workshop = Workshop(self.blobs, state, self.meter)
        bus = self.broker.connect("orchestrator")
        self.server = Server("f", bus, self.store, self.blobs, self.workshop, rng=random.Random(1))

    def wipe(self) -> None:
        """The orchestrator begins with nothing but the same job; the agents go on as they are."""
        self.workshop.close()
        self.store.close()
        self._orchestrate("other")

    def _agent(self, device: str, clients: tuple[str, ...]) -> Agent:
        folder = self.root / device
        folder.mkdir(exist_ok=True)
        offline = m.encode(m.Alive(online=False, boot_id=device))
        bus = self.broker.connect(device, (m.alive_topic("f", device), offline))
        tasks = tuple(self.plan.spec.tasks)
        about = m.Hello(
            device=device,
            boot_id=device,
            versions=m.Versions(mas_edge="0", python="3"),
            workloads=(m.Offer(workload=self.plan.spec.training.workload, tasks=tasks),),
            caps=self.caps.get(device, m.Caps()),
        )
        account = Account(folder / "account.json", open_one(METER), bus)
        return Agent(
            about,
            "f",
            bus,
            folder,
            account,
            {self.plan.spec.training.workload: Source(clients=clients)},
            rng=random.Random(device),
            train=TrainConfig(),
        )

    def run(self) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not self.server.jobs[0].over:
            assert time.monotonic() < end_s, self.server.jobs[0]
            self.server.turn(0.0)
            for agent in self.agents:
                agent.turn(0.0)
            time.sleep(0.005)

    def stored(self):
        return [(time_s, event) for _, time_s, event in self.store.events(self.plan.spec.name)]

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        self.workshop.close()
        self.store.close()
        self.meter.close()


@contextmanager
def a_fleet(root, faults=None, caps=None, **options):
    defaults = {
        "preset": "tiny",
        "clients": 2,
        "rounds": 2,
        "merge_rounds": 1,
        "tasks": "gravity,jerk,rotation",
    }
    plan = demo_plan(DemoOptions(**{**defaults, "groups": "2", **options}))
    fleet_ = Fleet(root, plan, Broker(faults, random.Random(5)), caps)
    try:
        yield fleet_
    finally:
        fleet_.close()


def test_a_job_merges_splits_and_finishes_on_a_bus_that_loses_repeats_and_reorders(tmp_path):
    with a_fleet(tmp_path, Faults(lose=0.05, repeat=0.1, delay=0.1)) as fleet_:
        fleet_.run()
        spec, stored = fleet_.plan.spec, fleet_.stored()
    made = report(spec, stored)
    assert made.phase == "done", made.reason
    assert len(made.groups) == 2
    assert sorted(task for group in made.groups for task in group.split("+")) == sorted(spec.tasks)
    assert {point.task for point in made.held_out} == {point.task for point in made.unseen} == set(spec.tasks)
    assert all(point.loss < point.constant_loss for point in made.held_out)
    keys = [event.update.key for _, event in stored if isinstance(event, Heard)]
    assert len(set(keys)) == len(keys)


def test_the_bill_of_a_fleet_closes_and_names_every_group_as_estimated(tmp_path):
    with a_fleet(tmp_path, rounds=1, policy="all-in-one") as fleet_:
        fleet_.run()
        bills = profiles(fleet_.stored())
        devices = set(fleet_.plan.clients)
    bill, rows = fleet(bills), [row.spend for row in billed(bills)]
    assert {row.group for row in rows} == {"orchestrator", "gravity+jerk+rotation"}
    assert abs(bill.closing_error_j) <= 1e-9 * bill.total_j
    assert bill.methods == ("estimated",)
    (host,) = bill.hosts
    assert set(host.devices) == {*devices, "orchestrator"}
    phases = {row.phase for row in rows if row.group != "orchestrator"}
    assert {"fetch", "load", "forward", "backward", "step", "evaluate", "upload"} <= phases


def test_a_device_with_too_little_memory_leaves_the_group_to_the_others_and_the_report_says_so(tmp_path):
    caps = {"edge-1": m.Caps(memory_bytes=1)}
    with a_fleet(tmp_path, caps=caps, rounds=1, policy="all-in-one") as fleet_:
        fleet_.run()
        made = report(fleet_.plan.spec, fleet_.stored())
    assert made.phase == "done", made.reason
    assert {row.device for row in made.memory} == {"edge-2"}
    (note,) = made.replans
    assert note.startswith("edge-1 cannot train gravity+jerk+rotation from round 1 on (needs ")
    assert made.gave_up == ("edge-1, round 0 of gravity+jerk+rotation: memory",)
    (row,) = made.memory
    assert row.peak_bytes > 100_000_000
    assert row.allowed_bytes is None


@pytest.mark.slow
def test_a_bad_bus_and_a_good_one_end_with_the_same_weights(tmp_path):
    digests = []
    for name, faults in (("good", Faults()), ("bad", Faults(lose=0.1, repeat=0.2, delay=0.2))):
        (tmp_path / name).mkdir()
        with a_fleet(tmp_path / name, faults) as fleet_:
            fleet_.run()
            digests.append(report(fleet_.plan.spec, fleet_.stored()).final_digests)
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_agents_do_a_job_anew_for_an_orchestrator_that_has_lost_its_store(tmp_path):
    with a_fleet(tmp_path, rounds=1, policy="all-in-one") as fleet_:
        fleet_.run()
        before = report(fleet_.plan.spec, fleet_.stored()).final_digests
        fleet_.wipe()
        assert fleet_.stored() == []
        fleet_.run()
        assert report(fleet_.plan.spec, fleet_.stored()).final_digests == before


@pytest.mark.slow
def test_an_orchestrator_that_starts_again_goes_on_where_it_was(tmp_path):
    with a_fleet(tmp_path) as whole:
        whole.run()
        expected = report(whole.plan.spec, whole.stored()).final_digests
    again = tmp_path / "again"
    again.mkdir()
    plan = whole.plan
    fleet_ = Fleet(again, plan, Broker())
    try:
        restarts = 0
        while not fleet_.server.jobs[0].over:
            fleet_.server.turn(0.0)
            for agent in fleet_.agents:
                agent.turn(0.0)
            time.sleep(0.005)
            if len(fleet_.stored()) > 3 * (restarts + 1) and restarts < 3:
                restarts += 1
                fleet_.workshop.close()
                bus = fleet_.broker.connect(f"orchestrator-{restarts}")
                fleet_.workshop = Workshop(fleet_.blobs, again / "state", fleet_.meter)
                fleet_.server = Server(
                    "f", bus, fleet_.store, fleet_.blobs, fleet_.workshop, rng=random.Random(restarts)
                )
        assert report(plan.spec, fleet_.stored()).final_digests == expected
    finally:
        fleet_.close()
