"""A federation in one process: the product's own training, merging and judging, without a broker or daemons.

What a fleet does between two events is done here in a row: every device's ``local_round`` from the same
weights, then ``aggregate.merge``, and a held-out evaluation where one is asked for. Seeds, schedule, names
of groups and files are those of a job, so that the final weights have the digests of the same job on a fleet
(tests/bench/test_comparison_hands.py). It stands in for the machinery where hundreds of trainings are
compared; energy and traffic are not its business. CPU time is the process's (``time.process_time``), which
other work on the machine disturbs little.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.edge_agent import train
from mas_edge.models import net as nets
from mas_edge.models import weights
from mas_edge.models.evaluate import evaluate
from mas_edge.models.job import EVALUATION_BATCH
from mas_edge.models.tasks import Source, find
from mas_edge.orchestrator import aggregate
from mas_edge.orchestrator.stages import group_name
from mas_edge.wire.messages import AffinitySums, Key, Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Batch, Dataset, View
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import Training

    Group = tuple[str, ...]
    Losses = dict[str, tuple[float, float]]
    """By task the mean loss, and that of the constant predictor on the same examples."""


@dataclass(frozen=True)
class Round:
    """A finished round: its merged weights, which are there until the next one is asked for.

    ``measured`` are the affinities in the devices' order, ``cpu_s`` is what training took on all devices.
    """

    number: int
    weights: Path
    measured: tuple[AffinitySums, ...]
    cpu_s: float


class Lab:
    """A job's devices and its orchestrator; files go to folders of their own below ``folder``."""

    def __init__(
        self,
        spec: JobSpec,
        clients: Mapping[str, tuple[str, ...]],
        folder: Path,
        *,
        root: Path | None = None,
    ) -> None:
        train.use_device("cpu", threads=1)
        self._spec, self._folder, self._root = spec, folder, root
        self._clients = {device: clients[device] for device in spec.devices}
        self._workload = find(spec.training.workload)
        self._data: dict[tuple[tuple[str, ...], View], Dataset] = {}

    def begin(self) -> Path:
        """The job's first weights, of all tasks."""
        out = self._new("first") / "first.safetensors"
        training = self._spec.training
        fresh = nets.build(self._workload, training.network, self._spec.tasks, training.seed)
        weights.save(out, nets.state(fresh))
        return out

    def carve(self, source: Path, tasks: Group) -> Path:
        """What a group starts from."""
        out = self._new("carved") / "carved.safetensors"
        weights.carve(source, tasks, out)
        return out

    def run(
        self,
        tasks: Group,
        source: Path,
        rounds: Iterable[int],
        *,
        measure: bool = False,
        training: Training | None = None,
    ) -> Iterator[Round]:
        """Train a group through these rounds, one at a time; ``training`` None is the job's."""
        folder, here = self._new("run"), source
        for number in rounds:
            done = self._round(folder, tasks, here, number, training or self._spec.training, measure=measure)
            if here != source:
                here.unlink()
            here = done.weights
            yield done

    def held_out(self, tasks: Group, source: Path) -> Losses:
        """Losses on the held-out examples of all devices together, as each evaluates what it receives."""
        net = self._net(tasks, source)
        chosen, batch = self._workload.choose(tasks), 4 * self._spec.training.batch
        parts = [self._dataset(clients, "held-out") for clients in self._clients.values()]
        return _means(evaluate(net, part, chosen, batch) for part in parts)

    def unseen(self, tasks: Group, source: Path) -> Losses:
        """Losses on the clients that nobody trains on."""
        data, net = self._dataset(self._spec.unseen, "all"), self._net(tasks, source)
        return _means([evaluate(net, data, self._workload.choose(tasks), EVALUATION_BATCH)])

    def steps_cpu_s(self, tasks: Group, source: Path, steps: int) -> float:
        """CPU seconds of so many steps of a group on the first device's data, measuring nothing."""
        device, clients = next(iter(self._clients.items()))
        training, net = self._spec.training, self._net(tasks, source)
        some = _First(self._dataset(clients, "train"), steps * training.batch)
        began_s = time.process_time()
        self._train(net, some, tasks, training, self._key(tasks, 0, device), measure=False)
        return time.process_time() - began_s

    def _round(
        self, folder: Path, tasks: Group, source: Path, number: int, training: Training, *, measure: bool
    ) -> Round:
        contributions, measured, began_s = [], [], time.process_time()
        for device, clients in self._clients.items():
            net = self._net(tasks, source)
            data, key = self._dataset(clients, "train"), self._key(tasks, number, device)
            trained = self._train(net, data, tasks, training, key, measure=measure)
            path = folder / f"{device}.safetensors"
            weights.save(path, nets.state(net))
            counts = {score.task: score.count for score in trained.losses}
            contributions.append(aggregate.Contribution(device, path, trained.examples, counts))
            measured += [trained.affinity] if trained.affinity else []
        cpu_s = time.process_time() - began_s
        out = folder / f"round-{number}.safetensors"
        aggregate.merge(contributions, out, base=source)
        return Round(number, out, tuple(measured), cpu_s)

    def _train(
        self,
        net: nets.MultiTaskNet,
        data: Dataset,
        tasks: Group,
        training: Training,
        key: Key,
        *,
        measure: bool,
    ) -> train.Trained:
        return train.local_round(
            net,
            data,
            tasks=self._workload.choose(tasks),
            training=training,
            key=key,
            measure=measure,
            enter=lambda _: None,
            stop=lambda: False,
            beat=lambda *_: None,
        )

    def _key(self, tasks: Group, number: int, device: str) -> Key:
        return Key(job=self._spec.name, group=group_name(tasks), round=number, attempt=0, device=device)

    def _net(self, tasks: Group, source: Path) -> nets.MultiTaskNet:
        net = nets.build(self._workload, self._spec.training.network, tasks, seed=0)
        nets.load(net, weights.load(source))
        return net

    def _dataset(self, clients: tuple[str, ...], view: View) -> Dataset:
        if (clients, view) not in self._data:
            share = 0.0 if view == "all" else self._spec.training.held_out_share
            self._data[clients, view] = self._workload.dataset(Source(clients, self._root), view, share)
        return self._data[clients, view]

    def _new(self, prefix: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self._folder))


class _First:
    """The first examples of a data set."""

    def __init__(self, data: Dataset, count: int) -> None:
        self._data, self._count, self.labels = data, min(count, len(data)), data.labels

    def __len__(self) -> int:
        return self._count

    def batch(self, index: NDArray[np.int64]) -> Batch:
        return self._data.batch(index)


def digest(path: Path) -> str:
    """What a fleet calls these weights: the SHA-256 of the file."""
    return sha256(path.read_bytes()).hexdigest()


def _means(parts: Iterable[Sequence[Score]]) -> Losses:
    """By task the mean over the examples of all parts."""
    sums: dict[str, NDArray[np.float64]] = {}
    for score in (each for part in parts for each in part):
        row = np.array([score.count, score.loss_sum, score.constant_loss_sum or 0.0])
        sums[score.task] = sums.get(score.task, np.zeros(3)) + row
    return {
        task: (float(loss / count), float(constant / count)) for task, (count, loss, constant) in sums.items()
    }
