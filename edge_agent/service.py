"""The agent as a process: its configuration, and its loop until it is told to stop.

``mas-agent run`` starts it. It opens the meter, offers the workloads that its configuration has data for,
joins the bus and turns. A broker that is away when the agent starts is an error after ``[broker] wait_s``
(a service manager starts it again); one that goes away later is no event.
"""

from __future__ import annotations

import contextlib
import importlib.metadata as md
import os
import platform
import random
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mas_edge.edge_agent.account import Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.config import AgentConfig, DataConfig
from mas_edge.edge_agent.metrics import exposed
from mas_edge.edge_agent.spool import Spool
from mas_edge.models.tasks import Source, UnknownChoice, find
from mas_edge.profiling.choice import choose
from mas_edge.wire import messages as m
from mas_edge.wire.host import boot_id, hold, sd_notify
from mas_edge.wire.link import join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mas_edge.profiling.ledger import Ledger
    from mas_edge.profiling.meters import Meter
    from mas_edge.wire.host import StopSignal


def serve(config: AgentConfig, stop: StopSignal) -> None:
    """Run until stopped.

    Raises what a wrong configuration or an unreachable broker raises, before any work.
    """
    m.check_name(config.fleet, "fleet")
    m.check_name(config.device)
    sources = {name: _source(name, data) for name, data in config.data.items()}
    with hold(Path(config.state)):
        _serve(config, sources, stop)


def _serve(config: AgentConfig, sources: Mapping[str, Source], stop: StopSignal) -> None:
    meter, refused = choose(config.energy)
    metrics = exposed(meter.sensor, config.metrics_host, config.metrics_port)
    with contextlib.closing(meter), metrics as watch:
        agent = _agent(config, sources, meter, refused, watch)
        try:
            sd_notify("READY=1")
            while not stop.is_set():
                agent.turn(agent.wait_s())
        finally:
            agent.close()


def _agent(
    config: AgentConfig,
    sources: Mapping[str, Source],
    meter: Meter,
    refused: tuple[m.Refusal, ...],
    watch: Callable[[Ledger], None] | None,
) -> Agent:
    state = Path(config.state)
    about = _about(config, sources, meter, refused)
    rng = random.Random()  # noqa: S311 - jitter of repetitions only; training has its own seeds
    offline = m.encode(m.Alive(online=False, boot_id=about.boot_id))
    bus = join(config.broker, config.device, rng, (m.alive_topic(config.fleet, config.device), offline))
    spooled = tuple(answer.key for answer in Spool(state / "spool").answers())
    account = Account(state / "account.json", meter, bus, spooled, watch, refused)
    return Agent(about, config.fleet, bus, state, account, sources, rng=rng, train=config.train)


def _source(name: str, data: DataConfig) -> Source:
    workload = find(name)
    for client in data.clients:
        if client not in workload.clients:
            raise UnknownChoice(
                f"[data.{name}] clients: no client {client!r}; there are {', '.join(workload.clients)}"
            )
    return Source(clients=data.clients, root=Path(data.root) if data.root else None)


def _about(
    config: AgentConfig, sources: Mapping[str, Source], meter: Meter, refused: tuple[m.Refusal, ...]
) -> m.Hello:
    offers = tuple(
        m.Offer(workload=name, tasks=tuple(t.name for t in find(name).tasks), clients=source.clients)
        for name, source in sources.items()
    )
    return m.Hello(
        device=config.device,
        boot_id=f"{boot_id()}/{os.getpid()}",
        versions=m.Versions(
            mas_edge=_version("mas-edge") or "0",
            python=platform.python_version(),
            torch=_version("torch"),
            numpy=_version("numpy"),
        ),
        workloads=offers,
        cpus=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        sensor=meter.sensor,
        refused=refused,
    )


def _version(package: str) -> str | None:
    try:
        return md.version(package)
    except md.PackageNotFoundError:
        return None
