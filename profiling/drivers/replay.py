"""A recording played again as if it were a sensor: the deterministic meter of tests and comparisons.

``replay:FILE[,t0_ns=T][,idle_w=W][,idle_u_w=U]``. FILE is CSV with the columns ``t_s`` and ``power_w``
(linear between rows) or ``energy_j`` (a counter, linear between rows), or JSON with two arrays of these
names. The first row stands at ``t0_ns`` of the host's monotonic clock (0 unless given) and the
recording repeats without end, so every process of a host sees one and the same energy at one moment.
It plays no rails, and says nothing about the host that it runs on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from mas_edge.profiling.meters import (
    DriverOptions,
    Idle,
    Meter,
    MeterUnavailable,
    Reading,
    given_idle,
    sensor_host,
)
from mas_edge.profiling.samples import Curve, Sample, counted, cumulate
from mas_edge.wire.messages import Sensor


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Moments in seconds, and at each the power, or the energy so far."""

    t_s: tuple[float, ...]
    power_w: tuple[float, ...] | None = None
    energy_j: tuple[float, ...] | None = None


def open_meter(options: DriverOptions) -> Meter:
    """The meter that plays the file of the options; raises MeterUnavailable naming what is wrong."""
    file, given = options.parse("replay", "t0_ns", "idle_w", "idle_u_w")
    if not file:
        raise MeterUnavailable("replay", "no recording named", "give one: replay:FILE")
    path = Path(file)
    recording = _checked(path, _load(path))
    t0_ns = int(given.get("t0_ns", 0))
    method: Literal["counter", "sampled"] = "sampled" if recording.power_w is not None else "counter"
    sensor = Sensor(
        name="replay",
        method=method,
        scope="board",
        sensor_host=sensor_host(options.root, f"replay:{path.resolve()}@{t0_ns}"),
        detail=f"recording {path.name}, {len(recording.t_s)} rows",
    )
    return _Replay(sensor, given_idle(given), recording, t0_ns, options.clock_ns)


class _Replay:
    def __init__(
        self, sensor: Sensor, idle: Idle | None, recording: Recording, t0_ns: int, clock_ns: Callable[[], int]
    ) -> None:
        self.sensor, self.idle = sensor, idle
        self._samples, self._curve = _played(recording)
        self._t0_ns, self._clock_ns = t0_ns, clock_ns
        self._loop_ns, self._energy_j = self._curve.t_ns[-1], -math.inf

    def read(self) -> Reading:
        """The recording's energy at this moment, interpolated, whole repetitions included."""
        t_ns = self._clock_ns()
        loops, within_ns = divmod(t_ns - self._t0_ns, self._loop_ns)
        energy_j, variance_j2 = self._curve.at(within_ns)
        # Rounding where two repetitions meet may not make the counter fall.
        self._energy_j = max(self._energy_j, loops * self._curve.energy_j[-1] + energy_j)
        return Reading(t_ns, self._energy_j, loops * self._curve.variance_j2[-1] + variance_j2)

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:
        """The recorded powers around the window; None for a recorded counter."""
        if not self._samples:
            return None
        first, last = ((t - self._t0_ns) // self._loop_ns for t in (t0_ns, t1_ns))
        played = [
            Sample(self._t0_ns + loop * self._loop_ns + sample.t_ns, sample.power_w)
            for loop in range(first, last + 1)
            for sample in self._samples
        ]
        begin = max(k for k, sample in enumerate(played) if sample.t_ns <= t0_ns)
        end = min(k for k, sample in enumerate(played) if sample.t_ns >= t1_ns)
        return tuple(played[min(begin, end - 1) : end + 1])

    def close(self) -> None:
        """Nothing is held."""


def _load(path: Path) -> Recording:
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(path.read_bytes(), type=Recording)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        return msgspec.convert(columns, Recording, strict=False)
    except OSError as error:
        raise MeterUnavailable("replay", f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        remedy = "it takes CSV columns t_s and power_w or energy_j, or JSON arrays of these names"
        raise MeterUnavailable("replay", f"{path} is no recording: {error}", remedy) from error


def _checked(path: Path, recording: Recording) -> Recording:
    if (recording.power_w is None) == (recording.energy_j is None):
        raise MeterUnavailable("replay", f"{path} needs one of power_w and energy_j")
    values = recording.energy_j if recording.power_w is None else recording.power_w
    if values is None or len(values) != len(recording.t_s) or len(values) < 2:
        raise MeterUnavailable("replay", f"{path} needs two or more rows, each with a time and a value")
    if any(b - a < 1e-9 for a, b in pairwise(recording.t_s)):
        raise MeterUnavailable("replay", f"{path}: t_s must grow from row to row")
    if min(values) < 0 or (recording.energy_j and any(b < a for a, b in pairwise(recording.energy_j))):
        raise MeterUnavailable("replay", f"{path}: power is never negative, and energy never falls")
    return recording


def _played(recording: Recording) -> tuple[tuple[Sample, ...], Curve]:
    """The recording's samples, if it has powers, and its curve, from time and energy zero on."""
    times = [round((t - recording.t_s[0]) * 1e9) for t in recording.t_s]
    if recording.power_w is None:
        return (), counted(times, recording.energy_j or ())
    samples = tuple(Sample(t, power) for t, power in zip(times, recording.power_w, strict=True))
    return samples, cumulate(samples)
