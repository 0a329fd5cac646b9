"""Small ONNX files as ``mas export`` makes them: constant outputs for two tasks of ``watch``, no torch."""

from __future__ import annotations

import json

import numpy as np
import onnx
from deploying import GROUP
from onnx import TensorProto, helper, numpy_helper

from mas_edge.models.workloads import watch_numbers as numbers

TASKS = {"gravity": 3, "jerk": 8}
METADATA = {
    "workload": "watch",
    "network": "micro",
    "tasks": "gravity,jerk",
    "input_shape": "[6,128]",
    "precision": "fp32",
    "fingerprint": "f",
    "normalisation": json.dumps({"mean": numbers.MEAN, "std": numbers.STD}),
    "job": "j",
    "group": GROUP,
    "round": "3",
    "held_out_share": "0.2",
}


def watch_model(*, off=0.0, operator=("Add", ""), shape=(6, 128), outputs=TASKS, **metadata) -> bytes:
    """Each task's output is its constant predictor plus ``off``.

    ``operator`` (name, domain) is what adds; ``metadata`` replace or, None, remove keys.
    """
    nodes, weights = [helper.make_node("Flatten", ["input"], ["flat"])], []
    for task, size in outputs.items():
        constant = np.asarray(numbers.GRAVITY if task == "gravity" else 0.0, np.float32) + np.float32(off)
        weights += [
            numpy_helper.from_array(np.zeros((int(np.prod(shape)), size), np.float32), f"{task}.w"),
            numpy_helper.from_array(np.broadcast_to(constant, (size,)).copy(), f"{task}.b"),
        ]
        name, domain = operator
        nodes += [
            helper.make_node("MatMul", ["flat", f"{task}.w"], [f"{task}.x"]),
            helper.make_node(name, [f"{task}.x", f"{task}.b"], [task], domain=domain),
        ]
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape])
    given = [
        helper.make_tensor_value_info(task, TensorProto.FLOAT, ["N", size]) for task, size in outputs.items()
    ]
    graph = helper.make_graph(nodes, "g", [taken], given, weights)
    domains = {"": 20, **({operator[1]: 1} if operator[1] else {})}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    kept = {key: value for key, value in {**METADATA, **metadata}.items() if value is not None}
    helper.set_model_props(model, {f"mas_edge.{key}": value for key, value in kept.items()})
    return model.SerializeToString()


def with_external_data(file: bytes) -> bytes:
    """The same model with its first weight in /etc/hostname."""
    model = onnx.load_from_string(file)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    return model.SerializeToString()
