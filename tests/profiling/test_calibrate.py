from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.calibrate import (
    KEPT,
    Calibration,
    CalibrationRefused,
    Point,
    calibrate,
    fit,
    load,
)
from mas_edge.profiling.meters import MeterOptionsRefused, open_one

BOARD = "Raspberry Pi 5 Model B Rev 1.0"


def point(kind, watts, load):
    return Point(kind=kind, watts=watts, load=load, wall_s=60.0, t_s=1.7e9)


@given(st.floats(0.5, 20), st.floats(1, 100), st.floats(0, 0.3), st.floats(0.6, 1))
def test_two_points_fix_the_line_through_them(idle_w, span_w, low, high):
    points = (
        point("busy", idle_w + span_w * high, high),
        point("idle", idle_w + span_w * low, low),
    )
    assert fit(points, 99.0, 99.0) == pytest.approx((idle_w, idle_w + span_w))


def test_an_idle_point_moves_the_boards_line_and_a_busy_one_turns_it():
    assert fit((point("idle", 4.0, 0.1),), 2.0, 7.0) == pytest.approx((3.5, 8.5))
    assert fit((point("busy", 8.0, 0.5),), 2.0, 7.0) == pytest.approx((2.0, 14.0))


@pytest.mark.parametrize(
    "points",
    [
        (point("idle", 5.0, 0.1), point("busy", 4.0, 0.9)),
        (point("idle", 4.0, 0.5), point("busy", 5.0, 0.6)),
        (point("busy", 1.5, 0.9),),
        (point("busy", 8.0, 0.05),),
    ],
)
def test_points_through_which_no_line_rises_are_refused(points):
    with pytest.raises(CalibrationRefused, match=r"calibrate with --load idle first|once idle and once busy"):
        fit(points, 2.0, 7.0)


@pytest.fixture
def board(tmp_path):
    """A Raspberry Pi 5 whose four cores have worked half of the time since the last look, again and again."""
    for path, text in {
        "proc/device-tree/model": BOARD + "\0",
        "proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\n",
        "sys/devices/system/cpu/online": "0-0\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def kept_in(root, *points, board=BOARD):
    path = root / KEPT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(Calibration(board=board, points=points)))
    return path


def described(spec, root):
    meter = open_one(spec, root=root)
    meter.close()
    return meter.sensor


def test_the_estimate_takes_a_calibration_of_its_board(board):
    kept_in(board, point("idle", 3.0, 0.0), point("busy", 9.0, 1.0))
    sensor = described("estimate", board)
    assert "3 W idle, 9 W busy (calibrated 2023-11-14 at the plug)" in sensor.detail
    assert sensor.gain_u == 0.15
    assert sensor.method == "estimated"


def test_one_point_leaves_the_tables_uncertainty(board):
    kept_in(board, point("idle", 4.0, 0.0))
    assert described("estimate", board).gain_u == 0.3


def test_a_file_elsewhere_can_be_named(board, tmp_path):
    path = kept_in(tmp_path / "elsewhere", point("idle", 3.0, 0.0), point("busy", 9.0, 1.0))
    assert "3 W idle" in described(f"estimate:{path}", board).detail


def test_another_boards_calibration_is_left_aside(board):
    kept_in(board, point("idle", 3.0, 0.0), point("busy", 9.0, 1.0), board="Raspberry Pi 4 Model B")
    assert "calibrated" not in described("estimate", board).detail


def test_a_file_that_is_none_is_an_error_with_its_name(board):
    kept_in(board).write_text("{}")
    with pytest.raises(MeterOptionsRefused, match=r"estimate\.json is no calibration"):
        open_one("estimate", root=board)
    assert described("estimate:idle_w=1,max_w=2", board)


def test_given_watts_come_before_a_calibration(board):
    kept_in(board, point("idle", 3.0, 0.0), point("busy", 9.0, 1.0))
    assert "2 W idle, 9 W busy" in described("estimate:idle_w=2", board).detail


def test_points_of_two_kinds_are_kept_and_the_newer_of_one_kind(board):
    path = kept_in(board, point("idle", 3.0, 0.0), point("busy", 9.0, 1.0))
    made = calibrate(board, path, 2.5, 1.0, busy=False)
    assert [(p.kind, p.watts) for p in made.points] == [("busy", 9.0), ("idle", 2.5)]
    assert load(path, BOARD) == made
    assert made.points[1].load == 0.0


def test_what_cannot_be_fitted_is_not_kept(board):
    path = kept_in(board, point("busy", 9.0, 1.0))
    before = path.read_bytes()
    with pytest.raises(CalibrationRefused, match="fix no line"):
        calibrate(board, path, 20.0, 1.0, busy=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("watts", "seconds"), [(0.0, 60.0), (-1.0, 60.0), (float("nan"), 60.0), (5.0, 0.5)])
def test_no_watts_and_no_time_are_refused(board, watts, seconds):
    with pytest.raises(CalibrationRefused, match="take some watts"):
        calibrate(board, board / KEPT, watts, seconds, busy=False)


@pytest.mark.slow
def test_a_busy_load_keeps_this_machine_at_work(tmp_path):
    made = calibrate(tmp_path / "/", tmp_path / "estimate.json", 20.0, 2.0, busy=True)
    assert made.points[0].load > 0.7
