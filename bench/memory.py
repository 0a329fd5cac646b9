"""How well the memory of a training is estimated: the estimate over the measured peak, by group and batch.

``PYTHONSAFEPATH=1 .venv/bin/python bench/memory.py`` prints a table. Each row is a process that does
what the agent's worker does: load the data, count a dry step, estimate (edge_agent/fit.py), then train three
batches and read the peak of its resident memory from the kernel (VmHWM, begun anew after the dry step).
``growth`` is the same ratio for what training adds to the process at rest, which is the harder question. The
pictures of 64 pixels are the shipped ones of 32, doubled. A second table has the CPU time of the ways to
train, taken in turn in one process, over that of whole batches. ``--one`` is what a row's process is called
with.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time

import msgspec
import numpy as np
import torch

from mas_edge.edge_agent.fit import peak_bytes
from mas_edge.edge_agent.train import local_round, use_device
from mas_edge.models import footprint
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Batch, Dataset, Source, Task, find
from mas_edge.profiling.cpu import forget_peak_rss, give_memory_back, peak_rss_bytes, rss_bytes
from mas_edge.wire.messages import Fit, Key, Training

BATCHES = 3
PARTS, ROUNDS = (2, 4, 8, 32), 4


class Case(msgspec.Struct, frozen=True):
    """A row: what is trained, and how."""

    workload: str
    network: str
    pixels: int
    tasks: int
    batch: int
    measure: bool
    checkpointing: bool


class Found(msgspec.Struct, frozen=True):
    """What its process found."""

    estimated_bytes: int
    peak_bytes: int
    rest_bytes: int
    dry_cpu_s: float


GROUPS = (
    *(("watch", "small", 0, tasks, batch) for tasks, batch in ((6, 16), (6, 64), (6, 256), (1, 256))),
    *(("buildings", "micro", 32, tasks, batch) for tasks, batch in ((9, 16), (9, 128), (3, 128), (1, 128))),
    *(("buildings", "small", 64, tasks, batch) for tasks, batch in ((9, 8), (9, 32), (3, 32), (1, 32))),
    ("buildings", "xception", 64, 9, 8),
)
ROWS = tuple(
    Case(*group, measure, checkpointing)
    for group, checkpointing, measure in itertools.product(GROUPS, (False, True), (False, True))
)

TIMED = (("watch", "small", 0, 6, 64), ("buildings", "micro", 32, 9, 64), ("buildings", "small", 64, 9, 32))


class Some:
    """So many examples of a data set, over and over, with pictures enlarged by a whole factor."""

    def __init__(self, data: Dataset, size: int, factor: int) -> None:
        self.labels, self._data, self._size, self._factor = data.labels, data, size, factor

    def __len__(self) -> int:
        return self._size

    def batch(self, index: np.ndarray) -> Batch:
        """Examples, enlarged."""
        given = self._data.batch(index % len(self._data))
        if self._factor == 1:
            return given

        def enlarged(values: np.ndarray) -> np.ndarray:
            return values.repeat(self._factor, -1).repeat(self._factor, -2)

        targets = {name: enlarged(target) for name, target in given.targets.items()}
        valid = {name: enlarged(mask) if mask.ndim > 2 else mask for name, mask in given.valid.items()}
        return Batch(enlarged(given.inputs), targets, valid)


def sized(task: Task, pixels: int) -> Task:
    return dataclasses.replace(task, shape=(*task.shape[:-2], pixels, pixels)) if pixels else task


def prepared(case: Case) -> tuple[MultiTaskNet, Some, tuple[Task, ...]]:
    use_device("cpu", threads=1)
    workload = find(case.workload)
    tasks = tuple(sized(task, case.pixels) for task in workload.choose(None)[: case.tasks])
    decoders = {task.name: workload.decoder(case.network, task) for task in tasks}
    net = MultiTaskNet(workload.encoder(case.network), decoders)
    factor = case.pixels // workload.input_shape[-1] if case.pixels else 1
    clients = tuple(client for client in workload.clients if client not in workload.unseen)
    return net, Some(workload.dataset(Source(clients), "train", 0.2), BATCHES * case.batch, factor), tasks


def measured(case: Case) -> Found:
    """Train as the case says, in this process, which has to be fresh."""
    net, data, tasks = prepared(case)
    start_s = time.process_time()
    parts = footprint.count(net, data, tasks)
    dry_cpu_s = time.process_time() - start_s
    give_memory_back()
    forget_peak_rss()
    rest = rss_bytes(os.getpid()) or 0
    fit = Fit(micro_batch=case.batch, checkpointing=case.checkpointing)
    estimated = peak_bytes(footprint.Footprint(rest, len(data), *parts), fit, measure=case.measure)
    train(case, net, data, tasks, fit)
    return Found(estimated, peak_rss_bytes(os.getpid()) or 0, rest, dry_cpu_s)


def train(case: Case, net: MultiTaskNet, data: Some, tasks: tuple[Task, ...], fit: Fit) -> None:
    training = Training(
        workload=case.workload,
        network=case.network,
        rounds=10,
        epochs=1,
        batch=case.batch,
        lr=1e-4,
        seed=1,
        affinity_every=1,
    )
    local_round(
        net,
        data,
        tasks=tasks,
        training=training,
        key=Key(job="bench", group="g", round=0, attempt=0, device="d"),
        measure=case.measure,
        enter=lambda _: None,
        stop=lambda: False,
        beat=lambda *_: None,
        fit=fit,
    )


def costs(case: Case) -> str:
    """A row of the second table: medians over the rounds of each way's CPU time, over the first way's."""
    net, data, tasks = prepared(case)
    ways = [Fit(micro_batch=max(1, case.batch // parts)) for parts in (1, *PARTS)]
    ways.append(Fit(micro_batch=case.batch, checkpointing=True))
    took_s: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, found in zip(ways, took_s, strict=True):
            start_s = time.process_time()
            train(case, net, data, tasks, way)
            found.append(time.process_time() - start_s)
    whole, *others = (statistics.median(found[1:]) for found in took_s)  # the first ones allocate
    pixels = f", {case.pixels} px" if case.pixels else ""
    cells = [f"{case.workload} {case.network}{pixels}", str(case.tasks), str(case.batch)]
    return "| " + " | ".join([*cells, *(f"{other / whole:.2f}" for other in others)]) + " |"


def apart(case: Case) -> Found:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", msgspec.json.encode(case).decode()]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    return msgspec.json.decode(said, type=Found)


def row(case: Case, found: Found) -> str:
    pixels = f", {case.pixels} px" if case.pixels else ""
    way = "computed twice" if case.checkpointing else ""
    name = f"{case.workload} {case.network}{pixels}"
    cells = [name, str(case.tasks), str(case.batch), way, "yes" if case.measure else ""]
    cells += [f"{size / 1e6:.0f}" for size in (found.rest_bytes, found.peak_bytes, found.estimated_bytes)]
    cells += [f"{ratio(found):.2f}", f"{growth(found):.2f}", f"{found.dry_cpu_s:.2f}"]
    return "| " + " | ".join(cells) + " |"


def ratio(found: Found) -> float:
    return found.estimated_bytes / found.peak_bytes


def growth(found: Found) -> float:
    return (found.estimated_bytes - found.rest_bytes) / (found.peak_bytes - found.rest_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimated and measured peaks of a training's memory.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    one = parser.parse_args().one
    if one:
        sys.stdout.buffer.write(msgspec.json.encode(measured(msgspec.json.decode(one, type=Case))))
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs; torch {torch.__version__}, one thread\n")
    heads = ["network", "tasks", "batch", "activations", "affinity", "at rest (MB)", "peak (MB)"]
    heads += ["estimate (MB)", "ratio", "growth", "dry step (CPU-s)"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    ratios = []
    for case in ROWS:
        found = apart(case)
        ratios.append(ratio(found))
        print(row(case, found), flush=True)
    low, high = min(ratios), max(ratios)
    print(f"\nEstimate over peak: median {statistics.median(ratios):.2f}, from {low:.2f} to {high:.2f}.\n")
    heads = ["network", "tasks", "batch", *(f"{parts} parts" for parts in PARTS), "computed twice"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for group in TIMED:
        print(costs(Case(*group, measure=False, checkpointing=False)), flush=True)


if __name__ == "__main__":
    main()
