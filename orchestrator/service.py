"""The orchestrator as a process: its configuration, and its loop until it is told to stop.

``mas serve`` and the demo start it. The state directory holds the store (``store.db``) and the weights
(``blobs``); everything else follows from them, so that a start after a crash is a start like any other. One
loop decides: between two turns of the server it carries out what came over the control socket and begins the
jobs that are due. Page and questions are answered in threads of their own, from readers of the store.
"""

from __future__ import annotations

import functools
import os
import random
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.job import Event
from mas_edge.orchestrator.launching.control import Control
from mas_edge.orchestrator.launching.desk import Desk
from mas_edge.orchestrator.launching.looks import Looker
from mas_edge.orchestrator.own_broker import OwnBroker
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.storage.shelf import Shelf, StorageConfig
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.views.web import PageConfig, serve_page
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.choice import EnergyConfig, choose
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.host import hold
from mas_edge.wire.link import BrokerConfig, address, join
from mas_edge.wire.messages import check_name
from mas_edge.wire.systemd import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mas_edge.orchestrator.job import Job
    from mas_edge.wire.host import StopSignal


class BrokerTable(BrokerConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[broker]`` table; ``embedded``: we start a broker of our own at that address, on loopback."""

    embedded: bool = False


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[control]`` table. ``socket`` None: in the unit's runtime directory, or else with the state."""

    socket: str | None = None


class OrchestratorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``orchestrator.toml``; without a ``[page]`` there is none."""

    fleet: str
    state: str
    broker: BrokerTable = BrokerTable()
    energy: EnergyConfig = EnergyConfig()
    storage: StorageConfig = StorageConfig()
    control: ControlConfig = ControlConfig()
    page: PageConfig | None = None


def socket_place(config: OrchestratorConfig, environment: Mapping[str, str] = os.environ) -> Path:
    """The control socket: as configured, or where systemd says (RuntimeDirectory=), or with the state."""
    if config.control.socket is not None:
        return Path(config.control.socket)
    folder = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(folder or config.state) / "control.sock"


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
    if not config.broker.embedded:  # which says for itself where it may listen
        address(config.broker).check_private(insecure=config.broker.insecure)
    with hold(Path(config.state)):
        return _serve(config, stop, until_done=until_done)


def _serve(config: OrchestratorConfig, stop: StopSignal, *, until_done: bool) -> tuple[str, ...]:
    state, life = Path(config.state), Supervisor()
    with ExitStack() as opened:
        store = opened.enter_context(closing(open_store(state)))
        blobs = BlobStore(state / "blobs")
        shelf = Shelf(blobs, config.storage)
        looker = functools.partial(Looker, state, lambda: shelf.full)
        control = opened.enter_context(Control(socket_place(config), looker))
        if config.page is not None:
            opened.enter_context(
                serve_page(config.page, functools.partial(read_store, state), lambda: shelf.full)
            )
        own = opened.enter_context(OwnBroker(address(config.broker))) if config.broker.embedded else None
        server = opened.enter_context(_server(config, store, blobs, shelf))
        desk = Desk(server, store)
        opened.callback(life.stopping)
        life.ready()
        while not stop.is_set():
            server.turn(server.wait_s())
            for each in control.orders():
                each.answer.set_result(desk.carry_out(each.order))
            desk.turn()
            if own is not None:
                own.tend(time.monotonic())
            life.turn(shelf.full or _in_words(server.jobs), time.monotonic(), well=True)
            if until_done and not desk.waits and all(job.over for job in server.jobs):
                break
        return tuple(job.reason for job in server.jobs if job.phase == "failed")


@contextmanager
def _server(
    config: OrchestratorConfig, store: Store[Event], blobs: BlobStore, shelf: Shelf
) -> Iterator[Server]:
    """The server on its bus, with what it works with; all is given back at the end."""
    state = Path(config.state)
    meter, _refused = choose(config.energy)
    with closing(meter), ExitStack() as opened:
        rng = random.Random()  # noqa: S311 - jitter of repetitions only; nothing that is reproducible uses it
        bus = opened.enter_context(closing(join(config.broker, f"orchestrator-{config.fleet}", rng)))
        workshop = opened.enter_context(closing(Workshop(blobs, state, meter)))
        yield Server(config.fleet, bus, store, blobs, workshop, rng=rng, shelf=shelf)


def _in_words(jobs: tuple[Job, ...]) -> str:
    """What systemd shows."""
    going = [job.spec.name for job in jobs if not job.over and job.phase != "stopped"]
    return f"at {', '.join(going)}" if going else "no job runs"
