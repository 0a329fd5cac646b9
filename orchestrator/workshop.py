"""What the orchestrator does with its own hands: first weights, carving, merging, judging, exporting.

Carving and merging are done at once with numpy, tensor by tensor. What takes torch (first weights,
evaluation on clients that no device has, files for deployments) is done by a short-lived child, ``python -m
mas_edge.models.job``, one at a time, so that the orchestrator itself never imports torch. The child's
seconds and joules stand under the group ``orchestrator``, never under a task group.

Everything may be undertaken twice: results are named by their content, and what is under way is not
begun again. A request that the child refuses, or a child that broke, ends the job with its reason, or the
deployment that wanted it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.models import job as torch_child
from mas_edge.models import weights
from mas_edge.orchestrator import aggregate
from mas_edge.orchestrator.deployment import Export, Exported, NotExported
from mas_edge.orchestrator.job import Abandoned, Event, Init, Initialised, Job, Judge, Judged
from mas_edge.orchestrator.rounds import Carve, Carved, Merge, Merged
from mas_edge.orchestrator.spec import ORCHESTRATOR
from mas_edge.profiling import ledger as books
from mas_edge.profiling.baseline import stated
from mas_edge.profiling.cpu import host_time
from mas_edge.profiling.ledger import Ledger, Use
from mas_edge.profiling.meters import MeterUnavailable, between
from mas_edge.wire.messages import Profile
from mas_edge.wire.room import FULL

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.profiling.meters import Meter, Reading
    from mas_edge.wire.blobs import BlobStore

MOST_KILLS = 3
"""A torch child that was killed this often, one after the other, ends its job."""

log = logging.getLogger(__name__)

TorchChore: TypeAlias = Init | Judge | Export
Chore: TypeAlias = TorchChore | Carve | Merge
Result: TypeAlias = Event | Exported | NotExported


@dataclass
class _Child:
    """The torch child at work, and what the meters said when it began."""

    job: str
    chore: TorchChore
    process: subprocess.Popen[bytes]
    reading: Reading | None
    busy_s: float


class Workshop:
    """The orchestrator's chores; results go to its blobs, files in the making to ``state``."""

    def __init__(self, blobs: BlobStore, state: Path, meter: Meter) -> None:
        self._blobs, self._state, self._meter = blobs, state, meter
        self._child: _Child | None = None
        self._kills = 0

    @property
    def busy(self) -> bool:
        """Whether the torch child is at work."""
        return self._child is not None

    def undertake(self, job: Job, chore: Chore) -> list[Event]:
        """Do it, or begin it; what came of it already. A second child waits to be asked for again."""
        match chore:
            case Carve():
                return [self._carve(chore)]
            case Merge():
                return [self._merge(chore)]
            case Init() | Judge() | Export() if self._child is None:
                self._child = self._start(job, chore)
        return []

    def poll(self) -> list[tuple[str, Result]]:
        """What the child has brought since the last call: (job, event). One that was killed begins anew.

        Raises OSError if the disk was full for it.
        """
        child = self._child
        if child is None or (code := child.process.poll()) is None:
            return []
        self._kills = self._kills + 1 if code < 0 else 0
        if 0 < self._kills < MOST_KILLS:
            log.warning("the torch child was killed by signal %d: its chore begins anew", -code)
            self.close()
            return []
        self._child = None
        return [(child.job, self._ended(child))]

    def close(self) -> None:
        """End the child; its chore will be begun anew."""
        if self._child:
            self._child.process.kill()
            self._child.process.wait()
            if self._child.process.stdout:
                self._child.process.stdout.close()
            self._child = None

    # --- with numpy ----------------------------------------------------------------------------

    def _carve(self, chore: Carve) -> Carved:
        made = self._state / "carved.safetensors"
        weights.carve(self._blobs.path(chore.source.digest), chore.tasks, made)
        return Carved(group=chore.group, weights=self._blobs.adopt(made))

    def _merge(self, chore: Merge) -> Merged:
        made = self._state / "merged.safetensors"
        updates = [
            aggregate.Contribution(
                device=update.device,
                path=self._blobs.path(update.weights.digest),
                encoder_weight=update.examples,
                decoder_weights={score.task: score.count for score in update.trained},
            )
            for update in chore.updates
            if update.weights is not None
        ]
        aggregate.merge(updates, made, base=self._blobs.path(chore.base.digest))
        return Merged(group=chore.group, round=chore.round, weights=self._blobs.adopt(made))

    # --- with torch ----------------------------------------------------------------------------

    def _start(self, job: Job, chore: TorchChore) -> _Child:
        process = subprocess.Popen(
            [sys.executable, "-m", "mas_edge.models.job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        process.stdin.write(msgspec.json.encode(self._request(job, chore)))
        process.stdin.close()
        return _Child(job.spec.name, chore, process, self._reading(), host_time().busy_s)

    def _request(self, job: Job, chore: TorchChore) -> torch_child.Request:
        training, made = job.spec.training, str(self._made(chore))
        workload, network, tasks = training.workload, training.network, chore.tasks
        if isinstance(chore, Init):
            return torch_child.Init(
                workload=workload, network=network, tasks=tasks, seed=training.seed, out=made
            )
        weights_, clients = str(self._blobs.path(chore.weights.digest)), job.spec.unseen
        if isinstance(chore, Judge):
            return torch_child.Evaluate(
                workload=workload, network=network, tasks=tasks, weights=weights_, clients=clients
            )
        return torch_child.Export(
            workload=workload,
            network=network,
            tasks=tasks,
            weights=weights_,
            out=made,
            precision=chore.precision,
            clients=clients,
            about=about(job, chore),
        )

    def _made(self, chore: TorchChore) -> Path:
        """The file that the child writes, if any."""
        return self._state / ("exported.onnx" if isinstance(chore, Export) else "first.safetensors")

    def _ended(self, child: _Child) -> Result:
        """What the child's end comes to; where it broke, what wanted it done is over."""
        result = self._answered(child)
        if isinstance(result, Abandoned) and isinstance(child.chore, Export):
            return NotExported(request=child.chore.request, group=child.chore.group, reason=result.reason)
        return result

    def _answered(self, child: _Child) -> Result:
        assert child.process.stdout is not None  # noqa: S101 - PIPE was asked for
        with child.process.stdout as out:
            said = out.read()
        try:
            answer: torch_child.Answer = msgspec.json.decode(said, type=torch_child.Answer)
        except msgspec.MsgspecError:
            code = child.process.returncode
            return Abandoned(reason=f"the orchestrator's torch child ended with code {code} and no answer")
        match answer, child.chore:
            case torch_child.Initialised(), Init():
                return Initialised(
                    weights=self._blobs.adopt(self._made(child.chore)),
                    fingerprint=answer.fingerprint,
                    parameters=answer.parameters,
                    flops=answer.flops,
                    profile=self._profile(child, "initialise", answer.cost),
                )
            case torch_child.Evaluated(), Judge(group=group):
                profile = self._profile(child, "evaluate unseen", answer.cost)
                return Judged(group=group, scores=answer.scores, profile=profile)
            case torch_child.Exported(), Export() as chore:
                return Exported(
                    request=chore.request,
                    group=chore.group,
                    file=self._blobs.adopt(self._made(chore)),
                    proof=answer.proof,
                    profile=self._profile(child, "export", answer.cost),
                )
            case torch_child.Refused(errno=number), _ if number in FULL:
                raise OSError(number, answer.detail)  # its chore is owed still, and begun anew
            case torch_child.Refused(), _:
                return Abandoned(reason=answer.detail)
        return Abandoned(reason=f"the orchestrator's torch child answered {type(answer).__name__}")

    def _reading(self) -> Reading | None:
        try:
            return self._meter.read()
        except MeterUnavailable as error:
            log.warning("no reading: %s", error)
            return None

    def _profile(self, child: _Child, phase: str, cost: torch_child.Cost) -> Profile:
        """What the child cost: one slice from its start to its end."""
        last = self._reading()
        if child.reading is None or last is None:
            return Profile()
        used, idle = between(child.reading, last), self._meter.idle
        use = Use(
            job=child.job,
            group=ORCHESTRATOR,
            round=0,
            phase=phase,
            wall_s=cost.wall_s,
            cpu_s=cost.cpu_s,
            peak_rss_bytes=cost.peak_rss_bytes,
        )
        piece = books.metered(used, host_time().busy_s - child.busy_s, (use,))
        idle_w, idle_u_w = (idle.power_w, idle.u_w) if idle else (None, None)
        made = books.charge(Ledger(), piece, idle_w, idle_u_w, self._meter.sensor.gain_u)
        return Profile(
            rows=books.rows(made),
            sensor=self._meter.sensor,
            idle_w=idle_w,
            idle_u_w=idle_u_w,
            trace=made.trace,
            shared_gpu_j=made.shared_gpu.value_j,
            shared_gpu_u_j=made.shared_gpu.u_j,
            baseline=stated(idle),
            sampling=made.sampling,
            profiler_cpu_s=made.profiler_cpu_s,
        )


def about(job: Job, chore: Export) -> dict[str, str]:
    """What the file's metadata say of its weights: whose, how old, and what they were not trained on."""
    return {
        "job": chore.job,
        "group": chore.group,
        "round": str(chore.round),
        "digest": chore.weights.digest,
        "held_out_share": msgspec.json.encode(job.spec.training.held_out_share).decode(),
    }
