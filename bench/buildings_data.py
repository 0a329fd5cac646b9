"""What a set of buildings is like, and what the workload freezes: shares, depth, divergence, constants.

``.venv/bin/python bench/buildings_data.py [FOLDER]`` reads the shipped set, or one that was made in FOLDER,
and prints a markdown page: how the training buildings differ from each other and from the unseen ones, and
the means, deviations and best constants that models/workloads/buildings/workload.py holds. Of the shipped set
it also trains, as a device does, and prints which share of the CPU time goes into data (phase "load": read,
normalise, make tensors; over all of many steps, since several batches are read at a time); exit code 1 if
that is above the limit.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from itertools import product
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.edge_agent.train import local_round, use_device
from mas_edge.models.net import build
from mas_edge.models.tasks import Source
from mas_edge.models.workloads.buildings import archive, statistics
from mas_edge.models.workloads.buildings.dataset import dataset
from mas_edge.models.workloads.buildings.workload import CLASSES, DESCRIPTION, workload
from mas_edge.wire.messages import Key, Training

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS, WARM, WINDOW, MOST = 320, 16, 38, 0.03
FARTHEST = 16 * 512


def load(root: Path | None) -> dict[str, NDArray[np.void]]:
    """Every building's records."""
    if root is None:
        names = (*DESCRIPTION.clients, *DESCRIPTION.unseen)
        return {name: archive.unpack(archive.SHIPPED, name, DESCRIPTION.pixels) for name in names}
    page = archive.verify(root)
    return {name: archive.open_client(root, name, page.pixels) for name in page.clients}


def shares(buildings: dict[str, NDArray[np.void]]) -> None:
    mean = np.mean([statistics.class_shares(views, len(CLASSES)) for views in buildings.values()], 0)
    uncertain = np.mean([(views["segment_semantic"] == 0).mean() for views in buildings.values()])
    print("| class | share of labelled pixels | buildings that have it |\n|---|---|---|")
    for number, name in enumerate(list(CLASSES)[1:], 1):
        having = sum(bool((views["segment_semantic"] == number).any()) for views in buildings.values())
        print(f"| {name} | {mean[number]:.2%} | {having} of {len(buildings)} |")
    print(f"\nUncertain (pixels that straddle classes): {uncertain:.1%} of all.\n")


def depths(buildings: dict[str, NDArray[np.void]]) -> None:
    depth = np.concatenate([views["depth_zbuffer"].ravel() for views in buildings.values()])
    valid = depth[depth < FARTHEST] / 512
    low, middle, high = np.quantile(valid, (0.05, 0.5, 0.95))
    print(f"Depth: median {middle:.2f} m, 5 % below {low:.2f} m, 5 % above {high:.2f} m; ", end="")
    print(f"{1 - len(valid) / len(depth):.1%} of the pixels have no surface within 16 m.\n")


def differences(buildings: dict[str, NDArray[np.void]]) -> None:
    between, within = statistics.divergences_bit(list(buildings.values()), len(CLASSES))
    print(f"Jensen-Shannon divergence of the object mix: {between:.3f} bit between buildings, ", end="")
    print(f"{within:.3f} bit between the halves of one.\n")


def shares_of_data(buildings: int, batch: int) -> list[float]:
    """The share of the CPU time that went into data (read, normalise, make tensors), per window of steps."""
    views = dataset(DESCRIPTION, archive.SHIPPED, Source(DESCRIPTION.clients[:buildings]), "all", 0.0)
    training = Training(
        workload=workload.name,
        network="micro",
        rounds=1,
        epochs=STEPS * batch // len(views),
        batch=batch,
        lr=0.01,
        seed=1,
    )
    marks: list[tuple[str, float]] = []
    local_round(
        build(workload, training.network, DESCRIPTION.tasks, 1),
        views,
        tasks=workload.tasks,
        training=training,
        key=Key(job="", group="", round=0, attempt=0, device=""),
        measure=False,
        enter=lambda phase: marks.append((phase, time.process_time())),
        stop=lambda: False,
        beat=lambda _step, _steps: None,
    )
    times = np.array([at_s for _, at_s in marks])
    starts = np.array([at for at, (phase, _) in enumerate(marks) if phase == "load"])[WARM:]
    loading_s, step_s = times[starts + 1] - times[starts], np.diff(times[starts])
    windows = range(0, len(step_s) - WINDOW + 1, WINDOW)
    return [loading_s[at : at + WINDOW].sum() / step_s[at : at + WINDOW].sum() for at in windows]


def loading() -> bool:
    """Whether loading is cheap; prints its share of the time as devices train (one thread)."""
    use_device("cpu", threads=1)
    print(f"Network micro, nine tasks, {platform.machine()}, load {os.getloadavg()[0]:.1f}:\n")
    print("| buildings | batch | CPU time spent on data | quartiles | limit |\n|---|---|---|---|---|")
    held = True
    for buildings, batch in product((1, 8), (8, 16)):
        low, share, high = quantiles(shares_of_data(buildings, batch), n=4)
        print(f"| {buildings} | {batch} | {share:.1%} | {low:.1%} to {high:.1%} | ≤ {MOST:.0%} |")
        held = held and share <= MOST
    print()
    return held


def constants(buildings: dict[str, NDArray[np.void]]) -> None:
    seen = [buildings[name] for name in DESCRIPTION.clients if name in buildings]
    print("| task | mean | std | constant |\n|---|---|---|---|")
    for task, values in statistics.fit(DESCRIPTION, seen).items():
        print(f"| {task} | {values.get('mean', '')} | {values.get('std', '')} | {values['constant']} |")


def main() -> int:
    """Print the page of the set that the command line names; 1 if loading is dear."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    buildings = load(root)
    views = sum(map(len, buildings.values()))
    print(f"{root or 'shipped'}: {len(buildings)} buildings, {views} views\n")
    for part in (shares, depths, differences):
        part(buildings)
    constants(buildings)
    return 0 if root or loading() else 1


if __name__ == "__main__":
    sys.exit(main())
