"""Intel's and AMD's RAPL energy counters through the kernel's powercap tree.

The flat listing /sys/class/powercap is taken zone by zone, by *name*: the total is the packages (or
their dies) plus dram; core and uncore are inside a package and psys holds more than all of them, so
these stand in ``by_rail_j`` only. Each zone's counter wraps at its own range; a thread reads all of
them often enough that no two wraps hide in one interval, into totals that never wrap. A step that no
power could explain (suspend, driver reload) is left out and flagged ``gap``; an interval so long that
a wrap may be missing is flagged ``lower_bound``. ``rapl:idle_w=W,idle_u_w=U`` gives an idle power.

Sources: kernel Documentation/power/powercap/powercap.rst; INTEL-SA-00389 (why energy_uj is root's).
It does not know other processes' shares, and a virtual machine has no RAPL or that of all its host.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mas_edge.profiling.meters import (
    DriverOptions,
    Idle,
    Meter,
    MeterUnavailable,
    Reading,
    given_idle,
    sensor_host,
)
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

POWERCAP = "sys/class/powercap"
UPDATE_NS = 1_000_000
"""The hardware renews a counter about every millisecond: what a reading is late by at most."""
SLOWEST_S = 30.0
"""The longest time between two looks at a counter."""
GREATEST_W = 1000.0
"""A zone's greatest believable power where the kernel states no limit."""
GAIN_U = 0.05
"""Relative standard uncertainty of RAPL as long as nobody calibrated it."""

_ENTRY = re.compile(r"(intel-rapl|intel-rapl-mmio)((?::\d+){1,2})")
_COUNTED = re.compile(r"package-\d+(-die-\d+)?|(.*/)?dram")


@dataclass(frozen=True)
class Zone:
    """One counter of the tree: its folder, and its name under its parent's (``package-0/dram``)."""

    folder: Path
    rail: str

    @property
    def counted(self) -> bool:
        """Whether it belongs to the total: packages, dies and dram, nothing that they contain."""
        return _COUNTED.fullmatch(self.rail) is not None


@dataclass(frozen=True)
class Count:
    """A wrapping counter turned into a total in microjoules: its last value, and when that was."""

    range_uj: int
    greatest_w: float
    value_uj: int
    t_ns: int
    total_uj: int = 0


def advance(count: Count, value_uj: int, t_ns: int) -> tuple[Count, str | None]:
    """The count after another value, and ``gap`` or ``lower_bound`` if it cannot be fully trusted.

    The counter has 2**32 units and ``range_uj`` is its greatest value, one unit below the modulus.
    """
    seconds = (t_ns - count.t_ns + 2 * UPDATE_NS) / 1e9
    step_uj = value_uj - count.value_uj
    if step_uj < 0:
        step_uj += count.range_uj + max(1, round(count.range_uj / (2**32 - 1)))
    moved = replace(count, value_uj=value_uj, t_ns=t_ns)
    if not 0 <= step_uj <= count.greatest_w * seconds * 1e6:
        return moved, "gap"
    long = seconds * count.greatest_w * 1e6 > count.range_uj
    return replace(moved, total_uj=count.total_uj + step_uj), "lower_bound" if long else None


def zones(root: Path) -> tuple[Zone, ...]:
    """All RAPL zones of the tree, those of intel-rapl before those of intel-rapl-mmio.

    Raises OSError if the tree cannot be listed.
    """
    names: dict[str, str] = {}
    for entry in sorted(path.name for path in (root / POWERCAP).iterdir()):
        if _ENTRY.fullmatch(entry):
            names[entry] = (root / POWERCAP / entry / "name").read_text().strip()
    found = []
    for entry in sorted(names, key=lambda entry: (entry.startswith("intel-rapl-mmio"), entry)):
        parent = names.get(entry.rpartition(":")[0])
        found.append(Zone(root / POWERCAP / entry, f"{parent}/{names[entry]}" if parent else names[entry]))
    return tuple(found)


def open_meter(options: DriverOptions) -> Meter:
    """The counters of this host; raises MeterUnavailable saying what is missing or not allowed."""
    _, given = options.parse("rapl", "idle_w", "idle_u_w")
    tree = options.root / POWERCAP
    try:
        found = zones(options.root)
    except FileNotFoundError as error:
        remedy = "it takes x86 and intel_rapl (modprobe intel_rapl_msr); most virtual machines have none"
        raise MeterUnavailable("rapl", f"{error.filename} does not exist", remedy) from error
    except PermissionError as error:
        raise _forbidden(error.filename) from error
    if not any(zone.counted for zone in found):
        raise MeterUnavailable("rapl", f"{tree} has no package zone", "modprobe intel_rapl_msr")
    opened = _open_all(found, options.clock_ns)
    kept = _without_mirrors(opened)
    sensor = Sensor(
        name="rapl",
        method="counter",
        scope="package",
        sensor_host=sensor_host(options.root, f"/{POWERCAP}/intel-rapl"),
        detail="total of " + ", ".join(zone.zone.rail for zone in kept if zone.zone.counted),
        gain_u=GAIN_U,
    )
    return _Rapl(sensor, given_idle(given), kept, options.clock_ns, mirrored=len(opened) - len(kept))


@dataclass
class _Open:
    """A zone with its descriptor, which stays open: a read costs 1 us instead of 20."""

    zone: Zone
    descriptor: int
    count: Count

    def look(self, clock_ns: Callable[[], int]) -> str | None:
        """Counts on; what ``advance`` says, or ``failed_read``: a missing sample, never a zero."""
        try:
            value_uj, t_ns = _value(self.descriptor, clock_ns)
        except (OSError, ValueError):
            return "failed_read"
        self.count, flag = advance(self.count, value_uj, t_ns)
        return flag


class _Rapl:
    def __init__(
        self,
        sensor: Sensor,
        idle: Idle | None,
        opened: Sequence[_Open],
        clock_ns: Callable[[], int],
        *,
        mirrored: int,
    ) -> None:
        self.sensor, self.idle = sensor, idle
        self._opened, self._clock_ns = opened, clock_ns
        self._flags = Counter({"mirrored_dies": mirrored} if mirrored else {})
        self._last, self._variance_j2 = Reading(clock_ns(), 0.0), 0.0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rapl", daemon=True)
        self._thread.start()

    def read(self) -> Reading:
        """A fresh look at every zone; raises MeterUnavailable if one of the total's does not answer."""
        with self._lock:
            before_ns = self._clock_ns()
            failed = self._look()
            t_ns = (before_ns + self._clock_ns()) // 2
            if lost := [opened.zone.rail for opened in failed if opened.zone.counted]:
                raise MeterUnavailable("rapl", f"no answer from {', '.join(lost)}")
            energy_j = sum(opened.count.total_uj for opened in self._opened if opened.zone.counted) / 1e6
            step_j, step_ns = energy_j - self._last.energy_j, max(t_ns - self._last.t_ns, UPDATE_NS)
            # Both edges of the window that ends here are late by 0 to 1 ms, uniformly.
            self._variance_j2 += 2 * (step_j * UPDATE_NS / step_ns) ** 2 / 3
            rails = {
                opened.zone.rail: opened.count.total_uj / 1e6
                for opened in self._opened
                if opened not in failed
            }
            self._last = Reading(t_ns, energy_j, self._variance_j2, rails, dict(self._flags))
            return self._last

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:  # noqa: ARG002 - Meter's signature
        """None: these are counters."""
        return None

    def close(self) -> None:
        """Ends the thread and closes the zones."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            for opened in self._opened:
                os.close(opened.descriptor)
            self._opened = ()

    def _look(self) -> list[_Open]:
        failed = []
        for opened in self._opened:
            flag = opened.look(self._clock_ns)
            if flag == "failed_read":
                failed.append(opened)
            if flag and (opened.zone.counted or flag == "failed_read"):
                self._flags[flag] += 1
        return failed

    def _watch(self) -> None:
        fastest_s = min(
            opened.count.range_uj / 1e6 / (2 * opened.count.greatest_w)
            for opened in self._opened
            if opened.zone.counted
        )
        while not self._stop.wait(min(SLOWEST_S, fastest_s)):
            with self._lock:
                self._look()


def _open_all(found: Iterable[Zone], clock_ns: Callable[[], int]) -> list[_Open]:
    """Every rail once, from the first controller that lets it be read; only the total's must be."""
    opened: dict[str, _Open] = {}
    refused: dict[str, OSError] = {}
    for zone in found:
        if zone.rail in opened:
            continue
        try:
            opened[zone.rail] = _open_zone(zone, clock_ns)
            refused.pop(zone.rail, None)
        except OSError as error:
            if zone.counted:
                refused.setdefault(zone.rail, error)
    for reason in refused.values():
        for other in opened.values():
            os.close(other.descriptor)
        if isinstance(reason, PermissionError):
            raise _forbidden(reason.filename) from reason
        raise MeterUnavailable("rapl", f"cannot read {reason.filename}: {reason.strerror}") from reason
    return list(opened.values())


def _open_zone(zone: Zone, clock_ns: Callable[[], int]) -> _Open:
    range_uj = int((zone.folder / "max_energy_range_uj").read_text())
    limit = zone.folder / "constraint_0_max_power_uw"
    limit_w = int(limit.read_text()) / 1e6 if limit.exists() else 0.0  # many state none, some state 0
    path = zone.folder / "energy_uj"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        value_uj, t_ns = _value(descriptor, clock_ns)
    except (OSError, ValueError) as error:
        os.close(descriptor)
        raise OSError(getattr(error, "errno", 0), str(error), str(path)) from error
    return _Open(zone, descriptor, Count(range_uj, 2 * limit_w or GREATEST_W, value_uj, t_ns))


def _value(descriptor: int, clock_ns: Callable[[], int]) -> tuple[int, int]:
    """Microjoules, and the middle of the time that reading them took."""
    before_ns = clock_ns()
    value_uj = int(os.pread(descriptor, 64, 0))
    return value_uj, (before_ns + clock_ns()) // 2


def _without_mirrors(opened: Sequence[_Open]) -> list[_Open]:
    """One die of each package whose dies show one and the same counter, twice, within a joule."""
    kept: list[_Open] = []
    for die in opened:
        package, is_die, _ = die.zone.rail.partition("-die-")
        twins = [
            other
            for other in kept
            if is_die and other.zone.rail.startswith(f"{package}-die-") and _same(die, other)
        ]
        if twins:
            os.close(die.descriptor)
        else:
            kept.append(die)
    return kept


def _same(one: _Open, other: _Open) -> bool:
    at_open = one.count.value_uj, other.count.value_uj
    now = int(os.pread(one.descriptor, 64, 0)), int(os.pread(other.descriptor, 64, 0))
    return all(a > 0 and abs(a - b) <= 1_000_000 for a, b in (at_open, now))


def _forbidden(path: str) -> MeterUnavailable:
    return MeterUnavailable(
        "rapl",
        f"RAPL is here, but {path} may not be read (root only since Linux 5.10, CVE-2020-8694)",
        "run as root, or chmod o+r energy_uj by a udev rule, which opens the PLATYPUS side channel",
    )
