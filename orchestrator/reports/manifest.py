"""What a run was made with: enough to make it again and to judge its joules.

Written beside every report: the plan with its seed, versions, the machine, and which sensors were used
or refused and why.
"""

from __future__ import annotations

import importlib.metadata as md
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.wire.messages import Hello, Refusal, Sensor, Versions

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = ("mas-edge", "torch", "numpy", "msgspec", "safetensors", "paho-mqtt", "amqtt")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the run took place; None where the system does not say."""

    system: str
    processor: str | None
    cores: int | None
    memory_bytes: int
    python: str


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as it described itself."""

    clients: tuple[str, ...]
    versions: Versions
    sensor: Sensor | None
    refused: tuple[Refusal, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``; ``command`` is what was typed, as far as it is known."""

    command: tuple[str, ...]
    seed: int
    workload: str
    plan: DemoPlan
    versions: dict[str, str]
    machine: Machine
    devices: dict[str, Device]


def manifest(plan: DemoPlan, hellos: Mapping[str, Hello], command: tuple[str, ...] = ()) -> Manifest:
    """The manifest of a run whose agents said these things of themselves."""
    training = plan.spec.training
    devices = {
        name: Device(clients=clients, versions=hello.versions, sensor=hello.sensor, refused=hello.refused)
        for name, clients in plan.clients.items()
        if (hello := hellos.get(name)) is not None
    }
    return Manifest(
        command=command,
        seed=training.seed,
        workload=training.workload,
        plan=plan,
        versions={name: version for name in PACKAGES if (version := _version(name))},
        machine=machine(),
        devices=devices,
    )


def _version(package: str) -> str | None:
    try:
        return md.version(package)
    except md.PackageNotFoundError:
        return None


def machine(root: Path = Path("/")) -> Machine:
    """What is known of the machine that this runs on."""
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(root),
        cores=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        python=platform.python_version(),
    )


def _processor(root: Path) -> str | None:
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
