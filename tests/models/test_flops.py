"""FLOPs of a network's parts: by hand where that is possible, and without a trace in the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mas_edge.models import net
from mas_edge.models.flops import forward_flops
from mas_edge.models.tasks import find


def test_a_convolution_and_a_matrix_are_counted_twice_a_multiplication():
    encoder = nn.Sequential(nn.Conv1d(3, 4, 5, bias=False), nn.ReLU())
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(4 * 6, 2))
    found = forward_flops(net.MultiTaskNet(encoder, {"t": decoder}), (3, 10))
    assert found == {"encoder": 2 * 4 * 3 * 5 * 6, "decoder.t": 2 * 4 * 6 * 2}


@pytest.mark.parametrize(
    ("workload", "network"),
    [("watch", "micro"), ("watch", "small"), ("buildings", "micro"), ("buildings", "small")],
)
def test_the_encoder_of_a_workload_that_we_ship_is_most_of_its_work(workload, network):
    known = find(workload)
    made = net.build(known, network, [task.name for task in known.tasks], seed=0)
    found = forward_flops(made, known.input_shape)
    assert set(found) == {"encoder", *(f"decoder.{task.name}" for task in known.tasks)}
    assert min(found.values()) > 0
    assert found["encoder"] > sum(found.values()) / 2


@pytest.mark.parametrize(
    ("workload", "tasks", "measured"),
    [
        ("watch", ("exercise", "gravity", "jerk", "rotation", "autoencoder"), 1.69),
        ("buildings", ("segment_semantic", "depth_zbuffer", "normal", "keypoints2d", "edge_texture"), 1.47),
        (
            "buildings",
            ("keypoints2d", "edge_texture", "edge_occlusion", "reshading", "principal_curvature"),
            1.60,
        ),
    ],
)
def test_what_a_second_encoder_adds_is_of_the_size_that_was_measured(workload, tasks, measured):
    """CPU time of two groups over that of all tasks together, docs/results/affinity.md."""
    known = find(workload)
    found = forward_flops(net.build(known, "micro", tasks, seed=0), known.input_shape)
    whole = sum(found.values())
    assert (whole + found["encoder"]) / whole == pytest.approx(measured, rel=0.17)


def test_counting_leaves_the_network_as_it_was():
    known = find("buildings")
    made = net.build(known, "xception", ["normal"], seed=0)
    before, rng = net.state(made), torch.get_rng_state()
    forward_flops(made, known.input_shape)
    assert made.training
    assert torch.equal(torch.get_rng_state(), rng)
    after = net.state(made)
    assert all((after[name] == array).all() for name, array in before.items())
