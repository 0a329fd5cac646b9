from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mas_edge.models.tasks import DataRefused, Source, UnknownChoice
from mas_edge.models.workloads import description, folder, folder_data, layout, taskonomy
from mas_edge.models.workloads.buildings import archive
from mas_edge.models.workloads.buildings.dataset import building
from mas_edge.models.workloads.buildings.export import export, write_building
from mas_edge.models.workloads.buildings.records import LABELS
from mas_edge.models.workloads.buildings.workload import DESCRIPTION
from mas_edge.models.workloads.folder_files import Building, prepared
from mas_edge.orchestrator.cli import main

PIXELS, VIEWS = 16, 5
DESCRIBED = msgspec.structs.replace(DESCRIPTION, pixels=PIXELS)


def records(seed):
    """Views whose values take the whole range of what is stored."""
    rng = np.random.default_rng(seed)
    views = np.zeros(VIEWS, archive.record(PIXELS))
    for name in LABELS:
        kind = views[name].dtype
        views[name] = rng.integers(0, np.iinfo(kind).max, views[name].shape, kind, endpoint=True)
    views["segment_semantic"] %= 18
    views["depth_zbuffer"].flat[:3] = 0, 65535, 32768
    return views


@pytest.fixture
def made(tmp_path):
    """A made set of two training buildings and an unseen one."""
    root = tmp_path / "set"
    root.mkdir()
    digests = {name: archive.save_client(root, name, records(int(name))) for name in ("1", "2", "9")}
    page = archive.Page(version="1", preset="tiny", seed=1, pixels=PIXELS, clients=digests, unseen=("9",))
    archive.save_page(root, page)
    return root


def stored_equal(one, other):
    assert one.views == other.views
    for name in LABELS:
        assert one.stored[name].dtype == other.stored[name].dtype, name
        np.testing.assert_array_equal(one.stored[name], other.stored[name], err_msg=name)


def test_what_is_exported_is_read_by_the_taskonomy_loader_bit_for_bit(tmp_path, made):
    assert export(tmp_path / "out", root=made) == 3 * VIEWS * 9
    described = msgspec.structs.replace(taskonomy.TASKONOMY, pixels=PIXELS)
    for client in ("1", "2", "9"):
        back = prepared(described, tmp_path / "out", client, tmp_path / "cache")
        stored_equal(building(DESCRIBED, None, made, client), back)


def test_the_folder_workload_makes_the_same_batches_of_it(tmp_path, made):
    export(tmp_path / "out", root=made)
    described = description.load(tmp_path / "out" / description.FILE)
    assert (described.clients, described.unseen) == (("1", "2"), ("9",))
    for view in ("train", "held-out", "all"):
        back = folder_data.dataset(described, tmp_path / "out", tmp_path / "cache", ("2",), view, 0.4)
        each = building(DESCRIBED, None, made, "2")
        data = folder_data.Views(described, [(each, folder_data.in_view(each, view, 0.4))])
        assert len(data) == len(back)
        one, other = (views.batch(np.arange(len(data))) for views in (data, back))
        np.testing.assert_array_equal(one.inputs, other.inputs)
        assert one.targets.keys() == other.targets.keys() == described.tasks.keys()
        assert one.valid.keys() == other.valid.keys()
        for parts in ("targets", "valid"):
            for name, values in getattr(one, parts).items():
                np.testing.assert_array_equal(values, getattr(other, parts)[name], err_msg=name)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_stored_value_survives(tmp_path_factory, seed):
    root = tmp_path_factory.mktemp("export")
    views = records(seed)
    labels = {name: views[name].reshape(VIEWS, PIXELS, PIXELS, -1) for name in LABELS}
    one = Building("attic", tuple(layout.View(seed, n) for n in range(VIEWS)), labels)
    write_building(root, DESCRIBED, one)
    stored_equal(one, prepared(DESCRIBED, root, "attic", root / "cache"))


def test_the_files_are_as_taskonomy_releases_them(tmp_path, made):
    out = tmp_path / "out"
    export(out, ["9"], made)
    found = {path.relative_to(out).as_posix(): path for path in out.glob("*/taskonomy/*/*")}
    assert len(found) == 9 * VIEWS
    modes = {
        "rgb/taskonomy/9/point_4_view_0_domain_rgb.png": "RGB",
        "segment_semantic/taskonomy/9/point_4_view_0_domain_segmentsemantic.png": "L",
        "depth_zbuffer/taskonomy/9/point_4_view_0_domain_depth_zbuffer.png": "I;16",
        "principal_curvature/taskonomy/9/point_4_view_0_domain_principal_curvature.png": "RGB",
    }
    for name, mode in modes.items():
        with Image.open(found[name]) as picture:
            assert picture.size == (PIXELS, PIXELS)
            assert picture.mode in ({mode, "I"} if mode == "I;16" else {mode})


def test_an_unknown_building_is_refused_before_anything_is_written(tmp_path, made):
    with pytest.raises(UnknownChoice, match=r"'castle'"):
        export(tmp_path / "out", ["1", "castle"], made)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_filled(tmp_path, made):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "file", made):
        before = sorted(out.parent.rglob("*"))
        with pytest.raises(DataRefused, match=rf"{out}: there is something already; name a new folder"):
            export(out, root=made)
        assert sorted(out.parent.rglob("*")) == before
    assert export(tmp_path / "empty", ["1", "1"], made) == VIEWS * 9
    assert (tmp_path / "empty" / description.FILE).exists()


def test_a_folder_that_is_no_set_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataRefused, match=r"set\.json: there is no such file"):
        export(tmp_path / "out", None, tmp_path)


def test_a_folder_workload_says_what_it_needs(tmp_path, made, monkeypatch):
    export(tmp_path / "out", root=made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(folder.ROOT_VARIABLE, raising=False)
    with pytest.raises(DataRefused, match=r"MAS_EDGE_FOLDER=FOLDER, the folder with your dataset\.toml"):
        folder.workload()
    monkeypatch.setenv(folder.ROOT_VARIABLE, str(tmp_path / "out"))
    workload = folder.workload()
    assert workload.unseen == ("9",)
    assert len(workload.dataset(Source(("1", "9")), "all", 0.0)) == 2 * VIEWS
    monkeypatch.delenv(folder.ROOT_VARIABLE)
    with pytest.raises(DataRefused, match=r"'folder' ships no data: set root in \[data\.folder\]"):
        workload.dataset(Source(("1",)), "all", 0.0)
    assert len(workload.dataset(Source(("1",), tmp_path / "out"), "all", 0.0)) == VIEWS
    with pytest.raises(DataRefused, match=r"/nowhere: there is no such folder"):
        workload.dataset(Source(("1",), tmp_path / "nowhere"), "all", 0.0)


def test_the_command_says_what_it_wrote_or_in_one_line_why_not(tmp_path, made, capsys):
    out = tmp_path / "out"
    command = ["data", "export", "--root", str(made), "--out", str(out), "--clients"]
    assert main([*command, "1,9"]) == 0
    assert capsys.readouterr().out == f"{out}: {2 * VIEWS * 9} pictures\n"
    assert description.load(out / description.FILE).clients == ("1",)
    assert main([*command[:-2], str(tmp_path / "other"), "--clients", "castle"]) == 2
    assert not (tmp_path / "other").exists()
    said = capsys.readouterr().err
    assert said.startswith("mas: ")
    assert said.count("\n") == 1
    assert "'castle'" in said
