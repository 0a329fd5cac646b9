"""Merging updates: against numpy over whole arrays, bit for bit in any order, refusing what is unsound."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mas_edge.orchestrator.aggregate import BLOCK, Contribution, UpdateRefused, merge, screen

anew = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # files are written over


def state(seed, scale=1.0):
    """An encoder with a counter, and two decoders."""
    rng = np.random.default_rng(seed)
    return {
        "encoder.conv.weight": (scale * rng.normal(size=(4, 3, 5))).astype(np.float32),
        "encoder.conv.empty": np.zeros((0, 3), np.float32),
        "encoder.norm.seen": np.array(rng.integers(0, 1 << 40)),
        "encoder.norm.half": (scale * rng.normal(size=7)).astype(np.float16),
        "decoder.gait.bias": (scale * rng.normal(size=6)).astype(np.float32),
        "decoder.jerk.bias": (scale * rng.normal(size=6)).astype(np.float64),
    }


def written(path, tensors):
    save_file(tensors, path)
    return path


def contribution(folder, device, tensors, encoder=1.0, **decoders):
    return Contribution(device, written(folder / f"{device}.update", tensors), encoder, decoders)


def same(a, b):
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


weights = st.integers(0, 500).map(float)
fleets = st.lists(st.tuples(st.integers(0, 99), weights, weights, weights), min_size=1, max_size=5)


def fleet(folder, drawn):
    return [
        contribution(folder, f"d{i}", state(seed), encoder, gait=gait, jerk=jerk)
        for i, (seed, encoder, gait, jerk) in enumerate(drawn)
    ]


# --- the mean -------------------------------------------------------------------------------------


@anew
@given(drawn=fleets)
def test_each_part_is_the_mean_over_those_who_trained_it(tmp_path, drawn):
    base = written(tmp_path / "base", state(1000))
    done = merge(fleet(tmp_path, drawn), tmp_path / "merged", base=base)
    states = [state(seed) for seed, *_ in drawn]
    for name, tensor in load_file(tmp_path / "merged").items():
        column = 1 if name.startswith("encoder") else 2 if ".gait." in name else 3
        weight = [row[column] for row in drawn]
        if not any(weight):
            assert tensor.tobytes() == load_file(base)[name].tobytes()
            assert name.rpartition(".")[0].removesuffix(".conv").removesuffix(".norm") in done.kept
            continue
        exact = np.average([s[name].astype(np.float64) for s in states], axis=0, weights=weight)
        expected = np.rint(exact) if tensor.dtype.kind == "i" else exact
        np.testing.assert_allclose(tensor, expected, rtol=2 * np.finfo(np.float16).eps, atol=1e-3)
        if tensor.dtype == np.float32:
            np.testing.assert_array_max_ulp(tensor, expected.astype(np.float32), 1)


@anew
@given(drawn=fleets, rng=st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_show_in_a_single_bit(tmp_path, drawn, rng):
    base = written(tmp_path / "base", state(1000))
    updates = fleet(tmp_path, drawn)
    for name, order in (("one", updates), ("two", rng.sample(updates, len(updates)))):
        merge(order, tmp_path / name, base=base)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@anew
@given(seed=st.integers(0, 99), many=st.lists(st.integers(1, 500), min_size=1, max_size=7))
def test_equal_updates_merge_into_themselves_whatever_their_weights(tmp_path, seed, many):
    tensors = state(seed, scale=1e4)
    tensors.pop("decoder.jerk.bias")  # float64, the one type without bits to spare
    updates = [contribution(tmp_path, f"d{i}", tensors, float(w), gait=float(w)) for i, w in enumerate(many)]
    base = written(tmp_path / "base", tensors)
    merge(updates, tmp_path / "merged", base=base)
    assert (tmp_path / "merged").read_bytes() == base.read_bytes()


def test_examples_are_what_an_update_weighs(tmp_path):
    base = written(tmp_path / "base", state(0))
    updates = [
        contribution(tmp_path, "few", {n: np.zeros_like(t) for n, t in state(0).items()}, 10.0, gait=30.0),
        contribution(tmp_path, "many", {n: np.full_like(t, 8) for n, t in state(0).items()}, 30.0, gait=10.0),
    ]
    done = merge(updates, tmp_path / "merged", base=base)
    merged = load_file(tmp_path / "merged")
    assert set(merged["encoder.conv.weight"].flat) == {6.0}
    assert set(merged["decoder.gait.bias"].flat) == {2.0}
    assert merged["encoder.norm.seen"] == 6
    assert merged["decoder.jerk.bias"].tobytes() == state(0)["decoder.jerk.bias"].tobytes()
    assert (done.devices, done.kept) == (("few", "many"), ("decoder.jerk",))
    assert done.written_bytes == (tmp_path / "merged").stat().st_size


def test_a_mean_of_counters_is_rounded_to_the_nearest(tmp_path):
    counters = [{"encoder.norm.seen": np.array([0, 1, -3])}, {"encoder.norm.seen": np.array([1, 2, -6])}]
    base = written(tmp_path / "base", counters[0])
    merge(
        [contribution(tmp_path, f"d{i}", c) for i, c in enumerate(counters)], tmp_path / "merged", base=base
    )
    assert load_file(tmp_path / "merged")["encoder.norm.seen"].tolist() == [0, 2, -4]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_tensor_of_many_blocks_is_merged_to_its_last_entry(tmp_path, dtype):
    rng = np.random.default_rng(3)
    states = [{"encoder.w": rng.normal(size=2 * BLOCK + 3).astype(dtype)} for _ in range(2)]
    base = written(tmp_path / "base", states[0])
    merge([contribution(tmp_path, f"d{i}", s) for i, s in enumerate(states)], tmp_path / "merged", base=base)
    expected = np.mean([s["encoder.w"] for s in states], axis=0, dtype=np.float64).astype(dtype)
    assert load_file(tmp_path / "merged")["encoder.w"].tobytes() == expected.tobytes()


def test_the_result_is_the_file_that_safetensors_would_write(tmp_path):
    base = written(tmp_path / "base", state(1))
    update = contribution(tmp_path, "d0", state(2), gait=1.0, jerk=1.0)
    merge([update], tmp_path / "merged", base=base)
    assert (tmp_path / "merged").read_bytes() == update.path.read_bytes()


def test_where_a_tensor_lies_in_its_file_does_not_matter(tmp_path):
    tensors = {"encoder.a": np.arange(3, dtype=np.float32), "encoder.b": np.arange(5, dtype=np.float32)}
    base = written(tmp_path / "base", tensors)
    header = {
        "encoder.b": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]},
        "encoder.a": {"dtype": "F32", "shape": [3], "data_offsets": [20, 32]},
    }
    text = json.dumps(header).encode()
    data = tensors["encoder.b"].tobytes() + tensors["encoder.a"].tobytes()
    (tmp_path / "turned").write_bytes(len(text).to_bytes(8, "little") + text + data)
    merge([Contribution("d0", tmp_path / "turned", 1.0, {})], tmp_path / "merged", base=base)
    assert (tmp_path / "merged").read_bytes() == base.read_bytes()


# --- refusals -------------------------------------------------------------------------------------


def broken(how):
    tensors = state(5)
    match how:
        case "missing":
            del tensors["encoder.norm.half"]
        case "extra":
            tensors["decoder.smell.bias"] = np.zeros(3, np.float32)
        case "shape":
            tensors["decoder.gait.bias"] = np.zeros(7, np.float32)
        case "dtype":
            tensors["decoder.gait.bias"] = np.zeros(6, np.float64)
        case "bool":
            tensors["decoder.gait.bias"] = np.zeros(6, bool)
        case "nan":
            tensors["encoder.conv.weight"][2, 1, 3] = np.nan
        case "infinite":
            tensors["decoder.jerk.bias"][-1] = -np.inf
    return tensors


def test_the_distance_of_an_update_is_that_of_its_weights_whatever_block_and_place(tmp_path):
    big = {"encoder.w": np.arange(BLOCK + 3, dtype=np.float32)}
    before, after = {**state(1), **big}, {**state(2), **big}
    after["encoder.w"] = big["encoder.w"] + np.float32(2)
    written(tmp_path / "base", before)
    written(tmp_path / "update", dict(reversed(list(after.items()))))
    squares = [
        np.square(after[name].astype(np.float64) - before[name].astype(np.float64)).sum()
        for name in before
        if before[name].dtype.kind == "f"  # counters are no weights
    ]
    assert screen(tmp_path / "update", tmp_path / "base") == pytest.approx(
        math.sqrt(math.fsum(squares)), rel=1e-4
    )
    assert screen(tmp_path / "base", tmp_path / "base") == 0.0


def test_an_update_that_is_infinitely_far_away_is_refused(tmp_path):
    near, far = state(1), state(1)
    far["decoder.jerk.bias"] = np.full(6, 1e200)
    written(tmp_path / "base", near)
    written(tmp_path / "update", far)
    with pytest.raises(UpdateRefused, match="infinitely far"):
        screen(tmp_path / "update", tmp_path / "base")


@pytest.mark.parametrize(
    ("how", "tensor", "reason"),
    [
        ("missing", "encoder.norm.half", "is missing"),
        ("extra", "decoder.smell.bias", "is not part of the network"),
        ("shape", "decoder.gait.bias", r"is F32\[7\], not F32\[6\]"),
        ("dtype", "decoder.gait.bias", r"is F64\[6\], not F32\[6\]"),
        ("bool", "decoder.gait.bias", "BOOL cannot be averaged; use F16"),
        ("nan", "encoder.conv.weight", "holds NaN or infinity"),
        ("infinite", "decoder.jerk.bias", "holds NaN or infinity"),
    ],
)
def test_an_unsound_update_is_refused_by_device_and_tensor(tmp_path, how, tensor, reason):
    base = written(tmp_path / "base", state(0))
    bad = contribution(tmp_path, "bad", broken(how), gait=1.0, jerk=1.0)
    good = contribution(tmp_path, "good", state(1), gait=1.0, jerk=1.0)
    with pytest.raises(UpdateRefused, match=f"update of bad: tensor '{tensor}': {reason}") as caught:
        merge([good, bad], tmp_path / "merged", base=base)
    assert (caught.value.device, caught.value.tensor) == ("bad", tensor)
    with pytest.raises(UpdateRefused, match=f"tensor '{tensor}': {reason}"):
        screen(bad.path, base)
    screen(good.path, base)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.update", "base", "good.update"]


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    base = written(tmp_path / "base", state(0))
    update = contribution(tmp_path, "d0", state(1))
    os.truncate(update.path, update.path.stat().st_size - 1)
    with pytest.raises(UpdateRefused, match=r"d0\.update is not a whole safetensors file"):
        merge([update], tmp_path / "merged", base=base)


@given(junk=st.binary(max_size=300))
@anew
def test_junk_is_refused(tmp_path, junk):
    base = written(tmp_path / "base", state(0))
    (tmp_path / "junk").write_bytes(junk)
    with pytest.raises(UpdateRefused):
        screen(tmp_path / "junk", base)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_no_number_of_examples_is_refused(tmp_path, weight):
    base = written(tmp_path / "base", state(0))
    with pytest.raises(UpdateRefused, match=r"update of d0: weight .* of gait is not from 0"):
        merge([contribution(tmp_path, "d0", state(1), gait=weight)], tmp_path / "merged", base=base)


def test_no_updates_and_a_device_that_comes_twice_are_refused(tmp_path):
    base = written(tmp_path / "base", state(0))
    update = contribution(tmp_path, "d0", state(1))
    with pytest.raises(UpdateRefused, match="none to merge"):
        merge([], tmp_path / "merged", base=base)
    with pytest.raises(UpdateRefused, match="update of d0: came 2 times"):
        merge([update, update], tmp_path / "merged", base=base)


def test_a_refused_merge_leaves_the_old_result(tmp_path):
    base = written(tmp_path / "base", state(0))
    (tmp_path / "merged").write_bytes(b"old")
    with pytest.raises(UpdateRefused):
        merge([contribution(tmp_path, "d0", broken("nan"))], tmp_path / "merged", base=base)
    assert (tmp_path / "merged").read_bytes() == b"old"
