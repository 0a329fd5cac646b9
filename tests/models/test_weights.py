from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mas_edge.models import weights
from mas_edge.models.weights import WeightsRefused

STATE = {
    "encoder.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder.norm.seen": np.array(7, np.int64),
    "decoder.jerk.out": np.ones(2, np.float32),
    "decoder.side.out": np.zeros((0,), np.float32),
}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "w.safetensors"
    weights.save(path, STATE)
    for found in (weights.load(path), load_file(path)):
        assert found.keys() == STATE.keys()
        for name, array in STATE.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@given(st.permutations(sorted(STATE)))
def test_equal_states_give_equal_bytes(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("w")
    weights.save(folder / "one", STATE)
    weights.save(folder / "two", {name: np.array(STATE[name], order="F") for name in order})
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_parts_are_the_encoder_and_a_decoder_per_task():
    assert weights.parts(STATE) == {
        "decoder.jerk": ("decoder.jerk.out",),
        "decoder.side": ("decoder.side.out",),
        "encoder": ("encoder.a.weight", "encoder.norm.seen"),
    }


@pytest.mark.parametrize("name", ["head.weight", "encoder", "decoder.jerk", "optimiser.x", ""])
def test_a_tensor_of_no_part_is_refused(name):
    with pytest.raises(WeightsRefused, match="neither"):
        weights.parts([name])


def test_a_group_starts_from_the_encoder_and_its_own_decoders(tmp_path):
    weights.save(tmp_path / "all", STATE)
    weights.carve(tmp_path / "all", ["jerk"], tmp_path / "group")
    assert sorted(weights.load(tmp_path / "group")) == [
        "decoder.jerk.out",
        "encoder.a.weight",
        "encoder.norm.seen",
    ]
    with pytest.raises(WeightsRefused, match=r"decoder\.none"):
        weights.carve(tmp_path / "all", ["jerk", "none"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_state_that_fits_is_accepted():
    weights.check(STATE, weights.layout(STATE))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder.a.weight": None}, "missing"),
        ({"encoder.extra": np.ones(1, np.float32)}, "not part"),
        ({"encoder.a.weight": np.ones((3, 2), np.float32)}, r"shape \(3, 2\), expected \(2, 3\)"),
        ({"encoder.a.weight": np.ones((2, 3), np.float64)}, "float64, expected float32"),
        ({"decoder.jerk.out": np.array([1, np.nan], np.float32)}, "NaN"),
        ({"decoder.jerk.out": np.array([1, -np.inf], np.float32)}, "NaN or infinity"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_the_tensors_name(change, says):
    state = {name: array for name, array in (STATE | change).items() if array is not None}
    with pytest.raises(WeightsRefused, match=f"{next(iter(change))}.*{says}"):
        weights.check(state, weights.layout(STATE))


@given(st.data())
def test_a_file_cut_short_anywhere_is_refused_with_its_name(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    weights.save(path, STATE)
    raw = path.read_bytes()
    cut = data.draw(st.integers(0, len(raw) - 1))
    path.write_bytes(raw[:cut])
    with pytest.raises(WeightsRefused, match=r"w\.safetensors"):
        weights.load(path)


def test_a_file_that_is_not_there_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none")
