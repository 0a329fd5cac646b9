"""The orchestrator as a process: its configuration, and its loop until it is told to stop.

``mas serve`` and the demo start it. The state directory holds the store (``store.db``) and the weights
(``blobs``); everything else follows from them, so that a start after a crash is a start like any other.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.job import Event
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.choice import EnergyConfig, choose
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.host import hold, sd_notify
from mas_edge.wire.link import BrokerConfig, join
from mas_edge.wire.messages import check_name

if TYPE_CHECKING:
    from mas_edge.wire.host import StopSignal


class OrchestratorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``orchestrator.toml``."""

    fleet: str
    state: str
    broker: BrokerConfig = BrokerConfig()
    energy: EnergyConfig = EnergyConfig()


def open_store(state: Path) -> Store[Event]:
    """The store of a state directory; made if there is none."""
    return Store(state / "store.db", Event)


def read_store(state: Path) -> Store[Event]:
    """The same, to look into while the orchestrator runs."""
    return Store.reader(state / "store.db", Event)


def serve(config: OrchestratorConfig, stop: StopSignal, *, until_done: bool) -> tuple[str, ...]:
    """Run until stopped, or until all jobs are over; the reasons of those that failed.

    Raises what a wrong configuration, an unreachable broker or a refused store raises, before any work.
    """
    check_name(config.fleet, "fleet")
    with hold(Path(config.state)):
        return _serve(config, stop, until_done=until_done)


def _serve(config: OrchestratorConfig, stop: StopSignal, *, until_done: bool) -> tuple[str, ...]:
    state = Path(config.state)
    store = open_store(state)
    meter, _refused = choose(config.energy)
    rng = random.Random()  # noqa: S311 - jitter of repetitions only; nothing that is reproducible uses it
    bus = join(config.broker, f"orchestrator-{config.fleet}", rng)
    blobs = BlobStore(state / "blobs")
    workshop = Workshop(blobs, state, meter)
    server = Server(config.fleet, bus, store, blobs, workshop, rng=rng)
    try:
        sd_notify("READY=1")
        while not stop.is_set() and not (until_done and all(job.over for job in server.jobs)):
            server.turn(server.wait_s())
        return tuple(job.reason for job in server.jobs if job.phase == "failed")
    finally:
        workshop.close()
        bus.close()
        store.close()
        meter.close()
