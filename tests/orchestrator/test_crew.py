"""The demo's children, and the directory that they work in."""

from __future__ import annotations

import sys
import time

import msgspec
import pytest

from mas_edge.orchestrator.demos.crew import Crew, CrewFailed
from mas_edge.orchestrator.demos.demo import PLAN, REPORT, STATE, holds, prepare
from mas_edge.orchestrator.plan import DemoOptions, demo_plan


def tended(crew: Crew) -> None:
    for _ in range(500):
        crew.tend(time.monotonic())
        time.sleep(0.01)


@pytest.mark.parametrize("code", [0, 3])
def test_a_child_that_ends_by_itself_ends_the_run_with_its_last_words(code, tmp_path):
    crew = Crew(tmp_path)
    crew.start("agent", [sys.executable, "-c", f"print('bye', flush=True); raise SystemExit({code})"])
    try:
        with pytest.raises(CrewFailed, match=f"agent ended with exit code {code}"):
            tended(crew)
    finally:
        crew.stop()


def test_a_directory_holds_the_finished_run_of_its_own_plan_alone(tmp_path):
    old, new = demo_plan(DemoOptions(preset="tiny")), demo_plan(DemoOptions(preset="tiny", seed=2))
    prepare(old, tmp_path)
    assert not holds(old, tmp_path)
    (tmp_path / REPORT).write_text("{}")
    assert holds(old, tmp_path)
    assert not holds(new, tmp_path)
    assert not holds(old, tmp_path / "nowhere")


def test_a_finished_run_is_replaced_and_what_lies_beside_it_stays(tmp_path):
    old, new = demo_plan(DemoOptions(preset="tiny")), demo_plan(DemoOptions(preset="tiny", seed=2))
    prepare(old, tmp_path)
    (tmp_path / REPORT).write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / STATE / "old").write_text("")
    prepare(new, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / REPORT).exists()
    assert not (tmp_path / STATE / "old").exists()
    assert (tmp_path / PLAN).read_bytes() == msgspec.json.encode(new)
