"""How long the exact choice of task groups takes, by the number of tasks and of groups.

``.venv/bin/python bench/split.py`` prints a markdown table: the median and the greatest of the CPU
seconds of RUNS choices over random affinities, one thread. Exit code 1 if a limit is broken. That the
choice is the best one is a test (tests/orchestrator/test_split.py), not measured here.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported: it asks once

import numpy as np

from mas_edge.orchestrator import split
from mas_edge.orchestrator.affinity import Affinity

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 9
LIMIT_S = {(9, 4): 0.020, (12, 4): 0.5, (14, 4): 2.0}


def affinity(tasks: int, seed: int) -> Affinity:
    rng = np.random.default_rng(seed)
    shape = (tasks, tasks)
    names = tuple(f"t{i:02}" for i in range(tasks))
    return Affinity(names, rng.normal(size=shape), np.full(shape, 0.1), np.ones(shape, np.int64))


def cpu_s(tasks: int, choose: Callable[[Affinity], object]) -> list[float]:
    """CPU seconds of each run, sorted."""
    times = []
    for seed in range(RUNS):
        measured = affinity(tasks, seed)
        start_s = time.process_time()
        choose(measured)
        times.append(time.process_time() - start_s)
    return sorted(times)


def row(tasks: int, groups: str, times: list[float], limit_s: float | None) -> bool:
    """Prints a line of the table and returns whether the limit holds."""
    limit = "" if limit_s is None else f"{limit_s * 1e3:.0f}"
    print(f"| {tasks} | {groups} | {statistics.median(times) * 1e3:.1f} | {times[-1] * 1e3:.1f} | {limit} |")
    return limit_s is None or times[-1] <= limit_s


def main() -> int:
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    print("Command: `.venv/bin/python bench/split.py`\n")
    print(f"| tasks | groups | median CPU ms | greatest CPU ms of {RUNS} | limit ms |")
    print("|---:|---|---:|---:|---:|")
    held = []
    for tasks in (5, 9, 12, 14, split.MAX_TASKS):
        times = cpu_s(tasks, lambda measured: split.best(measured, 4))
        held.append(row(tasks, "4", times, LIMIT_S.get((tasks, 4))))
        row(tasks, "4, five best", cpu_s(tasks, lambda measured: split.best(measured, 4, k=5)), None)
        row(tasks, "auto", cpu_s(tasks, split.auto), None)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
