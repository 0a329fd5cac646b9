"""The agent as a process: its configuration, and its loop until it is told to stop.

``mas-agent run`` starts it. It keeps to its caps, opens the meter, offers the workloads that it has data
for, joins the bus and turns; systemd hears what it does, and that it gets on. A broker that is away when the
agent starts is an error after ``[broker] wait_s`` (a service manager starts it again); one that goes away
later is no event. SIGHUP reads the configuration again: a bad one leaves the old in force.
"""

from __future__ import annotations

import contextlib
import importlib.metadata as md
import logging
import os
import platform
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from mas_edge.edge_agent.account import FULL_DISK, Account
from mas_edge.edge_agent.agent import Agent
from mas_edge.edge_agent.caps import Fence, in_words
from mas_edge.edge_agent.config import AgentConfig, DataConfig, reloaded
from mas_edge.edge_agent.metrics import exposed
from mas_edge.edge_agent.spool import Spool
from mas_edge.models.tasks import Source, UnknownChoice, find
from mas_edge.profiling.choice import choose
from mas_edge.wire import messages as m
from mas_edge.wire.host import ConfigError, boot_id, hold, load_config, set_log_level
from mas_edge.wire.link import join
from mas_edge.wire.room import Room
from mas_edge.wire.systemd import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mas_edge.profiling.meters import Meter
    from mas_edge.wire.host import HangUp, StopSignal

log = logging.getLogger(__name__)


def serve(path: Path, stop: StopSignal, hangup: HangUp) -> None:
    """Run as this file says until stopped.

    Raises what a wrong configuration or an unreachable broker raises, before any work.
    """
    config = load_config(path, AgentConfig)
    set_log_level(config.log)
    m.check_name(config.fleet, "fleet")
    m.check_name(config.device)
    sources = {name: _source(name, data) for name, data in config.data.items()}
    with hold(Path(config.state)):
        fence, life = Fence(), Supervisor()
        with _agent(config, sources, fence) as agent, contextlib.ExitStack() as end:
            end.callback(life.stopping)
            life.ready()
            while not stop.is_set():
                agent.turn(agent.wait_s())
                life.turn(agent.status, time.monotonic(), well=not agent.stuck)
                if hangup.taken():
                    life.reloading(time.monotonic())
                    config = _reload(path, config, agent, fence)
                    life.ready()


@contextlib.contextmanager
def _agent(config: AgentConfig, sources: Mapping[str, Source], fence: Fence) -> Iterator[Agent]:
    """The agent with its meter and, if asked for, its metrics; all are given back at the end."""
    state = Path(config.state)
    meter, refused = choose(config.energy)
    metrics = exposed(meter.sensor, config.metrics_host, config.metrics_port)
    with contextlib.closing(meter), metrics as watch:
        caps = fence.set(config.caps)
        log.info("%s", in_words(caps))
        about = msgspec.structs.replace(_about(config, sources, meter, refused), caps=caps)
        rng = random.Random()  # noqa: S311 - jitter of repetitions only; training has its own seeds
        offline = m.encode(m.Alive(online=False, boot_id=about.boot_id))
        bus = join(config.broker, config.device, rng, (m.alive_topic(config.fleet, config.device), offline))
        room = Room(state, FULL_DISK)
        spooled = tuple(answer.key for answer in Spool(state / "spool", room).answers())
        path, slots = state / "account.json", config.train.slots
        account = Account(path, meter, bus, spooled, watch, refused, room=room, slots=slots)
        agent = Agent(
            about,
            config.fleet,
            bus,
            state,
            account,
            sources,
            rng=rng,
            train=config.train,
            conditions=config.conditions,
            fence=fence,
        )
        try:
            yield agent
        finally:
            agent.close()


def _reload(path: Path, running: AgentConfig, agent: Agent, fence: Fence) -> AgentConfig:
    """The configuration after the file was read again; what is safe to change is in force."""
    try:
        config, later = reloaded(running, load_config(path, AgentConfig))
    except ConfigError as error:
        log.warning("the configuration stays as it was: %s", error)
        return running
    set_log_level(config.log)
    caps = fence.set(config.caps)
    agent.reconfigure(config.conditions, caps)
    log.info("configuration read again; %s", in_words(caps))
    if later:
        log.warning("changed with the next start only: %s", ", ".join(later))
    return config


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
        slots=config.train.slots,
    )


def _version(package: str) -> str | None:
    try:
        return md.version(package)
    except md.PackageNotFoundError:
        return None
