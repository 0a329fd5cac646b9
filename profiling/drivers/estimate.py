"""A software estimate of a board's energy, for hosts without a sensor; every joule is so labelled.

Power is taken as P = P_idle + (P_max - P_idle) x busy x f / f_max: ``busy`` from /proc/stat over all
cores since the last reading, f / f_max the cores' clock where cpufreq tells it (1 elsewhere). The two
constants come from the table below, by /proc/device-tree/model or, on other machines, by the number
of cores, and can be given: ``estimate:idle_w=2.5,max_w=7``. Such models are wrong by tens of per cent
(one widely used was off by 174 % on a Raspberry Pi 5), and this states it: ``gain_u``.
It sees no GPU, no radio, no disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mas_edge.profiling.cpu import HostTime, host_time
from mas_edge.profiling.meters import (
    DriverOptions,
    Idle,
    Meter,
    MeterOptionsRefused,
    MeterUnavailable,
    Reading,
    sensor_host,
)
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

SOURCED_U, ASSUMED_U = 0.2, 0.3
"""Relative standard uncertainty of an estimate from published constants, and from assumed ones."""


@dataclass(frozen=True)
class Constants:
    """A board's power when idle and with all cores at work, and who says so."""

    idle_w: float
    max_w: float
    source: str
    gain_u: float = ASSUMED_U


BOARDS: tuple[tuple[str, Constants], ...] = (
    # pidramble.com, "Power Consumption": 540 mA idle, 1280 mA under `stress --cpu 4`, at 5 V.
    ("Raspberry Pi 4", Constants(2.7, 6.4, "pidramble.com power consumption table", SOURCED_U)),
    # Under load: a PMIC dump that sums to 5.92 W, put to the plug by the community's fit (7.37 W).
    ("Raspberry Pi 5", Constants(3.0, 7.4, "idle assumed, load from one PMIC dump")),
    # Idle: a tegrastats log at 4.76 W with free clocks; load: its 15 W power mode.
    ("Orin Nano", Constants(4.8, 15.0, "idle from one tegrastats log, load = 15 W mode")),
    ("Orin NX", Constants(5.0, 25.0, "idle assumed, load = 25 W mode")),
    ("Jetson Nano", Constants(2.0, 10.0, "idle assumed, load = 10 W mode")),
)
"""Constants by a part of the device tree's model; the first that matches counts."""


def constants_for(model: str | None, cores: int) -> tuple[str, Constants]:
    """Name and constants of a board; without a known model those of a small PC with so many cores."""
    for part, constants in BOARDS:
        if model and part in model:
            return part, constants
    # No source: assumed, so that 4 cores give 6 W idle and 28 W at work, as of a NUC-class machine.
    return f"generic {cores}-core machine", Constants(2.0 + cores, 4.0 + 6.0 * cores, "no source: assumed")


def open_meter(options: DriverOptions) -> Meter:
    """The estimate for this host; takes ``idle_w``, ``max_w`` and ``cpus``."""
    _, given = options.parse("estimate", "idle_w", "max_w")
    try:
        start = host_time(options.root)
    except OSError as error:
        raise MeterUnavailable("estimate", f"no processor times: {error}", "it needs Linux") from error
    board, found = constants_for(_model(options.root), _cores(options.root))
    if given:
        board, found = f"{board}, constants given", Constants(found.idle_w, found.max_w, "given by the user")
    idle_w, max_w = given.get("idle_w", found.idle_w), given.get("max_w", found.max_w)
    if not 0 <= idle_w <= max_w:
        raise MeterOptionsRefused(
            f"estimate: idle_w={idle_w:g}, max_w={max_w:g}: it takes 0 <= idle_w <= max_w"
        )
    sensor = Sensor(
        name="estimate",
        method="estimated",
        scope="board",
        sensor_host=sensor_host(options.root, "/proc/stat"),
        detail=f"{board}: {idle_w:g} W idle, {max_w:g} W busy ({found.source})",
        gain_u=found.gain_u,
    )
    # The model's own idle power has no error beyond the model's: gain_u says it all.
    idle = Idle(idle_w, 0.0, f"constant of the model ({found.source})")
    return _Estimate(sensor, idle, max_w, options.root, options.clock_ns, start)


class _Estimate:
    def __init__(
        self,
        sensor: Sensor,
        idle: Idle,
        max_w: float,
        root: Path,
        clock_ns: Callable[[], int],
        start: HostTime,
    ) -> None:
        self.sensor, self.idle = sensor, idle
        self._max_w, self._root, self._clock_ns = max_w, root, clock_ns
        self._last, self._t_ns, self._energy_j = start, clock_ns(), 0.0

    def read(self) -> Reading:
        """Idle power for the time since the last reading, plus the share that the cores worked."""
        try:
            now, clock = host_time(self._root), _clock_share(self._root)
        except OSError as error:
            raise MeterUnavailable("estimate", f"no processor times: {error}") from error
        t_ns = self._clock_ns()
        all_s, busy_s = now.total_s - self._last.total_s, now.busy_s - self._last.busy_s
        busy = min(max(busy_s / all_s, 0.0), 1.0) * clock if all_s > 0 else 0.0
        power_w = self.idle.power_w + (self._max_w - self.idle.power_w) * busy
        self._energy_j += power_w * (t_ns - self._t_ns) / 1e9
        if all_s > 0:
            self._last = now
        self._t_ns = t_ns
        return Reading(t_ns, self._energy_j)

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:  # noqa: ARG002 - Meter's signature
        """None: the estimate is an integral already."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def _model(root: Path) -> str | None:
    try:
        return (root / "proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        return None


def _cores(root: Path) -> int:
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return os.cpu_count() or 1
    return sum(1 for line in lines if re.match(r"cpu\d", line)) or 1


def _clock_share(root: Path) -> float:
    now = greatest = 0
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"):
        try:
            pair = [int((folder / name).read_text()) for name in ("scaling_cur_freq", "cpuinfo_max_freq")]
        except (OSError, ValueError):
            continue  # a core that is off has no clock and does no work
        now, greatest = now + pair[0], greatest + pair[1]
    return min(now / greatest, 1.0) if greatest else 1.0
