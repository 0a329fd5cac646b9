"""Two runs: a ratio with its interval, and no verdict that the uncertainties do not carry."""

from __future__ import annotations

import csv
import io
import json
import math

import msgspec
import pytest
from finished import MODEL, RAPL, a_run
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.reports.compare import STUDENT_T, compare
from mas_edge.orchestrator.reports.runs import REPORT

SAME = a_run()


def ratio(one, other, name="attributed J"):
    return next(found for found in compare(one, other) if found.name == name)


def on(sensor, **how):
    return a_run(sensors=(sensor, sensor), **how)


def test_a_run_compared_with_itself_is_within_noise():
    for found in compare(SAME, SAME):
        assert found.ratio == pytest.approx(1.0)
        assert found.verdict in {None, "within noise"}


def test_one_sensors_common_error_cancels_and_that_of_two_does_not():
    """20 % more is seen by one counter of 5 % gain error, and is not by two of them."""
    more, elsewhere = on(RAPL, joules=3.6), msgspec.structs.replace(RAPL, sensor_host="other:/rapl")
    seen, unseen = ratio(more, SAME), ratio(on(elsewhere, joules=3.6), SAME)
    assert (seen.ratio, unseen.ratio) == pytest.approx((1.2, 1.2))
    own = math.sqrt(0.06**2 - 0.05**2)
    assert seen.high / seen.low == pytest.approx(math.exp(4 * math.hypot(own, own)))
    assert unseen.high / unseen.low == pytest.approx(math.exp(4 * math.hypot(0.06, 0.06)))
    assert (seen.verdict, unseen.verdict) == ("more", "within noise")


def test_intervals_that_overlap_are_noise_although_that_of_their_ratio_does_not_hold_1():
    found = ratio(on(RAPL, joules=3.33), SAME)
    assert found.low > 1.0
    assert found.verdict == "within noise"


def test_what_is_more_than_noise_is_said_in_the_right_direction():
    assert ratio(on(RAPL, joules=9.0), SAME).verdict == "more"
    assert ratio(SAME, on(RAPL, joules=9.0)).verdict == "less"


def test_the_error_of_a_model_never_cancels():
    one, other = on(MODEL, joules=3.6), on(MODEL)
    assert ratio(one, other).high / ratio(one, other).low == pytest.approx(
        math.exp(4 * math.hypot(0.06, 0.06))
    )


def test_devices_that_disagree_widen_the_interval():
    agreed, apart = ratio(on(RAPL, joules=6.0), SAME), ratio(on(RAPL, joules=6.0, spread=0.3), SAME)
    assert agreed.ratio == pytest.approx(apart.ratio)
    assert apart.low < agreed.low < agreed.high < apart.high
    spread = abs(math.log(1.3 / 0.7)) / math.sqrt(2)
    own = 2 * math.hypot(*[math.sqrt(0.06**2 - 0.05**2)] * 2)
    half = math.hypot(own, STUDENT_T[0] * spread / math.sqrt(2))
    assert math.log(apart.high / apart.low) / 2 == pytest.approx(half)


def test_an_unknown_energy_has_no_ratio_and_seconds_have_no_verdict():
    unknown = ratio(a_run(joules=None), SAME)
    assert (unknown.one, unknown.ratio, unknown.verdict) == (None, None, None)
    wall = ratio(SAME, SAME, "wall s")
    assert (wall.ratio, wall.low, wall.verdict) == (1.0, None, None)


@given(st.floats(0.5, 50), st.floats(0.5, 50))
def test_turning_a_comparison_round_turns_its_interval_round(one_j, other_j):
    one, other = on(RAPL, joules=one_j), on(RAPL, joules=other_j)
    there, back = ratio(one, other), ratio(other, one)
    assert there.low == pytest.approx(1 / back.high)
    opposite = {"less": "more", "more": "less", "within noise": "within noise"}
    assert back.verdict == opposite[there.verdict]
    assert there.low <= there.ratio <= there.high


@pytest.fixture
def two_runs(tmp_path):
    for name, run in (("one", SAME), ("two", on(MODEL, joules=9.0))):
        (tmp_path / name).mkdir()
        (tmp_path / name / REPORT).write_bytes(msgspec.json.encode(run))
    return str(tmp_path / "one"), "--compare", str(tmp_path / "two")


def test_the_command_says_within_noise_and_that_methods_differ(two_runs, capsys):
    assert main(["report", *two_runs]) == 0
    out = capsys.readouterr().out
    assert "mixed: the joules of one run are counter, those of the other est." in out
    assert "less" in out
    assert main(["report", *two_runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratios"][0]["ratio"] == pytest.approx(1 / 3)
    assert found["other"]["bill"]["methods"] == ["estimated"]


def test_csv_of_a_comparison_has_the_rows_of_the_first_run(two_runs, capsys):
    assert main(["report", *two_runs, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(SAME.rows)
