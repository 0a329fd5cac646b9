"""What a job brought, as files in a folder: weights of each group, the report in every form, the manifest.

`mas export` gets the weights over the control socket, piece by piece, and keeps them only if they are what
their digest says. A folder with other things in it is left alone. A demo writes its report here too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.orders import Fetch, Piece
from mas_edge.orchestrator.page import PAGE, Named, page
from mas_edge.orchestrator.runs import REPORT
from mas_edge.profiling.report import csv_text
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mas_edge.orchestrator.remote import Orchestrator
    from mas_edge.orchestrator.runs import RunReport
    from mas_edge.wire.messages import BlobRef

WEIGHTS = "weights"


class ExportRefused(ValueError):
    """A folder that cannot be written to, or weights that are not what they should be."""


def export(out: Path, run: RunReport, weights: Mapping[str, BlobRef], orchestrator: Orchestrator) -> None:
    """Write everything; raises ExportRefused, and what asking the orchestrator raises."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportRefused(f"--out {out} exists and is no empty folder: name another")
    try:
        (out / WEIGHTS).mkdir(parents=True, exist_ok=True)
        for group, ref in weights.items():
            _fetch(out / WEIGHTS / f"{group}.safetensors", ref, orchestrator)
        write_documents(out, run)
    except OSError as error:
        raise ExportRefused(f"cannot write {error.filename or out}: {error.strerror}") from error


def write_documents(out: Path, run: RunReport) -> None:
    """The manifest, the rows, the page and, last, the report, so that a folder with one holds a whole run."""
    write_atomic(out / "manifest.json", _pretty(run.manifest))
    write_atomic(out / "profile.csv", csv_text(run.rows).encode())
    write_atomic(out / PAGE, page(Named(out.name, run)).encode())
    write_atomic(out / REPORT, _pretty(run))


def _fetch(path: Path, ref: BlobRef, orchestrator: Orchestrator) -> None:
    partial, found = path.with_suffix(".partial"), hashlib.sha256()
    with partial.open("wb") as file:
        while data := orchestrator.ask(Fetch(digest=ref.digest, offset=file.tell()), Piece).data:
            found.update(data)
            file.write(data)
    if found.hexdigest() != ref.digest:
        partial.unlink()
        raise ExportRefused(f"{path.name}: what came is not {ref.digest[:12]}; ask again")
    partial.replace(path)


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
