"""What one round would cost here: the real worker trains the real data for some seconds, and is stopped.

The weights are fresh ones, made by the torch child that the orchestrator uses (``models.job``); the round is
that of the workload's first preset with all its default tasks. The worker reports its steps, the meter is
read at the first report and at the last, and ``findings.extrapolated`` takes the rest of the steps to cost
the same. Nothing is kept: folder and result go. It knows nothing of the other devices of a round.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent.findings import RoundCost, extrapolated
from mas_edge.edge_agent.work import Beat, Broke, Done, Word, Work, WorkerProcess
from mas_edge.models.job import Answer, Init, Initialised
from mas_edge.profiling.meters import begin, end
from mas_edge.wire.blobstore import BlobStore
from mas_edge.wire.messages import Assign, Key, Training

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.edge_agent.config import AgentConfig
    from mas_edge.models.tasks import Source, Workload
    from mas_edge.profiling.meters import Mark, Meter
    from mas_edge.wire.messages import Baseline

MEASURED_S, LONGEST_S = 10.0, 240.0
"""Steps are watched for the first; a board that has done none after the second is told so."""

POLL_S = 0.02


class DryRoundFailed(RuntimeError):
    """The round could not be tried; the text says why."""


@dataclass
class _Watch:
    """What has been seen of the round so far."""

    began_s: float
    first_s: float | None = None
    first_step: int = 0
    mark: Mark | None = None
    gain_u: float = 0.0
    last: Beat | None = None


def cost(
    config: AgentConfig,
    workload: Workload,
    source: Source,
    *,
    meter: Meter | None,
    idle: Baseline | None,
    memory_bytes: int | None,
    threads: int,
    folder: Path,
) -> RoundCost:
    """The cost of one round on this device's data, tried in ``folder``.

    Raises DryRoundFailed, with what the worker said.
    """
    worker = WorkerProcess(folder / "worker.log")
    try:
        work = _work(config, workload, source, folder)
        worker.start(msgspec.structs.replace(work, memory_bytes=memory_bytes, threads=threads))
        return _watched(worker, workload.name, meter, idle)
    finally:
        worker.close()


def _work(config: AgentConfig, workload: Workload, source: Source, folder: Path) -> Work:
    preset = workload.presets[0]
    training = Training(
        workload=workload.name,
        network=preset.network,
        rounds=preset.rounds,
        epochs=preset.epochs,
        batch=preset.batch,
        lr=preset.lr,
        seed=1,
        held_out_share=preset.held_out_share,
        affinity_every=preset.affinity_every,
    )
    tasks = tuple(task.name for task in workload.choose(None))
    fresh = folder / "fresh.safetensors"
    fingerprint = _init(
        Init(workload=workload.name, network=preset.network, tasks=tasks, seed=1, out=str(fresh))
    )
    blobs = BlobStore(folder / "blobs")
    ref = blobs.adopt(fresh)
    assign = Assign(
        key=Key(job="doctor", group="all", round=0, attempt=0, device=config.device),
        tasks=tasks,
        training=training,
        weights=ref,
        fingerprint=fingerprint,
    )
    return Work(
        assign=assign,
        weights=str(blobs.path(ref.digest)),
        result=str(folder / "result.safetensors"),
        clients=source.clients,
        root=str(source.root) if source.root else None,
        train_device=config.train.device,
    )


def _init(request: Init) -> str:
    """The fingerprint of the workload here; the weights are written."""
    done = subprocess.run(
        [sys.executable, "-m", "mas_edge.models.job"],
        input=msgspec.json.encode(request),
        capture_output=True,
        check=False,
    )
    try:
        answer: Answer = msgspec.json.decode(done.stdout, type=Answer)
    except msgspec.MsgspecError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise DryRoundFailed(f"torch could not make first weights: {last or done.returncode}") from None
    if not isinstance(answer, Initialised):
        raise DryRoundFailed(f"torch could not make first weights: {answer}")
    return answer.fingerprint


def _watched(worker: WorkerProcess, name: str, meter: Meter | None, idle: Baseline | None) -> RoundCost:
    seen = _Watch(time.monotonic())
    while time.monotonic() - seen.began_s < LONGEST_S:
        for word in worker.heard():
            if found := _heard(seen, word, name, meter, idle):
                return found
        time.sleep(POLL_S)
    raise DryRoundFailed(f"no step was done within {LONGEST_S:.0f} s")


def _heard(
    seen: _Watch, word: Word, name: str, meter: Meter | None, idle: Baseline | None
) -> RoundCost | None:
    """The cost, once enough was seen."""
    now_s = time.monotonic()
    match word:
        case Broke():
            raise DryRoundFailed(f"{word.reason}: {word.detail}")
        case Beat() if seen.first_s is None:
            seen.first_s, seen.first_step, seen.last = now_s, word.step, word
            if meter:
                seen.mark, seen.gain_u = begin(meter), meter.sensor.gain_u
        case Beat():
            seen.last = word
            if now_s - (seen.first_s or now_s) >= MEASURED_S and word.step > seen.first_step:
                return _cost(seen, name, word.step, now_s, idle, word.steps, None)
        case Done():
            if seen.last is None or seen.last.steps == seen.first_step:
                raise DryRoundFailed("the round was over before it could be timed: too little data")
            of = seen.last.steps
            return _cost(seen, name, of, now_s, idle, of, word.peak_rss_bytes)
    return None


def _cost(
    seen: _Watch, name: str, step: int, now_s: float, idle: Baseline | None, of: int, peak: int | None
) -> RoundCost:
    first_s = seen.first_s or now_s
    energy = end(seen.mark).settle() if seen.mark else None
    return extrapolated(
        name,
        start_s=first_s - seen.began_s,
        wall_s=now_s - first_s,
        steps=step - seen.first_step,
        of=of,
        energy_j=energy.energy_j if energy else None,
        u_j=energy.variance_j2**0.5 if energy else None,
        gain_u=seen.gain_u,
        idle=idle,
        peak_rss_bytes=peak,
    )
