"""A task group as one ONNX file that says what it is.

The encoder stands in it once, and an output per task, named by the task; the input is ``input``, float32
(N, *input_shape) with any N, normalised as the workload's data are. torch's exporter traces the network
(``torch.onnx.export(dynamo=True)``); what it notes of our source code and its place is taken out, and what a
device must know is put in (``about``). Only operators of the default domain at opset ``OPSET`` are used, and
no data outside of the file. The same weights give the same bytes.

Source: https://onnx.ai/onnx/repo-docs/IR.html. That the file computes the same is ``models.parity``'s
business, smaller weights are ``models.quantise``'. It trains nothing, and no daemon imports it.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import onnx
import torch
from torch import nn

from mas_edge.models import quantise
from mas_edge.models.fingerprint import fingerprint
from mas_edge.models.net import decoded
from mas_edge.models.onnx_file import INPUT, PREFIX
from mas_edge.models.tasks import ExportRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from mas_edge.models.net import MultiTaskNet
    from mas_edge.models.tasks import Array, Workload
    from mas_edge.wire.messages import Precision

OPSET = 20
"""Of the default domain; onnxruntime runs it from version 1.18 on."""


class _Tuple(nn.Module):
    """The network with its outputs in a row, as the exporter wants them.

    Decoders have numbers: the exporter writes Python in between, where a task's name may be a keyword.
    """

    def __init__(self, net: MultiTaskNet) -> None:
        super().__init__()
        self.encoder = net.encoder
        self.decoders = nn.ModuleList(net.decoder.values())

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(decoded(list(self.decoders), self.encoder(inputs)))


def to_onnx(net: MultiTaskNet, input_shape: Sequence[int]) -> onnx.ModelProto:
    """The network in eval mode as a float32 model, without metadata; raises ExportRefused.

    ``input_shape`` is one example's.
    """
    example = torch.zeros(2, *input_shape)  # of one, the exporter would take 1 for the batch's size
    try:
        with _quiet():
            program = torch.onnx.export(
                _Tuple(net).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(net.tasks),
                dynamic_shapes={"inputs": {0: torch.export.Dim("N")}},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        told = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportRefused(f"the network has no ONNX form: {told}") from error
    if program is None:
        raise ExportRefused("the network has no ONNX form: torch's exporter gave none")
    made: onnx.ModelProto = program.model_proto
    return _stripped(made)


def convert(model: onnx.ModelProto, precision: Precision, calibration: Array | None) -> onnx.ModelProto:
    """The float32 model in another precision; int8 is calibrated on these inputs (N, ...).

    Raises ExportRefused for int8 without any.
    """
    match precision:
        case "fp32":
            return model
        case "fp16":
            return quantise.fp16(model)
        case "int8" if calibration is None or not len(calibration):
            raise ExportRefused("int8 is calibrated on real inputs, and none are held out here: use fp16")
        case "int8":
            return quantise.int8(model, calibration)


def about(workload: Workload, network: str, tasks: Sequence[str], precision: Precision) -> dict[str, str]:
    """What the file's metadata say of the model itself; values are JSON where they are no words.

    ``normalisation`` is that of the input, channel by channel: (stored - mean) / std, null if unknown.
    """
    return {
        "workload": workload.name,
        "network": network,
        "tasks": ",".join(tasks),
        "input_shape": msgspec.json.encode(workload.input_shape).decode(),
        "normalisation": msgspec.json.encode(workload.normalisation).decode(),
        "precision": precision,
        "fingerprint": fingerprint(workload, network),
    }


def to_bytes(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The file: the model with these metadata alone, checked; raises ExportRefused."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    onnx.helper.set_model_props(copy, {PREFIX + key: metadata[key] for key in sorted(metadata)})
    if strange := sorted({node.domain for node in copy.graph.node} - {""}):
        raise ExportRefused(f"the model would need operators of {', '.join(strange)}, which are no standard")
    try:
        onnx.checker.check_model(copy, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportRefused(f"what was made is no valid ONNX: {str(error).splitlines()[0]}") from error
    file: bytes = copy.SerializeToString(deterministic=True)
    return file


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: paths and lines of source code, which differ between machines."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch 2.13's exporter says of itself: a deprecation, and that torchvision is absent."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(before)
