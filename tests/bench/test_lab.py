"""The lab against the product: the same job gives the same bits with and without a fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest
import torch
from lab import Lab, digest

from mas_edge.edge_agent import train
from mas_edge.orchestrator.decision import Situation, decide
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


def finished(folder, preset="tiny", **options):
    """Final digests by group of a whole mas job in the lab."""
    plan = demo_plan(DemoOptions(preset=preset, **options))
    spec, lab = plan.spec, Lab(plan.spec, plan.clients, folder)
    merged = list(lab.run(spec.tasks, lab.begin(), range(spec.merge_rounds), measure=True))
    measured = tuple(sums for done in merged for sums in done.measured)
    left = spec.training.rounds - spec.merge_rounds
    decided = decide(Situation(spec=spec, stage="split", parameters={}, rounds=left, affinities=measured))
    found = {}
    for group in decided.groups:
        source = merged[-1].weights if group == spec.tasks else lab.carve(merged[-1].weights, group)
        for done in lab.run(group, source, range(spec.merge_rounds, spec.training.rounds)):
            found["+".join(group)] = digest(done.weights)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["auto", "3"])
def test_a_job_in_the_lab_ends_with_the_weights_of_the_demo(tmp_path, groups):
    options = (
        "--preset",
        "tiny",
        "--seed",
        "7",
        "--groups",
        groups,
        "--json",
        "--out",
        str(tmp_path / "run"),
    )
    demo = subprocess.run(
        [sys.executable, "-m", "mas_edge.orchestrator.cli", "demo", *options],
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    (tmp_path / "lab").mkdir()
    assert finished(tmp_path / "lab", seed=7, groups=groups) == json.loads(demo.stdout)["final_digests"]
