"""The end of an agent in the middle of a training, asked for or not: a real process, a real broker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import msgspec
import psutil
import pytest
from player import DEVICE, FLEET, Player

from mas_edge.profiling.ledger import LOST, Ledger, rows
from mas_edge.wire import broker as embedded
from mas_edge.wire import messages as m
from mas_edge.wire.bus import connect

pytestmark = pytest.mark.slow

TASKS = ("gravity", "jerk")
EPOCHS = 60
"""Long enough for a ledger to come to the disk in the middle, which it does every five seconds."""
SOON_S = 8.0
"""A worker has four seconds to come to its next step, and the daemon some to write and leave."""


class Site:
    """An agent as a process, a broker, and who orders."""

    def __init__(self, root, *, slots: int) -> None:
        self._broker, address = embedded.start()
        self.player = Player(connect(address, client_id="orchestrator", rng=random.Random(1)), root, TASKS)
        self.state, self._config, self._log = root / "state", root / "agent.toml", root / "log"
        self._config.write_text(
            f'device = "{DEVICE}"\nfleet = "{FLEET}"\nstate = "{self.state}"\n'
            f'[broker]\nurl = "mqtt://{address.host}:{address.port}"\n'
            '[energy]\nmeter = "estimate:idle_w=2,max_w=10"\n'
            f'[train]\nslots = {slots}\n[data.watch]\nclients = ["1"]\n'
        )
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "mas_edge.edge_agent.cli", "run", "--config", str(self._config)]
        with self._log.open("ab") as log:
            environment = {**os.environ, "PYTHONSAFEPATH": "1"}
            self.process = subprocess.Popen(words, stderr=log, env=environment)
        self.player.said.clear()
        self.player.until(m.Hello)

    def train(self) -> list[m.Key]:
        return [self.player.assign(task, epochs=EPOCHS, reproducible=True) for task in TASKS]

    def digests(self, keys) -> list[str]:
        return [self.player.until(m.Update, of=key).weights.digest for key in keys]

    def end(self, number: signal.Signals) -> tuple[int, float, list[psutil.Process]]:
        """The exit code, how long it took, and which of its processes are left a moment later."""
        workers = psutil.Process(self.process.pid).children(recursive=True)
        assert workers
        began_s = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(30)
        took_s = time.monotonic() - began_s
        return code, took_s, psutil.wait_procs(workers, timeout=3)[1]

    def lost_j(self) -> dict[str, float]:
        """By group, what the ledger on disk says of attempts that were given up."""
        kept = msgspec.json.decode((self.state / "account.json").read_bytes())
        found = rows(msgspec.convert(kept["ledger"], Ledger))
        return {row.group: row.attributed_energy_j for row in found if row.phase == LOST}

    def in_hand(self) -> set[str]:
        """Groups whose training the ledger on disk holds a part of."""
        path = self.state / "account.json"
        if not path.exists():
            return set()
        kept = msgspec.json.decode(path.read_bytes())
        held = {key["group"] for key in kept["keys"]}
        return held & {row.group for row in rows(msgspec.convert(kept["ledger"], Ledger))}

    def close(self) -> None:
        self.player.bus.close()
        for process in (self.process, self._broker):
            process.kill()
            process.wait()


@contextmanager
def a_site(root, **options):
    site = Site(root, **options)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digests of both tasks, trained one after the other."""
    with a_site(tmp_path_factory.mktemp("undisturbed"), slots=1) as site:
        found = []
        for task in TASKS:
            key = site.player.assign(task, epochs=EPOCHS, reproducible=True)
            found += site.digests([key])
        return found


def test_an_agent_that_is_asked_to_end_gives_up_its_training_at_once_and_repeats_it_later(
    tmp_path, undisturbed
):
    with a_site(tmp_path, slots=1) as site:
        key = site.player.assign("gravity", epochs=EPOCHS, reproducible=True)
        site.player.until(m.Progress)
        code, took_s, left = site.end(signal.SIGTERM)
        assert (code, left) == (0, [])
        assert took_s < SOON_S
        lost_j = site.lost_j()["gravity"]
        assert lost_j > 0
        site.start()
        assert site.player.assign("gravity", epochs=EPOCHS, reproducible=True) == key
        update = site.player.until(m.Update)
        assert update.weights.digest == undisturbed[0]
        billed = [row.attributed_energy_j for row in update.profile.rows if row.phase == "lost"]
        assert billed == [pytest.approx(lost_j)]


def test_an_agent_with_two_slots_that_is_killed_leaves_no_process_and_loses_nothing(tmp_path, undisturbed):
    with a_site(tmp_path, slots=2) as site:
        for key in site.train():
            site.player.until(m.Progress, of=key)
        until_s = time.monotonic() + 30
        while site.in_hand() != set(TASKS):
            assert time.monotonic() < until_s, "the ledger on disk never held both trainings"
            time.sleep(0.02)
        _, _, left = site.end(signal.SIGKILL)
        assert left == []
        site.start()
        keys = site.train()
        assert site.digests(keys) == undisturbed
        updates = [said for said in site.player.said if isinstance(said, m.Update)]
        lost = {row.group for update in updates for row in update.profile.rows if row.phase == "lost"}
        assert lost == set(TASKS)
