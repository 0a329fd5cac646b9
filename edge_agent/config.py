"""``agent.toml``: what an operator may say to an agent. A key that is not here is an error."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mas_edge.profiling.choice import EnergyConfig
from mas_edge.wire.link import BrokerConfig


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[train]`` table. CUDA is used where torch finds it, and is not tested by us."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``[data.WORKLOAD]`` table: whose data this device has, and where (default: what is shipped)."""

    clients: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    root: str | None = None


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``agent.toml``. Metrics for Prometheus are shown only if ``metrics_port`` is given."""

    device: str
    fleet: str
    state: str
    data: dict[str, DataConfig]
    broker: BrokerConfig = BrokerConfig()
    train: TrainConfig = TrainConfig()
    energy: EnergyConfig = EnergyConfig()
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    metrics_host: str = "127.0.0.1"
