"""The power monitors of NVIDIA's modules as the kernel shows them, read without tegrastats.

``ina3221[:rails=A+B][,idle_w=W][,idle_u_w=U]``. JetPack 5 and later: channels 1 to 3 of the mainline driver
under hwmon, named by inK_label; power = inK_input (mV) x currK_input (mA); the sums (in7, curr4) are none.
JetPack 4: NVIDIA's own driver under iio, rail_name_K and in_powerK_input (mW), channels from 0. AGX Thor has
an INA238 besides, power1_input (uW), which is VIN. A channel that is not connected or switched off (NC;
ENODATA, EIO) is no rail. Numbers of hwmon and iio devices change from boot to boot: only names count. What
adds up is told by ``rails``.

A current is counted in steps of 40 uV over the shunt (40 mW at 5 V and 5 mOhm): where the kernel tells the
shunt, that is the uncertainty of each sample. A read may wait for a conversion (some 7 ms a channel), so that
10 Hz is the ceiling, and voltage and current are not of one moment. Files stay open.

Sources: kernel Documentation/hwmon/ina3221.rst and ina238.rst; INA3221 data sheet; NVIDIA's L4T 32 driver.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from mas_edge.profiling.drivers.rails import NOT_CONNECTED, Total, no_total, split_rails, total_of
from mas_edge.profiling.drivers.sampler import Sampler, polled
from mas_edge.profiling.meters import DriverOptions, Meter, MeterUnavailable, given_idle, sensor_host
from mas_edge.profiling.running import Look
from mas_edge.wire.messages import Sensor

NAME = "ina3221"
INTERVAL_S = 0.1
STEP_V = 40e-6
"""The step in which an INA3221 measures the voltage over its shunt."""
BUSES = "sys/bus/i2c/drivers"


@dataclass(frozen=True)
class Channel:
    """One rail: its power in watts is ``scale`` times the product of the numbers in its files.

    The first file is a bus voltage in millivolts where ``shunt_ohm`` is known, None elsewhere.
    """

    rail: str
    files: tuple[Path, ...]
    scale: float
    shunt_ohm: float | None = None

    def power_w(self, values: Sequence[int]) -> float:
        """Power, with the sign that the monitor gives it."""
        return self.scale * prod(values)

    def u_w(self, values: Sequence[int]) -> float:
        """Standard uncertainty from the current's step; 0 where that is not known."""
        return STEP_V / self.shunt_ohm * abs(values[0]) / 1000 / 12**0.5 if self.shunt_ohm else 0.0


def channels(root: Path) -> Iterator[Channel]:
    """All channels that have a name, of any driver, readable or not."""
    for folder in sorted((root / BUSES / "ina3221").glob("*/hwmon/hwmon*")):
        for k in (1, 2, 3):
            if name := _text(folder / f"in{k}_label"):
                shunt_uohm = _text(folder / f"shunt{k}_resistor")
                shunt_ohm = int(shunt_uohm) / 1e6 if shunt_uohm and shunt_uohm.isdigit() else None
                files = (folder / f"in{k}_input", folder / f"curr{k}_input")
                yield Channel(name, files, 1e-6, shunt_ohm or None)
    for folder in sorted((root / BUSES / "ina3221x").glob("*/iio:device*")):
        for k in (0, 1, 2):
            if name := _text(folder / f"rail_name_{k}"):
                yield Channel(name, (folder / f"in_power{k}_input",), 1e-3)
    for folder in sorted((root / BUSES / "ina238").glob("*/hwmon/hwmon*")):
        yield Channel(_text(folder / "power1_label") or "VIN", (folder / "power1_input",), 1e-6)


def open_meter(options: DriverOptions) -> Meter:
    """The meter over this host's monitors; raises MeterUnavailable saying what is missing."""
    wanted, rest = split_rails(options.argument)
    _, given = replace(options, argument=rest).parse(NAME, "idle_w", "idle_u_w")
    monitors = _opened(options.root)
    total = total_of(monitors.rails, wanted)
    if total is None:
        rails = monitors.rails
        monitors.close()
        if not rails:
            reason = f"no power monitor of a Jetson in {options.root / BUSES}"
            raise MeterUnavailable(NAME, reason, "it takes an NVIDIA Jetson with its own kernel")
        raise MeterUnavailable(NAME, *no_total(NAME, rails, wanted))
    return Sampler(
        polled(lambda: monitors.look(total, options.clock_ns), INTERVAL_S, monitors.close),
        lambda: _sensor(total, options.root),
        name=NAME,
        interval_s=INTERVAL_S,
        idle=given_idle(given),
        clock_ns=options.clock_ns,
    )


def _sensor(total: Total, root: Path) -> Sensor:
    return Sensor(
        name=NAME,
        method="sampled",
        scope=total.scope,
        sensor_host=sensor_host(root, total.path),
        detail=f"{total.detail} by the kernel",
        gain_u=total.gain_u,
        rate_hz=1 / INTERVAL_S,
    )


@dataclass
class _Monitors:
    """Channels with their files open; only the meter's thread reads them."""

    opened: list[tuple[Channel, tuple[int, ...]]]

    @property
    def rails(self) -> tuple[str, ...]:
        return tuple(channel.rail for channel, _ in self.opened)

    def look(self, total: Total, clock_ns: Callable[[], int]) -> Look:
        """All rails now, stamped in the middle; none if one of them does not answer."""
        before_ns = clock_ns()
        by_rail_w, variance_w2 = {}, 0.0
        try:
            for channel, descriptors in self.opened:
                values = [_number(descriptor) for descriptor in descriptors]
                by_rail_w[channel.rail] = channel.power_w(values)
                variance_w2 += channel.u_w(values) ** 2 if channel.rail in total.rails else 0.0
        except (OSError, ValueError):
            return Look(clock_ns(), None)
        t_ns = (before_ns + clock_ns()) // 2
        return Look(t_ns, total.of(by_rail_w), by_rail_w, variance_w2**0.5)

    def close(self) -> None:
        for _, descriptors in self.opened:
            for descriptor in descriptors:
                os.close(descriptor)
        self.opened = []


def _opened(root: Path) -> _Monitors:
    """Every rail once, of the channels that answer; raises MeterUnavailable if one may not be read."""
    monitors = _Monitors([])
    for channel in channels(root):
        if channel.rail == NOT_CONNECTED or channel.rail in monitors.rails:
            continue
        descriptors: list[int] = []
        try:
            for file in channel.files:
                descriptors.append(os.open(file, os.O_RDONLY))
                _number(descriptors[-1])
        except (OSError, ValueError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            if getattr(error, "errno", None) in {errno.EACCES, errno.EPERM}:
                monitors.close()
                raise MeterUnavailable(NAME, f"{channel.files[0]} may not be read", "run as root") from error
            continue  # switched off
        monitors.opened.append((channel, tuple(descriptors)))
    return monitors


def _number(descriptor: int) -> int:
    return int(os.pread(descriptor, 64, 0))


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
