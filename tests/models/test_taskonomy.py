from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch

from mas_edge.models import losses, net
from mas_edge.models.tasks import DataRefused, Source, UnknownChoice, find
from mas_edge.models.workloads import dense, folder, layout, pictures
from mas_edge.models.workloads.taskonomy import ROOT_VARIABLE, TASKONOMY

PIXELS = 16
PIXEL = {  # one stored pixel of each domain, and the target that the published code makes of it
    "segment_semantic": (np.uint8, (17,), 17),
    "depth_zbuffer": (np.uint16, (2500,), [1.0]),
    "normal": (np.uint8, (255, 0, 51), [1.0, -1.0, -0.6]),
    "keypoints2d": (np.uint16, (250,), [2.0]),
    "edge_texture": (np.uint16, (718 + 2140,), [2.0]),
    "edge_occlusion": (np.uint16, (0,), [-56.0248 / 239.1265]),
    "reshading": (np.uint8, (255,), [(1 - 0.4962) / 0.2846]),
    "principal_curvature": (np.uint8, (0, 255), [-0.5175 / 0.1373, (1 - 0.4987) / 0.0359]),
    "rgb": (np.uint8, (0, 51, 255), [0.0, 0.2, 1.0]),
}
MASKED = {"depth_zbuffer", "normal", "edge_occlusion", "reshading", "principal_curvature"}


def small():
    """The workload at the size of the tests."""
    described = msgspec.structs.replace(TASKONOMY, pixels=PIXELS)
    return folder.described("taskonomy", "", described, ROOT_VARIABLE)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two views of a building; the first has a pixel too far away (16 m) and a hole."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for domain, (kind, values, _) in PIXEL.items():
        place = tmp_path / domain / "merom"
        place.mkdir(parents=True)
        channels = (*values, 0) if len(values) == 2 else values
        stored = np.full((PIXELS, PIXELS, len(channels)), channels, kind)
        if domain == "depth_zbuffer":
            stored[0, :2, 0] = 8192, 65535
        for point in range(2):
            name = layout.file(domain, layout.View(point, 0))
            pictures.write(place / f"{name}.png", stored[..., 0] if len(channels) == 1 else stored)
            stored = np.full_like(stored, channels)
    return tmp_path


def test_every_domain_is_normalised_as_published(root):
    batch = small().dataset(Source(("merom",), root), "all", 0.0).batch(np.array([0, 1]))
    assert batch.targets.keys() == PIXEL.keys()
    for name, (_, _, target) in PIXEL.items():
        np.testing.assert_allclose(batch.targets[name][1, ..., 5, 5], target, rtol=1e-5, err_msg=name)


def test_what_is_16_m_away_or_a_hole_counts_for_no_masked_task(root):
    valid = small().dataset(Source(("merom",), root), "all", 0.0).batch(np.array([0, 1])).valid
    for name in PIXEL:
        expected = np.ones((2, PIXELS, PIXELS), bool)
        expected[0, 0, :2] = name not in MASKED
        found = valid[name].reshape(2, PIXELS, PIXELS) if name in valid else np.ones_like(expected)
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_any_subset_of_tasks_is_read_without_the_others_files(root):
    for domain in ("normal", "edge_occlusion", "reshading"):
        (root / domain).rename(root / f"no-{domain}")
    data = small().dataset(Source(("merom",), root), "all", 0.0)
    assert data.labels == PIXEL.keys() - {"normal", "edge_occlusion", "reshading"}


def test_a_network_learns_from_it(root):
    workload = small()
    data = workload.dataset(Source(("merom",), root), "all", 0.0)
    given = losses.examples(data.batch(np.array([0, 1])), workload.tasks)
    trained = net.build(workload, "micro", [task.name for task in workload.tasks], seed=1)
    outputs = trained(given.inputs)
    total = sum(losses.loss_sum(task, outputs[task.name], given.labels[task.name]) for task in workload.tasks)
    total.backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in trained.decoder.parameters())
    for task in workload.tasks:
        assert losses.constant_loss_sum(task, given.labels[task.name]).isfinite()


def test_the_entry_point_finds_it_with_the_tiny_partition():
    workload = find("taskonomy")
    assert workload.input_shape == (3, 256, 256)
    assert (len(workload.clients), len(workload.unseen)) == (35, 10)
    assert [task.name for task in workload.tasks] == list(PIXEL)
    assert workload.preset("xception").rounds == 100


def test_without_a_root_it_says_where_to_put_one(monkeypatch):
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    with pytest.raises(DataRefused, match=r"\[data\.taskonomy\], or MAS_EDGE_TASKONOMY=FOLDER"):
        find("taskonomy").dataset(Source(("merom",)), "all", 0.0)


def test_small_has_at_most_a_million_weights_with_nine_tasks():
    built = net.build(small(), "small", list(PIXEL), seed=1)
    assert net.parameter_count(built) <= 1_000_000
    assert net.parameter_count(built.encoder) > 3 * net.parameter_count(built.decoder), "light decoders"


@pytest.mark.parametrize("build", [dense.encoder, lambda name: dense.decoder(name, small().tasks[0])])
def test_an_unknown_network_is_refused_with_those_there_are(build):
    with pytest.raises(UnknownChoice, match="'large'; there are micro, small, xception"):
        build("large")


@pytest.mark.parametrize("module", ["dense", "folder", "taskonomy"])
def test_importing_a_workload_loads_neither_torch_nor_numpy_nor_pillow(module):
    look = "import sys; sys.exit(len({'torch', 'numpy', 'PIL'} & {*sys.modules}))"
    program = f"import mas_edge.models.workloads.{module}; {look}"
    subprocess.run([sys.executable, "-c", program], check=True)
