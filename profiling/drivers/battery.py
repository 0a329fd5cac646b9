"""What a running battery gives: coarse, for a whole device that has no better sensor, and only if asked for.

``battery[:NAME][,interval_ms=1000][,idle_w=W][,idle_u_w=U]`` takes the named supply of
/sys/class/power_supply, or all that are batteries of the device itself. Only while every one of them is
discharging is that the device's power: on mains it says nothing, and the reading is refused. Power is
power_now, or current_now x voltage_now; drivers disagree on the sign, so it is taken without. Fuel gauges
renew these every 1 to 30 s: a sample a second shows steps, and what happens in between is not seen; 5 % is
assumed for what the gauge itself is wrong by.

Source: kernel Documentation/ABI/testing/sysfs-class-power. energy_now is not used: it moves in steps of
0.1 % of a charge and more, minutes apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mas_edge.profiling.drivers.sampler import Sampler, polled, seconds
from mas_edge.profiling.meters import DriverOptions, Meter, MeterUnavailable, given_idle, sensor_host
from mas_edge.profiling.running import Look
from mas_edge.wire.messages import Sensor

NAME = "battery"
SUPPLIES = "sys/class/power_supply"
INTERVAL_MS = 1000
GAIN_U = 0.05


def open_meter(options: DriverOptions) -> Meter:
    """The meter over this device's batteries; raises MeterUnavailable if they do not say what they give."""
    name, given = options.parse(NAME, "interval_ms", "idle_w", "idle_u_w")
    interval_s = seconds(NAME, given.get("interval_ms", INTERVAL_MS))
    folder = options.root / SUPPLIES
    found = [path for path in sorted(folder.glob(name or "*")) if is_own_battery(path)]
    if not found:
        raise MeterUnavailable(
            NAME, f"no battery {name or ''} in {folder}".replace("  ", " "), "use another meter"
        )
    try:
        power_w(found)
    except (OSError, ValueError) as error:
        raise MeterUnavailable(NAME, str(error), "pull the plug, or use another meter") from error
    names = [path.name for path in found]
    sensor = Sensor(
        name=NAME,
        method="sampled",
        scope="board",
        sensor_host=sensor_host(options.root, f"/{SUPPLIES}/{'+'.join(names)}"),
        detail=f"coarse: what {' + '.join(names)} gives, renewed every 1 to 30 s",
        gain_u=GAIN_U,
        rate_hz=1 / interval_s,
    )
    return Sampler(
        polled(lambda: _look(found, options.clock_ns), interval_s),
        lambda: sensor,
        name=NAME,
        interval_s=interval_s,
        idle=given_idle(given),
        clock_ns=options.clock_ns,
    )


def is_own_battery(supply: Path) -> bool:
    """Whether a supply is a battery that feeds this device: no mains, no USB port, no mouse."""
    return _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device"


def power_w(batteries: Sequence[Path]) -> float:
    """What they give together; raises OSError or ValueError saying which one does not, or does not say."""
    total_w = 0.0
    for battery in batteries:
        if (status := _text(battery / "status")) != "Discharging":
            raise ValueError(f"{battery.name} is {status or 'silent'}, not Discharging")
        if (microwatts := _text(battery / "power_now")) is not None:
            total_w += abs(int(microwatts)) / 1e6
        else:
            microamperes, microvolts = (
                (battery / f"{what}_now").read_text() for what in ("current", "voltage")
            )
            total_w += abs(int(microamperes)) * int(microvolts) / 1e12
    return total_w


def _look(batteries: Sequence[Path], clock_ns: Callable[[], int]) -> Look:
    try:
        power = power_w(batteries)
    except (OSError, ValueError):
        return Look(clock_ns(), None)
    return Look(clock_ns(), power)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
