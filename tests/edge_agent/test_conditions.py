"""Under which conditions a device trains, decided from facts alone."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.conditions import (
    FREE,
    LONGEST_S,
    MARGIN_C,
    MARGIN_PERCENT,
    Conditions,
    Facts,
    judge,
)

HOUR_S = 3600.0
NOON = Facts(clock_s=12 * HOUR_S)


def facts(**observed) -> Facts:
    return msgspec.structs.replace(NOON, **observed)


def words(asked: Conditions, observed: Facts, broken=()) -> str:
    return judge(asked, observed, broken).words


def test_a_device_of_which_nothing_is_asked_trains_whatever_is_so():
    assert judge(Conditions(), facts(on_mains=False, temperature_c=99.0, others_cpu_percent=100.0)) == FREE


@pytest.mark.parametrize(
    ("asked", "observed", "said"),
    [
        (Conditions(mains=True), {"on_mains": True}, ""),
        (
            Conditions(mains=True),
            {"on_mains": False, "battery_percent": 90.0},
            "power: on battery at 90 %, asked is mains",
        ),
        (Conditions(mains=True), {}, "power: not known whether this is mains or battery"),
        (Conditions(battery_percent=60), {"on_mains": False, "battery_percent": 60.0}, ""),
        (
            Conditions(battery_percent=60),
            {"on_mains": False, "battery_percent": 59.0},
            "power: on battery at 59 %, asked are 60 % or mains",
        ),
        (
            Conditions(battery_percent=60),
            {"on_mains": False},
            "power: on battery at an unknown charge, asked are 60 % or mains",
        ),
        (Conditions(temperature_c=75), {"temperature_c": 74.9}, ""),
        (
            Conditions(temperature_c=75),
            {"temperature_c": 75.0},
            "temperature: 75.0 °C, asked is less than 75.0 °C",
        ),
        (Conditions(temperature_c=75), {}, "temperature: no sensor can be read, asked is less than 75.0 °C"),
        (Conditions(energy_j_per_day=5e4), {"energy_today_j": 49999.0}, ""),
        (
            Conditions(energy_j_per_day=5e4),
            {"energy_today_j": 5e4},
            "energy: 50000 J today, asked is less than 50000 J",
        ),
        (Conditions(others_cpu_percent=50), {"others_cpu_percent": 49.0}, ""),
        (
            Conditions(others_cpu_percent=50),
            {"others_cpu_percent": 81.2},
            "load: others take 81 % of the processors, asked is less than 50 %",
        ),
        (Conditions(others_cpu_percent=50), {}, "load: not known yet what other processes take"),
        (Conditions(hours=("22:00-06:00",)), {}, "hours: it is 12:00, asked is 22:00-06:00"),
        (Conditions(), {"full_disk": "no room in /var"}, "disk: no room in /var"),
    ],
)
def test_what_is_not_met_is_named_with_the_numbers(asked, observed, said):
    assert words(asked, facts(**observed)) == said


def test_all_reasons_are_given_and_the_longest_pause():
    asked = Conditions(mains=True, hours=("12:10-13:00",))
    verdict = judge(asked, facts(on_mains=False))
    assert [reason.condition for reason in verdict.reasons] == ["power", "hours"]
    assert verdict.again_s == 600.0


@pytest.mark.parametrize(
    ("asked", "observed", "hard"),
    [
        (Conditions(mains=True), {"on_mains": False}, True),
        (Conditions(temperature_c=60), {"temperature_c": 61.0}, True),
        (Conditions(hours=("00:00-01:00",)), {}, False),
        (Conditions(energy_j_per_day=1), {"energy_today_j": 2.0}, False),
        (Conditions(others_cpu_percent=1), {"others_cpu_percent": 2.0}, False),
        (Conditions(), {"full_disk": "full"}, False),
    ],
)
def test_only_what_protects_the_device_ends_a_round_that_has_begun(asked, observed, hard):
    verdict = judge(asked, facts(**observed))
    assert verdict.reasons
    assert verdict.hard == hard


@given(st.floats(-40, 125), st.floats(20, 110))
def test_a_device_that_was_too_hot_cools_by_a_margin_first(temperature_c, limit_c):
    asked, observed = Conditions(temperature_c=limit_c), facts(temperature_c=temperature_c)
    fresh, again = judge(asked, observed), judge(asked, observed, {"temperature"})
    assert (fresh == FREE) == (temperature_c < limit_c)
    assert (again == FREE) == (temperature_c < limit_c - MARGIN_C)


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_battery_that_was_too_low_charges_by_a_margin_first_and_a_full_one_always_does(charge, limit):
    asked, observed = Conditions(battery_percent=limit), facts(on_mains=False, battery_percent=charge)
    assert (judge(asked, observed, {"power"}) == FREE) == (charge >= min(limit + MARGIN_PERCENT, 100))


MINUTES = st.integers(0, 24 * 60 - 1)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(MINUTES, MINUTES, MINUTES)
def test_a_window_is_open_from_its_first_minute_up_to_its_last_also_over_midnight(first, past, now):
    asked = Conditions(hours=(f"{clock(first)}-{clock(past)}",))
    length = (past - first) % 1440 or 1440
    inside = {(first + i) % 1440 for i in range(length)}
    verdict = judge(asked, facts(clock_s=now * 60.0))
    assert (verdict == FREE) == (now in inside)
    if verdict.reasons:
        assert verdict.again_s == min(((first - now) % 1440) * 60.0, LONGEST_S)


def test_a_load_that_is_not_known_yet_is_soon():
    assert judge(Conditions(others_cpu_percent=50), NOON).again_s == 5.0


def test_the_pause_for_energy_lasts_until_midnight_at_most():
    asked, late = Conditions(energy_j_per_day=1), facts(clock_s=24 * HOUR_S - 30, energy_today_j=2.0)
    assert judge(asked, late).again_s == 30.0
    assert judge(asked, facts(energy_today_j=2.0)).again_s == LONGEST_S


@pytest.mark.parametrize("wrong", ["22-06", "24:00-06:00", "22:00-06:60", "22:00 - 06:00", "", "2٢:00-06:00"])
def test_a_window_that_is_none_is_refused_with_one_that_is(wrong):
    with pytest.raises(msgspec.ValidationError, match='no window of time: write "22:00-06:00"'):
        msgspec.convert({"hours": [wrong]}, Conditions)


@pytest.mark.parametrize(
    "table",
    [
        {"battery_percent": 101},
        {"battery_percent": math.nan},
        {"temperature_c": -300},
        {"temperature_c": math.nan},
        {"energy_j_per_day": 0},
        {"others_cpu_percent": -1},
    ],
)
def test_limits_that_cannot_be_are_refused(table):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, Conditions)
