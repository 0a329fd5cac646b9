"""The task sets of the study, the job that each is trained as, and the rooms that two of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from letters import LETTERS

from mas_edge.models.tasks import find
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.make import VERSION, Size, views
from mas_edge.orchestrator.spec import JobSpec, check
from mas_edge.wire.folders import whole_folder
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from pathlib import Path

    Group = tuple[str, ...]

EVERY = 10
"""Every so many batches the presets measure affinity."""
SPARSE = 30
"""What would keep measuring by `gram` within 3 % of a training, where a round has so many batches."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks to be split, and how they are trained. ``views`` per building; 0 for data that ship."""

    workload: str
    tasks: Group
    rounds: int
    merge_rounds: int
    batch: int
    lr: float
    views: int = 0


WATCH = ("exercise", "gravity", "jerk", "rotation", "autoencoder")
SETS = {
    "watch": TaskSet("watch", WATCH, rounds=26, merge_rounds=8, batch=32, lr=0.05),
    **{
        letters: TaskSet("buildings", tuple(LETTERS[x] for x in letters), 34, 10, batch=16, lr=0.1, views=96)
        for letters in ("sdnkt", "erckt")
    },
}
QUICK = {"rounds": 4, "merge_rounds": 2}
"""The same trainings for so few rounds that they only show that everything works."""


def spec(chosen: TaskSet, seed: int, *, quick: bool) -> tuple[JobSpec, dict[str, tuple[str, ...]]]:
    """The job, and the clients of each of its four devices, dealt in turn as `mas demo` does."""
    workload = find(chosen.workload)
    seen = [client for client in workload.clients if client not in workload.unseen]
    clients = {f"edge-{n + 1}": tuple(seen[n::4]) for n in range(4)}
    rounds, merge_rounds = QUICK.values() if quick else (chosen.rounds, chosen.merge_rounds)
    training = Training(
        workload=chosen.workload,
        network="micro",
        rounds=rounds,
        epochs=1,
        batch=chosen.batch,
        lr=chosen.lr,
        seed=seed,
        affinity_every=EVERY,
        reproducible=True,
    )
    tasks = tuple(task.name for task in workload.choose(chosen.tasks))
    job = JobSpec(
        name="study",
        tasks=tasks,
        training=training,
        policy="mas",
        devices=tuple(clients),
        merge_rounds=merge_rounds,
        unseen=workload.unseen,
    )
    return check(job), clients


def buildings(folder: Path, count: int) -> Path:
    """Buildings of so many views, rendered unless they are there; the first 32 views are those that ship."""
    place, size = folder / f"buildings-{count}", Size(8, 2, count, 32)
    if not place.exists():
        with whole_folder(place) as partial:
            digests = {c: archive.save_client(partial, c, views(size, 1, c)) for c in size.clients}
            page = archive.Page(
                version=VERSION,
                preset="study",
                seed=1,
                pixels=size.pixels,
                clients=digests,
                unseen=size.clients[size.seen :],
            )
            archive.save_page(partial, page)
    return place
