"""Trains what the study judges: the merged rounds, every group from there on, and all tasks for longer.

Groups train independently of each other, so the 2**n - 1 groups of n tasks give every partition: its loss is
the sum over its groups, and so is its cost. The merged rounds are run once for every way to measure
affinity; that these runs end with the same weights is checked each time. Another version of the product may
round otherwise, and then a folder that was begun with the old one is finished with the old one.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from lab import Lab, digest

from study.records import Book, Costs, Setting, Step, StudyRefused, Trained
from study.sets import EVERY, SETS, SPARSE, buildings, spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab import Round

    from mas_edge.orchestrator.spec import JobSpec
    from study.records import Method

    Group = tuple[str, ...]

METHODS: tuple[Method, ...] = ("lookahead", "gram-full", "gram")

WAYS = (*((method, every) for every in (EVERY, 1) for method in METHODS), ("gram", SPARSE))
"""The methods, and every so many batches of a device they measure."""

LONGER = (1.5, 2.25, 3.0)
"""Times the rounds after the merge that all tasks together also train for."""

STEPS, REPEATS = 4, 9
"""Of the groups' steps whose CPU time is measured."""


def groups(tasks: Group) -> list[Group]:
    """All groups, the largest first."""
    return [group for size in range(len(tasks), 0, -1) for group in combinations(tasks, size)]


def train(folder: Path, name: str, seed: int, *, quick: bool, say: Callable[[str], None]) -> None:
    """Train what the folder lacks of one task set under one seed. Raises StudyRefused."""
    if name not in SETS:
        raise StudyRefused(f"no task set {name!r}; there are {', '.join(SETS)}")
    job, clients = spec(SETS[name], seed, quick=quick)
    views = SETS[name].views
    root = buildings(folder, views) if views else None
    setting = Setting(
        name=name,
        seed=seed,
        spec=msgspec.json.encode(job).decode(),
        data=f"buildings of {views} views" if views else "shipped",
        torch=str(torch.__version__),
        machine=platform.platform(),
    )
    own = folder / f"{name}-{seed}"
    shm = Path("/dev/shm")  # noqa: S108 - weights that live for seconds, which are synced to disk elsewhere
    with (
        tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as scratch,
        closing(Book(own.with_suffix(".jsonl"), setting)) as book,
    ):
        lab = Lab(job, clients, Path(scratch), root=root)
        _Study(
            job, lab, book, own.with_suffix(".safetensors"), lambda text: say(f"{own.name} {text}")
        ).train()


class _Study:
    """One task set under one seed; ``kept`` is where the merged weights stay."""

    def __init__(self, job: JobSpec, lab: Lab, book: Book, kept: Path, say: Callable[[str], None]) -> None:
        self._job, self._lab, self._book, self._kept, self._say = job, lab, book, kept, say

    def train(self) -> None:
        for method, every in WAYS:
            self._merged(method, every)
        for group in groups(self._job.tasks):
            self._group(group)
        for factor in LONGER:
            self._longer(factor)
        if self._book.costs is None:
            self._costs()

    def _merged(self, method: Method, every: int) -> None:
        tasks, rounds = self._job.tasks, range(self._job.merge_rounds)
        begun = Trained(what="merged", tasks=tasks, method=method, every=every)
        if begun.name in self._book.trained and self._kept.exists():
            return
        training = msgspec.structs.replace(self._job.training, affinity=method, affinity_every=every)
        run = self._lab.run(tasks, self._lab.begin(), rounds, measure=True, training=training)
        self._through(begun, run, keep=True)

    def _group(self, group: Group) -> None:
        whole = group == self._job.tasks
        begun = Trained(what="group", tasks=group, method="lookahead" if whole else "")
        if begun.name in self._book.trained:
            return
        rounds = range(self._job.merge_rounds, self._job.training.rounds)
        source = self._kept if whole else self._lab.carve(self._kept, group)
        training = msgspec.structs.replace(self._job.training, affinity="lookahead")
        self._through(begun, self._lab.run(group, source, rounds, measure=whole, training=training))

    def _longer(self, factor: float) -> None:
        begun = Trained(what="longer", tasks=self._job.tasks, factor=factor)
        if begun.name in self._book.trained:
            return
        first = self._job.merge_rounds
        past = first + round(factor * (self._job.training.rounds - first))
        training = msgspec.structs.replace(self._job.training, rounds=past)
        self._through(begun, self._lab.run(begun.tasks, self._kept, range(first, past), training=training))

    def _costs(self) -> None:
        """What the groups' steps cost: in turn, because a busy machine is slower now than then."""
        found = groups(self._job.tasks)
        carved = [self._lab.carve(self._kept, group) for group in found]
        taken = [
            tuple(self._lab.steps_cpu_s(g, source, STEPS) for g, source in zip(found, carved, strict=True))
            for _ in range(REPEATS)
        ]
        self._book.add(Costs(groups=tuple(found), cpu_s=tuple(taken)))

    def _through(self, begun: Trained, rounds: Iterable[Round], *, keep: bool = False) -> None:
        """Train to the end, and keep what came of it."""
        steps: list[Step] = []
        last = self._kept
        for done in rounds:
            held_out, last = self._lab.held_out(begun.tasks, done.weights), done.weights
            steps.append(Step(round=done.number, held_out=held_out, cpu_s=done.cpu_s, measured=done.measured))
        unseen = self._lab.unseen(begun.tasks, last)
        ended = msgspec.structs.replace(begun, steps=tuple(steps), unseen=unseen, digest=digest(last))
        if keep:
            self._keep(ended, last)
        if ended.name not in self._book.trained:
            self._book.add(ended)
        total = sum(loss for loss, _ in steps[-1].held_out.values())
        how = f"{ended.method} {ended.every or ''} x{ended.factor:g}"
        self._say(f"{ended.what} {'+'.join(ended.tasks)} {how}: {total:.4f} in {ended.cpu_s:.1f} CPU-s")

    def _keep(self, merged: Trained, weights: Path) -> None:
        """The merged weights, which are the same however affinity was measured."""
        others = [each for each in self._book.trained.values() if each.what == "merged"]
        if any(each.digest != merged.digest for each in others):
            raise StudyRefused(
                f"{self._kept}: other weights came out than when it was begun, by another machine or version:"
                " finish it there, or name another folder"
            )
        partial = self._kept.with_suffix(".part")
        shutil.copyfile(weights, partial)
        partial.replace(self._kept)
