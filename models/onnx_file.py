"""A task group's ONNX file on a device: opened, verified, run, without torch.

``models.export`` makes such files; what comes over the network is believed only as far as it was looked at:
the digest, before anything is parsed; one graph with operators of the standard domain alone, none of them in
other files (``models.onnx_graph``); who it is for, from its metadata; then onnxruntime loads it and says
which operators it lacks, and the shapes of its input and outputs are compared with what the metadata and the
workload installed here say. One exception, one line each. It judges no accuracy: ``models.scores``.

Neither daemon imports it: onnxruntime takes 40 MB, and is an extra (``infer``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mas_edge.models import onnx_graph
from mas_edge.models.tasks import Normalisation, WorkloadError
from mas_edge.wire.messages import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mas_edge.models.tasks import Array, Workload

PREFIX = "mas_edge."
"""Before each of our keys in a file's metadata."""

INPUT = "input"
"""The name of the one input."""

_QUIET = 4
"""onnxruntime's log level "fatal": what is wrong is raised, and said once."""


class ModelRefused(WorkloadError, ValueError):
    """An ONNX file that is damaged, unsafe, not for what is installed here, or not runnable."""


class RuntimeMissing(WorkloadError, LookupError):
    """onnxruntime is not installed."""


class Card(msgspec.Struct, frozen=True):
    """What a file says of itself: for what it is and what it takes, and perhaps whose it is.

    ``held_out_share`` is the job's: which examples of a device did not train this network. None is unknown.
    """

    workload: str
    network: str
    tasks: tuple[str, ...]
    input_shape: tuple[int, ...]
    precision: Precision
    fingerprint: str
    normalisation: Normalisation | None = None
    job: str | None = None
    group: str | None = None
    round: int | None = None
    held_out_share: float | None = None


@dataclass(frozen=True)
class OnnxModel:
    """A file that was verified and loaded; ``shapes`` are one example's outputs, None where any size goes."""

    card: Card
    digest: str
    size_bytes: int
    shapes: Mapping[str, tuple[int | None, ...]]
    session: Any

    def run(self, inputs: Array) -> dict[str, Array]:
        """The output (N, ...) of each task for inputs (N, *input_shape); raises ModelRefused."""
        shape = self.card.input_shape
        if inputs.shape[1:] != shape:
            raise ModelRefused(f"the network takes inputs of shape {shape}, not {inputs.shape[1:]}")
        given = {INPUT: np.ascontiguousarray(inputs, np.float32)}
        try:
            outputs = self.session.run(list(self.card.tasks), given)
        except _errors() as error:
            raise ModelRefused(f"onnxruntime cannot run the network: {_line(error)}") from error
        made = dict(zip(self.card.tasks, outputs, strict=True))
        for task, output in made.items():
            numbers = isinstance(output, np.ndarray) and output.dtype.kind == "f"
            if not numbers or output.shape[:1] != inputs.shape[:1]:
                raise ModelRefused(f"its output {task!r} is not one array of numbers for each input")
        return made


def open_model(path: Path, *, digest: str | None = None, threads: int = 1) -> OnnxModel:
    """The network in a file, ready to run with so many threads; ``digest`` is what its SHA-256 must be.

    Raises ModelRefused, RuntimeMissing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{path}: cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise ModelRefused(f"{path}: its SHA-256 is {found[:12]}, not {digest[:12]}: deploy it again")
    try:
        card = _card(onnx_graph.read(data))
        return _loaded(data, card, found, threads)
    except (ModelRefused, onnx_graph.GraphRefused) as error:
        raise ModelRefused(f"{path}: {error}") from error


def normalised(raw_NCx: Array, by: Normalisation) -> Array:
    """Raw values (N, C, ...) as the network takes them, float32."""
    shape = (1, -1, *(1,) * (raw_NCx.ndim - 2))
    mean, std = (np.array(each, np.float32).reshape(shape) for each in (by.mean, by.std))
    inputs: Array = (raw_NCx.astype(np.float32) - mean) / std
    return inputs


def check(model: OnnxModel, workload: Workload, tasks: tuple[str, ...]) -> None:
    """Raises ModelRefused unless the network is one for these tasks of the workload as it is installed."""
    card = model.card
    if set(card.tasks) != set(tasks):
        raise ModelRefused(f"it is for {_all(card.tasks)}, and asked for was {_all(tasks)}")
    if card.workload != workload.name:
        raise ModelRefused(f"it is for workload {card.workload!r}, not {workload.name!r}")
    if card.input_shape != tuple(workload.input_shape):
        raise ModelRefused(
            f"it takes inputs of shape {card.input_shape}; workload {workload.name!r} has"
            f" {tuple(workload.input_shape)} here: install the same version of it on both"
        )
    for name in card.tasks:
        there = {task.name: task for task in workload.tasks}
        if name not in there:
            raise ModelRefused(f"workload {workload.name!r} has no task {name!r} here; it has {_all(there)}")
        given, shape = model.shapes[name], tuple(there[name].shape)
        if len(given) != len(shape) or any(g not in {None, s} for g, s in zip(given, shape, strict=True)):
            raise ModelRefused(f"its output {name!r} has shape {given}, the task has {shape}")


# --- inside ---------------------------------------------------------------------------------------


def _card(graph: onnx_graph.Graph) -> Card:
    """What the file says of itself, if it is one that may be loaded."""
    if graph.external:
        raise ModelRefused("some of its weights lie in other files; a model is one file")
    for domain, name in sorted(graph.operators | graph.functions):
        if domain not in onnx_graph.STANDARD:
            raise ModelRefused(f"it uses the operator {name!r} of {domain!r}; only ONNX's own are allowed")
    said = {
        key.removeprefix(PREFIX): value for key, value in graph.metadata.items() if key.startswith(PREFIX)
    }
    needed = Card.__struct_fields__[: -len(Card.__struct_defaults__)]
    if missing := set(needed) - said.keys():
        raise ModelRefused(f"its metadata say no {_all(missing)}: was it made by `mas export`?")
    fields = {name: _value(name, said[name]) for name in Card.__struct_fields__ if name in said}
    try:
        card = msgspec.convert(fields, Card)
    except msgspec.ValidationError as error:
        raise ModelRefused(f"its metadata are not ours: {error}") from error
    names, by = set(card.tasks), card.normalisation
    if len(names) < len(card.tasks) or not all(map(_names_a_file, names)):
        raise ModelRefused(
            f"its metadata name the tasks {said['tasks'][:60]!r}: files cannot be named by them"
        )
    if by and not (card.input_shape[:1] == (len(by.mean),) == (len(by.std),) and all(by.std)):
        raise ModelRefused(f"its normalisation does not fit inputs of shape {card.input_shape}")
    return card


def _names_a_file(task: str) -> bool:
    """Whether ``mas-agent infer`` can write a file of this name, in the folder where it is to be."""
    return bool(task) and task.isprintable() and "/" not in task


def _value(name: str, text: str) -> object:
    """A value of the metadata: words as they are, lists of words by commas, else JSON."""
    if name == "tasks":
        return text.split(",")
    if name not in {"input_shape", "normalisation", "round", "held_out_share"}:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ModelRefused(f"its metadata say {name} {text[:40]!r}, which is no JSON") from error


def _loaded(data: bytes, card: Card, digest: str, threads: int) -> OnnxModel:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _QUIET
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _errors() as error:
        raise ModelRefused(f"onnxruntime {runtime.__version__} cannot load it: {_line(error)}") from error
    inputs = {each.name: each for each in session.get_inputs()}
    if list(inputs) != [INPUT] or inputs[INPUT].type != "tensor(float)":
        raise ModelRefused(f"its inputs are {_all(inputs)}; it must take one, {INPUT!r}, of float32")
    if _sizes(inputs[INPUT].shape) != card.input_shape:
        raise ModelRefused(f"its input has shape {inputs[INPUT].shape}, its metadata say {card.input_shape}")
    outputs = {each.name: _sizes(each.shape) for each in session.get_outputs()}
    if missing := set(card.tasks) - outputs.keys():
        raise ModelRefused(f"it has no output for {_all(missing)}; it has {_all(outputs)}")
    return OnnxModel(card, digest, len(data), outputs, session)


def _sizes(shape: list[int | str | None]) -> tuple[int | None, ...]:
    """Of one example; a size that is a name is any."""
    return tuple(size if isinstance(size, int) else None for size in shape[1:])


def _runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise RuntimeMissing("onnxruntime is not installed: pip install 'mas-edge[infer]'") from error
    return onnxruntime


def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of one C++ module, without a common root."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - an extra

    kinds = (each for each in vars(state).values() if isinstance(each, type))
    return (RuntimeError, ValueError, *(kind for kind in kinds if issubclass(kind, Exception)))


def _line(error: Exception) -> str:
    """The first line of an error's text, without the code that onnxruntime puts before it."""
    text = str(error).strip().partition("\n")[0]
    return text.rpartition(" : ")[2] if text.startswith("[ONNXRuntimeError]") else text


def _all(names: object) -> str:
    return ", ".join(sorted(names)) or "none"  # type: ignore[call-overload]
