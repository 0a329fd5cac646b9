from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mas_edge.models.fingerprint import fingerprint, margin
from mas_edge.models.workloads.watch import workload


@pytest.mark.parametrize("network", workload.networks)
def test_it_is_the_same_every_time_and_leaves_the_random_state_alone(network):
    state = torch.get_rng_state()
    assert fingerprint(workload, network) == fingerprint(workload, network)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("network", workload.networks)
def test_no_value_is_so_near_a_rounding_edge_that_another_machine_could_differ(network):
    assert margin(workload, network) > 2e-5  # kernels differ by about 1e-6


def test_it_does_not_depend_on_the_number_of_threads():
    before, threads = fingerprint(workload, "micro"), torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert fingerprint(workload, "micro") == before
    finally:
        torch.set_num_threads(threads)


class Softened(nn.Module):
    """The same tensors under the same names, another function."""

    def __init__(self, encoder):
        super().__init__()
        self.__dict__["_inner"] = encoder
        for name, child in encoder.named_children():
            self.add_module(name, child)

    def forward(self, x):
        return self._inner(x).tanh()


def other_loss(task):
    return replace(task, loss="l1") if task.name == "jerk" else task


def other_constant(task):
    return replace(task, constant=np.ones(1)) if task.name == "jerk" else task


CHANGES = {
    "definition": replace(workload, definition=workload.definition + "x"),
    "loss": replace(workload, tasks=tuple(map(other_loss, workload.tasks))),
    "constant": replace(workload, tasks=tuple(map(other_constant, workload.tasks))),
    "fewer tasks": replace(workload, tasks=workload.tasks[1:]),
    "computation": replace(workload, encoder=lambda network: Softened(workload.encoder(network))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_differs_when_the_workload_means_or_computes_something_else(change):
    assert fingerprint(CHANGES[change], "micro") != fingerprint(workload, "micro")


def test_networks_have_fingerprints_of_their_own():
    assert fingerprint(workload, "micro") != fingerprint(workload, "small")
