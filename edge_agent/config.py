"""``agent.toml``: what an operator may say to an agent. A key that is not here is an error."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mas_edge.edge_agent.caps import CapsConfig
from mas_edge.edge_agent.conditions import Conditions
from mas_edge.profiling.choice import EnergyConfig
from mas_edge.wire.link import BrokerConfig

MOST_SLOTS = 16
"""A training process takes 291 MB before it has a network."""


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[train]`` table. CUDA is used where torch finds it, and is not tested by us.

    ``threads`` of each training; None: as many as a limit of processor time feeds, one without a limit.
    ``slots`` is how many trainings run at a time, all under the one limit.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=MOST_SLOTS)] = 1


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[data.WORKLOAD]`` table: whose data this device has, and where (default: what is shipped)."""

    clients: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    root: str | None = None


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``agent.toml``. MAS_LOG goes before ``log``; Prometheus is served if ``metrics_port`` is given."""

    device: str
    fleet: str
    state: str
    data: dict[str, DataConfig]
    broker: BrokerConfig = BrokerConfig()
    train: TrainConfig = TrainConfig()
    energy: EnergyConfig = EnergyConfig()
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    metrics_host: str = "127.0.0.1"
    caps: CapsConfig = CapsConfig()
    conditions: Conditions = Conditions()
    log: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def reloaded(running: AgentConfig, read: AgentConfig) -> tuple[AgentConfig, tuple[str, ...]]:
    """The configuration to go on with after a file was read again, and what of it needs a restart."""
    safe = {"caps", "conditions", "log"}
    changed = [
        name for name in AgentConfig.__struct_fields__ if getattr(running, name) != getattr(read, name)
    ]
    now = {name: getattr(read, name) for name in changed if name in safe}
    return msgspec.structs.replace(running, **now), tuple(name for name in changed if name not in safe)
