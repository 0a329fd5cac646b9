"""What a measured step costs beside a plain one, and how well the cheap measures rank like the lookahead.

``PYTHONSAFEPATH=1 .venv/bin/python bench/affinity.py`` prints a markdown table. It trains all default tasks
of a workload (``watch``; ``--workload``, ``--tasks``) in one network on the clients that train, without
federation. Every 5th batch is measured by every method, on the same weights; a method's matrix is the mean
over those batches, as a job pools it, and its rank agreement is Spearman's rho with the lookahead's, off the
diagonal. The lookahead's odd batches against its even ones say how much agreement there can be. Cost: the
CPU time of a step (forward, measurement, backward, update) over a plain step's, the median of pairs taken in
turn, and what that adds where one step in 30 is measured. Whether the split that follows is a good one is
bench/affinity_study.py's question.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from mas_edge.edge_agent.train import SGD, use_device
from mas_edge.models import affinity, losses
from mas_edge.models.net import MultiTaskNet, build, parameter_count
from mas_edge.models.tasks import Source, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.models.affinity import Matrix, Method
    from mas_edge.models.tasks import Task

METHODS: tuple[Method, ...] = ("lookahead", "lookahead-momentum", "gram-full", "gram")
LR, MOMENTUM, DECAY, BATCH, EVERY = 0.05, 0.9, 1e-4, 32, 5
SPARSE = 30
"""Of so many steps one is measured where measuring is to cost 3 % of a training."""


class Trainer:
    """A network in training, whose steps may be measured."""

    def __init__(self, net: MultiTaskNet, tasks: Sequence[Task]) -> None:
        self.net, self.tasks = net.train(), tasks
        self.names = [name for name, _ in net.named_parameters()]
        self.sgd = SGD(list(net.parameters()), momentum=MOMENTUM, weight_decay=DECAY)

    def step(self, given: losses.Examples, methods: Sequence[Method] = (), *, lr: float = LR) -> list[Matrix]:
        """One step, and each method's affinities on its batch."""
        rng_state = torch.get_rng_state()
        outputs = self.net(given.inputs)
        moment = affinity.Moment(LR, DECAY, MOMENTUM, self._velocity(), rng_state)
        found = [affinity.measure(m, self.net, given, outputs, self.tasks, moment).z for m in methods]
        terms = [
            losses.loss_sum(task, outputs[task.name], given.labels[task.name]) / BATCH for task in self.tasks
        ]
        torch.autograd.backward(torch.stack(terms).sum())
        self.sgd.step(lr)
        return found

    def _velocity(self) -> dict[str, torch.Tensor]:
        named = ((self.names[at].removeprefix("encoder."), v) for at, v in self.sgd.velocity.items())
        return {name: v for name, v in named if not name.startswith("decoder.")}


def ranks_agree(one: Matrix, other: Matrix) -> float:
    """Spearman's rho over the entries off the diagonal."""
    off = ~np.eye(len(one), dtype=bool)
    ranks = np.stack([np.argsort(np.argsort(matrix[off])) for matrix in (one, other)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def seconds(trainer: Trainer, given: losses.Examples, methods: Sequence[Method]) -> float:
    """CPU seconds of a step; the learning rate is 0, so that all steps are alike."""
    start_s = time.process_time()
    trainer.step(given, methods, lr=0.0)
    return time.process_time() - start_s


def cost(trainer: Trainer, given: losses.Examples, method: Method, pairs: int) -> tuple[float, float, float]:
    """A measured step's CPU time over a plain step's: quartiles of pairs taken in turn."""
    ratios = [seconds(trainer, given, [method]) / seconds(trainer, given, []) for _ in range(pairs)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost and rank agreement of the affinity methods.")
    parser.add_argument("--workload", default="watch")
    parser.add_argument("--tasks", help="names with commas between them; all default ones if left out")
    parser.add_argument("--network", default="micro")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    use_device("cpu", threads=1)
    torch.manual_seed(0)
    workload = find(options.workload)
    tasks = workload.choose(options.tasks.split(",") if options.tasks else None)
    seen = tuple(client for client in workload.clients if client not in workload.unseen)
    data = workload.dataset(Source(seen), "train", 0.2)
    net = build(workload, options.network, [task.name for task in tasks], seed=0)
    trainer, rng = Trainer(net, tasks), np.random.default_rng(0)
    measured: list[list[Matrix]] = []
    for step in range(options.steps):
        given = losses.examples(data.batch(rng.choice(len(data), BATCH, replace=False)), tasks)
        found = trainer.step(given, METHODS if step % EVERY == 0 else ())
        measured += [found] if found else []
    mean = dict(zip(METHODS, np.mean(measured, axis=0), strict=True))
    halves = [np.mean([found[0] for found in measured[half::2]], axis=0) for half in (0, 1)]
    plain_ms = 1e3 * statistics.median(seconds(trainer, given, []) for _ in range(options.pairs))

    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(
        f"{workload.name}, {options.network} ({parameter_count(net)} parameters), {len(tasks)} tasks,"
        f" batch {BATCH},"
    )
    print(
        f"one thread, plain step {plain_ms:.1f} CPU-ms; {len(measured)} batches measured of {options.steps};"
    )
    print(f"torch {torch.__version__}, {machine}\n")
    print(f"| method | measured step / plain step | added by one in {SPARSE}, % | ρ, pooled | ρ, one batch |")
    print("|---|---:|---:|---:|---:|")
    for at, method in enumerate(METHODS):
        low, middle, high = cost(trainer, given, method, options.pairs)
        step = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        added = f"{100 * (middle - 1) / SPARSE:.1f}"
        agree = ranks_agree(mean[method], mean["lookahead"])
        single = statistics.median(ranks_agree(found[at], found[0]) for found in measured)
        print(f"| {method} | {step} | {added} | {agree:.3f} | {single:.3f} |")
    print(f"\nThe lookahead with itself, odd batches against even ones: {ranks_agree(*halves):.3f}")


if __name__ == "__main__":
    main()
