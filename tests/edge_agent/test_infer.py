"""``mas-agent infer`` from its arguments to what is on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_files import GROUP, watch_model, with_external_data
from PIL import Image

from mas_edge.edge_agent.cli import main
from mas_edge.edge_agent.in_use import Kept
from mas_edge.edge_agent.model_folder import ModelFolder
from mas_edge.models.workloads import watch_numbers as numbers
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.messages import InUse, Model

WINDOWS = np.zeros((2, 6, 128), np.float32)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(watch_model())
    np.save(tmp_path / "windows.npy", WINDOWS)
    return tmp_path


def infer(*arguments) -> int:
    return main(["infer", *map(str, arguments)])


@pytest.mark.usefixtures("place")
def test_every_task_is_written_as_an_array_and_every_input_as_a_picture(capsys):
    assert infer("--model", "model.onnx", "--input", "windows.npy", "--out", "out") == 0
    np.testing.assert_allclose(np.load("out/windows.gravity.npy"), [numbers.GRAVITY] * 2, rtol=1e-6)
    assert np.load("out/windows.jerk.npy").shape == (2, 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("windows.npy  gravity  (2, 3)  ")
    assert lines[0].endswith(" ms  out/windows.gravity.npy")
    assert lines[-1] == "windows.npy  picture  out/windows-1.png"
    with Image.open("out/windows-0.png") as picture:
        assert picture.size[0] > 3 * 192  # the input and two tasks


def test_one_task_alone_and_the_same_as_json(place, capsys):
    assert infer("--model", "model.onnx", "--input", "windows.npy", "--task", "jerk", "--json") == 0
    (outcome,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (output,) = outcome["outputs"]
    assert (output["task"], output["shape"]) == ("jerk", [2, 8])
    assert 0 < output["latency_s"] < 1
    assert not (place / "inferred/windows.gravity.npy").exists()


def test_raw_values_and_whole_numbers_are_normalised(place):
    outputs = {"gravity": 3}
    file = watch_model(outputs=outputs, tasks="gravity", group="gravity")
    (place / "sum.onnx").write_bytes(file)
    raw = np.broadcast_to(np.reshape(numbers.MEAN, (6, 1)), (6, 128))
    np.savez("raw.npz", raw)
    assert infer("--model", "sum.onnx", "--input", "raw.npz", "--raw") == 0
    assert np.load("inferred/raw.gravity.npy").shape == (1, 3)


def test_a_folder_is_inferred_file_by_file(place, capsys):
    for name in ("b", "a"):
        np.save(place / f"{name}.npy", WINDOWS[0])
    (place / "windows.npy").unlink()
    assert infer("--model", "model.onnx", "--input", place, "--task", "jerk") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rpartition("/")[2] for line in lines] == ["a.npy", "a.npy", "b.npy", "b.npy"]


# --- what is in use -------------------------------------------------------------------------------


@pytest.fixture
def device(place):
    """A device's configuration and state, with these models in use, the last one put in use last."""
    (place / "agent.toml").write_text('device = "d"\nfleet = "f"\nstate = "state"\ndata = {}\n')
    blobs, folder = BlobStore(place / "blobs"), ModelFolder(place / "state/models")

    def use(**files):
        found = []
        for group, file in files.items():
            ref = blobs.add(file)
            folder.take(blobs, ref.digest)
            tasks = tuple(group.split("_"))
            model = Model(workload="watch", job="j", group=group, round=1, tasks=tasks, file=ref)
            found.append(InUse(model=model))
        folder.keep(Kept(in_use=tuple(found)))
        return folder

    return use


CONFIGURED = ("--config", "agent.toml", "--input", "windows.npy")


def test_the_model_in_use_serves(device):
    device(gravity_jerk=watch_model(off=0.25))
    assert infer(*CONFIGURED) == 0
    np.testing.assert_allclose(np.load("inferred/windows.jerk.npy"), 0.25)


def test_a_task_of_several_groups_is_served_by_the_model_that_came_last(device):
    only = watch_model(outputs={"jerk": 8}, tasks="jerk", off=1.0)
    device(gravity_jerk=watch_model(), jerk=only)
    assert infer(*CONFIGURED) == 0
    np.testing.assert_allclose(np.load("inferred/windows.jerk.npy"), 1.0)
    np.testing.assert_allclose(np.load("inferred/windows.gravity.npy")[0], numbers.GRAVITY, rtol=1e-6)


def said(capsys, *arguments) -> str:
    """The one line of an exit with code 2."""
    assert infer(*arguments) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    (line,) = errors.splitlines()
    return line


def test_without_a_model_in_use_or_of_that_task_one_is_told_what_to_do(device, capsys):
    device()
    assert "no model is in use here (state): mas deploy" in said(capsys, *CONFIGURED)
    device(gravity_jerk=watch_model())
    assert "no model in use has the task 'yaw'; there are gravity, jerk" in said(
        capsys, *CONFIGURED, "--task", "yaw"
    )
    assert "no model of workload 'bells' is in use; there are watch" in said(
        capsys, *CONFIGURED, "--workload", "bells"
    )


def test_a_file_of_a_model_in_use_that_was_damaged_is_not_run(device, capsys):
    folder = device(gravity_jerk=watch_model())
    path = folder.path(folder.kept().in_use[0].model.file.digest)
    path.write_bytes(path.read_bytes()[:-1])
    assert "deploy it again" in said(capsys, *CONFIGURED)


# --- bad input ------------------------------------------------------------------------------------

BAD_MODELS = {
    "it is cut short": watch_model()[:2000],
    "it is not a protobuf message": b"\x0f not a model",
    "some of its weights lie in other files": with_external_data(watch_model()),
    "Frobnicate": watch_model(operator=("Frobnicate", "")),
    "only ONNX's own are allowed": watch_model(operator=("Twice", "acme")),
}


@pytest.mark.parametrize("why", BAD_MODELS)
def test_a_bad_model_is_one_clear_line(place, capsys, why):
    (place / "bad.onnx").write_bytes(BAD_MODELS[why])
    line = said(capsys, "--model", "bad.onnx", "--input", "windows.npy")
    assert line.startswith("mas-agent: bad.onnx: ")
    assert why in line
    assert not (place / "inferred").exists()


def test_bad_inputs_are_one_clear_line_each_before_anything_is_written(place, capsys):
    np.save("wide.npy", np.zeros((2, 6, 64), np.float32))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("holes.npy", np.full((6, 128), np.nan, np.float32))
    np.savez("two.npz", a=WINDOWS, b=WINDOWS)
    (place / "torn.npy").write_bytes((place / "windows.npy").read_bytes()[:200])
    (place / "torn.npz").write_bytes(b"PK\x03\x04")
    (place / "notes.txt").write_text("hello")
    Image.new("RGB", (8, 8)).save("photo.png")
    (place / "empty").mkdir()
    bad = {
        "wide.npy": "shape (2, 6, 64); the network takes (6, 128), or N of them",
        "words.npy": "an array of <U1; an input is of numbers",
        "holes.npy": "holds values that are no finite numbers",
        "two.npz": "has the arrays a, b; name one of them input",
        "torn.npy": "is no .npy file",
        "torn.npz": "is no .npz file",
        "notes.txt": "an input is .npy, .npz, .png, .jpg, .jpeg, or a folder of them",
        "photo.png": "a picture; the network takes arrays of shape (6, 128)",
        "empty": "no input in this folder",
        "nowhere.npy": "there is no such file",
    }
    for name, why in bad.items():
        line = said(capsys, "--model", "model.onnx", "--input", name)
        assert line.startswith(f"mas-agent: {name}: ")
        assert why in line
    assert not (place / "inferred").exists()


@pytest.mark.usefixtures("place")
def test_a_task_that_the_file_has_not_and_a_file_that_is_not_there(capsys):
    assert f"has no task '{GROUP}'; it has gravity, jerk" in said(
        capsys, "--model", "model.onnx", "--input", "windows.npy", "--task", GROUP
    )
    for name, why in (("nowhere.onnx", "No such file or directory"), (".", "Is a directory")):
        line = said(capsys, "--model", name, "--input", "windows.npy")
        assert line == f"mas-agent: {name}: cannot be read: {why}"


@pytest.mark.parametrize("tasks", ["gravity,../../etc/x", "gravity,gravity", "", "gravity,\x1b[2J"])
def test_tasks_that_cannot_name_files_are_refused_whatever_is_installed(place, capsys, tasks):
    outputs = dict.fromkeys(tasks.split(","), 3)
    (place / "odd.onnx").write_bytes(watch_model(outputs=outputs, tasks=tasks, workload="elsewhere"))
    line = said(capsys, "--model", "odd.onnx", "--input", "windows.npy")
    assert "files cannot be named by them" in line
    assert line.isprintable()


def test_no_output_takes_the_place_of_an_input_or_of_another_output(place, capsys):
    model = ("--model", "model.onnx", "--task", "jerk")
    np.save("windows.jerk.npy", WINDOWS)
    before = (place / "windows.jerk.npy").read_bytes()
    (place / "folder").mkdir()
    line = said(capsys, *model, "--input", ".", "--out", ".")
    assert line.startswith("mas-agent: windows.jerk.npy: what comes of windows.npy would be written over it")
    np.save(place / "folder/a.npy", WINDOWS)
    np.save(place / "folder/a-0.npy", WINDOWS[:1])
    assert "a-0.png: would come of folder/a-0.npy and of folder/a.npy" in said(
        capsys, *model, "--input", "folder"
    )
    assert "windows.npy: is no folder" in said(
        capsys, *model, "--input", "windows.npy", "--out", "windows.npy"
    )
    assert (place / "windows.jerk.npy").read_bytes() == before
    assert not (place / "inferred").exists()


@pytest.mark.usefixtures("place")
def test_many_inputs_are_run_some_at_a_time_and_come_out_in_order(capsys):
    np.save("many.npy", np.zeros((150, 6, 128), np.float32))
    assert infer("--model", "model.onnx", "--input", "many.npy", "--task", "gravity", "--json") == 0
    np.testing.assert_allclose(np.load("inferred/many.gravity.npy"), [numbers.GRAVITY] * 150, rtol=1e-6)
    assert len(json.loads(capsys.readouterr().out)["pictures"]) == 16
