"""What the conditions are judged by, as the kernel shows it: power, heat, other processes, the clock.

Plain reads under a root that is an argument, of what is asked for and nothing else: /sys/class/power_supply
(the kernel's Documentation/ABI/testing/sysfs-class-power), /sys/class/thermal and, where that has nothing,
/sys/class/hwmon (driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst), /proc/stat. A machine without
a battery is on mains. What is no temperature is left out: Jetson boards report -256 °C for a part that is
switched off, and a fixed number for their power chip.

It decides nothing. psutil reads the same files, but under no other root, and of batteries only the first.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.edge_agent.conditions import Facts
from mas_edge.profiling.cpu import HostTime, host_time, process_cpu_ns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mas_edge.edge_agent.conditions import Conditions

COLDEST_C, HOTTEST_C = -40.0, 125.0
"""What silicon works in; readings outside are no temperatures."""

LOAD_S, SETTLED_S = 60.0, 4.0
"""Others' load is a mean over the last minute, and known once it has been watched for some seconds."""


def power(root: Path) -> tuple[bool | None, float | None]:
    """Whether the machine is on mains, and the charge of its emptiest battery in percent; None is unknown."""
    supplies = [s for s in _folders(root / "sys/class/power_supply") if _text(s / "scope") != "Device"]
    mains = [
        _text(s / "online") not in {"0", None} for s in supplies if _text(s / "type") in {"Mains", "USB"}
    ]
    batteries = [
        s for s in supplies if _text(s / "type") in {"Battery", "UPS"} and _text(s / "present") != "0"
    ]
    if not batteries:
        return True, None
    charges = [charge for battery in batteries if (charge := _number(battery / "capacity")) is not None]
    states = {_text(battery / "status") for battery in batteries}
    charge = min(charges, default=None)
    if "Discharging" in states:
        return False, charge
    if any(mains) or states & {"Charging", "Full", "Not charging"}:
        return True, charge
    return (False if mains else None), charge


def temperature_c(root: Path) -> float | None:
    """The hottest sensor of the machine; None if none can be read."""
    zones = [z for z in _folders(root / "sys/class/thermal") if z.name.startswith("thermal_zone")]
    read = [_number(z / "temp") for z in zones if "pmic" not in (_text(z / "type") or "").lower()]
    if not _plausible(read):
        chips = _folders(root / "sys/class/hwmon")
        read = [_number(path) for chip in chips for path in sorted(chip.glob("temp*_input"))]
    return max(_plausible(read), default=None)


def _plausible(read: Collection[float | None]) -> list[float]:
    return [c for value in read if value is not None and COLDEST_C <= (c := value / 1000) <= HOTTEST_C]


def local_clock_s(wall_s: float) -> float:
    """Seconds since local midnight as a clock on the wall shows them."""
    now = time.localtime(wall_s)
    return now.tm_hour * 3600.0 + now.tm_min * 60.0 + now.tm_sec


def today() -> str:
    """The local date by the host's clock, as in 2026-11-22."""
    return time.strftime("%Y-%m-%d")


class Observer:
    """Reads the facts that conditions ask for; remembers a minute of the processors' time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._pids: tuple[int, ...] = ()
        self._others_before: float | None = None
        self._moments: deque[tuple[float, HostTime, float]] = deque()  # our clock, the host, our processes

    def facts(
        self,
        asked: Conditions,
        *,
        now_s: float,
        wall_s: float,
        pids: tuple[int, ...],
        energy_today_j: float,
        full_disk: str | None,
    ) -> Facts:
        """What is so now. ``pids`` are our own processes; ``now_s`` is of a clock that never goes back."""
        on_mains, charge = (
            power(self._root) if asked.mains or asked.battery_percent is not None else (None, None)
        )
        others = self._others_percent(now_s, pids) if asked.others_cpu_percent is not None else None
        return Facts(
            clock_s=local_clock_s(wall_s),
            on_mains=on_mains,
            battery_percent=charge,
            temperature_c=temperature_c(self._root) if asked.temperature_c is not None else None,
            energy_today_j=energy_today_j,
            others_cpu_percent=others,
            full_disk=full_disk,
        )

    def _others_percent(self, now_s: float, pids: tuple[int, ...]) -> float | None:
        """The processors' time that is not ours, in percent of all; None until it was watched long enough.

        For the seconds in which the count begins anew, it is what it was before.
        """
        if pids != self._pids:  # a process that ended took its count with it
            self._pids = pids
            self._moments.clear()
        try:
            host = host_time(self._root)
        except OSError:
            return None
        own = [process_cpu_ns(pid, self._root) for pid in pids]
        self._moments.append((now_s, host, sum(ns or 0 for ns in own) / 1e9))
        while len(self._moments) > 2 and self._moments[1][0] <= now_s - LOAD_S:
            self._moments.popleft()
        since_s, first, own_s = self._moments[0]
        total_s = host.total_s - first.total_s
        if now_s - since_s >= SETTLED_S and total_s > 0:
            others_s = host.busy_s - first.busy_s - (self._moments[-1][2] - own_s)
            self._others_before = 100 * min(max(others_s / total_s, 0.0), 1.0)
        return self._others_before


def _folders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # sysfs says EAGAIN, EINVAL or ENODATA for a sensor that sleeps
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
