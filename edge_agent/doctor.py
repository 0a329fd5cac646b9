"""`mas-agent doctor`: gathers the facts that decide whether this device's agent will work, and how well.

It looks at what the agent would use, by the same configuration: broker, data, sensor, caps, memory, disk,
clock; then one round of each workload is tried for some seconds (``dry_round``). What each fact means is
decided in ``findings``. An agent that runs keeps its place: a second connection of its name would throw it
out at the broker, a second training take its memory, and a host on which it works has no idle power to
measure, so those three are left out then. The limits of the
agent's unit are asked of systemd, and kept to. Nothing is changed, and only an idle power is kept.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import psutil

from mas_edge.edge_agent import dry_round, findings
from mas_edge.edge_agent.caps import CapsConfig, Fence, in_words, threads
from mas_edge.edge_agent.findings import Finding
from mas_edge.edge_agent.fit import allowed_bytes
from mas_edge.models.tasks import Source, UnknownChoice, Workload, WorkloadError, find
from mas_edge.profiling import baseline as baselines
from mas_edge.profiling import machine
from mas_edge.profiling.choice import NoMeter, choose
from mas_edge.profiling.cpu import rss_bytes
from mas_edge.profiling.meters import MeterUnavailable
from mas_edge.wire.host import ConfigError, FolderInUse, hold
from mas_edge.wire.link import address, join
from mas_edge.wire.messages import Caps, WireError, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mas_edge.edge_agent.config import AgentConfig, DataConfig
    from mas_edge.profiling.meters import Meter
    from mas_edge.wire.messages import Baseline

UNIT = "mas-agent.service"
UNIT_ON_BUS = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1/unit/mas_2dagent_2eservice",
    "org.freedesktop.systemd1.Service",
)
NO_LIMIT = (1 << 64) - 1
"""What org.freedesktop.systemd1(5) has for "infinity"."""

_N = TypeVar("_N", int, float)


def examine(config: AgentConfig, *, baseline_s: float | None) -> Iterator[Finding]:
    """Findings as they come; raises what a configuration that cannot be meant raises.

    With ``baseline_s`` the idle power is measured for so long, and kept where the agent finds it.
    """
    check_name(config.fleet, "fleet")
    check_name(config.device)
    with ExitStack() as stack:
        runs = _runs(config, stack)
        if runs:
            text = f"runs on {config.state}: broker, idle power and rounds were left to it"
            yield Finding(about="agent", level="ok", text=text, remedy="stop it to have them looked at too")
        else:
            yield _broker(config)
        trains = find_spec("torch") is not None
        yield findings.abilities(trains=trains, infers=find_spec("onnxruntime") is not None)
        limits = _limits(config)
        yield findings.caps(limits, in_words(limits))
        yield findings.memory(psutil.virtual_memory().available, limits.memory_bytes)
        if config.train.slots > 1:
            yield findings.slots(config.train.slots, limits.memory_bytes, _threads(config, limits))
        yield findings.disk(psutil.disk_usage(config.state).free, config.state)
        yield findings.clock(synchronised=_synchronised())
        able = {}
        for name, data in config.data.items():
            found, workload, source = _data(name, data)
            yield found
            if workload and found.level != "error":
                able[workload.name] = workload, source
        yield from _energy(config, able if trains and not runs else {}, limits, None if runs else baseline_s)


def _runs(config: AgentConfig, stack: ExitStack) -> bool:
    """Whether an agent works in the state directory; if not, none can until the stack is left.

    Raises ConfigError for a directory that cannot be used.
    """
    try:
        stack.enter_context(hold(Path(config.state)))
    except FolderInUse:
        return True
    except OSError as error:
        raise ConfigError(
            f"state = {config.state!r}: {error.strerror}; run this as the agent's user: runuser -u mas-agent"
        ) from error
    return False


def _broker(config: AgentConfig) -> Finding:
    jitter = random.Random()  # noqa: S311 - of reconnections
    began_s = time.monotonic()
    try:
        bus = join(config.broker, config.device, jitter)
    except WireError as error:
        text, _, remedy = str(error).rpartition("; ")
        return Finding(about="broker", level="error", text=text or remedy, remedy=remedy if text else None)
    took_s = time.monotonic() - began_s
    with closing(bus):
        text = f"{address(config.broker)} let {config.device} in after {1000 * took_s:.0f} ms"
        return Finding(about="broker", level="ok", text=text)


def _data(name: str, data: DataConfig) -> tuple[Finding, Workload | None, Source]:
    source = Source(clients=data.clients, root=Path(data.root) if data.root else None)
    try:
        workload = find(name)
        if strange := [client for client in data.clients if client not in workload.clients]:
            raise UnknownChoice(f"no client {strange[0]!r}; there are {', '.join(workload.clients)}")
        share = workload.presets[0].held_out_share if workload.presets else 0.2
        train, held_out = (workload.dataset(source, view, share) for view in ("train", "held-out"))
    except WorkloadError as error:
        remedy = f"correct [data.{name}], or bring the data"
        return Finding(about=f"data {name}", level="error", text=str(error), remedy=remedy), None, source
    tasks = [task.name for task in workload.tasks if task.default]
    return findings.data(name, len(train), len(held_out), train.labels, tasks), workload, source


def _energy(
    config: AgentConfig, able: dict[str, tuple[Workload, Source]], limits: Caps, baseline_s: float | None
) -> Iterator[Finding]:
    """The sensor, its baseline, and a round of each workload."""
    meter: Meter | None = None
    try:
        meter, refused = choose(config.energy)
    except NoMeter as error:
        remedy = 'mas-profile list says what this machine has; meter = "auto" takes the best'
        yield Finding(about="sensor", level="error", text=str(error), remedy=remedy)
    else:
        yield findings.sensor(meter.sensor, refused)
    with ExitStack() as stack:
        idle = None
        if meter:
            stack.callback(meter.close)
            idle, found = _idle(meter, Path(config.state) / "baseline.json", baseline_s)
            yield found
        for workload, source in able.values():
            yield _round(config, workload, source, meter, idle, limits)


def _idle(meter: Meter, path: Path, baseline_s: float | None) -> tuple[Baseline | None, Finding]:
    """The idle power that the agent will go by; measured anew, and kept, if that is asked for.

    What the meter or its user states goes before what was measured, as it does for the agent.
    """
    if meter.idle:
        stated = baselines.stated(meter.idle)
        return stated, findings.baseline(stated)
    try:
        if baseline_s:
            measured = baselines.measure(meter, baseline_s)
            with suppress(baselines.BaselineRefused):  # a damaged one is replaced
                earlier = baselines.load(path)
                if earlier and not baselines.mismatch(earlier, meter.sensor, machine.look()):
                    measured = baselines.after(earlier, measured)
            baselines.store(path, measured)
            return measured, findings.baseline(measured)
        found = baselines.load(path)
    except (baselines.BaselineRefused, MeterUnavailable) as error:
        return None, Finding(about="baseline", level="error", text=str(error), remedy=findings.MEASURE)
    wrong = baselines.mismatch(found, meter.sensor, machine.look()) if found else None
    return None if wrong else found, findings.baseline(found, wrong)


def _round(
    config: AgentConfig,
    workload: Workload,
    source: Source,
    meter: Meter | None,
    idle: Baseline | None,
    limits: Caps,
) -> Finding:
    about = f"round {workload.name}"
    if not workload.presets:
        text = "the workload has no preset to try a round with: seconds and joules are unknown"
        return Finding(about=about, level="warning", text=text)
    with tempfile.TemporaryDirectory(prefix="mas-doctor-", dir=config.state) as folder:
        try:
            cost = dry_round.cost(
                config,
                workload,
                source,
                meter=meter,
                idle=idle,
                memory_bytes=allowed_bytes(limits.memory_bytes, rss_bytes(os.getpid()) or 0, None),
                threads=_threads(config, limits),
                folder=Path(folder),
            )
        except (dry_round.DryRoundFailed, MeterUnavailable) as error:
            remedy = "what the agent would say of it: journalctl -u mas-agent"
            return Finding(about=about, level="error", text=str(error), remedy=remedy)
    return findings.round_cost(cost, meter.sensor.method if meter else "")


def _threads(config: AgentConfig, limits: Caps) -> int:
    return config.train.threads or threads(limits, psutil.cpu_count() or 1, config.train.slots)


# --- what systemd knows ---------------------------------------------------------------------------


def _limits(config: AgentConfig) -> Caps:
    """The tighter of what the configuration and the agent's unit allow; we keep to it from now on.

    What the unit says is the kernel's to hold, whoever we are.
    """
    memory, quota_us = _unit("MemoryMax"), _unit("CPUQuotaPerSecUSec")
    cpus = None if quota_us is None else quota_us / 1e6
    asked = config.caps
    here = Fence().set(
        CapsConfig(memory_bytes=_least(asked.memory_bytes, memory), cpus=_least(asked.cpus, cpus))
    )
    if memory is not None and here.memory_bytes == memory:
        source = f"MemoryMax of {UNIT}"
        here = msgspec.structs.replace(here, memory_source=source, memory_enforced=True)
    if cpus is not None and here.cpus == cpus:
        here = msgspec.structs.replace(here, cpus_source=f"CPUQuota of {UNIT}", cpus_enforced=True)
    return here


def _least(first: _N | None, second: _N | None) -> _N | None:
    return min((value for value in (first, second) if value is not None), default=None)


def _unit(name: str) -> int | None:
    """A property of the agent's unit; None without the unit, systemd, or a limit."""
    said = _output("busctl", "--json=short", "get-property", *UNIT_ON_BUS, name)
    try:
        value = msgspec.json.decode(said, type=_Property).data
    except msgspec.MsgspecError:
        return None
    return None if value >= NO_LIMIT else value


class _Property(msgspec.Struct):
    data: int


def _synchronised() -> bool | None:
    said = _output("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    return {"yes": True, "no": False}.get(said)


def _output(*command: str) -> str:
    """What it printed; nothing if it is not there or failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
