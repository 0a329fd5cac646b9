from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
import torch

from mas_edge.models import export, net, parity
from mas_edge.models.onnx_file import open_model
from mas_edge.models.proof import TOLERANCE
from mas_edge.models.tasks import DataRefused, ExportRefused
from mas_edge.models.workloads.watch import workload

TASKS = ("exercise", "jerk")
ABOUT = {"job": "j", "group": "exercise+jerk", "round": "3", "digest": "0" * 64, "held_out_share": "0.2"}


@pytest.fixture(scope="module")
def trained():
    return net.build(workload, "micro", TASKS, seed=4).eval()


@pytest.fixture(scope="module")
def model(trained):
    return export.to_onnx(trained, workload.input_shape)


@pytest.fixture(scope="module")
def held():
    return parity.held_out(workload, ("9",))


def nowhere(*_):
    raise DataRefused("no data here")


def written(path, model, precision="fp32"):
    path.write_bytes(export.to_bytes(model, {**ABOUT, **export.about(workload, "micro", TASKS, precision)}))
    return path


def proof(path, trained, held):
    return parity.prove(path, trained, workload.choose(TASKS), held)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_file_computes_what_torch_computes_for_any_number_of_inputs(tmp_path, trained, model, count):
    inputs = torch.randn(count, *workload.input_shape)
    with torch.inference_mode():
        wanted = trained(inputs)
    given = open_model(written(tmp_path / "m.onnx", model)).run(inputs.numpy())
    assert list(given) == list(TASKS)
    for task in TASKS:
        np.testing.assert_allclose(given[task], wanted[task].numpy(), atol=1e-5)


def test_it_holds_the_encoder_once_and_nothing_but_standard_operators(trained, model):
    sizes = [int(np.prod(each.dims, dtype=np.int64)) for each in model.graph.initializer]
    assert sum(sizes) < 1.01 * net.parameter_count(trained)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", export.OPSET)]
    assert not any(each.external_data for each in model.graph.initializer)


def test_nothing_of_where_it_was_made_is_in_it(tmp_path, model):
    data = written(tmp_path / "m.onnx", model).read_bytes()
    assert b".py" not in data
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_it_says_whose_it_is_and_what_it_takes(tmp_path, model):
    said = onnx.load(written(tmp_path / "m.onnx", model)).metadata_props
    found = {each.key.removeprefix(export.PREFIX): each.value for each in said}
    assert {key: found[key] for key in ABOUT} == ABOUT
    assert (found["workload"], found["network"], found["tasks"]) == ("watch", "micro", "exercise,jerk")
    assert found["input_shape"] == "[6,128]"
    assert len(msgspec.json.decode(found["normalisation"])["std"]) == 6
    assert len(found["fingerprint"]) == 64


def test_the_proof_is_of_examples_that_nobody_trained_on(tmp_path, trained, model, held):
    made = proof(written(tmp_path / "m.onnx", model), trained, held)
    assert (made.inputs, made.clients, made.precision) == ("held-out", ("9",), "fp32")
    assert made.examples == len(held.proves) > 100
    assert made.calibrated_on == 0
    assert made.max_abs_error <= TOLERANCE
    for each in made.tasks:
        assert each.mean_abs_error <= each.max_abs_error
        assert each.loss == pytest.approx(each.torch_loss, rel=1e-5)
    assert made.versions.keys() == {"torch", "onnx", "onnxscript", "onnxruntime"}


@pytest.mark.parametrize(("precision", "smaller"), [("fp16", 0.55), ("int8", 0.5)])
def test_other_precisions_are_smaller_and_say_how_far_off(tmp_path, trained, model, held, precision, smaller):
    whole = written(tmp_path / "m.onnx", model)
    converted = export.convert(model, precision, held.calibration)
    made = proof(written(tmp_path / "small.onnx", converted, precision), trained, held)
    assert made.size_bytes < smaller * whole.stat().st_size
    assert made.max_abs_error > 0
    assert made.loss == pytest.approx(made.torch_loss, rel=0.02)
    assert made.calibrated_on == (len(held.calibration) if precision == "int8" else 0)


def test_what_calibrates_proves_nothing(held):
    calibration = {row.tobytes() for row in held.calibration}
    proving = held.data.batch(held.proves).inputs
    assert calibration
    assert not calibration & {row.tobytes() for row in proving}


def test_a_file_that_computes_something_else_is_refused(tmp_path, model, held):
    other = net.build(workload, "micro", TASKS, seed=5)
    with pytest.raises(ExportRefused, match=r"off from torch by .*0\.0001 is allowed"):
        proof(written(tmp_path / "m.onnx", model), other, held)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_that_overflow_are_refused_and_not_proved_to_be_exact(tmp_path, held, precision):
    """Their outputs are NaN beside NaN, whose largest difference must not count as 0."""
    burst = net.build(workload, "micro", TASKS, seed=4).eval()
    with torch.no_grad():
        for weight in burst.encoder.parameters():
            weight.mul_(1e5 if weight.ndim > 1 else 1)
    converted = export.convert(export.to_onnx(burst, workload.input_shape), precision, held.calibration)
    with pytest.raises(ExportRefused, match=r"task exercise: .* computes NaN or infinity"):
        proof(written(tmp_path / "m.onnx", converted, precision), burst, held)


def test_a_single_example_is_too_few_and_the_noise_in_its_place_says_so(tmp_path, trained, model):
    class One:
        labels = frozenset()

        def __len__(self):
            return 1

    few = parity.held_out(replace(workload, dataset=lambda *_: One()), ("9",))
    made = proof(written(tmp_path / "m.onnx", model), trained, few)
    assert (made.inputs, made.reason) == ("noise", "9: too few examples")


def test_without_data_noise_proves_it_and_int8_is_refused(tmp_path, trained, model):
    held = parity.held_out(replace(workload, dataset=nowhere), ())
    made = proof(written(tmp_path / "m.onnx", model), trained, held)
    assert (made.inputs, made.reason, made.clients) == ("noise", "no data here", ())
    assert made.loss is None
    with pytest.raises(ExportRefused, match="calibrated on real inputs"):
        export.convert(model, "int8", held.calibration)


def test_data_of_clients_that_were_named_have_to_be_there():
    with pytest.raises(DataRefused, match="no data here"):
        parity.held_out(replace(workload, dataset=nowhere), ("9",))
