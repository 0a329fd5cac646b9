"""What is compared: jobs that can be run, a quick half of the whole, data as they are said to be."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison import page, pictures
from comparison.book import ComparisonRefused
from comparison.costs import energy
from comparison.data import mixed
from comparison.judge import Outcome
from comparison.points import (
    ALL,
    HEADLINE,
    MAS2,
    MAS3,
    ONE,
    POINTS,
    chosen,
    clients,
    known,
    quick,
    spec,
    unseen,
)
from comparison.table import Table
from comparison.trained import Turns
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models.tasks import find
from mas_edge.orchestrator.plan import DemoOptions, demo_plan
from mas_edge.orchestrator.spec import check

SCRIPT = Path(__file__).parents[2] / "bench" / "headline.py"

each_point = pytest.mark.parametrize("point", POINTS.values(), ids=list(POINTS))


@each_point
def test_every_arm_is_a_job_that_can_be_run(point):
    names = [arm.name for arm in point.arms]
    assert len(set(names)) == len(names)
    for arm in filter(known, point.arms):
        job = spec(point, arm, 1)
        assert check(job) == job
        assert job.training.rounds == round(arm.factor * point.rounds)


@each_point
def test_every_client_that_trains_is_on_one_device(point):
    everyone = point.size.clients if point.views else find(point.workload).clients
    dealt = [client for own in clients(point).values() for client in own]
    assert sorted(dealt) == sorted(set(everyone) - set(unseen(point)))
    assert len(unseen(point)) == 2
    assert len(clients(point)) == point.devices


def test_devices_have_the_clients_that_a_demo_gives_them():
    plan = demo_plan(DemoOptions(workload="buildings"))
    assert plan.clients.keys() == clients(POINTS["sdnkt"]).keys()
    assert demo_plan(DemoOptions(workload="watch")).clients == clients(POINTS["watch"])
    assert plan.spec.name == spec(POINTS["sdnkt"], ALL, 1).name


def test_the_quick_half_is_part_of_the_whole():
    for point in HEADLINE:
        half = quick(point)
        assert set(half.arms) < set(point.arms)
        assert set(half.seeds) < set(point.seeds)
        assert {ALL, ONE, MAS2} <= set(half.arms)
        assert [spec(half, arm, 1) for arm in (ALL, ONE)] == [spec(point, arm, 1) for arm in (ALL, ONE)]


def test_a_point_that_is_not_there_is_named():
    with pytest.raises(ComparisonRefused, match="no point 'moon'"):
        chosen(["sdnkt", "moon"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--page", "--points", "moon"), "no point 'moon'; there are sdnkt, "),
        (("--quick", "--points", "sdnkt,erckt"), "--quick has no erckt; it has sdnkt, watch: leave it out"),
        (("--quick", "--processes", "0"), "--processes must be at least 1, not 0"),
        (("--quick", "--seeds", "x"), "no seed 'x' at these points; there are 1"),
        (
            ("--page", "--points", "sdnkt", "--seeds", "1,99"),
            "no seed '99' at these points; there are 1, 2, 3",
        ),
    ],
)
def test_a_wrong_choice_is_one_line_and_exit_code_2(tmp_path, asked, said):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "new", *asked], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_ray_engine_there_is_one_line_with_the_remedy(tmp_path):
    program = """
import runpy, sys
sys.modules["embreex"] = None  # importing it fails now
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, SCRIPT, tmp_path, "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'mas-edge[buildings]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- data ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(2, 12), min_size=2, max_size=5), st.sampled_from([0.1, 0.2, 0.5]))
def test_mixing_moves_views_that_train_and_no_others(sizes, share):
    names = [str(n) for n in range(len(sizes))]
    opened = {name: 100 * int(name) + np.arange(size) for name, size in zip(names, sizes, strict=True)}
    *seen, unseen = names
    made = mixed(opened, tuple(seen), share)
    assert Counter(np.concatenate(list(made.values()))) == Counter(np.concatenate(list(opened.values())))
    assert (made[unseen] == opened[unseen]).all()
    for name in seen:
        assert len(made[name]) == len(opened[name])
        kept = max(1, round(len(opened[name]) * share))
        assert (made[name][-kept:] == opened[name][-kept:]).all()


# --- costs and tables ---------------------------------------------------------------------------


def test_energy_counts_device_rounds_by_what_they_cost():
    ratios = {(("a", "b"), ""): 1.0, (("a", "b"), "gram"): 1.25, (("a",), ""): 0.5}
    merged = Turns(tasks=("a", "b"), measured="gram", count=8)
    alone = Turns(tasks=("a",), measured="", count=16)
    assert energy([merged, alone], ratios, devices=4) == 2 * 1.25 + 4 * 0.5


def ended(energy_, loss, groups, **more):
    parts = [task for group in groups for task in group.split("+")]
    return Outcome(
        energy=energy_,
        loss=loss,
        relative=loss / 4,
        unseen=loss + 1,
        unseen_relative=loss / 3,
        by_task=dict.fromkeys(parts, loss / len(parts)),
        groups=groups,
        **more,
    )


@pytest.fixture
def found():
    """Two seeds of sdnkt, of which one has no split."""
    point = POINTS["sdnkt"]
    whole = ("+".join(point.tasks),)
    two = ("+".join(point.tasks[:3]), "+".join(point.tasks[3:]))
    arms = {
        "all-in-one": {1: ended(34, 3.0, whole), 2: ended(34, 3.2, whole)},
        "all-in-one x1.5": {1: ended(51, 2.8, whole), 2: ended(51, 3.0, whole)},
        "mas 2": {1: ended(51, 2.94, two, merged_rounds=13, carried=0.7)},
        "one-by-one": {1: ended(102, 2.9, point.tasks), 2: ended(102, 3.0, point.tasks)},
    }
    return Table(point, arms, {}, {MAS2.name: [2], MAS3.name: [1, 2, 3]})


def row(text, name):
    """The cells of a table's row."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_policy_is_shown_at_equal_rounds_and_at_equal_energy(found):
    cells = row(page.policies(found), "mas 2")
    assert cells[1:] == [
        *("sdn kt", "34", "1.50", "0.50"),
        *("2.940", "0.735", "+1.4 %", "+5.0 %"),
        *("3.940", "+1.0 %", "+3.7 %"),
    ]


def test_goals_are_shown_beside_what_was_reached(found):
    cells = row(page.goals([found], page.TWO), "sdnkt")
    assert cells[2:4] == ["0.50", "+1.4 %"]
    assert cells[6] == "0.45 ± 0.06"  # 34 √1.5 of 102 under seed 1, 51 of 102 under seed 2
    assert cells[7:] == ["-2.0 %", "+5.0 %"]


def test_goals_of_what_was_not_trained_are_not_shown(found):
    assert "sdnkt" not in page.goals([found], page.AUTO)


def test_splits_are_listed_by_how_much_carried_over(found):
    assert row(page.carrying([found]), "sdnkt")[1:] == ["1", "34", "10", "0.70", "+5.0 %"]


def test_the_map_says_after_how_many_rounds_auto_split(found):
    arms = {**found.arms, "mas auto": found.arms["mas 2"]}
    assert row(page.regimes([replace(found, arms=arms)]), "sdnkt")[-1] == "sdn kt after 13"


def test_the_map_says_nothing_where_nothing_was_trained(found):
    cells = row(page.regimes([found]), "sdnkt")
    assert cells[3] == "3.00 ± 0.00"
    assert cells[8] == "–"  # one-by-one's energy is beyond what all-in-one was trained for


def test_what_is_missing_is_named_with_its_seeds(found):
    assert page.missing([found]) == "- sdnkt: mas 2 (seed 2); mas 3 (seed 1, 2, 3)"


def test_each_task_has_its_loss_under_every_policy(found):
    assert row(page.tasks(found), "normal")[1:] == ["0.588", "0.620 ± 0.028", "0.590 ± 0.014"]


def test_pictures_are_drawn_of_what_there_is(found, tmp_path):
    pictures.draw([found], [found], {"sdnkt": []}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"headline.png", "headline_map.png"}
