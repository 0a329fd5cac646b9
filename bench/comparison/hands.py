"""A job in one process: the product's own decisions and its own training, without broker and daemons.

``run`` folds events into ``orchestrator.job`` as the server does and has ``Hands`` do what the job owes, one
action after the other: first weights, a device's training, averaging, carving, judging, and the plan, each
by the function that the product does it with. So every policy takes here the decisions that it takes on a
fleet, and the final weights have the same digests (tests/bench/test_comparison_hands.py). What was done
before for the same inputs is taken from the ``Book``; merged weights stay in a folder, a device's go when
they are averaged. Energy and traffic are not its business, job time stands still, all devices are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from comparison.book import content
from mas_edge.edge_agent import train
from mas_edge.models import job as torch_child
from mas_edge.models import net as nets
from mas_edge.models import weights
from mas_edge.models.evaluate import evaluate
from mas_edge.models.tasks import Source, find
from mas_edge.orchestrator import aggregate
from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.events import Ask, Carve, Carved, Heard, LeaveOut, LeftOut, Merge, Merged, Select
from mas_edge.orchestrator.planning import planned, situation
from mas_edge.orchestrator.selection import Candidate, select
from mas_edge.wire.blobstore import BlobStore
from mas_edge.wire.messages import Update

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from comparison.book import Book
    from mas_edge.models.tasks import Dataset, View
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import BlobRef, Score, Training


def run(spec: JobSpec, hands: Hands, say: Callable[[jobs.Job], None]) -> list[jobs.Event]:
    """A job's events from its start to its end; ``say`` hears of the job after each of them."""
    job, events = jobs.Job(spec=spec), list[jobs.Event]()
    while not job.over:
        events.append(hands.event(job, jobs.owes(job, 0.0)[0], events))
        job = jobs.fold(job, events[-1], 0.0)
        say(job)
    return events


class Hands:
    """What devices and orchestrator do; merged weights stay in ``folder``, devices' go to ``scratch``."""

    def __init__(
        self,
        clients: Mapping[str, tuple[str, ...]],
        book: Book,
        folder: Path,
        scratch: Path,
        *,
        root: Path | None = None,
    ) -> None:
        train.use_device("cpu", threads=1)
        self._clients, self._book, self._root, self._scratch = clients, book, root, scratch
        self._kept, self._updates = BlobStore(folder), BlobStore(scratch / "updates")
        self._data: dict[tuple[str, tuple[str, ...], View, float], Dataset] = {}
        self._waiting: list[tuple[str, Heard]] = []  # until they are merged, and count
        self._asks: dict[str, Ask] = {}  # by digest: how to make an update's weights again
        self._merges: dict[str, Merge] = {}  # and merged ones

    def event(self, job: jobs.Job, action: jobs.Action, events: list[jobs.Event]) -> jobs.Event:
        """What comes of an action that the job owes; ``events`` are those that it had."""
        match action:
            case jobs.Plan():
                return planned(situation(job, [(0.0, event) for event in events]))
            case Ask():
                return self._heard(job.spec, action)
            case Select():
                return _selected(job, action)
            case LeaveOut():
                return LeftOut(group=action.group, round=action.round, updates=action.updates)
        return self._chore(job.spec, action)

    def _chore(self, spec: JobSpec, action: jobs.Action) -> jobs.Event:
        match action:
            case jobs.Init():
                return self._initialised(spec, action)
            case Carve():
                return self._carved(spec, action)
            case Merge():
                return self._merged(spec, action)
            case jobs.Judge():
                return self._judged(spec, action)
        raise NotImplementedError(f"a job in one process never owes {type(action).__name__}")

    def tidy(self, keep: Collection[str]) -> None:
        """Forget all merged weights but these."""
        for digest in self._kept.digests() - set(keep):
            self._kept.remove(digest)

    # --- a device ------------------------------------------------------------------------------

    def _heard(self, spec: JobSpec, ask: Ask) -> Heard:
        of = self._turn(spec.training, ask, measured=ask.measure)
        found = self._book.get(of)
        if not isinstance(found, Heard):
            found = self._unmeasured(spec.training, ask) or self._trained(spec, ask)
            self._waiting.append((of, found))
            if not ask.train:
                self._settle([])
        if found.update.weights:
            self._asks[found.update.weights.digest] = ask
        return found

    def _turn(self, training: Training, ask: Ask, *, measured: bool) -> str:
        """The hash of all that a device's answer depends on."""
        how = training
        if not measured:  # what it says of measuring has no say
            how = msgspec.structs.replace(how, affinity="gram", affinity_every=10)
        clients = self._clients[ask.key.device]
        return content(
            "turn", ask.key, ask.tasks, ask.weights.digest, how, clients, ask.train, ask.evaluate, measured
        )

    def _unmeasured(self, training: Training, ask: Ask) -> Heard | None:
        """The same training if it was measured before: that changes nothing else."""
        found = None if ask.measure else self._book.get(self._turn(training, ask, measured=True))
        if not isinstance(found, Heard):
            return None
        return msgspec.structs.replace(found, update=msgspec.structs.replace(found.update, affinity=None))

    def _trained(self, spec: JobSpec, ask: Ask) -> Heard:
        training, base = spec.training, self._path(spec, ask.weights.digest)
        net = _net(training, ask.tasks, base)
        done, scores = turn(net, training, ask, lambda view: self._dataset(training, ask.key.device, view))
        update = Update(key=ask.key, scores=scores)
        if not ask.train:
            return Heard(update=update)
        made = self._scratch / "made.safetensors"
        weights.save(made, nets.state(net))
        distance = aggregate.screen(made, base)
        update = msgspec.structs.replace(
            update,
            weights=self._updates.adopt(made),
            examples=done.examples,
            trained=done.losses,
            affinity=done.affinity,
        )
        return Heard(update=update, distance=distance)

    def _dataset(self, training: Training, device: str, view: View) -> Dataset:
        name = (training.workload, self._clients[device], view, training.held_out_share)
        if name not in self._data:
            source = Source(self._clients[device], self._root)
            self._data[name] = find(training.workload).dataset(source, view, training.held_out_share)
        return self._data[name]

    # --- the orchestrator ----------------------------------------------------------------------

    def _initialised(self, spec: JobSpec, chore: jobs.Init) -> jobs.Event:
        training, made = spec.training, self._kept.root / "first.safetensors"
        asked = torch_child.Init(
            workload=training.workload,
            network=training.network,
            tasks=chore.tasks,
            seed=training.seed,
            out=str(made),
        )
        answer = torch_child.perform(asked)
        facts = {name: getattr(answer, name) for name in answer.__struct_fields__ if name != "cost"}
        return jobs.Initialised(weights=self._kept.adopt(made), **facts)

    def _carved(self, spec: JobSpec, chore: Carve) -> Carved:
        made = self._kept.root / "carved.safetensors"
        weights.carve(self._path(spec, chore.source.digest), chore.tasks, made)
        return Carved(group=chore.group, weights=self._kept.adopt(made))

    def _merged(self, spec: JobSpec, chore: Merge) -> Merged:
        of = content("merge", chore)
        found = self._book.get(of)
        fresh = any(self._updates.has(each.weights.digest) for each in chore.updates if each.weights)
        if isinstance(found, Merged) and (self._kept.has(found.weights.digest) or not fresh):
            self._settle([])
        else:
            found = Merged(group=chore.group, round=chore.round, weights=self._averaged(spec, chore))
            self._settle([(of, found)])
        self._merges[found.weights.digest] = chore
        return found

    def _averaged(self, spec: JobSpec, chore: Merge) -> BlobRef:
        updates = [
            aggregate.Contribution(
                device=update.device,
                path=self._update(spec, update.weights),
                encoder_weight=update.examples,
                decoder_weights={score.task: score.count for score in update.trained},
            )
            for update in chore.updates
            if update.weights is not None
        ]
        made = self._kept.root / "merged.safetensors"
        aggregate.merge(updates, made, base=self._kept.path(chore.base.digest))
        return self._kept.adopt(made)

    def _path(self, spec: JobSpec, digest: str) -> Path:
        """Merged weights; if they were tidied away, made again from the last ones before that are there."""
        gone, at = list[Merge](), digest
        while not self._kept.has(at) and at in self._merges:
            gone.append(self._merges[at])
            at = gone[-1].base.digest
        for chore in reversed(gone):
            self._averaged(spec, chore)
        return self._kept.path(digest)

    def _update(self, spec: JobSpec, ref: BlobRef) -> Path:
        """A device's weights, trained again if they are gone."""
        if not self._updates.has(ref.digest):
            again = self._trained(spec, self._asks[ref.digest])
            assert again.update.weights == ref, "this machine does not repeat itself"  # noqa: S101
        return self._updates.path(ref.digest)

    def _settle(self, more: list[tuple[str, jobs.Event]]) -> None:
        """Keep what waited, and forget the devices' weights: they are in the merged ones."""
        self._book.keep([*self._waiting, *more])
        self._waiting = []
        for digest in self._updates.digests():
            self._updates.remove(digest)

    def _judged(self, spec: JobSpec, chore: jobs.Judge) -> jobs.Event:
        of = content("judge", chore, spec.unseen)
        if (found := self._book.get(of)) is not None:
            return found
        asked = torch_child.Evaluate(
            workload=spec.training.workload,
            network=spec.training.network,
            tasks=chore.tasks,
            weights=str(self._path(spec, chore.weights.digest)),
            clients=spec.unseen,
            root=str(self._root) if self._root else None,
        )
        answer = torch_child.perform(asked)
        assert isinstance(answer, torch_child.Evaluated)  # noqa: S101 - to what was asked
        event = jobs.Judged(group=chore.group, scores=answer.scores)
        self._book.keep([(of, event)])
        return event


def turn(
    net: nets.MultiTaskNet, training: Training, ask: Ask, data: Callable[[View], Dataset]
) -> tuple[train.Trained, tuple[Score, ...]]:
    """What a device does when it is asked: it evaluates the network, then trains it in place."""
    tasks = find(training.workload).choose(ask.tasks)
    scores = evaluate(net, data("held-out"), tasks, batch=4 * training.batch) if ask.evaluate else ()
    if not ask.train:
        return train.Trained(), scores
    done = train.local_round(
        net,
        data("train"),
        tasks=tasks,
        training=training,
        key=ask.key,
        measure=ask.measure,
        enter=lambda _: None,
        stop=lambda: False,
        beat=lambda *_: None,
    )
    return done, scores


def _net(training: Training, tasks: tuple[str, ...], path: Path) -> nets.MultiTaskNet:
    net = nets.build(find(training.workload), training.network, tasks, seed=0)
    nets.load(net, weights.load(path))
    return net


def _selected(job: jobs.Job, action: Select) -> jobs.Event:
    """Who is asked, by the product's own draw: it depends on the job's seed, and all devices are there."""
    run = next(run for run in job.runs if (run.group, run.round) == (action.group, action.round))
    there = [Candidate(device=device, online=True, labels=True) for device in run.devices]
    seed, asked = job.spec.training.seed, job.spec.participation
    chosen = select(run, there, asked, seed=seed, time_s=0.0, settled=True)
    assert chosen is not None, "all devices are there"  # noqa: S101
    return chosen
