"""An ONNX file with smaller weights: int8 by static quantisation, or fp16.

int8 is onnxruntime's static quantisation in QDQ form (QuantizeLinear and DequantizeLinear around what stays
the same operator): weights per output channel and symmetric, activations by the least and greatest value that
the calibration inputs gave. Convolutions and matrix products are quantised, which is where weights and time
are; what stands between them (normalisation, activations, sums) stays float32. fp16 keeps float32 inputs and
outputs, so that whoever runs the file need not know. Both use standard operators alone.

Source: Jacob et al. 2018 (arXiv 1712.05877); the conversions are those of the package onnxruntime.
It knows no task and no torch, and does not judge what comes out: ``models.export`` does.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mas_edge.models.tasks import Array

QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that compute in int8."""

_BATCH = 16
"""Calibration inputs at a time."""


def int8(model: onnx.ModelProto, inputs: Array) -> onnx.ModelProto:
    """The model quantised, its ranges chosen by these inputs (N, ...)."""
    from onnxruntime import quantization as q  # noqa: PLC0415 - slow to import
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="mas-edge-") as folder, _quiet():
        given, ready, made = (Path(folder) / name for name in ("fp32.onnx", "ready.onnx", "int8.onnx"))
        onnx.save(model, given)
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        q.quantize_static(
            ready,
            made,
            _Calibration(inputs),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
        return onnx.load(made)


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with half-precision weights and arithmetic, between float32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - slow to import
    from onnxruntime.transformers.onnx_model import OnnxModel  # noqa: PLC0415

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        made = OnnxModel(convert_float_to_float16(copy, keep_io_types=True))
    made.topological_sort()  # the conversion puts its casts at the end
    halved: onnx.ModelProto = made.model
    return halved


class _Calibration:
    """Inputs as onnxruntime's calibration asks for them (``CalibrationDataReader``): a batch at a time."""

    def __init__(self, inputs: Array) -> None:
        self._batches = iter(np.array_split(inputs, -(-len(inputs) // _BATCH)))

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice to the root logger, and its warnings of numbers rounded to zero."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logging.disable(before)
