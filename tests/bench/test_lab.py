"""The lab: rounds, losses and files of trainings; its bits are compared in test_comparison_hands.py."""

from __future__ import annotations

import msgspec
import pytest
import torch
from lab import Lab, digest

from mas_edge.edge_agent import train
from mas_edge.orchestrator.plan import DemoOptions, demo_plan


@pytest.fixture(autouse=True, scope="module")
def _settled():
    threads = torch.get_num_threads()
    train.use_device("cpu", threads=1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def small(tmp_path):
    """A lab with two devices, and its tasks."""
    plan = demo_plan(DemoOptions(preset="tiny", tasks="gravity,jerk", clients=4))
    spec = msgspec.structs.replace(plan.spec, devices=plan.spec.devices[:2])
    return Lab(spec, plan.clients, tmp_path), spec.tasks


def test_a_measured_round_ends_with_the_weights_of_one_that_is_not(small):
    lab, tasks = small
    first = lab.begin()
    plain, measured = (next(lab.run(tasks, first, range(1), measure=how)) for how in (False, True))
    assert digest(plain.weights) == digest(measured.weights) != digest(first)
    assert plain.measured == ()
    assert [sums.tasks for sums in measured.measured] == [tasks, tasks]


def test_only_the_weights_of_the_last_round_and_of_the_source_stay(small):
    lab, tasks = small
    first = lab.begin()
    rounds = list(lab.run(tasks, first, range(2)))
    assert [done.weights.exists() for done in rounds] == [False, True]
    assert first.exists()


def test_losses_are_means_over_all_devices_and_fall(small):
    lab, tasks = small
    first = lab.begin()
    before, after = (
        lab.held_out(tasks, first),
        lab.held_out(tasks, list(lab.run(tasks, first, range(2)))[-1].weights),
    )
    assert [constant for _, constant in before.values()] == [constant for _, constant in after.values()]
    assert all(after[task][0] < before[task][0] for task in tasks)
    assert lab.unseen(tasks, first).keys() == set(tasks)
