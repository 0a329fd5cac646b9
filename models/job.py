"""The orchestrator's short-lived torch child: makes first weights, evaluates on unseen data, exports.

``python -m mas_edge.models.job`` reads one JSON request from stdin and writes one JSON answer to stdout;
both are the structs below, told apart by ``kind``. It exists so that the orchestrator never imports torch
(some 200 MB, and two CPU-seconds): it is started, answers and is gone, and says what it cost. What is wrong
with a request (an unknown name, damaged weights or data) is a ``Refused`` in one line and exit code 2.

It trains nothing, keeps nothing, and writes only the file that the request names. ``export`` is
``models.export`` with the proof of ``models.parity``; it wants the packages onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.models.proof import Proof
from mas_edge.models.tasks import ExportRefused, Source, Workload, WorkloadError, find
from mas_edge.wire.host import die_with_parent, write_atomic
from mas_edge.wire.messages import Precision, Score

if TYPE_CHECKING:
    from mas_edge.models.net import MultiTaskNet

EVALUATION_BATCH = 256
"""Examples at a time; without gradients this needs little memory, and does not change the result."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """What goes in or comes out."""


class Init(_Line, frozen=True):
    """Write the first weights of this network for these tasks to ``out``."""

    workload: str
    network: str
    tasks: tuple[str, ...]
    seed: int
    out: str


class Evaluate(_Line, frozen=True):
    """Evaluate weights on all examples of these clients; ``root`` None is the shipped data."""

    workload: str
    network: str
    tasks: tuple[str, ...]
    weights: str
    clients: tuple[str, ...]
    root: str | None = None
    threads: int = 1


class Export(_Line, frozen=True):
    """Write weights, which may be of more tasks, as an ONNX file of these tasks to ``out``.

    ``about`` is what its metadata say of where the weights are from, besides what ``models.export`` puts
    there. ``clients`` prove it, and calibrate int8; none: those that the workload names as unseen.
    """

    workload: str
    network: str
    tasks: tuple[str, ...]
    weights: str
    out: str
    precision: Precision = "fp32"
    clients: tuple[str, ...] = ()
    root: str | None = None
    about: dict[str, str] = {}


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the child has cost so far, from its start."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


class Initialised(_Line, frozen=True):
    """The weights are written. ``parameters`` counts those of each part, buffers left out; ``flops`` what it
    computes for one example (``models.flops``).
    """

    fingerprint: str
    parameters: dict[str, int]
    flops: dict[str, int]
    cost: Cost


class Evaluated(_Line, frozen=True):
    """A score per task that the clients have labels for."""

    scores: tuple[Score, ...]
    cost: Cost


class Exported(_Line, frozen=True):
    """The file is written, and computes what the proof says."""

    proof: Proof
    cost: Cost


class Refused(_Line, frozen=True):
    """The request cannot be met: the error's class, its one line, and the system's number for it, if any."""

    error: str
    detail: str
    errno: int | None = None


Request: TypeAlias = Init | Evaluate | Export
Answer: TypeAlias = Initialised | Evaluated | Exported | Refused


def perform(request: Request) -> Initialised | Evaluated | Exported:
    """The answer to a request; raises WorkloadError (weights and data included) or OSError."""
    started_s = time.perf_counter()
    workload = find(request.workload)
    match request:
        case Init():
            return _init(workload, request, started_s)
        case Evaluate():
            return _evaluate(workload, request, started_s)
        case Export():
            return _export(workload, request, started_s)


def _init(workload: Workload, request: Init, started_s: float) -> Initialised:
    from mas_edge.models import net, weights  # noqa: PLC0415 - imports torch
    from mas_edge.models.fingerprint import fingerprint  # noqa: PLC0415
    from mas_edge.models.flops import forward_flops  # noqa: PLC0415

    net.settle()
    fresh = net.build(workload, request.network, request.tasks, request.seed)
    weights.save(Path(request.out), net.state(fresh))
    parameters = {f"decoder.{task}": net.parameter_count(fresh.decoder[task]) for task in fresh.tasks}
    parameters["encoder"] = net.parameter_count(fresh.encoder)
    found = fingerprint(workload, request.network)
    flops = forward_flops(fresh, workload.input_shape)
    return Initialised(fingerprint=found, parameters=parameters, flops=flops, cost=_cost(started_s))


def _evaluate(workload: Workload, request: Evaluate, started_s: float) -> Evaluated:
    from mas_edge.models import net  # noqa: PLC0415 - imports torch
    from mas_edge.models.evaluate import evaluate  # noqa: PLC0415

    net.settle(request.threads)
    tasks, trained = workload.choose(request.tasks), _trained(workload, request)
    source = Source(clients=request.clients, root=_root(request))
    scores = evaluate(trained, workload.dataset(source, "all", 0.0), tasks, EVALUATION_BATCH)
    return Evaluated(scores=scores, cost=_cost(started_s))


def _export(workload: Workload, request: Export, started_s: float) -> Exported:
    try:
        from mas_edge.models import export, parity  # noqa: PLC0415 - import torch, onnx and onnxruntime
    except ModuleNotFoundError as error:
        remedy = "pip install 'mas-edge[orchestrator]'"
        raise ExportRefused(f"ONNX files need the package {error.name}: {remedy}") from error
    from mas_edge.models import net  # noqa: PLC0415

    net.settle()
    tasks, trained = workload.choose(request.tasks), _trained(workload, request)
    held = parity.held_out(workload, request.clients, _root(request))
    calibration = held.calibration if request.precision == "int8" else None
    model = export.convert(export.to_onnx(trained, workload.input_shape), request.precision, calibration)
    told = export.about(workload, request.network, trained.tasks, request.precision)
    out = Path(request.out)
    unproven = out.with_name(out.name + ".unproven")
    try:
        write_atomic(unproven, export.to_bytes(model, {**request.about, **told}))
        proof = parity.prove(unproven, trained, tasks, held)
        unproven.replace(out)
    finally:
        unproven.unlink(missing_ok=True)
    return Exported(proof=proof, cost=_cost(started_s))


def _trained(workload: Workload, request: Evaluate | Export) -> MultiTaskNet:
    from mas_edge.models import net, weights  # noqa: PLC0415 - imports torch

    trained = net.build(workload, request.network, request.tasks, seed=0)
    net.load(trained, weights.load(Path(request.weights), request.tasks))
    return trained


def _root(request: Evaluate | Export) -> Path | None:
    return Path(request.root) if request.root else None


def _cost(started_s: float) -> Cost:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux, getrusage(2)
    return Cost(wall_s=time.perf_counter() - started_s, cpu_s=time.process_time(), peak_rss_bytes=peak)


def answer(line: bytes) -> Answer:
    """The answer to a request in JSON; what cannot be met is a Refused."""
    try:
        return perform(msgspec.json.decode(line, type=Request))
    except (WorkloadError, OSError, msgspec.MsgspecError) as error:
        number = error.errno if isinstance(error, OSError) else None
        return Refused(error=type(error).__name__, detail=" ".join(str(error).split()), errno=number)


def main() -> int:
    """Answer the request on stdin; exit code 0, or 2 if it was refused."""
    die_with_parent(signal.SIGKILL)
    given = answer(sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(given) + b"\n")
    return 2 if isinstance(given, Refused) else 0


if __name__ == "__main__":
    sys.exit(main())
