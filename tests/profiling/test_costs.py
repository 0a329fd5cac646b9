"""Rows of a report and their sums."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.bill import Billed
from mas_edge.profiling.costs import Number, co2e_g, of_level, rows, with_co2e
from mas_edge.wire.messages import Sensor, Spend

SENSOR = Sensor(name="s", method="counter", scope="board", sensor_host="h")


def billed(device="d", sensor=SENSOR, **more):
    known = {"job": "j", "group": "g", "round": 0, "phase": "step", "wall_s": 2.0, "cpu_s": 1.0}
    known |= {"window_energy_j": 20.0, "window_u_j": 2.0, "attributed_energy_j": 6.0, "attributed_u_j": 0.6}
    return Billed(device=device, sensor=sensor, spend=Spend(**{**known, **more}))


some = st.builds(
    billed,
    device=st.sampled_from("de"),
    group=st.sampled_from("gh"),
    round=st.integers(0, 2),
    phase=st.sampled_from(["load", "step"]),
    examples=st.integers(0, 9),
    attributed_energy_j=st.floats(-1e3, 1e6),
    wall_s=st.floats(0, 1e3),
)


@given(st.lists(some, min_size=1, max_size=20))
def test_every_level_adds_up_to_everything(given_rows):
    made = rows(given_rows)
    (everything,) = of_level(made, "all")
    for level in ("group", "group-phase", "group-round", "device", "row"):
        parts = of_level(made, level)
        for figure in ("attributed_energy_j", "attributed_u_j", "wall_s", "examples"):
            total = sum(getattr(row.cost, figure) for row in parts)
            assert total == pytest.approx(getattr(everything.cost, figure), rel=1e-9, abs=1e-9)


@given(st.lists(some, min_size=1, max_size=20))
def test_joules_per_sample_of_phases_add_up_to_those_of_the_group(given_rows):
    made = rows(given_rows)
    for group in of_level(made, "group"):
        phases = [row.j_per_example for row in of_level(made, "group-phase") if row.group == group.group]
        if group.j_per_example is None:
            assert set(phases) == {None}
        else:
            assert sum(p.value for p in phases) == pytest.approx(
                group.j_per_example.value, rel=1e-9, abs=1e-6
            )


def test_what_follows_from_the_figures_carries_their_uncertainty():
    (row,) = of_level(rows([billed(examples=3)]), "row")
    assert row.mean_w == Number(10.0, 1.0)
    assert row.j_per_example == Number(pytest.approx(2.0), pytest.approx(0.2))
    assert row.edp_js == Number(12.0, 1.2)
    assert (row.examples_per_s, row.s_per_round) == (1.5, 2.0)


def test_what_follows_from_the_unknown_is_unknown():
    (row,) = of_level(rows([billed(window_energy_j=None, attributed_energy_j=None)]), "row")
    assert (row.mean_w, row.j_per_example, row.j_per_round, row.edp_js) == (None,) * 4
    (row,) = of_level(with_co2e([row], 400.0), "row")
    assert row.co2e_g is None


def test_a_phase_without_time_of_its_own_has_no_power():
    (row,) = of_level(rows([billed(wall_s=0.0)]), "row")
    assert (row.mean_w, row.examples_per_s) == (None, None)


def test_rounds_and_devices_are_counted_once_and_two_groups_rounds_are_two():
    made = rows([billed(), billed("e"), billed(phase="load"), billed(round=1), billed(group="h")])
    (everything,) = of_level(made, "all")
    assert (everything.devices, everything.rounds) == (2, 3)


def test_a_sum_names_all_sensors_that_it_rests_on():
    other = msgspec.structs.replace(SENSOR, name="t", scope="module")
    (everything,) = of_level(rows([billed(), billed("e", other), billed("f", None)]), "all")
    assert (everything.sensors, everything.scopes) == (("s", "t"), ("board", "module"))


def test_a_kilowatt_hour_emits_what_the_user_said():
    assert co2e_g(Number(3.6e6, 3.6e5), 400.0) == Number(400.0, 40.0)
    assert co2e_g(None, 400.0) is None


def test_no_rows_have_no_sum():
    assert rows([]) == ()
