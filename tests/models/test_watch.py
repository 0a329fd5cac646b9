from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from mas_edge.models import losses
from mas_edge.models.tasks import DataRefused, Source, UnknownChoice, find
from mas_edge.models.workloads import watch_data as data
from mas_edge.models.workloads import watch_numbers as numbers
from mas_edge.models.workloads.watch import EXERCISES, TRAINED, workload

BUILT = ("gravity", "jerk", "rotation", "forecast", "autoencoder")


@pytest.fixture(scope="module")
def recordings():
    return data.recordings(data.SHIPPED)


@pytest.fixture(scope="module")
def everything():
    seen = workload.dataset(Source(TRAINED), "all", 0.2)
    return seen, seen.batch(np.arange(len(seen)))


def ramp(samples=numbers.SPAN):
    """A span whose sample number can be read off every channel."""
    return np.repeat(np.arange(samples, dtype=np.float32)[None, None], 6, axis=1)


def test_the_entry_point_finds_it():
    assert find("watch") is workload


def test_ten_people_did_seven_exercises_with_each_arm(recordings):
    assert workload.clients == (*"123456789", "10")
    assert workload.unseen == ("9", "10")
    about = {(r.person, r.exercise, r.side) for r in recordings}
    assert about == {(p, e, s) for p in workload.clients for e in range(len(EXERCISES)) for s in (0, 1)}


def test_there_are_3567_windows():
    whole = workload.dataset(Source(workload.clients), "all", 0.2)
    assert len(whole) == 3567
    assert whole.batch(np.array([0])).inputs.shape == (1, *workload.input_shape)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_no_sample_is_both_trained_on_and_held_out(recordings, share):
    for recording in recordings:
        starts = np.arange(len(data.spans(recording.signal))) * numbers.STRIDE
        trained = starts[data.in_view(recording, "train", share)]
        held_out = starts[data.in_view(recording, "held-out", share)]
        assert len(held_out) == max(1, round(share * len(starts)))
        if len(trained):
            assert trained[-1] + numbers.SPAN <= held_out[0]
            assert trained[-1] + numbers.STRIDE + numbers.SPAN > held_out[0], (
                "no more is given up than must be"
            )


def test_without_a_share_everything_is_trained_on():
    source = Source(("3",))
    train, held_out, whole = (workload.dataset(source, view, 0.0) for view in ("train", "held-out", "all"))
    assert (len(train), len(held_out)) == (len(whole), 0)


def test_people_do_not_share_windows():
    sizes = [len(workload.dataset(Source((person,)), "all", 0.2)) for person in workload.clients]
    assert sum(sizes) == 3567
    assert min(sizes) > 100


def test_the_forecast_is_what_comes_right_after_the_input_and_is_not_in_it():
    span = ramp()
    assert data.labels(span)["autoencoder"].shape == (1, 6, 128)
    inputs = (
        data.labels(span)["autoencoder"] * np.array(numbers.STD)[:, None] + np.array(numbers.MEAN)[:, None]
    )
    future = data.labels(span)["forecast"] * np.array(numbers.STD)[:, None] + np.array(numbers.MEAN)[:, None]
    assert inputs.max() == pytest.approx(128, abs=1e-3)
    np.testing.assert_allclose(future[0, 0], np.arange(129, 145), atol=1e-3)


def test_gravity_is_the_unit_vector_along_a_still_watchs_acceleration():
    still = np.zeros((1, 6, numbers.SPAN), np.float32)
    still[0, :3] = np.array([0.0, 3.0, -4.0])[:, None]
    np.testing.assert_allclose(data.gravity(still), [[0, 0.6, -0.8]], rtol=1e-6)
    assert not data.gravity(np.zeros((1, 6, numbers.SPAN), np.float32)).any()


def test_envelopes_equal_the_hand_calculation():
    span = ramp()  # every accelerometer axis rises 1 g a sample: jerk = 50 * sqrt(3) g/s
    jerk = data.labels(span)["jerk"] * numbers.JERK[1] + numbers.JERK[0]
    np.testing.assert_allclose(jerk, np.log(50 * np.sqrt(3) + 0.01) * np.ones((1, 8)), rtol=1e-5)
    rotation = np.exp(data.labels(span)["rotation"] * numbers.ROTATION[1] + numbers.ROTATION[0]) - 0.01
    first = np.sqrt(3 * np.mean(np.arange(1, 17) ** 2))
    assert rotation[0, 0] == pytest.approx(first, rel=1e-4)


def test_the_label_definitions_have_not_changed():
    """Fails when labels are made differently: then change DEFINITION, so that fingerprints differ."""
    t = np.arange(numbers.SPAN) / numbers.RATE_HZ
    span = np.stack([np.sin((k + 1) * t + k) for k in range(6)])[None].astype(np.float32)
    means = {name: round(float(np.abs(label).mean()), 4) for name, label in data.labels(span).items()}
    assert means == {
        "gravity": 0.464,
        "jerk": 1.2957,
        "rotation": 0.8515,
        "forecast": 0.5909,
        "autoencoder": 0.8181,
    }


def test_the_frozen_constants_are_those_of_the_shipped_recordings():
    for name, value in data.fit(TRAINED).items():
        np.testing.assert_allclose(getattr(numbers, name), value, atol=6e-5, err_msg=name)


def test_inputs_and_targets_are_normalised(everything):
    _, batch = everything
    for array in (batch.inputs.transpose(0, 2, 1).reshape(-1, 6), batch.targets["jerk"].reshape(-1, 1)):
        np.testing.assert_allclose(array.mean(0), 0, atol=0.01)
        np.testing.assert_allclose(array.std(0), 1, atol=0.01)


@pytest.mark.parametrize("task", workload.tasks, ids=lambda task: task.name)
def test_no_other_constant_is_much_better_than_the_constant_predictor(everything, task):
    seen, batch = everything
    labels = losses.examples(batch, [task]).labels[task.name]
    loss = losses.constant_loss_sum(task, labels).item() / len(seen)
    target = batch.targets[task.name]
    if task.loss == "cross-entropy":
        share = np.bincount(target) / len(target)
        best = -(share * np.log(share)).sum()
    else:
        best = np.square(target - target.mean(0)).mean()
    assert best - 1e-4 <= loss <= best * 1.02


def test_no_target_is_constant_or_a_copy_of_another(everything):
    _, batch = everything
    assert all(batch.targets[name].std() > 0.1 for name in BUILT)
    jerk, rotation = (batch.targets[name].ravel() for name in ("jerk", "rotation"))
    assert 0.1 < np.corrcoef(jerk, rotation)[0, 1] < 0.95


def test_windows_of_one_recording_follow_each_other():
    whole = workload.dataset(Source(("1",)), "all", 0.0)
    windows = whole.batch(np.arange(10)).inputs
    for here, there in pairwise(windows):
        np.testing.assert_array_equal(here[:, numbers.STRIDE :], there[:, : -numbers.STRIDE])


def test_an_unknown_client_or_share_is_refused_with_what_there_is():
    with pytest.raises(UnknownChoice, match=r"'11'.*1, 2, 3"):
        workload.dataset(Source(("1", "11")), "train", 0.2)
    with pytest.raises(DataRefused, match="share 1"):
        workload.dataset(Source(("1",)), "train", 1.0)


def test_no_client_is_no_window():
    assert len(workload.dataset(Source(()), "all", 0.2)) == 0


def cut_short(raw):
    return raw[: len(raw) // 2]


def damaged_inside(raw):
    return raw[:5000] + bytes(1000) + raw[6000:]


@pytest.mark.parametrize("damage", [cut_short, damaged_inside, lambda _: b"", lambda _: b"no archive"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, damage):
    path = tmp_path / "watch.npz"
    path.write_bytes(damage(data.SHIPPED.read_bytes()))
    with pytest.raises(DataRefused, match=r"watch\.npz.*reinstall"):
        workload.dataset(Source(("1",), tmp_path), "train", 0.2)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataRefused, match=str(tmp_path / "watch.npz")):
        workload.dataset(Source(("1",), tmp_path), "train", 0.2)


def test_another_archive_in_its_place_is_refused(tmp_path):
    np.savez(tmp_path / "watch.npz", other=np.zeros(3))
    with pytest.raises(DataRefused, match=r"watch\.npz"):
        workload.dataset(Source(("1",), tmp_path), "train", 0.2)


def test_a_pickle_in_its_place_is_never_run(tmp_path):
    np.savez(tmp_path / "watch.npz", signal=np.array([{"an": "object"}], dtype=object), length=np.array([1]))
    with pytest.raises(DataRefused, match="pickle"):
        workload.dataset(Source(("1",), tmp_path), "train", 0.2)


def test_the_licence_travels_with_the_recordings():
    notice = data.SHIPPED.with_name("watch.NOTICE.txt").read_text()
    assert "Copyright (c) 2018, David M. Burns" in notice
    assert "Redistributions in binary form" in notice


def test_importing_the_workload_loads_neither_torch_nor_numpy():
    program = (
        "import sys, mas_edge.models.workloads.watch; sys.exit(len({'torch', 'numpy'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
