"""The same job on two systems: ours and Flower, each as the processes that its user would start.

A ``Site`` has a server and some nodes, which reach it through a counting proxy each. What an arm submits is
``runs``: one run of three tasks, or three runs of one task. Both start from the same weights and train by the
same code (``flower/peer/client.py``).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from bench.peers.processes import Processes, await_port
from bench.peers.proxy import Proxy
from mas_edge.models import weights
from mas_edge.wire.host import free_port
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
TASKS = ("exercise", "gravity", "jerk")
JOB = "overhead"
TRAINING = Training(
    workload="watch", network="small", rounds=2, epochs=1, batch=32, lr=0.05, seed=1, reproducible=True
)


@dataclass(frozen=True)
class Work:
    """What is trained: the groups of tasks, by whom, for how many rounds."""

    groups: tuple[tuple[str, ...], ...] = (TASKS,)
    nodes: int = 2
    rounds: int = TRAINING.rounds
    reproducible: bool = True

    @property
    def training(self) -> Training:
        """The hyper-parameters."""
        return msgspec.structs.replace(TRAINING, rounds=self.rounds, reproducible=self.reproducible)


@dataclass(frozen=True)
class Said:
    """What a system's own command says of the job: that it goes on, that it is over, that it ended well."""

    words: str
    goes_on: bool = False
    over: bool = False
    done: bool = False


@dataclass
class Links:
    """The proxies of the nodes; ``shape`` gives a node's proxy its options."""

    shape: Callable[[str], dict[str, object]] = field(default=lambda _node: {})
    proxies: dict[str, Proxy] = field(default_factory=dict)

    def open(self, node: str, target_port: int) -> int:
        """The port for this node."""
        self.proxies[node] = Proxy(target_port, **self.shape(node))  # type: ignore[arg-type]
        return self.proxies[node].port

    @property
    def mb(self) -> float:
        """What passed, both ways, in MB."""
        return sum(each.up_bytes + each.down_bytes for each in self.proxies.values()) / 1e6

    def close(self) -> None:
        """Cut them."""
        for each in self.proxies.values():
            each.close()


class Site(Protocol):
    """A system that runs the work."""

    processes: Processes
    links: Links

    def begin(self) -> None:
        """Start everything and submit the work."""

    def over(self) -> bool:
        """Whether the work is done, as who submitted it sees without asking."""

    def said(self) -> Said:
        """What the system's own command says of it now."""

    def losses(self) -> dict[str, float]:
        """Mean losses by what they are of, when the work is done."""

    def round_s(self) -> float | None:
        """Seconds of the first round, None while it is not over."""

    def close(self) -> None:
        """End everything."""


SERVER = "server"
"""The process that is killed when the orchestrator is."""


def node_name(number: int) -> str:
    """The name of a node, from 1 on: its process, and the device as the job knows it."""
    return f"edge-{number}"


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """A command line of this interpreter."""
    return (sys.executable, "-m", module, *arguments)


def first_weights(folder: Path, groups: tuple[tuple[str, ...], ...]) -> dict[str, Path]:
    """A file per group with the weights that our orchestrator would start it from."""
    whole = folder / "first.safetensors"
    request = {"kind": "init", "workload": TRAINING.workload, "network": TRAINING.network, "tasks": TASKS}
    text = json.dumps({**request, "seed": TRAINING.seed, "out": str(whole)})
    made = Processes(folder).ask("sh", "-c", f"echo '{text}' | {sys.executable} -m mas_edge.models.job")
    if made.returncode:
        raise SystemExit(f"no first weights: {made.stdout}{made.stderr}")
    files = {}
    for group in groups:
        files["+".join(group)] = path = folder / f"first-{'+'.join(group)}.safetensors"
        weights.carve(whole, group, path)
    return files


def listening_port(processes: Processes, name: str, command: Callable[[int], tuple[str, ...]]) -> int:
    """Start a server on a free port and wait until it listens."""
    port = free_port()
    processes.start(name, *command(port))
    await_port(port)
    return port
