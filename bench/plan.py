"""How long it takes to decide who trains what, by the number of tasks and devices; and how good its costs
are.

``.venv/bin/python bench/plan.py`` prints a markdown table: CPU seconds of a decision after five merged
rounds, over RUNS random fleets, without limits and with limits that most partitions break. Exit code 1 if a
limit is broken. ``bench/plan.py RUN...`` prints for finished runs of `mas demo` (policy mas) what their
groups were expected to cost after the merged rounds alone, beside what they did cost.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported: it asks once

import msgspec
import numpy as np

from mas_edge.orchestrator import cost_model
from mas_edge.orchestrator.decision import Situation
from mas_edge.orchestrator.job import Initialised
from mas_edge.orchestrator.observed import Observation, Observed, observed
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.service import read_store
from mas_edge.orchestrator.spec import Budget, JobSpec
from mas_edge.wire.messages import AffinitySums, Training

RUNS = 5
LIMIT_S = {(12, 100): 1.0}
MERGED, LEFT = 5, 15


def situation(tasks: int, devices: int, seed: int, budget: Budget) -> Situation:
    """A fleet whose devices differ by a factor of two or so, after its merged rounds."""
    rng = random.Random(seed)  # noqa: S311 - made-up fleets
    names = tuple(f"t{i:02}" for i in range(tasks))
    fleet = tuple(f"d{i:04}" for i in range(devices))
    training = Training(workload="w", network="n", rounds=MERGED + LEFT, epochs=1, batch=8, lr=0.1, seed=1)
    spec = JobSpec(
        name="j",
        tasks=names,
        training=training,
        policy="mas",
        devices=fleet,
        merge_rounds=MERGED,
        budget=budget,
    )
    trainings = tuple(
        Observation(
            group=names,
            device=device,
            round=number,
            examples=100,
            wall_s=10 * speed * rng.lognormvariate(0, 0.2),
            energy_j=30 * speed * rng.lognormvariate(0, 0.2),
        )
        for device, speed in ((device, rng.lognormvariate(0, 0.5)) for device in fleet)
        for number in range(MERGED)
    )
    parameters = {"encoder": 80_000, **{f"decoder.{name}": rng.randint(500, 15_000) for name in names}}
    return Situation(
        spec=spec,
        stage="split",
        parameters=parameters,
        rounds=LEFT,
        affinities=(affinities(names, rng),),
        seen=Observed(trainings=trainings),
    )


def affinities(names: tuple[str, ...], rng: random.Random) -> AffinitySums:
    n = len(names) ** 2
    effects = [rng.gauss(0, 0.1) for _ in range(n)]
    return AffinitySums(
        tasks=names,
        batches=(20,) * n,
        w=(200.0,) * n,
        ww=(2000.0,) * n,
        wz=tuple(200 * z for z in effects),
        wzz=tuple(200 * (z * z + 0.01) for z in effects),
    )


def cpu_s(tasks: int, devices: int, budget: Budget) -> list[float]:
    """CPU seconds of each decision, sorted."""
    times = []
    for seed in range(RUNS):
        given = situation(tasks, devices, seed, budget)
        start_s = time.process_time()
        decide(given)
        times.append(time.process_time() - start_s)
    return sorted(times)


def timed() -> bool:
    """Prints the table of times and returns whether every limit holds."""
    print(f"| tasks | devices | limits | median CPU s | greatest of {RUNS} | limit s |")
    print("|---:|---:|---|---:|---:|---:|")
    held = True
    for tasks, devices in ((6, 10), (9, 100), (12, 100), (12, 1000), (15, 100)):
        budgets = {
            "none": Budget(),
            "joules": Budget(energy_j=700.0 * devices),
            "seconds": Budget(time_s=450.0),
            "joules that nobody can meet": Budget(energy_j=10.0),
        }
        for name, budget in budgets.items():
            times, limit_s = cpu_s(tasks, devices, budget), LIMIT_S.get((tasks, devices))
            median_s, most_s = statistics.median(times), times[-1]
            limit = limit_s or ""
            print(f"| {tasks} | {devices} | {name} | {median_s:.2f} | {most_s:.2f} | {limit} |")
            held &= limit_s is None or most_s <= limit_s
    return held


def compared(folder: Path) -> None:
    """Prints what a run's groups were expected to cost a round and device, beside what they did."""
    store = read_store(folder / "state")
    ((name, body),) = store.jobs()
    spec = msgspec.json.decode(body, type=JobSpec)
    stored = [(time_s, event) for _, time_s, event in store.events(name)]
    made = next(event for _, event in stored if isinstance(event, Initialised))
    trainings = [each for each in observed(stored).trainings if not each.first]
    for figure, unit in (("wall_s", "s"), ("energy_j", "J")):
        merged = cost_model.cells(
            (each.group, each.device, getattr(each, figure) or 0.0)
            for each in trainings
            if each.group == spec.tasks
        )
        model = cost_model.fit(spec.tasks, spec.devices, made.parameters, merged)
        for group in sorted({each.group for each in trainings} - {spec.tasks}):
            own = [each for each in trainings if each.group == group]
            actual = [value for each in own if (value := getattr(each, figure)) is not None]
            guesses = [model.cost(group, device) for device in spec.devices]
            known = [guess for guess in guesses if guess is not None]
            if known and actual:
                value, u = (statistics.mean(getattr(g, part) for g in known) for part in ("value", "u"))
                found = statistics.mean(actual)
                print(
                    f"| {folder.name} | {'+'.join(group)} | {unit} | {value:.2f} ± {u:.2f} | {found:.2f}"
                    f" | {found / value:.2f} |"
                )


def main() -> int:
    parser = argparse.ArgumentParser(description="how long a decision takes, and how good its costs are")
    parser.add_argument("runs", nargs="*", type=Path, help="directories of `mas demo --out`, policy mas")
    runs = parser.parse_args().runs
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    if not runs:
        print("Command: `.venv/bin/python bench/plan.py`\n")
        return 0 if timed() else 1
    print("| run | group | of a round and device | expected | measured | ratio |")
    print("|---|---|---|---:|---:|---:|")
    for folder in runs:
        compared(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
