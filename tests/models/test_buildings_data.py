"""Sets of buildings on disk, and what a network gets of them; records are made up, no view is rendered."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mas_edge.models.tasks import DataRefused, Source, UnknownChoice
from mas_edge.models.workloads.buildings import archive, statistics
from mas_edge.models.workloads.buildings.dataset import dataset
from mas_edge.models.workloads.buildings.records import FORMAT, LABELS
from mas_edge.models.workloads.buildings.workload import CLASSES, DESCRIPTION

PIXELS = DESCRIPTION.pixels
GEOMETRY = ("depth_zbuffer", "normal", "edge_occlusion", "reshading", "principal_curvature")
APPEARANCE = ("keypoints2d", "edge_texture", "rgb")


def records(seed, views=10, pixels=PIXELS):
    """Views whose every stored value is drawn at random, within its type (and the classes)."""
    rng = np.random.default_rng(seed)
    together = np.empty(views, archive.record(pixels))
    for name in LABELS:
        values = together[name]
        top = len(CLASSES) if name == "segment_semantic" else np.iinfo(values.dtype).max + 1
        together[name] = rng.integers(0, top, values.shape, values.dtype)
    return together


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A complete set of two buildings; tests that damage one copy it."""
    root = tmp_path_factory.mktemp("set")
    write(root, {"1": records(1), "9": records(9)})
    return root


def write(root, buildings, **changed):
    digests = {client: archive.save_client(root, client, views) for client, views in buildings.items()}
    about = {"version": "1", "preset": "demo", "seed": 1, "pixels": PIXELS, "clients": digests}
    archive.save_page(root, archive.Page(**(about | changed)))


def opened(root, *clients, view="all", share=0.0):
    return dataset(DESCRIPTION, None, Source(clients or ("1",), root), view, share)


def stored(dataset, name):
    """A regression's targets as they were stored, (N, S, S, C)."""
    label = DESCRIPTION.tasks[name]
    target = dataset.batch(np.arange(len(dataset))).targets[name].transpose(0, 2, 3, 1)
    return np.rint(target * np.array(label.std) + np.array(label.mean))


# --- on disk ----------------------------------------------------------------------------------------


def test_records_are_mapped_and_come_back_as_they_were_written(made):
    views = archive.open_client(made, "1", PIXELS)
    assert isinstance(views, np.memmap)
    assert (views == records(1)).all()
    assert archive.verify(made).preset == "demo"


def test_a_packed_set_holds_the_same_records(tmp_path):
    archive.pack(tmp_path / "set.npz", {"1": records(1), "2": records(2)})
    assert (archive.unpack(tmp_path / "set.npz", "2", PIXELS) == records(2)).all()


def test_stacked_views_are_the_labels_of_each():
    first, second = records(3, views=2)
    views = [{name: view[name] for name in LABELS} for view in (first, second)]
    assert (archive.stack(views) == records(3, views=2)).all()


def test_a_folder_without_a_page_is_unfinished(made, tmp_path):
    (tmp_path / "1.npy").write_bytes((made / "1.npy").read_bytes())
    with pytest.raises(DataRefused, match=r"set\.json.*cut short"):
        opened(tmp_path)


def test_a_set_of_another_format_is_refused(tmp_path):
    write(tmp_path, {"1": records(1)}, format=FORMAT + 1)
    with pytest.raises(DataRefused, match=rf"set\.json.*format {FORMAT + 1}.*make the set again"):
        opened(tmp_path)


def test_a_set_of_another_size_is_refused_by_its_file(tmp_path):
    write(tmp_path, {"1": records(1, pixels=16)}, pixels=16)
    with pytest.raises(DataRefused, match=r"1\.npy.*not views of 32 x 32"):
        opened(tmp_path)


@pytest.mark.parametrize("keep", [0, 50, 5000])
def test_a_file_that_is_cut_short_is_refused_by_its_name(tmp_path, keep):
    write(tmp_path, {"1": records(1)})
    path = tmp_path / "1.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataRefused, match=r"1\.npy.*make the set again"):
        opened(tmp_path)


def test_a_folder_may_have_buildings_that_are_not_shipped(tmp_path):
    write(tmp_path, {"11": records(1)})
    assert len(opened(tmp_path, "11")) == len(records(1))


def test_a_missing_building_and_an_unknown_one_are_told_apart(made, tmp_path):
    write(tmp_path, {"1": records(1)})
    (tmp_path / "1.npy").unlink()
    with pytest.raises(DataRefused, match=r"1\.npy"):
        opened(tmp_path)
    with pytest.raises(UnknownChoice, match="'2'; it has 1, 9"):
        opened(made, "2")
    with pytest.raises(UnknownChoice, match=r"'cellar'; there are 1, 2, .*10"):
        dataset(DESCRIPTION, archive.SHIPPED, Source(("cellar",), None), "all", 0.0)


def test_a_page_that_is_none_is_refused(tmp_path):
    for text in (b"", b"[]", b'{"format": 1}', msgspec.json.encode({"format": "one"})):
        (tmp_path / archive.PAGE).write_bytes(text)
        with pytest.raises(DataRefused, match=r"set\.json"):
            archive.open_page(tmp_path)


def test_a_changed_pixel_is_found_by_verifying(tmp_path):
    write(tmp_path, {"1": records(1)})
    raw = bytearray((tmp_path / "1.npy").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "1.npy").write_bytes(raw)
    with pytest.raises(DataRefused, match=r"1\.npy: changed"):
        archive.verify(tmp_path)


def test_a_pickle_in_the_place_of_records_is_never_run(tmp_path):
    write(tmp_path, {"1": records(1)})
    np.save(tmp_path / "1.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(DataRefused, match=r"1\.npy"):
        opened(tmp_path)


@pytest.mark.parametrize("damage", [lambda _: b"", lambda raw: raw[: len(raw) // 2], lambda _: b"no archive"])
def test_a_damaged_package_is_refused_by_its_name(tmp_path, damage):
    path = tmp_path / "demo.npz"
    archive.pack(path, {"1": records(1, views=2)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataRefused, match=r"demo\.npz"):
        dataset(DESCRIPTION, path, Source(("1",)), "all", 0.0)


def test_a_package_of_another_size_or_without_the_building_is_refused(tmp_path):
    path = tmp_path / "demo.npz"
    archive.pack(path, {"1": records(1, views=2, pixels=16)})
    for client in ("1", "2"):
        with pytest.raises(DataRefused, match=r"demo\.npz"):
            dataset(DESCRIPTION, path, Source((client,)), "all", 0.0)
    with pytest.raises(DataRefused, match=r"demo\.npz.*no such file"):
        dataset(DESCRIPTION, tmp_path / "none" / "demo.npz", Source(("1",)), "all", 0.0)


# --- a batch ----------------------------------------------------------------------------------------


def test_a_batch_has_the_input_and_nine_targets_as_a_network_wants_them(made):
    batch = opened(made).batch(np.array([3, 0]))
    assert batch.inputs.shape == (2, 3, PIXELS, PIXELS)
    assert {name: target.shape[1:-2] for name, target in batch.targets.items()} == {
        name: () if label.kind == "classes" else (label.channels,)
        for name, label in DESCRIPTION.tasks.items()
    }
    np.testing.assert_array_equal(batch.inputs, opened(made).batch(np.array([0, 3])).inputs[::-1])
    assert batch.inputs.dtype == batch.targets["normal"].dtype == np.float32


@pytest.mark.parametrize("name", [*GEOMETRY, *APPEARANCE])
def test_a_target_undoes_to_what_is_stored(made, name):
    was = records(1)[name]
    np.testing.assert_array_equal(stored(opened(made), name), was if was.ndim == 4 else was[..., None])


def test_the_picture_is_its_own_target_between_0_and_1(made):
    batch = opened(made).batch(np.arange(10))
    np.testing.assert_allclose(batch.targets["rgb"], (batch.inputs + 1) / 2, atol=1e-6)
    assert (batch.targets["rgb"].min(), batch.targets["rgb"].max()) == (0, 1)


def test_holes_and_what_is_beyond_16_m_count_for_no_task_that_needs_a_surface(made):
    batch, depth = opened(made).batch(np.arange(10)), records(1)["depth_zbuffer"]
    for name in GEOMETRY:
        np.testing.assert_array_equal(batch.valid[name], (depth < 16 * 512)[:, None])
    for name in APPEARANCE:
        valid = batch.valid.get(name)
        assert valid is None or valid.all()


def test_the_class_uncertain_is_no_label(made):
    batch = opened(made).batch(np.arange(10))
    np.testing.assert_array_equal(batch.targets["segment_semantic"], records(1)["segment_semantic"])
    np.testing.assert_array_equal(batch.valid["segment_semantic"], records(1)["segment_semantic"] != 0)


@pytest.mark.parametrize(("share", "trained"), [(0.2, 8), (0.5, 5), (0.01, 9), (0.0, 10)])
def test_no_view_is_both_trained_on_and_held_out(made, share, trained):
    parts = [opened(made, "1", "9", view=view, share=share) for view in ("train", "held-out", "all")]
    assert [len(part) for part in parts] == [2 * trained, 2 * (10 - trained), 20]
    pictures = [{part.batch(np.array([n])).inputs.tobytes() for n in range(len(part))} for part in parts]
    assert not pictures[0] & pictures[1]
    assert pictures[0] | pictures[1] == pictures[2]


def test_an_impossible_share_is_refused(made):
    with pytest.raises(DataRefused, match=r"share 1\.0"):
        opened(made, share=1.0)


# --- statistics -------------------------------------------------------------------------------------


def test_fitted_targets_have_mean_zero_and_deviation_one_over_the_valid_pixels():
    fitted = statistics.fit(DESCRIPTION, [records(1), records(9)])
    both = np.concatenate([records(1), records(9)])
    valid = both["depth_zbuffer"] < 16 * 512
    for name in ("depth_zbuffer", "reshading", "principal_curvature"):
        target = (both[name][valid] - np.array(fitted[name]["mean"])) / np.array(fitted[name]["std"])
        np.testing.assert_allclose(target.mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(target.std(0), 1, atol=1e-3)
        np.testing.assert_allclose(np.median(target, 0), np.squeeze(fitted[name]["constant"]), atol=1e-3)
    assert np.exp(fitted["segment_semantic"]["constant"]).sum() == pytest.approx(1, abs=1e-3)
    assert "mean" not in fitted["rgb"]


def test_divergence_is_a_bit_for_disjoint_mixes_and_nothing_for_equal_ones():
    one, other = np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.25, 0.75])
    assert statistics.divergence_bit(one, one) == 0
    assert statistics.divergence_bit(one, other) == pytest.approx(1)
    assert statistics.divergence_bit(one, np.array([0.5, 0, 0.5, 0])) == pytest.approx(0.5)


def test_buildings_with_other_objects_diverge_more_than_their_halves():
    buildings = [records(1, views=20), records(2, views=20)]
    buildings[1]["segment_semantic"][buildings[1]["segment_semantic"] < 10] = 1
    between, within = statistics.divergences_bit(buildings, len(CLASSES))
    assert between > 10 * within
    assert statistics.class_shares(buildings[1], len(CLASSES))[0] == 0
