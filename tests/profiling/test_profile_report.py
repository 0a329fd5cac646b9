from __future__ import annotations

import csv
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mas_edge.profiling.bill import FleetBill, billed, fleet
from mas_edge.profiling.costs import rows
from mas_edge.profiling.report import csv_text, joules, method, render
from mas_edge.profiling.tables import costs, listing, totals
from mas_edge.wire.messages import Profile, Sensor, Spend, Trace


def spend(**more):
    fields = {
        "job": "j",
        "group": "g0",
        "round": 0,
        "phase": "step",
        "wall_s": 2.0,
        "cpu_s": 1.5,
        "examples": 100,
        "window_energy_j": 30.0,
        "window_u_j": 1.0,
        "attributed_energy_j": 12.345,
        "attributed_u_j": 0.5,
    }
    return Spend(**{**fields, **more})


@pytest.fixture
def pairs():
    sensor = Sensor(
        name="estimate",
        method="estimated",
        scope="board",
        sensor_host="b:/proc/stat",
        detail="a model",
        gain_u=0.4,
    )
    trace = Trace(t_ns=(0, 2 * 10**9), energy_j=(0.0, 30.0), variance_j2=(0.0, 0.0))
    profile = Profile(rows=(spend(), spend(phase="load", examples=0)), sensor=sensor, idle_w=4.0, trace=trace)
    return [("bench-1", profile)]


@pytest.fixture
def bill(pairs):
    return fleet(pairs)


@pytest.fixture
def phases(pairs):
    return listing(rows(billed(pairs)), "group-phase", {"g0": "gravity + jerk"})


def test_the_listing_has_a_row_for_each_phase_and_one_for_the_group(phases):
    assert [row[:2] for row in phases.rows] == [("gravity + jerk", p) for p in ("step", "load", "all")]
    assert phases.rows[0][2:] == ("2.0", "1.5", "12.3 ±1.0", "30.0 ±2.0", "15.0 ±1.0", "123 ±10", "est.")
    assert phases.strong == {2}


def test_task_groups_stand_side_by_side_with_every_figure_and_their_sum_last(pairs):
    shown = costs(rows(billed(pairs)), {"g0": "A"})
    found = {row[0]: row[1:] for row in shown.rows}
    assert shown.headers == ("", "A", "all")
    assert found["attributed J (est.)"] == ("24.7 ±2.0",) * 2
    assert found["J·s (est.)"] == ("98.8 ±8.0",) * 2
    assert (found["sensor"], found["scope"], found["samples"]) == (
        ("estimate",) * 2,
        ("board",) * 2,
        ("100",) * 2,
    )


def test_an_estimate_is_marked_in_every_heading_row_and_in_the_total(bill, phases):
    assert {row[-1] for row in phases.rows} == {"est."}
    assert [header for header in phases.headers if header.partition(" (")[0].endswith(" J")] == [
        "attributed J (est.)",
        "window J (est.)",
    ]
    assert totals(bill).rows[0][0] == "fleet total J (est.)"


def test_a_terminal_shows_every_cell_and_note(phases, bill):
    for shown in (phases, totals(bill)):
        console = Console(file=io.StringIO(), width=200, force_terminal=False)
        render(shown, console)
        rich_text = console.file.getvalue()
        assert [cell for row in shown.rows for cell in row if cell not in rich_text] == []
        assert [note for note in shown.notes if note not in rich_text] == []


def test_an_unknown_energy_is_a_dash_and_never_a_zero():
    unknown = (spend(window_energy_j=None, window_u_j=None, attributed_energy_j=None, attributed_u_j=None),)
    pairs = [("d", Profile(rows=unknown))]
    assert listing(rows(billed(pairs)), "row", {}).rows[0][6:] == ("–",) * 5
    assert {value for _, value in totals(fleet(pairs)).rows} == {"–"}


def test_a_figure_below_the_noise_stands_as_it_is_and_says_so(pairs):
    (_, profile) = pairs[0]
    low = msgspec.structs.replace(profile, rows=(spend(dynamic_energy_j=-0.5, dynamic_u_j=1.0),))
    found = {row[0]: row[1] for row in costs(rows(billed([("d", low)])), {}).rows}
    assert found["dynamic J (est.)"] == "-0.5 ±2.0"
    assert found["flags"] == "below_noise"


def test_every_row_of_every_level_is_a_line_of_csv_with_units_in_its_header(pairs):
    lines = list(csv.DictReader(io.StringIO(csv_text(rows(billed(pairs))))))
    assert [line["level"] for line in lines].count("row") == 2
    line = lines[-2]
    assert (line["device"], line["phase"]) == ("bench-1", "step")
    assert float(line["attributed_energy_j"]) == 12.345
    assert (float(line["mean_w"]), float(line["mean_w_u"])) == (15.0, 0.5)
    assert line["dynamic_energy_j"] == ""
    assert (line["method"], line["sensor"]) == ("estimated", "estimate")


def test_no_rows_are_a_csv_without_lines():
    assert csv_text([]) == "level\n"


def test_the_bill_as_json_is_the_bill(bill):
    assert msgspec.json.decode(msgspec.json.encode(bill), type=FleetBill) == bill


def test_virtual_devices_are_called_so(pairs):
    (_, profile) = pairs[0]
    notes = "\n".join(totals(fleet([("a", profile), ("b", profile)])).notes)
    assert "a, b (virtual devices: one host)" in notes
    assert "do not add" in notes


def test_methods_that_are_mixed_are_named():
    assert method(["counter", "estimated"]) == "mixed: counter+est."
    assert method([]) == "–"


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_joules_never_stand_with_more_digits_than_their_uncertainty_allows(value_j, u_j):
    shown, _, doubt = joules(value_j, u_j).partition(" ±")
    decimals = len(shown.partition(".")[2])
    assert len(doubt.partition(".")[2]) == decimals
    assert 10.0**-decimals >= 2 * u_j / 100 * 0.999 or decimals == 0
    assert float(shown) == pytest.approx(value_j, abs=2 * u_j * 0.051 + 1e-12)
