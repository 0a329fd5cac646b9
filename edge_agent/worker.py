"""The training process: torch lives here, is capped here, and dies here without hurting the agent.

``python -m mas_edge.edge_agent.worker`` reads orders from stdin and answers on stdout (the lines of
``edge_agent.work``); what libraries print goes to stderr. It imports torch when the first work comes,
keeps data sets and fingerprints warm between rounds, finds a way to train within the memory that it may have
(``edge_agent.fit``), evaluates the received weights, then trains, and writes the result where it was told to.
Its peak memory is each work's own: what the last one freed goes back to the system first. A thread reads the
orders, so that a ``Halt`` is seen at the next micro-batch and the daemon's death (end of file) ends the
process at once.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mas_edge.edge_agent import child
from mas_edge.edge_agent.fit import (
    TooLarge,
    choose,
    memory_ran_out,
    micro_batches,
    resident_limit,
    shortage,
    still_fits,
)
from mas_edge.edge_agent.work import NO_MEMORY, Beat, Broke, Done, Fitted, Halt, Order, Word, Work
from mas_edge.models.tasks import Source, WorkloadError, find
from mas_edge.models.weights import WeightsRefused
from mas_edge.profiling.cpu import file_bytes, forget_peak_rss, give_memory_back, peak_rss_bytes, rss_bytes
from mas_edge.profiling.stopwatch import Stopwatch
from mas_edge.wire.messages import Fit

if TYPE_CHECKING:
    from mas_edge.edge_agent.train import Trained
    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Dataset, View, Workload
    from mas_edge.wire.messages import Score

BEAT_S = 0.25
"""Seconds between two signs of life; also the length of the slices that joules are attributed over."""


class FingerprintDiffers(WorkloadError, ValueError):
    """The workload installed here is not the one that the orchestrator means."""


class _Worker:
    """Warm state of the process: data sets, fingerprints, and which work was halted."""

    def __init__(self, out: BinaryIO, stopwatch: Stopwatch) -> None:
        self._out = out
        self._stopwatch = stopwatch
        self._data: dict[tuple[str, Source, View, float], Dataset] = {}
        self._fingerprints: dict[tuple[str, str], str] = {}
        self._proven: dict[tuple[object, ...], tuple[Fitted, int]] = {}  # how a group was trained, its peak
        self._halted: set[int] = set()
        self._trying: Fitted | None = None
        self._beat_s = 0.0

    def listen(self, lines: BinaryIO, works: queue.SimpleQueue[Work]) -> None:
        """Read orders until the daemon is gone."""
        decoder = msgspec.json.Decoder(Order)
        for line in lines:
            match decoder.decode(line):
                case Work() as work:
                    works.put(work)
                case Halt(number=number):
                    self._halted.add(number)
        os._exit(0)

    def serve(self, works: queue.SimpleQueue[Work]) -> None:
        """Do one work after the other, for ever."""
        while True:
            self._stopwatch.enter("idle")
            work = works.get()
            self._stopwatch.enter("load")
            give_memory_back()
            forget_peak_rss()
            self._say(self._answer(work))

    def _answer(self, work: Work) -> Done | Broke:
        try:
            return self._perform(work)
        except Exception as error:  # the worker's outermost frame: the agent must hear of it
            reason = _reason(error)
            if reason == "memory" and not isinstance(error, TooLarge):
                print(f"no memory: {error}", file=sys.stderr, flush=True)
                os._exit(NO_MEMORY)  # oneDNN, for one, never makes again what it could not make once
            return Broke(
                number=work.number,
                reason=reason,
                detail=f"{type(error).__name__}: {error}" if reason == "crashed" else str(error),
                phases=self._stopwatch.snapshot(),
                shortage=error.shortage if isinstance(error, TooLarge) else None,
                peak_rss_bytes=peak_rss_bytes(os.getpid()),
            )

    def _perform(self, work: Work) -> Done:
        from mas_edge.edge_agent import train  # noqa: PLC0415 - imports torch
        from mas_edge.models import net as nets  # noqa: PLC0415
        from mas_edge.models import weights  # noqa: PLC0415

        if not gc.get_freeze_count():  # or each collection would look through all of torch: 31 ms
            gc.freeze()
        if work.number in self._halted:
            raise train.Cancelled("before it began")
        assign, training = work.assign, work.assign.training
        device = train.use_device(work.train_device, threads=1 if training.reproducible else work.threads)
        workload = find(training.workload)
        self._check_fingerprint(workload, training.network, assign.fingerprint)
        net = nets.build(workload, training.network, assign.tasks, seed=0).to(device)
        fit = self._fitted(work, workload, net)
        nets.load(net, weights.load(Path(work.weights)))
        scores = self._evaluated(work, workload, net, fit) if assign.evaluate else ()
        trained = train.Trained()
        if assign.train:
            trained = self._trained(work, workload, net, fit)
            self._stopwatch.enter("save")
            weights.save(Path(work.result), nets.state(net))
        peak_bytes = peak_rss_bytes(os.getpid())
        if assign.train and self._trying and peak_bytes:
            self._proven[_group(work)] = self._trying, peak_bytes
        return Done(
            number=work.number,
            phases=self._stopwatch.snapshot(),
            examples=trained.examples,
            trained=trained.losses,
            scores=scores,
            affinity=trained.affinity,
            peak_rss_bytes=peak_bytes,
            train_device=str(device),
            fit=fit,
        )

    def _fitted(self, work: Work, workload: Workload, net: MultiTaskNet) -> Fit:
        """How to train within the memory that is allowed; the net's state is spoilt. Raises TooLarge."""
        from mas_edge.edge_agent.train import cuts_statistics  # noqa: PLC0415 - imports torch
        from mas_edge.models.net import normalises_over_batch  # noqa: PLC0415

        training = work.assign.training
        sizes = micro_batches(training, cut=training.cut_statistics or not normalises_over_batch(net))
        data = self._dataset(work, workload, "train" if work.assign.train else "held-out")
        fit, self._trying = Fit(micro_batch=sizes[0]), None
        if work.memory_bytes is not None and len(data):
            self._trying = self._within(work, workload, net, data, sizes)
            self._say(self._trying)
            fit = self._trying.fit
        return msgspec.structs.replace(fit, cut_statistics=cuts_statistics(net, training, fit.micro_batch))

    def _within(
        self, work: Work, workload: Workload, net: MultiTaskNet, data: Dataset, sizes: tuple[int, ...]
    ) -> Fitted:
        """The way in which the group was trained before if that still fits, or what a dry step allows."""
        from mas_edge.models import footprint  # noqa: PLC0415 - imports torch

        assign, own = work.assign, os.getpid()
        allowed_bytes = resident_limit(work.memory_bytes or 0, file_bytes(own) or 0, work.killed)
        number, phases = work.number, self._stopwatch.snapshot()
        known, peak_bytes = self._proven.get(_group(work), (None, 0))
        if known and not work.killed and (fit := still_fits(known.fit, peak_bytes, allowed_bytes)):
            return Fitted(number=number, fit=fit, shortage=known.shortage, phases=phases)
        if assign.evaluate:
            self._dataset(work, workload, "held-out")  # rests in memory as well
        parts = footprint.count(net, data, workload.choose(assign.tasks))
        give_memory_back()
        rest = footprint.Footprint(rss_bytes(own) or 0, len(data), *parts, 3 + bool(assign.training.prox_mu))
        fit = choose(rest, sizes, allowed_bytes, measure=assign.measure, killed=work.killed)
        short = shortage(rest, fit, allowed_bytes, measure=assign.measure)
        return Fitted(number=number, fit=fit, shortage=short, phases=phases)

    def _evaluated(self, work: Work, workload: Workload, net: MultiTaskNet, fit: Fit) -> tuple[Score, ...]:
        from mas_edge.edge_agent.train import TrainingBroke  # noqa: PLC0415 - imports torch
        from mas_edge.models.evaluate import evaluate  # noqa: PLC0415

        self._stopwatch.enter("evaluate")
        held_out = self._dataset(work, workload, "held-out")
        tasks = workload.choose(work.assign.tasks)
        free = fit.allowed_bytes is None
        batch = 4 * work.assign.training.batch if free else fit.micro_batch
        scores = evaluate(net, held_out, tasks, batch=batch)
        for score in scores:
            if not math.isfinite(score.loss_sum):  # JSON has no word for it, and no mean survives it
                raise TrainingBroke(
                    f"the held-out loss of task {score.task!r} is {score.loss_sum}: lower the lr"
                )
        return scores

    def _trained(self, work: Work, workload: Workload, net: MultiTaskNet, fit: Fit) -> Trained:
        from mas_edge.edge_agent import train  # noqa: PLC0415 - imports torch

        self._stopwatch.enter("load")
        assign = work.assign
        return train.local_round(
            net,
            self._dataset(work, workload, "train"),
            tasks=workload.choose(assign.tasks),
            training=assign.training,
            key=assign.key,
            measure=assign.measure,
            enter=self._stopwatch.enter,
            stop=lambda: work.number in self._halted,
            beat=lambda step, steps: self._beat(work.number, step, steps),
            fit=fit,
        )

    def _dataset(self, work: Work, workload: Workload, view: View) -> Dataset:
        source = Source(clients=work.clients, root=Path(work.root) if work.root else None)
        share = work.assign.training.held_out_share
        name = (workload.name, source, view, share)
        if name not in self._data:
            self._data[name] = workload.dataset(source, view, share)
        return self._data[name]

    def _check_fingerprint(self, workload: Workload, network: str, expected: str) -> None:
        from mas_edge.models.fingerprint import fingerprint  # noqa: PLC0415 - imports torch

        name = (workload.name, network)
        if name not in self._fingerprints:
            self._fingerprints[name] = fingerprint(workload, network)
        found = self._fingerprints[name]
        if found != expected:
            raise FingerprintDiffers(
                f"workload {workload.name!r} ({network}) has fingerprint {found[:12]} here and"
                f" {expected[:12]} on the orchestrator: install the same version of it on both"
            )

    def _beat(self, number: int, step: int, steps: int) -> None:
        now_s = time.monotonic()
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            phases = self._stopwatch.snapshot()
            self._say(
                Beat(
                    number=number,
                    phases=phases,
                    phase=self._stopwatch.phase or "load",
                    step=step,
                    steps=steps,
                )
            )

    def _say(self, word: Word) -> None:
        self._out.write(msgspec.json.encode(word) + b"\n")
        self._out.flush()


def _group(work: Work) -> tuple[object, ...]:
    """What a training's memory depends on."""
    assign = work.assign
    return assign.training, assign.tasks, assign.measure, work.clients, work.root


def _reason(error: Exception) -> str:
    """What kind of end it is, in the words of ``Broke``."""
    from mas_edge.edge_agent.train import Cancelled, TrainingBroke  # noqa: PLC0415 - imports torch

    match error:
        case Cancelled():
            return "cancelled"
        case FingerprintDiffers():
            return "fingerprint"
        case WorkloadError() | WeightsRefused():
            return "data"
        case TrainingBroke():
            return "training"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return "disk"
    return "memory" if memory_ran_out(error) else "crashed"


def main() -> None:
    """Serve the daemon that started this process until it goes."""
    out = child.begin()
    worker = _Worker(out, Stopwatch())
    works: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=worker.listen, args=(sys.stdin.buffer, works), daemon=True).start()
    worker.serve(works)


if __name__ == "__main__":
    main()
