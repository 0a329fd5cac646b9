"""What a job brought, as files in a folder: its models, weights of each group, the report in every form.

Weights come over the control socket, piece by piece, and are kept only if they are what their digest says;
those of a finished run are read from its folder. A child of our own, ``python -m mas_edge.models.job``, makes
an ONNX file of each group, and the proof of what it computes, so that no job of the orchestrator waits for
it. A folder with other things in it is left alone. The layout::

    models/GROUP.onnx, GROUP.parity.json      weights/GROUP.safetensors
    report.html, report.json, profile.csv, manifest.json
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from mas_edge.models import job as torch_child
from mas_edge.models.weights import WeightsRefused, tasks_in
from mas_edge.orchestrator.launching.orders import Fetch, Piece
from mas_edge.orchestrator.reports.page import PAGE, Named, page
from mas_edge.orchestrator.reports.runs import REPORT
from mas_edge.profiling.report import csv_text
from mas_edge.wire.folders import whole_folder
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mas_edge.models.proof import Proof
    from mas_edge.orchestrator.launching.remote import Orchestrator
    from mas_edge.orchestrator.reports.runs import RunReport
    from mas_edge.wire.messages import BlobRef, Precision

WEIGHTS, MODELS = "weights", "models"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages without which there are no ONNX files."""


class ExportRefused(ValueError):
    """A folder that cannot be written to, weights that are not what they should be, or no model of them."""


def export(
    out: Path,
    run: RunReport,
    weights: Mapping[str, Callable[[Path], None]],
    precision: Precision | None,
    told: Callable[[str, Proof], None],
) -> dict[str, Proof]:
    """Write everything, or nothing; the proof of each group's model, of which ``told`` hears at once.

    ``weights`` write a group's to a path; ``precision`` None makes no models. Raises ExportRefused, and what
    asking the orchestrator raises.
    """
    _check(out, precision)
    if precision and not weights:
        remedy = "ask again later, or for --safetensors alone"
        raise ExportRefused(f"{run.report.name} has no weights yet: {remedy}")
    if strange := [group for group in weights if "/" in group]:  # of a report that is not ours, say
        raise ExportRefused(f"{strange[0]!r} is no group's name: the report was changed")
    proofs = {}
    try:
        with whole_folder(out) as folder:
            (folder / WEIGHTS).mkdir()
            for group, write in weights.items():
                write(folder / WEIGHTS / f"{group}.safetensors")
            for group in weights if precision else ():
                proofs[group] = _model(folder, run, group, precision or "fp32")
                told(group, proofs[group])
            _documents(folder, out.name, run)
    except ConnectionError:
        raise
    except OSError as error:
        raise ExportRefused(f"cannot write {out}: {error.strerror or error}") from error
    return proofs


def line(group: str, proof: Proof) -> str:
    """A model in a line: size, largest error, loss beside torch's."""
    size = f"{group}.onnx: {proof.precision}, {proof.size_bytes / 1e6:.2f} MB"
    error = f"at most {proof.max_abs_error:.1g} off torch on {proof.examples} examples"
    if proof.inputs == "noise":
        return f"{size}, {error} of noise ({proof.reason})"
    if proof.loss is None or proof.torch_loss is None:
        return f"{size}, {error}"
    return f"{size}, {error}, loss {proof.loss:.4f} beside {proof.torch_loss:.4f}"


def fetched(ref: BlobRef, orchestrator: Orchestrator) -> Callable[[Path], None]:
    """Writes weights that the orchestrator has; raises ExportRefused if something else comes."""

    def write(path: Path) -> None:
        found = hashlib.sha256()
        with path.open("wb") as file:
            while data := orchestrator.ask(Fetch(digest=ref.digest, offset=file.tell()), Piece).data:
                found.update(data)
                file.write(data)
        if found.hexdigest() != ref.digest:
            raise ExportRefused(f"{path.name}: what came is not {ref.digest[:12]}; ask again")

    return write


def copied(run: Path, group: str) -> Callable[[Path], None]:
    """Writes weights that lie in the folder of a finished run; raises ExportRefused if they do not."""

    def write(path: Path) -> None:
        source = run / WEIGHTS / path.name
        if not source.is_file():
            raise ExportRefused(f"{source} is not there: the weights of {group} are not with their report")
        shutil.copyfile(source, path)

    return write


def _documents(folder: Path, name: str, run: RunReport) -> None:
    """The manifest, the rows, the page of a run of this name and the report."""
    write_atomic(folder / "manifest.json", _pretty(run.manifest))
    write_atomic(folder / "profile.csv", csv_text(run.rows).encode())
    write_atomic(folder / PAGE, page(Named(name, run)).encode())
    write_atomic(folder / REPORT, _pretty(run))


def _check(out: Path, precision: Precision | None) -> None:
    """What can be known to be wrong before any work."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportRefused(f"--out {out} exists and is no empty folder: name another")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if precision and missing:
        remedy = "pip install 'mas-edge[orchestrator]', or ask for --safetensors alone"
        raise ExportRefused(f"ONNX files need {', '.join(missing)}: {remedy}")


def _model(out: Path, run: RunReport, group: str, precision: Precision) -> Proof:
    """Make the group's model of its weights, and keep the proof."""
    training, report = run.report.spec.training, run.report
    (out / MODELS).mkdir(exist_ok=True)
    path = out / WEIGHTS / f"{group}.safetensors"
    try:
        tasks = tasks_in(path)
    except WeightsRefused as error:
        raise ExportRefused(
            f"the weights of {group} are no safetensors file: {error.__cause__ or error}"
        ) from error
    rounds = report.final_rounds.get(group)
    about = {
        "job": report.name,
        "group": group,
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "held_out_share": str(training.held_out_share),
    }
    request = torch_child.Export(
        workload=training.workload,
        network=training.network,
        tasks=tasks,
        weights=str(path),
        out=str(out / MODELS / f"{group}.onnx"),
        precision=precision,
        clients=report.spec.unseen,
        about=about if rounds is None else about | {"round": str(rounds)},
    )
    proof = _made(request, group)
    write_atomic(out / MODELS / f"{group}.parity.json", _pretty(proof))
    return proof


def _made(request: torch_child.Export, group: str) -> Proof:
    done = subprocess.run(
        [sys.executable, "-m", "mas_edge.models.job"],
        input=msgspec.json.encode(request),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    try:
        answer: torch_child.Answer = msgspec.json.decode(done.stdout, type=torch_child.Answer)
    except msgspec.MsgspecError as error:
        raise ExportRefused(f"{group}: the torch child ended with code {done.returncode}") from error
    if not isinstance(answer, torch_child.Exported):
        raise ExportRefused(
            f"{group}: {answer.detail if isinstance(answer, torch_child.Refused) else answer}"
        )
    return answer.proof


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
