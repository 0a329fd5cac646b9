from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnx_files
import pytest
from onnx import TensorProto, helper
from onnx_files import watch_model

from mas_edge.models.onnx_file import ModelRefused, check, normalised, open_model
from mas_edge.models.tasks import find
from mas_edge.models.workloads import watch_numbers as numbers

WATCH = find("watch")


@pytest.fixture
def opened(tmp_path):
    def open_(file: bytes, **options):
        path = tmp_path / "m.onnx"
        path.write_bytes(file)
        return open_model(path, **options)

    return open_


def test_a_sound_file_says_whose_it_is_and_runs(opened):
    file = watch_model(off=0.5)
    model = opened(file, digest=hashlib.sha256(file).hexdigest())
    assert (model.card.job, model.card.round, model.card.held_out_share) == ("j", 3, 0.2)
    assert model.shapes == {"gravity": (3,), "jerk": (8,)}
    check(model, WATCH, ("jerk", "gravity"))
    outputs = model.run(np.zeros((4, 6, 128), np.float32))
    assert outputs["jerk"].shape == (4, 8)
    np.testing.assert_allclose(outputs["gravity"][3], np.array(numbers.GRAVITY) + 0.5, rtol=1e-6)


def test_raw_values_are_normalised_as_the_data_set_does_it(opened):
    card = opened(watch_model()).card
    raw = np.broadcast_to(np.reshape(numbers.MEAN, (1, 6, 1)), (2, 6, 128))
    np.testing.assert_allclose(normalised(raw, card.normalisation), 0, atol=1e-6)
    further = raw + np.reshape(numbers.STD, (1, 6, 1))
    np.testing.assert_allclose(normalised(further, card.normalisation), 1, rtol=1e-5)


REFUSED = {
    "is cut short": watch_model()[:5000],
    "it holds no graph": b"",
    "some of its weights lie in other files": onnx_files.with_external_data(watch_model()),
    "the operator 'Gelu' of 'com.microsoft'; only ONNX's own": watch_model(
        operator=("Gelu", "com.microsoft")
    ),
    "cannot load it: .*Frobnicate": watch_model(operator=("Frobnicate", "")),
    r"was made by `mas export`|say no fingerprint, tasks": watch_model(tasks=None, fingerprint=None),
    "say input_shape 'six', which is no JSON": watch_model(input_shape="six"),
    "its metadata are not ours: .*fp99": watch_model(precision="fp99"),
    r"its input has shape .*, its metadata say \(6, 64\)": watch_model(input_shape="[6,64]"),
    r"its normalisation does not fit inputs of shape \(6, 128\)": watch_model(
        normalisation='{"mean":[1,2],"std":[0,1]}'
    ),
    "it has no output for side; it has gravity, jerk": watch_model(tasks="gravity,side"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_an_unsound_file_is_refused_in_one_line_that_names_it(opened, said):
    with pytest.raises(ModelRefused, match=said) as refused:
        opened(REFUSED[said])
    assert "m.onnx: " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_with_another_digest_is_refused_before_it_is_parsed(opened):
    with pytest.raises(ModelRefused, match=r"its SHA-256 is [0-9a-f]{12}, not 000000000000"):
        opened(b"no onnx", digest="0" * 64)


FOREIGN = {
    "it is for gravity, jerk, and asked for was gravity": (watch_model(), ("gravity",)),
    "it is for workload 'bells', not 'watch'": (watch_model(workload="bells"), ("gravity", "jerk")),
    r"it takes inputs of shape \(6, 64\)": (
        watch_model(shape=(6, 64), input_shape="[6,64]"),
        ("gravity", "jerk"),
    ),
    "workload 'watch' has no task 'yaw' here": (
        watch_model(outputs={"yaw": 3}, tasks="yaw"),
        ("yaw",),
    ),
    r"its output 'jerk' has shape \(9,\), the task has \(8,\)": (
        watch_model(outputs={"jerk": 9}, tasks="jerk"),
        ("jerk",),
    ),
}


@pytest.mark.parametrize("said", FOREIGN)
def test_a_file_for_something_else_than_is_installed_is_refused(opened, said):
    file, tasks = FOREIGN[said]
    with pytest.raises(ModelRefused, match=said):
        check(opened(file), WATCH, tasks)


def test_an_output_that_is_not_numbers_for_each_input_is_refused(opened):
    for node, kind in (
        (helper.make_node("Cast", ["gravity"], ["odd"], to=TensorProto.STRING), TensorProto.STRING),
        (helper.make_node("ReduceSum", ["gravity"], ["odd"], keepdims=0), TensorProto.FLOAT),
    ):
        file = onnx.load_from_string(watch_model(tasks="gravity,odd"))
        file.graph.node.append(node)
        file.graph.output.append(helper.make_tensor_value_info("odd", kind, None))
        with pytest.raises(ModelRefused, match="its output 'odd' is not one array of numbers for each input"):
            opened(file.SerializeToString()).run(np.zeros((2, 6, 128), np.float32))


def test_an_input_of_another_shape_is_refused(opened):
    with pytest.raises(ModelRefused, match=r"takes inputs of shape \(6, 128\), not \(3, 32, 32\)"):
        opened(watch_model()).run(np.zeros((1, 3, 32, 32), np.float32))
