"""Fitting the software estimate to a plug meter: what that showed while the host was idle, and while busy.

``calibrate`` measures how much the processors worked (as the estimate sees it: busy share x clock) while the
user reads a meter at the plug, and keeps that as a point, with date and board, in a file that the estimate
finds. ``fit`` puts the model's line P = idle + (max - idle) x load through the points: through both if there
are two, else through the one, with the rest as assumed for the board. It stays a model of the processors:
what else the plug meter saw is taken as constant. The file is of one board; on another it is left aside.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from mas_edge.profiling import machine
from mas_edge.profiling.meters import MeterError, begin, end, open_one
from mas_edge.wire.host import write_atomic

KEPT = "etc/mas-edge/estimate.json"
"""Where the estimate looks for a calibration, below the root."""
LEAST_S = 1.0
LEAST_SPAN = 0.2
"""Two loads closer than this do not fix a line."""
_SPIN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


class CalibrationRefused(MeterError, ValueError):
    """Points through which no line can go, or a file that cannot be read or written."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What the plug meter showed at a load between 0 and 1, and when (Unix time)."""

    kind: Literal["idle", "busy"]
    watts: float
    load: float
    wall_s: float
    t_s: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The newest point of each kind, of one board."""

    board: str
    points: tuple[Point, ...]


def fit(points: tuple[Point, ...], idle_w: float, max_w: float) -> tuple[float, float]:
    """Idle and greatest power of the line through one or two points; one leaves the rest as it is given.

    Raises CalibrationRefused if no rising line goes through them.
    """
    low, high = min(points, key=lambda p: p.load), max(points, key=lambda p: p.load)
    if len(points) > 1:
        if high.load - low.load < LEAST_SPAN or high.watts <= low.watts:
            raise CalibrationRefused(
                f"{low.watts:g} W at {low.load:.0%} load and {high.watts:g} W at {high.load:.0%} fix no line"
                " that rises: measure once idle and once busy"
            )
        slope_w = (high.watts - low.watts) / (high.load - low.load)
        return low.watts - slope_w * low.load, low.watts + slope_w * (1 - low.load)
    if low.kind == "idle":
        idle_w, span_w = low.watts - (max_w - idle_w) * low.load, max_w - idle_w
        return idle_w, idle_w + span_w
    if low.watts <= idle_w or low.load < LEAST_SPAN:
        raise CalibrationRefused(
            f"{low.watts:g} W at {low.load:.0%} load, but {idle_w:g} W are assumed for idle:"
            " calibrate with --load idle first"
        )
    return idle_w, idle_w + (low.watts - idle_w) / low.load


def board_of(root: Path) -> str:
    """What this board calls itself; boards that say nothing are all alike."""
    return machine.look(root).model or "unknown board"


def load(path: Path, board: str) -> Calibration | None:
    """The calibration of this board in a file; None if there is none, or it is another board's.

    Raises CalibrationRefused for a file that holds something else.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise CalibrationRefused(f"{path} is no calibration: {error}; calibrate anew") from error
    return kept if kept.board == board and kept.points else None


def calibrate(root: Path, path: Path, watts: float, seconds: float, *, busy: bool) -> Calibration:
    """Measures the load for so many seconds, keeps it with what the plug meter showed; all points."""
    if not (watts > 0 and seconds >= LEAST_S):
        raise CalibrationRefused(
            f"{watts:g} W over {seconds:g} s: take some watts, and {LEAST_S:g} s or more"
        )
    board, before = board_of(root), None
    with suppress(CalibrationRefused):  # what is no calibration is written over
        before = load(path, board)
    kind: Literal["idle", "busy"] = "busy" if busy else "idle"
    point = Point(
        kind=kind, watts=watts, load=_load(root, seconds, busy=busy), wall_s=seconds, t_s=time.time()
    )
    others = tuple(p for p in before.points if p.kind != kind) if before else ()
    kept = Calibration(board=board, points=(*others, point))
    if others:
        fit(kept.points, 0.0, 0.0)  # refused before it is kept
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, msgspec.json.format(msgspec.json.encode(kept)))
    except OSError as error:
        raise CalibrationRefused(
            f"cannot write {path}: {error.strerror}; name another by --out, and use it as estimate:FILE"
        ) from error
    return kept


def _load(root: Path, seconds: float, *, busy: bool) -> float:
    """The mean load over that time, as the estimate sees it: its power between 0 and 1 W."""
    meter = open_one("estimate:idle_w=0,max_w=1", root=root)
    try:
        with _spinning(seconds, machine.look(root).cores or 1 if busy else 0):
            mark = begin(meter)
            time.sleep(seconds)
            energy = end(mark).settle()
    finally:
        meter.close()
    return energy.energy_j / energy.wall_s


@contextmanager
def _spinning(seconds: float, processes: int) -> Iterator[None]:
    """So many processes at work, which end by themselves a little later should nobody end them."""
    words = [sys.executable, "-c", _SPIN, f"{seconds + 5:g}"]
    # In a session of their own: Ctrl-C is ours to hear, and they would print a traceback.
    spinning = [subprocess.Popen(words, start_new_session=True) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
