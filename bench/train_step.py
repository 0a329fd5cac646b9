"""What a training step on dense tasks costs, by network, and what running the decoders together saves.

``PYTHONSAFEPATH=1 .venv/bin/python bench/train_step.py`` prints a table. Each row has the CPU time of
steps (forward, losses, backward; one thread) of the nine tasks on random pictures, taken in turn with steps
whose decoders run one by one and with steps of a single task: medians, and the quartiles of the ratio of the
first two. That a network learns is a test (tests/models/test_dense_networks.py); loading data and the
optimiser are not timed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from mas_edge.edge_agent.train import use_device
from mas_edge.models import losses
from mas_edge.models.net import MultiTaskNet, parameter_count
from mas_edge.models.tasks import Batch, Loss, Task
from mas_edge.models.workloads import dense

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


def step_ms(
    net: MultiTaskNet,
    tasks: tuple[Task, ...],
    given: losses.Examples,
    forward: Callable[..., dict[str, torch.Tensor]],
) -> float:
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds of a training step on nine dense tasks.")
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    use_device("cpu", threads=1)
    torch.manual_seed(0)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; torch {torch.__version__}; CPU milliseconds of a step\n")
    heads = (
        "network",
        "parameters",
        "pixels",
        "batch",
        "together",
        "one by one",
        "ratio (quartiles)",
        "one task",
    )
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for network, pixels, size in ROWS:
        print(row(network, pixels, size, options.repeat), flush=True)


if __name__ == "__main__":
    main()
