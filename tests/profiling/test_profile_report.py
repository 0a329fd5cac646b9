from __future__ import annotations

import csv
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mas_edge.profiling.bill import FleetBill, billed, fleet
from mas_edge.profiling.report import csv_text, joules, method, plain, render, table
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


def test_the_table_has_a_row_for_each_phase_and_one_for_the_group(bill):
    shown = table(bill, {"g0": "gravity + jerk"})
    assert [row[:2] for row in shown.rows] == [("gravity + jerk", p) for p in ("step", "load", "all")]
    assert shown.rows[0][2:] == ("2.0", "1.5", "12.3 ±1.0", "30.0 ±2.0", "0.123", "est.")


def test_an_estimate_is_marked_in_every_row_and_in_the_total(bill):
    shown = table(bill)
    assert {row[-1] for row in shown.rows} == {"est."}
    assert "(est.)" in shown.notes[0]


def test_the_same_text_is_plain_and_rich(bill):
    shown = table(bill)
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    render(shown, console)
    rich_text = console.file.getvalue()
    for row in shown.rows:
        for cell in row:
            assert cell in rich_text
            assert cell in plain(shown)
    for note in shown.notes:
        assert note in plain(shown)


def test_an_unknown_energy_is_a_dash_and_never_a_zero():
    rows = (spend(window_energy_j=None, window_u_j=None, attributed_energy_j=None, attributed_u_j=None),)
    bill = fleet([("d", Profile(rows=rows))])
    shown = table(bill)
    assert shown.rows[0][4:] == ("–", "–", "–", "–")
    assert shown.notes[0].startswith("fleet total – J")


def test_every_row_of_every_device_is_a_line_of_csv_with_units_in_its_header(pairs):
    lines = list(csv.DictReader(io.StringIO(csv_text(billed(pairs)))))
    assert [line["phase"] for line in lines] == ["step", "load"]
    assert lines[0]["device"] == "bench-1"
    assert float(lines[0]["attributed_energy_j"]) == 12.345
    assert lines[0]["dynamic_energy_j"] == ""
    assert lines[0]["method"] == "estimated"
    assert set(Spend.__struct_fields__) <= lines[0].keys()


def test_the_bill_as_json_is_the_bill(bill):
    assert msgspec.json.decode(msgspec.json.encode(bill), type=FleetBill) == bill


def test_virtual_devices_are_called_so(pairs):
    (_, profile) = pairs[0]
    notes = "\n".join(table(fleet([("a", profile), ("b", profile)])).notes)
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
