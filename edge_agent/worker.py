"""The training process: torch lives here, is capped here, and dies here without hurting the agent.

``python -m mas_edge.edge_agent.worker`` reads orders from stdin and answers on stdout (the lines of
``edge_agent.work``); what libraries print goes to stderr. It imports torch when the first work comes,
keeps data sets and fingerprints warm between rounds, evaluates the received weights first, then
trains, and writes the result where it was told to. A thread reads the orders, so that a ``Halt`` is
seen at the next micro-batch and the daemon's death (end of file) ends the process at once.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mas_edge.edge_agent.work import Beat, Broke, Done, Halt, Order, Work
from mas_edge.models.tasks import Source, WorkloadError, find
from mas_edge.models.weights import WeightsRefused
from mas_edge.profiling.cpu import forget_peak_rss, peak_rss_bytes
from mas_edge.profiling.stopwatch import Stopwatch
from mas_edge.wire.host import die_with_parent

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
        self._halted: set[int] = set()
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
            forget_peak_rss()
            self._say(self._answer(work))

    def _answer(self, work: Work) -> Done | Broke:
        from mas_edge.edge_agent.train import Cancelled, TrainingBroke  # noqa: PLC0415 - imports torch

        number = work.number
        try:
            return self._perform(work)
        except Cancelled:
            return self._broke(number, "cancelled", "")
        except FingerprintDiffers as error:
            return self._broke(number, "fingerprint", str(error))
        except (WorkloadError, WeightsRefused) as error:
            return self._broke(number, "data", str(error))
        except TrainingBroke as error:
            return self._broke(number, "training", str(error))
        except Exception as error:  # the worker's outermost frame: the agent must hear of it
            return self._broke(number, "crashed", f"{type(error).__name__}: {error}")

    def _perform(self, work: Work) -> Done:
        from mas_edge.edge_agent import train  # noqa: PLC0415 - imports torch
        from mas_edge.models import net as nets  # noqa: PLC0415
        from mas_edge.models import weights  # noqa: PLC0415

        if work.number in self._halted:
            raise train.Cancelled("before it began")
        assign, training = work.assign, work.assign.training
        device = train.use_device(work.train_device, threads=1 if training.reproducible else work.threads)
        workload = find(training.workload)
        self._check_fingerprint(workload, training.network, assign.fingerprint)
        net = nets.build(workload, training.network, assign.tasks, seed=0).to(device)
        nets.load(net, weights.load(Path(work.weights)))
        scores = self._evaluated(work, workload, net) if assign.evaluate else ()
        trained = train.Trained()
        if assign.train:
            trained = self._trained(work, workload, net)
            self._stopwatch.enter("save")
            weights.save(Path(work.result), nets.state(net))
        return Done(
            number=work.number,
            phases=self._stopwatch.snapshot(),
            examples=trained.examples,
            trained=trained.losses,
            scores=scores,
            affinity=trained.affinity,
            peak_rss_bytes=peak_rss_bytes(os.getpid()),
            train_device=str(device),
        )

    def _evaluated(self, work: Work, workload: Workload, net: MultiTaskNet) -> tuple[Score, ...]:
        from mas_edge.edge_agent.train import TrainingBroke  # noqa: PLC0415 - imports torch
        from mas_edge.models.evaluate import evaluate  # noqa: PLC0415

        self._stopwatch.enter("evaluate")
        held_out = self._dataset(work, workload, "held-out")
        tasks = workload.choose(work.assign.tasks)
        scores = evaluate(net, held_out, tasks, batch=4 * work.assign.training.batch)
        for score in scores:
            if not math.isfinite(score.loss_sum):  # JSON has no word for it, and no mean survives it
                raise TrainingBroke(
                    f"the held-out loss of task {score.task!r} is {score.loss_sum}: lower the lr"
                )
        return scores

    def _trained(self, work: Work, workload: Workload, net: MultiTaskNet) -> Trained:
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

    def _broke(self, number: int, reason: str, detail: str) -> Broke:
        return Broke(number=number, reason=reason, detail=detail, phases=self._stopwatch.snapshot())

    def _say(self, word: Beat | Done | Broke) -> None:
        self._out.write(msgspec.json.encode(word) + b"\n")
        self._out.flush()


def main() -> None:
    """Serve the daemon that started this process until it goes."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides, also at a terminal's Ctrl-C
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = _Worker(out, Stopwatch())
    works: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=worker.listen, args=(sys.stdin.buffer, works), daemon=True).start()
    worker.serve(works)


if __name__ == "__main__":
    main()
