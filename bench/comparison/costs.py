"""What a group's round costs beside a round of all tasks: CPU time, measured in turn on this machine.

A *turn* is what a device does in a round: it evaluates what it received, then trains, measuring affinity or
not. The first device's turn of a group and that of all tasks, unmeasured, are timed one right after the
other several times (CPU time of the process, one thread), and the median of their ratio is kept: other work
slows both alike. It stands for the energy of (A): what differs between policies is computing, and no sensor
was at hand. It leaves out what a fleet spends on messages, merging, starting and idling, which the runs of
real processes (``fleet``) count.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from comparison.data import place
from comparison.hands import turn
from comparison.points import Point, clients, spec
from comparison.trained import Turns
from mas_edge.edge_agent import train
from mas_edge.models import net as nets
from mas_edge.models.tasks import Source, find
from mas_edge.orchestrator.events import Ask
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import BlobRef, Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mas_edge.models.tasks import Dataset, View

REPEATS = 11
"""Pairs of turns whose ratios' median counts."""

Kind = tuple[tuple[str, ...], str]
"""Tasks of a group, and the method by which affinity is measured ("": it is not)."""

NOWHERE = BlobRef(digest="0" * 64, size_bytes=0, chunk_bytes=1)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of a group's turns and of all tasks' turns beside them, pair by pair."""

    tasks: tuple[str, ...]
    measured: str
    cpu_s: tuple[float, ...]
    all_cpu_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of a round of all tasks."""
        return median(own / all_ for own, all_ in zip(self.cpu_s, self.all_cpu_s, strict=True))


def measure(folder: Path, point: Point, wanted: Iterable[Kind]) -> dict[Kind, float]:
    """The ratio of each kind of turn; what the folder lacks of them is timed first."""
    path = folder / f"{point.name}-costs.json"
    found = msgspec.json.decode(path.read_bytes(), type=list[Cost]) if path.exists() else []
    unit = (spec(point, point.arms[0], seed=1).tasks, "")
    known = {unit} | {(cost.tasks, cost.measured) for cost in found}
    missing = [kind for kind in dict.fromkeys(wanted) if kind not in known]
    if missing:
        timed = _Timed(point, place(folder, point))
        for kind in missing:
            found.append(timed.cost(*kind))
            write_atomic(path, msgspec.json.encode(found))
    return {(cost.tasks, cost.measured): cost.ratio for cost in found} | {unit: 1.0}


def energy(turns: Iterable[Turns], ratios: Mapping[Kind, float], devices: int) -> float:
    """What these turns cost, in rounds of all tasks on all devices."""
    return sum(each.count * ratios[each.tasks, each.measured] for each in turns) / devices


class _Timed:
    """The first device of a point."""

    def __init__(self, point: Point, root: Path | None) -> None:
        train.use_device("cpu", threads=1)
        self._spec = spec(point, point.arms[0], seed=1)
        self._device, own = next(iter(clients(point).items()))
        workload, share = find(point.workload), self._spec.training.held_out_share
        self._data: dict[View, Dataset] = {
            view: workload.dataset(Source(own, root), view, share) for view in ("train", "held-out")
        }

    def cost(self, tasks: tuple[str, ...], measured: str) -> Cost:
        self._cpu_s(tasks, measured)  # what only a first time takes
        pairs = [(self._cpu_s(tasks, measured), self._cpu_s(self._spec.tasks, "")) for _ in range(REPEATS)]
        own, whole = zip(*pairs, strict=True)
        return Cost(tasks=tasks, measured=measured, cpu_s=own, all_cpu_s=whole)

    def _cpu_s(self, tasks: tuple[str, ...], measured: str) -> float:
        training = self._spec.training
        if measured:
            training = msgspec.structs.replace(training, affinity=measured)
        net = nets.build(find(training.workload), training.network, tasks, training.seed)
        key = Key(job=self._spec.name, group="+".join(tasks), round=0, attempt=0, device=self._device)
        ask = Ask(key=key, tasks=tasks, weights=NOWHERE, train=True, evaluate=True, measure=bool(measured))
        began_s = time.process_time()
        turn(net, training, ask, self._data.__getitem__)
        return time.process_time() - began_s
