"""The process that tries a model: onnxruntime lives here, is capped here, and dies here.

``python -m mas_edge.edge_agent.inference`` reads a ``Try`` from stdin and answers on stdout (the lines of
``edge_agent.trial``); what libraries print goes to stderr. It verifies and loads the file, runs it warm one
input at a time for some seconds, in which the daemon counts joules, then in batches; what it had resident up
to then is the memory that inference takes. Only then does it load the held-out examples and judge the
outputs. The inputs that are timed are noise: how long a network takes does not depend on them.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mas_edge.edge_agent import child
from mas_edge.edge_agent.trial import Order, Ready, Timed, Tried, Try, Unfit
from mas_edge.models.tasks import Source, WorkloadError, find
from mas_edge.profiling.cpu import peak_rss_bytes
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Callable

    from mas_edge.edge_agent.trial import Word
    from mas_edge.models.onnx_file import OnnxModel
    from mas_edge.models.tasks import Array, Workload
    from mas_edge.wire.messages import Score

WARM_UP = 5
"""Runs before anything is timed: memory is laid out in the first."""

FEWEST, LONGEST_S = 30, 60.0
"""One input at a time is run at least so often; a slow network for no longer than that."""

BATCH = 16
"""Inputs at a time, to see how many a second there can be."""


def main() -> None:
    """Try what the daemon says."""
    out = child.begin()
    try:
        _try(sys.stdin.buffer, out)
    except (WorkloadError, OSError) as error:
        _say(out, Unfit(why=str(error)))


def _try(lines: BinaryIO, out: BinaryIO) -> None:
    from mas_edge.models import onnx_file  # noqa: PLC0415 - imports numpy

    order = _heard(lines)
    if not isinstance(order, Try):
        return
    workload = find(order.workload)
    model = onnx_file.open_model(Path(order.path), digest=order.digest, threads=order.threads)
    onnx_file.check(model, workload, order.tasks)
    run = _noise(model, 1)
    for _ in range(WARM_UP):
        run()
    _say(out, Ready())
    _heard(lines)
    _say(out, _timed(run, order.timed_s))
    rate = _rate(_noise(model, BATCH), order.timed_s / 3)
    peak_bytes = peak_rss_bytes(os.getpid())
    share = order.held_out_share or model.card.held_out_share or _default_share()
    scores = _scores(order, workload, model, share)
    _say(
        out,
        Tried(scores=scores, held_out_share=share, inputs_per_s=rate, batch=BATCH, peak_rss_bytes=peak_bytes),
    )


def _noise(model: OnnxModel, batch: int) -> Callable[[], object]:
    import numpy as np  # noqa: PLC0415 - the daemon imports nothing of this process

    inputs: Array = np.random.default_rng(0).standard_normal((batch, *model.card.input_shape), np.float32)
    return lambda: model.run(inputs)


def _timed(run: Callable[[], object], least_s: float) -> Timed:
    """Latencies of one input after the other, and the processor time that all took."""
    taken_s: list[float] = []
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    before_s = began_s
    while (past_s := before_s - began_s) < least_s or (len(taken_s) < FEWEST and past_s < LONGEST_S):
        run()
        now_s = time.perf_counter()
        taken_s.append(now_s - before_s)
        before_s = now_s
    cpu_s = time.process_time() - began_cpu_s
    ordered = sorted(taken_s)
    return Timed(
        inputs=len(ordered),
        wall_s=before_s - began_s,
        cpu_s=cpu_s,
        latency_p50_s=percentile(ordered, 50),
        latency_p95_s=percentile(ordered, 95),
    )


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest of these numbers that so many per cent of them do not exceed; there is at least one."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def _rate(run: Callable[[], object], least_s: float) -> float:
    """Inputs a second, in batches."""
    run()
    began_s, batches = time.perf_counter(), 0
    while (past_s := time.perf_counter() - began_s) < least_s or not batches:
        run()
        batches += 1
    return batches * BATCH / past_s


def _scores(order: Try, workload: Workload, model: OnnxModel, share: float) -> tuple[Score, ...]:
    from mas_edge.models.onnx_file import ModelRefused  # noqa: PLC0415 - imports numpy
    from mas_edge.models.scores import evaluate  # noqa: PLC0415

    source = Source(clients=order.clients, root=Path(order.root) if order.root else None)
    data = workload.dataset(source, "held-out", share)
    found = evaluate(model.run, data, workload.choose(model.card.tasks), BATCH)
    for score in found:
        if not math.isfinite(score.loss_sum):
            raise ModelRefused(f"its held-out loss of task {score.task!r} is {score.loss_sum}")
    return found


def _default_share() -> float:
    """What a job holds out if it says nothing else."""
    shares = {field.name: field.default for field in msgspec.structs.fields(Training)}
    return float(shares["held_out_share"])


def _heard(lines: BinaryIO) -> Order | None:
    """The daemon's next line; None if it is gone."""
    line = lines.readline()
    return msgspec.json.decode(line, type=Order) if line else None


def _say(out: BinaryIO, word: Word) -> None:
    out.write(msgspec.json.encode(word) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
