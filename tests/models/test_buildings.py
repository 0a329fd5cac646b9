"""The workload ``buildings`` on its shipped set: nothing here needs a ray engine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mas_edge.models import losses
from mas_edge.models.net import build, parameter_count
from mas_edge.models.show import show
from mas_edge.models.tasks import Source, find
from mas_edge.models.workloads.buildings import archive, statistics
from mas_edge.models.workloads.buildings.records import LABELS
from mas_edge.models.workloads.buildings.workload import CLASSES, DESCRIPTION, workload
from mas_edge.orchestrator.plan import DemoOptions, demo_plan

NINE = [task.name for task in workload.tasks]


@pytest.fixture(scope="module")
def buildings():
    return {name: archive.unpack(archive.SHIPPED, name, DESCRIPTION.pixels) for name in workload.clients}


@pytest.fixture(scope="module")
def trained():
    views = workload.dataset(Source(DESCRIPTION.clients), "all", 0.0)
    return views.batch(np.arange(len(views)))


def test_the_entry_point_finds_nine_tasks_in_the_papers_order():
    assert find("buildings") is workload
    assert list(LABELS) == NINE
    assert len(CLASSES) == workload.task("segment_semantic").shape[0] == 18


def test_ten_buildings_of_32_views_are_shipped_and_two_are_never_trained_on(buildings):
    assert [len(views) for views in buildings.values()] == [32] * 10
    assert workload.unseen == ("9", "10")
    assert archive.SHIPPED.stat().st_size < 4e6


def test_no_view_is_there_twice(buildings):
    pictures = [view.tobytes() for views in buildings.values() for view in views["rgb"]]
    assert len(set(pictures)) == len(pictures)


def test_what_is_frozen_is_what_the_training_buildings_have(buildings):
    fitted = statistics.fit(DESCRIPTION, [buildings[name] for name in DESCRIPTION.clients])
    for name, values in fitted.items():
        for key, numbers in values.items():
            frozen = getattr(DESCRIPTION.tasks[name], key)
            np.testing.assert_allclose(frozen, numbers, atol=1e-4, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", NINE)
def test_no_other_constant_is_better_than_the_constant_predictor(trained, name):
    task = workload.task(name)
    labels = losses.examples(trained, [task]).labels[name]
    loss = losses.constant_loss_sum(task, labels).item()
    for channel in range(len(task.constant)):
        for step in (-0.05, 0.05):
            moved = np.array(task.constant, np.float32)
            moved[channel] += step
            output = np.broadcast_to(moved, (len(labels.valid), *task.shape)).copy()
            other = losses.loss_sum(task, labels.share.new_tensor(output), labels).item()
            assert other > loss * 0.999


def test_every_object_class_occurs_and_buildings_differ(buildings):
    seen = {number for views in buildings.values() for number in np.unique(views["segment_semantic"])}
    assert seen == set(range(len(CLASSES)))
    between, within = statistics.divergences_bit(list(buildings.values()), len(CLASSES))
    assert between > 1.3 * within


def test_no_task_is_constant_or_a_copy_of_another(trained):
    flat = {
        name: target.mean(1).ravel() for name, target in trained.targets.items() if name != "segment_semantic"
    }
    for name, values in flat.items():
        assert values.std() > 0.05, name
    names = list(flat)
    correlation = np.abs(np.corrcoef([flat[name] for name in names])) - np.eye(len(names))
    assert correlation.max() < 0.97


def test_the_demo_network_is_small_and_paints_every_task():
    net = build(workload, "micro", NINE, seed=1)
    assert parameter_count(net) < 400_000
    views = workload.dataset(Source(("9",)), "all", 0.0).batch(np.arange(2))
    outputs = net(losses.examples(views, workload.tasks).inputs)
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == {
        task.name: task.shape for task in workload.tasks
    }


def test_each_of_four_agents_of_the_demo_has_a_building_of_its_own():
    plan = demo_plan(DemoOptions(workload="buildings"))
    assert sorted(plan.clients.values()) == [("1",), ("2",), ("3",), ("4",)]
    assert plan.spec.unseen == workload.unseen
    assert plan.spec.tasks == tuple(NINE)


def test_a_contact_sheet_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    show(workload, "9", None, tmp_path / "sheet.png", examples=1)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_depth_shows_a_room_and_holes_in_a_colour_of_their_own():
    pyplot = pytest.importorskip("matplotlib.figure")
    label, task = DESCRIPTION.tasks["depth_zbuffer"], workload.task("depth_zbuffer")
    stored = np.array([[0, 512, 2560, 8191, 8192, 65535]])
    axes = pyplot.Figure().subplots()
    workload.draw(task, stored, (stored[None] - label.mean[0]) / label.std[0], axes)
    shown = axes.images[0].get_array()[0]
    np.testing.assert_allclose(shown[:4], [[0] * 3, [0.2] * 3, [1] * 3, [1] * 3], atol=1e-6)
    assert (shown[4] == shown[5]).all()
    assert np.ptp(shown[5]) > 0.5


def test_a_board_without_a_ray_engine_or_scikit_image_opens_the_shipped_set():
    program = """
import sys
sys.modules |= dict.fromkeys(["embreex", "trimesh", "skimage", "scipy", "PIL"])  # importing these fails now
import numpy
from mas_edge.models.tasks import Source, find
views = find("buildings").dataset(Source(("1",)), "train", 0.2)
views.batch(numpy.arange(3))
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
