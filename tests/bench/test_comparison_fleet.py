"""The same arm in one process and on real processes: the same weights, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comparison import fleet, page
from comparison.points import MAS2, POINTS
from comparison.trained import finished, train


@pytest.fixture(autouse=True)
def _settled():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


@pytest.mark.slow
def test_a_fleet_ends_with_the_weights_that_were_trained_in_one_process(tmp_path):
    small = replace(POINTS["watch"], tasks=("gravity", "jerk"), rounds=3, merge_rounds=1)
    said = []
    assert fleet.found(tmp_path, small, [MAS2]) == []
    train(tmp_path, small, [MAS2], fleet.SEED, say=said.append)
    fleet.measure(tmp_path, small, [MAS2], say=said.append)
    (run,) = fleet.found(tmp_path, small, [MAS2])
    alone = finished(tmp_path, small, MAS2, fleet.SEED)
    assert run.same is True
    assert run.report.report.held_out_total == pytest.approx(alone.report.held_out_total, rel=1e-9)
    shown = page.fleets(small, [run])
    assert "| weights as in one process | yes |" in shown
    assert "| wall s |" in shown
    fleet.measure(tmp_path, small, [MAS2], say=said.append)  # it is there: nothing runs
    assert len([line for line in said if "fleet" in line]) == 1
