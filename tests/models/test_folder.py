from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest

from mas_edge.models.tasks import DataRefused, UnknownChoice
from mas_edge.models.workloads import description, folder_data, layout, pictures
from mas_edge.models.workloads.description import Description, Label, Mask
from mas_edge.models.workloads.folder_files import prepared

PIXELS = 16
CLASSES, DEPTH, NORMAL, EDGE = "segment_semantic", "depth_zbuffer", "normal", "edge_texture"
DESCRIBED = Description(
    pixels=PIXELS,
    clients=("attic", "barn"),
    unseen=("cabin",),
    tasks={
        CLASSES: Label(kind="classes", channels=5, ignore=(0,)),
        DEPTH: Label(kind="regression", channels=1, mean=(1500,), std=(1000,), masked=True),
        NORMAL: Label(kind="normals", channels=3, mean=(127.5,), std=(127.5,), masked=True),
        EDGE: Label(kind="regression", channels=1, mean=(718,), std=(1070,)),
    },
    mask=Mask(domain=DEPTH, below=8192),
)


def stored(rng, size=PIXELS):
    """One view as it is stored."""
    depth = rng.integers(100, 8000, (size, size), np.uint16)
    depth[rng.random((size, size)) < 0.2] = 65535
    return {
        "rgb": rng.integers(0, 256, (size, size, 3), np.uint8),
        CLASSES: rng.integers(0, 5, (size, size), np.uint8),
        DEPTH: depth,
        NORMAL: rng.integers(0, 256, (size, size, 3), np.uint8),
        EDGE: rng.integers(0, 65536, (size, size), np.uint16),
    }


VIEWS = (layout.View(0, 0), layout.View(2, 0), layout.View(2, 1), layout.View(10, 0), layout.View(11, 3))


def write(root, building, place=layout.PLACES[0], views=VIEWS, size=PIXELS, domains=DESCRIBED.domains):
    """A building in one of the official trees; what was stored, by view."""
    rng = np.random.default_rng(len(building))
    written = {view: stored(rng, size) for view in views}
    for domain in domains:
        folder = root / place.format(domain=domain, building=building)
        folder.mkdir(parents=True)
        for view, values in written.items():
            pictures.write(folder / f"{layout.file(domain, view)}.png", values[domain])
    return written


def opened(tmp_path, *clients, view="all", share=0.0, described=DESCRIBED):
    return folder_data.dataset(described, tmp_path / "rgb", tmp_path / "cache", clients, view, share)


@pytest.fixture
def root(tmp_path):
    """Named like a domain on purpose: a loader that replaces text in paths cannot read it."""
    place = tmp_path / "rgb"
    place.mkdir()
    return place


def everything(data):
    return data.batch(np.arange(len(data)))


@pytest.mark.parametrize("place", layout.PLACES)
def test_every_released_tree_is_read_even_under_a_folder_called_rgb(tmp_path, root, place):
    written = write(root, "attic", place)
    batch = everything(opened(tmp_path, "attic"))
    assert layout.buildings(root, "rgb") == ("attic",)
    for row, view in enumerate(VIEWS):
        values = written[view]
        np.testing.assert_array_equal(batch.targets[CLASSES][row], values[CLASSES])
        np.testing.assert_array_equal(batch.valid[CLASSES][row], values[CLASSES] != 0)
        np.testing.assert_allclose(batch.targets[DEPTH][row, 0], (values[DEPTH] - 1500.0) / 1000, rtol=1e-6)
        np.testing.assert_array_equal(batch.valid[NORMAL][row, 0], values[DEPTH] < 8192)
        normal = (values[NORMAL].transpose(2, 0, 1) / 255 - 0.5) * 2
        np.testing.assert_allclose(batch.targets[NORMAL][row], normal, atol=1e-6)
        picture = values["rgb"].transpose(2, 0, 1) / 127.5 - 1
        np.testing.assert_allclose(batch.inputs[row], picture, atol=1e-6)
        assert EDGE not in batch.valid


def test_a_building_whose_name_contains_a_domains_is_read(tmp_path, root):
    written = write(root, "normal_rgb")
    batch = everything(opened(tmp_path, "normal_rgb"))
    np.testing.assert_array_equal(batch.targets[CLASSES][0], written[VIEWS[0]][CLASSES])


def test_views_are_in_order_of_their_numbers_not_of_their_letters(tmp_path, root):
    write(root, "attic")
    assert prepared(DESCRIBED, root, "attic", tmp_path / "cache").views == VIEWS


def test_no_point_is_both_trained_on_and_held_out(tmp_path, root):
    write(root, "attic")
    building = prepared(DESCRIBED, root, "attic", tmp_path / "cache")
    for share in (0.0, 0.2, 0.5, 0.9):
        train, held_out = (
            {building.views[row].point for row in folder_data.in_view(building, view, share)}
            for view in ("train", "held-out")
        )
        assert not train & held_out
        assert train | held_out == {view.point for view in VIEWS}
        assert len(held_out) == (max(1, round(4 * share)) if share else 0)


def test_buildings_are_one_after_the_other(tmp_path, root):
    one, two = write(root, "attic"), write(root, "barn", views=VIEWS[:2])
    data = opened(tmp_path, "attic", "barn")
    assert len(data) == 7
    batch = data.batch(np.array([5, 0]))
    np.testing.assert_array_equal(batch.targets[CLASSES], [two[VIEWS[0]][CLASSES], one[VIEWS[0]][CLASSES]])


def test_a_building_without_a_tasks_folder_has_no_labels_of_it(tmp_path, root):
    write(root, "attic", domains=[name for name in DESCRIBED.domains if name != EDGE])
    write(root, "barn")
    assert opened(tmp_path, "attic").labels == {CLASSES, DEPTH, NORMAL}
    both = opened(tmp_path, "attic", "barn")
    assert both.labels == {CLASSES, DEPTH, NORMAL, EDGE}
    valid = everything(both).valid[EDGE]
    assert not valid[:5].any()
    assert valid[5:].all()
    assert not both.batch(np.array([0])).valid[EDGE].any()


def test_labels_that_one_building_lacks_count_in_the_others_where_the_mask_says_so(tmp_path, root):
    write(root, "attic", domains=[name for name in DESCRIBED.domains if name != NORMAL])
    written = write(root, "barn")
    batch = opened(tmp_path, "attic", "barn").batch(np.array([0, 5, 6]))
    assert not batch.valid[NORMAL][0].any()
    for row, view in ((1, VIEWS[0]), (2, VIEWS[1])):
        np.testing.assert_array_equal(batch.valid[NORMAL][row, 0], written[view][DEPTH] < 8192)
    assert batch.valid[DEPTH][0].any()


def test_a_batch_changes_neither_what_is_stored_nor_the_one_before(tmp_path, root):
    write(root, "attic")
    described = msgspec.structs.replace(
        DESCRIBED, tasks=DESCRIBED.tasks | {"rgb": Label(kind="regression", channels=3, std=(255.0,))}
    )
    data = opened(tmp_path, "attic", described=described)
    first = everything(data)
    kept = {name: target.copy() for name, target in first.targets.items()} | {"": first.inputs.copy()}
    again = everything(data)
    for batch in (first, again):
        for name, target in (*batch.targets.items(), ("", batch.inputs)):
            np.testing.assert_array_equal(target, kept[name], err_msg=name)
    np.testing.assert_allclose(first.inputs, 2 * first.targets["rgb"] - 1, atol=1e-6)
    assert first.valid[DEPTH] is first.valid[NORMAL], "one mask serves all tasks that are masked alone"


def test_the_tasks_do_not_grow_with_every_batch(tmp_path, root):
    write(root, "attic")
    data = opened(tmp_path, "attic")
    first = [sorted(data.batch(np.array([row])).targets) for row in (0, 1, 2, 0)]
    assert first == [sorted(DESCRIBED.tasks)] * 4


# --- sizes ----------------------------------------------------------------------------------------


def test_class_ids_are_never_mixed(tmp_path, root):
    written = write(root, "attic", size=PIXELS * 4)
    batch = everything(opened(tmp_path, "attic"))
    for row, view in enumerate(VIEWS):
        np.testing.assert_array_equal(batch.targets[CLASSES][row], written[view][CLASSES][2::4, 2::4])


def test_holes_are_mixed_into_no_depth_and_into_nothing_that_is_masked(tmp_path, root):
    written = write(root, "attic", size=PIXELS * 2)
    batch = everything(opened(tmp_path, "attic"))
    for row, view in enumerate(VIEWS):
        depth, edge = written[view][DEPTH], written[view][EDGE]
        np.testing.assert_allclose(
            batch.targets[DEPTH][row, 0], (depth[1::2, 1::2] - 1500.0) / 1000, rtol=1e-6
        )
        hit = depth[1::2, 1::2] < 8192
        np.testing.assert_array_equal(batch.valid[DEPTH][row, 0], hit)
        y, x = np.argwhere(hit)[0] * 2
        solid = depth[y : y + 2, x : x + 2] < 8192
        mean = np.rint(written[view][NORMAL][y : y + 2, x : x + 2][solid].mean(0)) / 127.5 - 1
        np.testing.assert_allclose(batch.targets[NORMAL][row, :, y // 2, x // 2], mean, atol=1e-6)
        whole = np.rint(edge[:2, :2].mean())
        assert batch.targets[EDGE][row, 0, 0, 0] == pytest.approx((whole - 718) / 1070)


def test_a_size_that_is_no_multiple_is_refused_with_what_to_change(tmp_path, root):
    write(root, "attic", size=PIXELS + 4)
    with pytest.raises(
        DataRefused, match=r"point_0_view_0_domain_rgb\.png: 20 x 20 .* 16 x 16; change pixels"
    ):
        opened(tmp_path, "attic")


# --- what can be wrong with files -----------------------------------------------------------------


def file_of(root, domain, view=VIEWS[2], building="attic"):
    return root / domain / "taskonomy" / building / f"{layout.file(domain, view)}.png"


def test_an_unreadable_label_is_refused_and_not_replaced_by_the_one_before(tmp_path, root):
    write(root, "attic")
    path = file_of(root, NORMAL)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataRefused, match=rf"{path}: cannot be read"):
        opened(tmp_path, "attic")
    assert not list((tmp_path / "cache").iterdir()), "nothing half-made is left"


def test_a_missing_label_is_refused_by_its_name(tmp_path, root):
    write(root, "attic")
    file_of(root, EDGE).unlink()
    with pytest.raises(
        DataRefused, match=r"point_2_view_1_domain_edge_texture\.png: missing.*point_2_view_1_domain_rgb"
    ):
        opened(tmp_path, "attic")


def test_a_label_of_another_size_is_refused_by_its_name(tmp_path, root):
    write(root, "attic")
    pictures.write(file_of(root, EDGE), np.zeros((32, 32), np.uint16))
    with pytest.raises(
        DataRefused, match=r"domain_edge_texture\.png: 32 x 32 .*_rgb\.png is 16 x 16 pixels; store one"
    ):
        opened(tmp_path, "attic")


def test_a_label_of_another_depth_is_refused_by_its_name(tmp_path, root):
    write(root, "attic")
    pictures.write(file_of(root, EDGE), np.zeros((PIXELS, PIXELS), np.uint8))
    with pytest.raises(
        DataRefused, match=r"point_2_view_1_domain_edge_texture\.png: uint8 where others are uint16"
    ):
        opened(tmp_path, "attic")


def test_too_few_channels_are_refused_by_the_files_name(tmp_path, root):
    write(root, "attic")
    pictures.write(file_of(root, NORMAL), np.zeros((PIXELS, PIXELS), np.uint8))
    with pytest.raises(
        DataRefused, match=r"point_2_view_1_domain_normal\.png: 1 channels where normal has 3"
    ):
        opened(tmp_path, "attic")


def test_a_class_that_is_not_described_is_refused_by_the_files_name(tmp_path, root):
    write(root, "attic")
    pictures.write(file_of(root, CLASSES), np.full((PIXELS, PIXELS), 5, np.uint8))
    with pytest.raises(
        DataRefused, match=r"segmentsemantic\.png: class 5; \[tasks.segment_semantic\] has channels = 5"
    ):
        opened(tmp_path, "attic")


def test_a_building_without_any_label_is_refused(tmp_path, root):
    write(root, "attic", domains=("rgb",))
    with pytest.raises(
        DataRefused, match=r"'attic' has no folder of any task; there could be segment_semantic"
    ):
        opened(tmp_path, "attic")


def test_a_building_without_the_mask_that_its_labels_need_is_refused(tmp_path, root):
    write(root, "attic", domains=[name for name in DESCRIBED.domains if name != DEPTH])
    with pytest.raises(DataRefused, match=r"'attic' has no depth_zbuffer, the mask of normal"):
        opened(tmp_path, "attic")


def test_an_empty_folder_of_a_task_is_refused(tmp_path, root):
    write(root, "attic")
    for path in file_of(root, EDGE).parent.iterdir():
        path.unlink()
    with pytest.raises(
        DataRefused, match=r"edge_texture/taskonomy/attic: no file point_N_view_N_domain_edge_texture"
    ):
        opened(tmp_path, "attic")


def test_two_files_of_one_view_are_refused(tmp_path, root):
    write(root, "attic")
    np.save(file_of(root, EDGE).with_suffix(".npy"), np.zeros((PIXELS, PIXELS), np.uint16))
    with pytest.raises(DataRefused, match=r"same view; remove one"):
        opened(tmp_path, "attic")


def test_an_unknown_building_is_refused_with_those_there_are(tmp_path, root):
    write(root, "attic")
    write(root, "barn", layout.PLACES[2])
    with pytest.raises(UnknownChoice, match=r"'castle'; there are attic, barn"):
        opened(tmp_path, "castle")


def test_an_impossible_share_is_refused(tmp_path):
    with pytest.raises(DataRefused, match="share 1"):
        opened(tmp_path, share=1.0)


# --- the cache ------------------------------------------------------------------------------------


def test_a_second_opening_reads_no_picture(tmp_path, root):
    write(root, "attic")
    first = everything(opened(tmp_path, "attic"))
    cache = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    again = everything(opened(tmp_path, "attic"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")} == cache
    np.testing.assert_array_equal(first.inputs, again.inputs)


def test_a_changed_file_makes_another_cache(tmp_path, root):
    write(root, "attic")
    opened(tmp_path, "attic")
    shutil.copy(file_of(root, CLASSES, VIEWS[0]), file_of(root, CLASSES, VIEWS[1]))
    batch = everything(opened(tmp_path, "attic"))
    np.testing.assert_array_equal(batch.targets[CLASSES][0], batch.targets[CLASSES][1])


def test_a_cache_that_was_cut_short_is_refused_with_the_remedy(tmp_path, root):
    write(root, "attic")
    opened(tmp_path, "attic")
    path = next((tmp_path / "cache").glob("*/normal.npy"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataRefused, match=rf"{path}: damaged .*; remove {path.parent}"):
        opened(tmp_path, "attic")
    shutil.rmtree(path.parent)
    assert len(opened(tmp_path, "attic")) == 5


# --- dataset.toml ---------------------------------------------------------------------------------


def test_a_description_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / description.FILE
    path.write_text(description.text(DESCRIBED))
    assert description.load(path) == DESCRIBED


def test_the_description_in_the_documentation_is_one(tmp_path):
    lines = description.__doc__.splitlines()
    path = tmp_path / description.FILE
    path.write_text("\n".join(line for line in lines if line.startswith("    ") or not line)[1:])
    assert description.load(path).tasks.keys() == {CLASSES, DEPTH}


ONE = 'pixels = 64\nclients = ["attic"]\n[tasks.normal]\nkind = "normals"\nchannels = 3\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pixels = 64", "missing required field `clients`"),
        (ONE + "colour = 3", r"unknown field `colour`.*tasks"),
        (ONE.replace('"normals"', '"pictures"'), r"Invalid enum value 'pictures'.*tasks"),
        (ONE.replace("64", "60"), r"multiple of 8.*pixels"),
        (ONE + "mean = [1.0, 2.0]", r"\[tasks.normal\] mean: 2 numbers for 3 channels"),
        (ONE + "std = [0.0]", r"\[tasks.normal\] std: must be positive"),
        (ONE + "masked = true", r"\[tasks.normal\] masked: there is no \[mask\] table"),
        (ONE.replace("= 3", "= 2"), r"normals have 3, not 2"),
        ('unseen = ["attic"]\n' + ONE, "clients, unseen: attic is there twice"),
        (ONE.replace('["attic"]', '["attic", "attic"]'), "clients, unseen: attic is there twice"),
        (ONE.replace('["attic"]', "[]"), "clients: name at least one building"),
        (ONE + "std = [inf]", r"\[tasks.normal\] std: must be positive"),
        (ONE + "mean = [nan]", r"\[tasks.normal\] mean: must be a number"),
        (
            ONE.replace("normal]", "rgb]").replace("normals", "regression").replace("= 3", "= 1"),
            "a picture has 3",
        ),
        ('pixels = 64\nclients = ["a"]\n[tasks]', r"no \[tasks.NAME\] table"),
        (ONE + "[input]\nstd = [1.0, 2.0]", r"\[input\] mean, std: give one number or three"),
        ("pixels =", "Invalid value"),
        (ONE.replace("attic", "../attic"), "clients"),
    ],
)
def test_a_wrong_description_is_refused_by_file_and_key(tmp_path, text, said):
    path = tmp_path / description.FILE
    path.write_text(text)
    with pytest.raises(DataRefused, match=rf"dataset\.toml: .*{said}"):
        description.load(path)


def test_a_missing_description_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataRefused, match=r"dataset\.toml: there is no such file"):
        description.load(tmp_path / description.FILE)


def test_a_change_of_meaning_makes_another_cache(tmp_path, root):
    write(root, "attic", size=PIXELS * 2)
    opened(tmp_path, "attic")
    whole = msgspec.structs.replace(DESCRIBED, pixels=PIXELS * 2)
    assert opened(tmp_path, "attic", described=whole).batch(np.array([0])).inputs.shape == (1, 3, 32, 32)
