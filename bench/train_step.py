"""What a training step costs, by network, what makes it cheaper, and how much of it is no convolution.

``PYTHONSAFEPATH=1 .venv/bin/python bench/train_step.py`` prints three tables; CPU time, one thread.

1. Steps (forward, losses, backward) of nine dense tasks on random pictures, taken in turn with steps whose
   decoders run one by one and with steps of a single task: medians, and the quartiles of the ratio.
2. Whole steps (with the optimiser) on the workloads' own data, over steps in which one thing is otherwise,
   taken in turn: below 1 the thing pays. In brackets stands what we do without. ``memory kept`` and ``two
   threads`` (wall time) hold for the life of a process: there it is processes that are taken in turn.
3. Which share of a step's operator time is convolutions (torch.profiler), and what the rest is.

That a network learns is a test (tests/models/test_dense_networks.py); loading data is not timed here but in
bench/buildings_data.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mas_edge.edge_agent.train import use_device
from mas_edge.models import losses
from mas_edge.models.net import MultiTaskNet, build, parameter_count, settle
from mas_edge.models.sgd import SGD
from mas_edge.models.tasks import Batch, Loss, Source, Task, find
from mas_edge.models.workloads import dense

Forward = Callable[..., dict[str, torch.Tensor]]

NINE: dict[str, tuple[int, Loss]] = {
    "segment_semantic": (18, "cross-entropy"),
    "depth_zbuffer": (1, "masked-l1"),
    "normal": (3, "masked-l1"),
    "keypoints2d": (1, "l1"),
    "edge_texture": (1, "l1"),
    "edge_occlusion": (1, "masked-l1"),
    "reshading": (1, "masked-l1"),
    "principal_curvature": (2, "masked-l1"),
    "rgb": (3, "l1"),
}
ROWS = (("micro", 32, 16), ("micro", 64, 16), ("small", 64, 16), ("small", 128, 4), ("xception", 128, 4))
"""Network, pixels, batch."""


class Case(NamedTuple):
    """A row of the second and third table."""

    workload: str
    network: str
    tasks: int
    batch: int


CASES = (
    Case("buildings", "micro", 9, 8),
    Case("buildings", "small", 9, 16),
    Case("buildings", "small", 5, 16),
    Case("watch", "micro", 6, 32),
)
KINDS = {
    "convolution": ("conv",),
    "pixel shuffle, copies": ("shuffle", "copy_", "cat"),
    "softmax": ("softmax", "gather", "scatter"),
    "GroupNorm": ("group_norm",),
    "activations": ("threshold", "clamp_min", "silu"),
    "optimiser": ("sgd",),
    "allocation": ("empty", "resize", "fill_", "zero_"),
}
"""Of an operator by a part of its name; the first that fits."""


def tasks_at(pixels: int) -> tuple[Task, ...]:
    return tuple(
        Task(name, "", loss, "mae", (channels, pixels, pixels), np.zeros(1))
        for name, (channels, loss) in NINE.items()
    )


def random_batch(tasks: tuple[Task, ...], pixels: int, size: int) -> losses.Examples:
    rng = np.random.default_rng(0)
    targets = {
        task.name: rng.integers(0, task.shape[0], (size, pixels, pixels))
        if task.loss == "cross-entropy"
        else rng.normal(size=(size, *task.shape)).astype(np.float32)
        for task in tasks
    }
    mask = rng.random((size, 1, pixels, pixels)) < 0.9
    valid = {task.name: mask for task in tasks if task.loss == "masked-l1"}
    return losses.examples(
        Batch(rng.normal(size=(size, 3, pixels, pixels)).astype(np.float32), targets, valid), tasks
    )


def together(net: MultiTaskNet, given: losses.Examples) -> dict[str, torch.Tensor]:
    return net(given.inputs)


def one_by_one(net: MultiTaskNet, given: losses.Examples) -> dict[str, torch.Tensor]:
    features = net.encoder(given.inputs)
    return {name: decoder(features) for name, decoder in net.decoder.items()}


def step_ms(net: MultiTaskNet, tasks: tuple[Task, ...], given: losses.Examples, forward: Forward) -> float:
    """Milliseconds of one step without the optimiser's."""
    start_s = time.process_time()
    outputs = forward(net, given)
    sums = [losses.loss_sum(task, outputs[task.name], given.labels[task.name]) for task in tasks]
    torch.autograd.backward(torch.stack(sums).sum())
    took_ms = 1e3 * (time.process_time() - start_s)
    net.zero_grad()
    return took_ms


def row(network: str, pixels: int, size: int, repeat: int) -> str:
    tasks = tasks_at(pixels)
    net = MultiTaskNet(dense.encoder(network), {task.name: dense.decoder(network, task) for task in tasks})
    single = MultiTaskNet(net.encoder, {tasks[1].name: net.decoder[tasks[1].name]})
    given = random_batch(tasks, pixels, size)
    found = []
    for _ in range(repeat + 2):
        nine = step_ms(net, tasks, given, together)
        apart = step_ms(net, tasks, given, one_by_one)
        found.append((nine, apart, step_ms(single, tasks[1:2], given, together)))
    del found[:2]  # the first ones allocate
    nine, apart, one = (statistics.median(column) for column in zip(*found, strict=True))
    low, ratio, high = statistics.quantiles([nine / apart for nine, apart, _ in found], n=4)
    cells = [network, str(parameter_count(net)), str(pixels), str(size)]
    cells += [f"{nine:.1f}", f"{apart:.1f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"{one:.1f}"]
    return "| " + " | ".join(cells) + " |"


class Steps:
    """Whole training steps of a case, on one batch of its data."""

    def __init__(self, case: Case) -> None:
        workload = find(case.workload)
        self.tasks = workload.tasks[: case.tasks]
        data = workload.dataset(Source(workload.clients[:4]), "all", 0.0)
        index = np.random.default_rng(0).permutation(len(data))[: case.batch]
        self.given = losses.examples(data.batch(index), self.tasks)
        self.net = build(workload, case.network, [task.name for task in self.tasks], 1)
        self.sgd = SGD(list(self.net.parameters()), momentum=0.9, weight_decay=1e-4)
        self.torchs = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        self.last = deepcopy(self.net).to(memory_format=torch.channels_last)
        self.last_sgd = SGD(list(self.last.parameters()), momentum=0.9, weight_decay=1e-4)
        self.others = {
            "decoders together": lambda: self.step(one_by_one),
            "fused optimiser": lambda: self.step(torchs=True),
            "memory not filled": self._filled,
            "(channels_last)": self._channels_last,
            "(bfloat16)": self._bfloat16,
        }
        """Steps with one thing otherwise; in brackets what we do without."""

    def step(self, forward: Forward = together, *, torchs: bool = False) -> None:
        """As ``edge_agent.train`` has it."""
        self._backward(forward(self.net, self.given))
        if torchs:
            self.torchs.step()
            self.torchs.zero_grad()
        else:
            self.sgd.step(1e-3)

    def _backward(self, outputs: dict[str, torch.Tensor]) -> None:
        labels = self.given.labels
        sums = [losses.loss_sum(task, outputs[task.name].float(), labels[task.name]) for task in self.tasks]
        torch.autograd.backward(torch.stack(sums).sum())

    def _filled(self) -> None:
        torch.utils.deterministic.fill_uninitialized_memory = True
        self.step()
        torch.utils.deterministic.fill_uninitialized_memory = False

    def _channels_last(self) -> None:
        inputs = self.given.inputs
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        self._backward(self.last(inputs))
        self.last_sgd.step(1e-3)

    def _bfloat16(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = together(self.net, self.given)
        self._backward(outputs)
        self.sgd.step(1e-3)


Found = defaultdict[str, list[float]]


def timed_s(step: Callable[[], None], clock: Callable[[], float] = time.process_time) -> float:
    start_s = clock()
    step()
    return clock() - start_s


def ratios(case: Case, repeat: int) -> dict[str, str]:
    """With the thing over without it, by its name."""
    steps, found = Steps(case), Found(list)
    for number in range(repeat + 3):
        for name, other in steps.others.items():
            steps.step()  # so that each of the two follows a step like the others
            ours_s, theirs_s = timed_s(steps.step), timed_s(other)
            if number >= 3:  # the first ones allocate, and make oneDNN's kernels
                found[name].append(theirs_s / ours_s if name.startswith("(") else ours_s / theirs_s)
    return {name: quartiles(each) for name, each in found.items()}


def process_ratios(case: Case, rounds: int) -> dict[str, str]:
    """The same for what holds as long as a process does: two processes in turn."""
    found = Found(list)
    command = [sys.executable, __file__, "--alone", *map(str, case)]
    for _ in range(rounds):
        said = [
            json.loads(subprocess.run([*command, way], capture_output=True, check=True).stdout)
            for way in ("keep", "free", "two")
        ]
        (cpu_s, wall_s), (free_cpu_s, _), (_, two_wall_s) = said
        found["memory kept"].append(cpu_s / free_cpu_s)
        found["(two threads, wall)"].append(two_wall_s / wall_s)
    return {name: quartiles(each) for name, each in found.items()}


def alone(case: Case, way: str) -> tuple[float, float]:
    """Median CPU and wall time of a step in this process, which has to be fresh."""
    settle(1) if way == "free" else use_device("cpu", threads=2 if way == "two" else 1)
    steps = Steps(case)
    clocks = (time.process_time, time.perf_counter)
    took_s = [[timed_s(steps.step, clock) for clock in clocks] for _ in range(40)][5:]
    return statistics.median(cpu_s for cpu_s, _ in took_s), statistics.median(wall_s for _, wall_s in took_s)


def quartiles(found: list[float]) -> str:
    low, middle, high = statistics.quantiles(found, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def kinds(case: Case) -> list[str]:
    """Cells of the third table: shares of the operators' own time."""
    steps = Steps(case)
    steps.step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(10):
            steps.step()
    shares: Counter[str] = Counter()
    for each in seen.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(p in each.key for p in parts)), "other")
        shares[kind] += each.self_cpu_time_total
    return [f"{shares[kind] / shares.total():.0%}" for kind in (*KINDS, "other")]


def table(heads: list[str]) -> None:
    print("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a training step costs, and what makes it cheaper.")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        workload, network, tasks, batch, way = options.alone
        print(json.dumps(alone(Case(workload, network, int(tasks), int(batch)), way)))
        return
    use_device("cpu", threads=1)
    torch.manual_seed(0)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; torch {torch.__version__}; CPU milliseconds of a step")
    heads = ["network", "parameters", "pixels", "batch", "together", "one by one", "ratio (quartiles)"]
    table([*heads, "one task"])
    for network, pixels, size in ROWS:
        print(row(network, pixels, size, options.repeat), flush=True)
    case_heads = list(Case._fields)
    for number, case in enumerate(CASES):
        cells = ratios(case, options.repeat) | process_ratios(case, 2 + options.repeat // 5)
        if not number:
            table([*case_heads, *cells])
        print("| " + " | ".join([*map(str, case), *cells.values()]) + " |", flush=True)
    table([*case_heads, *KINDS, "other"])
    for case in CASES:
        print("| " + " | ".join([*map(str, case), *kinds(case)]) + " |", flush=True)


if __name__ == "__main__":
    main()
