"""Two trainings at a time on one device: an agent with real workers; the test plays the orchestrator."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from player import DEVICE, FLEET, LIMIT_S, Player
from quotas import quota

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.config import TrainConfig
from mas_edge.models.tasks import Source
from mas_edge.profiling.bill import fleet
from mas_edge.profiling.cpu import process_cpu_ns
from mas_edge.profiling.ledger import rows
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.memory import Broker

pytestmark = pytest.mark.slow

METER = "estimate:idle_w=2,max_w=10"
FOR_EVER = 10_000
"""Epochs."""


class Site:
    """An agent with its account, and who orders."""

    def __init__(self, root, *, slots=2, caps=None, meter=METER) -> None:
        self.broker = Broker()
        self.player = Player(self.broker.connect("orchestrator"), root)
        bus = self.broker.connect(DEVICE)
        offers = (m.Offer(workload="watch", tasks=("gravity", "jerk")),)
        versions = m.Versions(mas_edge="0", python="3")
        about = m.Hello(
            device=DEVICE,
            boot_id="b",
            versions=versions,
            workloads=offers,
            caps=caps or m.Caps(),
            slots=slots,
        )
        (root / "state").mkdir()
        self.spent_j: dict[str, float] = defaultdict(float)
        path = root / "state/account.json"
        self.account = Account(path, open_one(meter), bus, watch=self._charged, slots=slots)
        self.agent = Agent(
            about,
            FLEET,
            bus,
            root / "state",
            self.account,
            {"watch": Source(clients=("1",))},
            rng=random.Random(1),
            train=TrainConfig(slots=slots),
        )
        self.turn()

    def _charged(self, piece) -> None:
        """By group, what was charged to its worker: the daemon's own work is in equal parts everybody's."""
        for row in rows(piece):
            if row.phase != "runtime":
                self.spent_j[row.group] += row.attributed_energy_j

    def turn(self) -> None:
        self.agent.turn(0.0)

    def until(self, kind, of=None):
        return self.player.until(kind, self.turn, of=of)

    def until_status(self, is_so) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not is_so(self.agent.status):
            assert time.monotonic() < end_s, self.agent.status
            self.pass_s(0.01)

    def pass_s(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.turn()
            self.player.hear()
            time.sleep(0.005)

    def key(self, task: str) -> m.Key:
        """Of the last training of this task that was accepted."""
        return [a.key for a in self.player.said if isinstance(a, m.Accepted) and a.key.group == task][-1]

    @property
    def workers(self) -> list[int]:
        """In the order in which they were started."""
        return sorted(set(self.agent._trainers.pids) - {os.getpid()})


@contextmanager
def a_site(root, **options):
    site = Site(root, **options)
    try:
        yield site
    finally:
        site.agent.close()
        site.player.bus.close()


def power(root, watts: float) -> str:
    """A sensor that always shows so much, above 3 W of idle."""
    lines = "".join(f"{k / 10},{watts}\n" for k in range(11))
    (root / "log.csv").write_text(f"t_s,power_w\n{lines}")
    return f"replay:{root}/log.csv,idle_w=3"


def test_two_workers_under_a_quota_of_one_to_three_have_one_to_three_of_the_joules(tmp_path):
    with a_site(tmp_path, meter=power(tmp_path, 9)) as site, ExitStack() as quotas:
        keys = [site.player.assign(task, epochs=FOR_EVER) for task in ("gravity", "jerk")]
        for key in keys:
            site.until(m.Progress, of=key)
        for pid, share in zip(site.workers, (0.15, 0.45), strict=True):
            door = quotas.enter_context(quota(f"mas-test-{pid}", share))
            door.write_text(str(pid))
        site.pass_s(2.0)
        site.spent_j.clear()
        before_ns = [process_cpu_ns(pid) for pid in site.workers]
        site.pass_s(15.0)
        one_ns, three_ns = (process_cpu_ns(p) - ns for p, ns in zip(site.workers, before_ns, strict=True))
        assert three_ns / one_ns == pytest.approx(3.0, rel=0.02), "the kernel did not give what it should"
        # joules are told in intervals that begin and end a little beside these 15 s, more on a busy machine
        assert site.spent_j["jerk"] / site.spent_j["gravity"] == pytest.approx(3.0, rel=0.1)
        for key in keys:
            site.player.say(m.Cancel(key=key))
        site.until_status(lambda status: status == "idle")
        site.player.assign("gravity", attempt=1, workload="watch", network="small")  # of other weights
        profile = site.until((m.Declined, m.Failed)).profile
    bill = fleet([(DEVICE, profile)])
    (host,) = bill.hosts
    lost_j = {row.group: row.attributed_energy_j for row in profile.rows if row.phase == "lost"}
    assert lost_j["jerk"] > lost_j["gravity"] > 0
    assert 0 < host.attributed_j < host.total_j - host.idle_j
    assert abs(bill.closing_error_j) < 1e-9 * bill.total_j


def test_a_cancel_or_a_dead_worker_is_one_slots_business(tmp_path):
    with a_site(tmp_path) as site:
        first, second = (site.player.assign(task, epochs=FOR_EVER) for task in ("gravity", "jerk"))
        for key in (first, second):
            site.until(m.Progress, of=key)
        assert site.agent.status.startswith("training gravity, round 1, step ")
        assert "; training jerk, round 1, step " in site.agent.status
        os.kill(site.workers[1], signal.SIGKILL)
        failed = site.until(m.Failed)
        assert (failed.key, failed.reason) == (second, "worker-killed")
        assert {row.group for row in failed.profile.rows} == {"jerk"}, "the other's is not told yet"
        again = site.player.assign("jerk", attempt=1, epochs=FOR_EVER)
        site.until(m.Progress, of=again)
        site.player.say(m.Cancel(key=first))
        site.until_status(lambda status: "gravity" not in status)
        assert site.agent.status.startswith("training jerk, round 1, step ")
        other = site.player.assign("gravity", attempt=1)
        assert site.until(m.Update).key == other
        assert "training jerk" in site.agent.status


def test_what_has_no_room_beside_another_waits_and_brings_what_it_brings_alone(tmp_path):
    digests = {}
    for slots in (1, 2):
        folder = tmp_path / str(slots)
        folder.mkdir()
        own_bytes = psutil.Process().memory_info().rss
        caps = m.Caps(memory_bytes=own_bytes + (450 << 20)) if slots == 2 else None
        with a_site(folder, slots=slots, caps=caps) as site:
            for task in ("gravity", "jerk"):
                key = site.player.assign(task, epochs=4, reproducible=True)
                if slots == 1:
                    site.until(m.Update, of=key)
            if slots == 2:
                site.until_status(lambda status: "; waiting for memory for jerk, round 1" in status)
                assert len(site.workers) == 1
            updates = [site.until(m.Update, of=site.key(task)) for task in ("gravity", "jerk")]
            digests[slots] = [update.weights.digest for update in updates]
            phases = {row.phase for row in updates[1].profile.rows if row.group == "jerk"}
            assert ("wait" in phases) == (slots == 2)
    assert digests[1] == digests[2]
