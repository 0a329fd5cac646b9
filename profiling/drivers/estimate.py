"""A software estimate of a board's energy, for hosts without a sensor; every joule is so labelled.

Power is taken as P = P_idle + (P_max - P_idle) x busy x f / f_max: ``busy`` from /proc/stat over all
cores since the last reading, f / f_max the cores' clock where cpufreq tells it (1 elsewhere). The two
constants come from the table below, by /proc/device-tree/model or, on other machines, by the number
of cores, and can be given: ``estimate:idle_w=2.5,max_w=7``. A calibration of this board against a plug meter
(``profiling.calibrate``: /etc/mas-edge/estimate.json, or ``estimate:FILE``) takes the table's place. Such
models are wrong by tens of per cent (one widely used was off by 174 % on a Raspberry Pi 5), and this states
it: ``gain_u``. It sees no GPU, no radio, no disk.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from mas_edge.profiling import calibrate
from mas_edge.profiling.cpu import HostTime, parse_host_time
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

CALIBRATED_U, SOURCED_U, ASSUMED_U = 0.15, 0.2, 0.3
"""Relative standard uncertainty: calibrated idle and busy, constants that are published, and assumed ones."""


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
    """The estimate for this host; takes a calibration, ``idle_w`` and ``max_w``."""
    file, given = options.parse("estimate", "idle_w", "max_w")
    board, found = constants_for(_model(options.root), _cores(options.root))
    if len(given) < 2:
        found = _calibrated(Path(file) if file else options.root / calibrate.KEPT, options.root, found)
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
    try:
        return _Estimate(sensor, idle, max_w, _Processor(options.root), options.clock_ns)
    except OSError as error:
        raise MeterUnavailable("estimate", f"no processor times: {error}", "it needs Linux") from error


def _calibrated(path: Path, root: Path, found: Constants) -> Constants:
    """The constants of this board's calibration, if the file holds one; raises MeterOptionsRefused."""
    try:
        kept = calibrate.load(path, calibrate.board_of(root))
        if kept is None:
            return found
        idle_w, max_w = calibrate.fit(kept.points, found.idle_w, found.max_w)
    except calibrate.CalibrationRefused as error:
        raise MeterOptionsRefused(f"estimate: {error}") from error
    day = time.strftime("%Y-%m-%d", time.gmtime(kept.points[-1].t_s))
    gain_u = CALIBRATED_U if len(kept.points) > 1 else found.gain_u
    return Constants(max(idle_w, 0.0), max_w, f"calibrated {day} at the plug", gain_u)


class _Processor:
    """The files that say how much the cores work; they stay open, as most of a read was their opening.

    Raises OSError without a readable /proc/stat.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "proc/stat"
        with ExitStack() as opened:
            self._stat = _opened(self._path, opened)
            self._clocks = list(_clocks(root, opened))
            self.time()
            self.close = weakref.finalize(self, opened.pop_all().close)

    def time(self) -> HostTime:
        """Host time so far; raises OSError."""
        return parse_host_time(os.pread(self._stat, 512, 0), self._path)

    def clock_share(self) -> float:
        """The cores' clock as a part of their greatest; 1 where nothing tells it."""
        now = greatest = 0
        for descriptor, most_khz in self._clocks:
            try:
                now += int(os.pread(descriptor, 32, 0))
            except (OSError, ValueError):
                continue  # a core that is off has no clock and does no work
            greatest += most_khz
        return min(now / greatest, 1.0) if greatest else 1.0


def _clocks(root: Path, closing: ExitStack) -> Iterator[tuple[int, int]]:
    """For each core that is on: where its clock stands, and its greatest, in kHz."""
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        with suppress(OSError, ValueError):
            yield (
                _opened(folder / "scaling_cur_freq", closing),
                int((folder / "cpuinfo_max_freq").read_bytes()),
            )


def _opened(path: Path, closing: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    closing.callback(os.close, descriptor)
    return descriptor


class _Estimate:
    def __init__(
        self,
        sensor: Sensor,
        idle: Idle,
        max_w: float,
        processor: _Processor,
        clock_ns: Callable[[], int],
    ) -> None:
        self.sensor, self.idle = sensor, idle
        self._max_w, self._processor, self._clock_ns = max_w, processor, clock_ns
        self._last, self._t_ns, self._energy_j = processor.time(), clock_ns(), 0.0

    def read(self) -> Reading:
        """Idle power for the time since the last reading, plus the share that the cores worked."""
        if not self._processor.close.alive:
            raise MeterUnavailable("estimate", "it is closed")
        try:
            now, clock = self._processor.time(), self._processor.clock_share()
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
        """Closes the files."""
        self._processor.close()


def _model(root: Path) -> str | None:
    try:
        return (root / "proc/device-tree/model").read_text(errors="replace").rstrip("\0\n")
    except OSError:
        return None


def _cores(root: Path) -> int:
    try:
        lines = (root / "proc/stat").read_text(errors="replace").splitlines()
    except OSError:
        return 1
    return sum(1 for line in lines if re.match(r"cpu\d", line)) or 1
