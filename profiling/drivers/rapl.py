"""Intel's and AMD's RAPL energy counters through the kernel's powercap tree.

The total is the packages (or their dies) plus memory; ``powercap`` says which zones these are, ``counters``
how they are read and counted. ``rapl:total=psys`` takes the platform's own counter instead, where there is
one: what it covers differs by vendor. Dies that show one and the same counter are counted once.
``rapl:idle_w=W,idle_u_w=U`` gives an idle power.

Sources: kernel Documentation/power/powercap/powercap.rst; INTEL-SA-00389 (CVE-2020-8694: why the counters
are root's); CVE-2020-8695 (energy filtering adds noise where SGX is on). It does not know what a process
used; a virtual machine has no RAPL, or that of all its host; on AMD it is packages and cores alone.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mas_edge.profiling.counter import Limits, rapl_modulus_uj
from mas_edge.profiling.drivers.counters import (
    CounterMeter,
    FileSource,
    Tally,
    number,
    slept_ns,
    tally,
    why,
)
from mas_edge.profiling.drivers.powercap import POWERCAP, Zone, names, twin_group, zones
from mas_edge.profiling.meters import (
    DriverOptions,
    Meter,
    MeterUnavailable,
    given_idle,
    sensor_host,
)
from mas_edge.wire.messages import Sensor

UPDATE_NS = 1_000_000
"""The hardware renews a counter about every millisecond: what a reading is late by at most."""
GREATEST_W = 1000.0
"""A zone's greatest believable power where the kernel states no limit."""
LEAST_GREATEST_W = 100.0
"""No stated limit lowers it below this: a 15 W laptop's package takes 64 W for some seconds."""
GAIN_U = 0.05
"""Relative standard uncertainty of RAPL as long as nobody calibrated it."""
TWIN_UJ = 1_000_000
"""Two counters closer than this, at two moments, are one and the same."""
TWIN_S = 0.005
"""The time between these two moments: some updates of the hardware."""
PSYS = "total=psys"


def open_meter(options: DriverOptions, slept_ns: Callable[[], int] = slept_ns) -> Meter:
    """The counters of this host; raises MeterUnavailable saying what is missing or not allowed."""
    given, psys = _asked(options)
    opened = _open_all(options, _found(options.root, psys=psys), psys=psys)
    try:
        mirrors = _mirrors(opened)
    except OSError as error:
        _close(opened)
        raise _unreadable(error) from error
    _close(mirrors)
    kept = [one for one in opened if one not in mirrors]
    detail = "total of " + ", ".join(one.rail for one in kept if one.counted)
    if mirrors:
        detail += f"; left out as the same counter again: {', '.join(one.rail for one in mirrors)}"
    sensor = Sensor(
        name="rapl",
        method="counter",
        scope="board" if psys else "package",
        sensor_host=sensor_host(options.root, f"/{POWERCAP}/intel-rapl" + ("/psys" if psys else "")),
        detail=detail,
        gain_u=GAIN_U,
        rate_hz=1e9 / UPDATE_NS,
    )
    return CounterMeter(sensor, given_idle(given), kept, options.clock_ns, UPDATE_NS, slept_ns)


def _asked(options: DriverOptions) -> tuple[dict[str, float], bool]:
    """The numbers of the specification, and whether psys shall be the total."""
    items = [item for item in options.argument.split(",") if item]
    psys = PSYS in items
    rest = ",".join(item for item in items if item != PSYS)
    given = replace(options, argument=rest).numbers("rapl", "idle_w", "idle_u_w")
    return given, psys


def _found(root: Path, *, psys: bool) -> tuple[Zone, ...]:
    try:
        found = zones(names(root))
    except FileNotFoundError as error:
        remedy = "it takes x86 and intel_rapl (modprobe intel_rapl_msr); most virtual machines have none"
        raise MeterUnavailable("rapl", f"{error.filename} does not exist", remedy) from error
    except OSError as error:
        raise _unreadable(error) from error
    kinds, tree = {zone.kind for zone in found}, root / POWERCAP
    if psys and "psys" not in kinds:
        raise MeterUnavailable("rapl", f"{tree} has no psys zone", f"leave {PSYS} away")
    if not psys and "package" not in kinds:
        raise MeterUnavailable("rapl", f"{tree} has no package zone", "modprobe intel_rapl_msr")
    return found


def _open_all(options: DriverOptions, found: Iterable[Zone], *, psys: bool) -> list[Tally]:
    """Every rail once, from the first controller that lets it be read; only the total's must be."""
    total = ("psys",) if psys else ("package", "dram")
    opened: dict[str, Tally] = {}
    refused: dict[str, OSError] = {}
    for zone in found:
        if zone.rail in opened:
            continue
        counted, folder = zone.kind in total, options.root / POWERCAP / zone.entry
        try:
            opened[zone.rail] = _open(folder, zone.rail, options.clock_ns, counted=counted)
            refused.pop(zone.rail, None)
        except OSError as error:
            if counted:
                refused.setdefault(zone.rail, error)
    stuck = not any(one.count.value_uj for one in opened.values() if one.counted)
    if refused or stuck:
        _close(opened.values())
    for reason in refused.values():
        raise _unreadable(reason) from reason
    if stuck:
        remedy = "so they do in some virtual machines: measure on the host"
        raise MeterUnavailable("rapl", "all its counters stand at zero", remedy)
    return list(opened.values())


def _open(folder: Path, rail: str, clock_ns: Callable[[], int], *, counted: bool) -> Tally:
    range_uj = _whole(folder / "max_energy_range_uj")
    if range_uj <= 0:
        raise OSError(errno.EINVAL, f"{range_uj} is no range", str(folder / "max_energy_range_uj"))
    limits = Limits(rapl_modulus_uj(range_uj), _greatest_w(folder))
    return tally(rail, FileSource(folder / "energy_uj"), limits, clock_ns, counted=counted)


def _greatest_w(folder: Path) -> float:
    """Twice the greatest power that the zone's constraints name, within reason.

    Of all its constraints: every boost passes the long-term one alone.
    """
    stated_w = 0.0
    for name in ("max_power_uw", "power_limit_uw"):
        for path in folder.glob(f"constraint_*_{name}"):
            with contextlib.suppress(OSError):  # many zones state none, and answer ENODATA
                stated_w = max(stated_w, _whole(path) / 1e6)
    return min(max(2 * stated_w, LEAST_GREATEST_W), GREATEST_W) if stated_w else GREATEST_W


def _whole(path: Path) -> int:
    return number(path.read_bytes(), path)


def _mirrors(opened: Sequence[Tally]) -> list[Tally]:
    """Zones of a package's further dies that show the first one's counter; raises OSError."""
    pairs = [
        (one, other)
        for k, other in enumerate(opened)
        for one in opened[:k]
        if twin_group(one.rail) and twin_group(one.rail) == twin_group(other.rail)
    ]
    alike = [pair for pair in pairs if _near(*(one.count.value_uj for one in pair))]
    if alike:
        time.sleep(TWIN_S)
    twins = [pair[1] for pair in alike if _near(*(one.source.read_uj() for one in pair))]
    return [one for one in opened if one in twins]


def _near(one_uj: int, other_uj: int) -> bool:
    return one_uj > 0 and abs(one_uj - other_uj) <= TWIN_UJ


def _close(tallies: Iterable[Tally]) -> None:
    for one in tallies:
        one.source.close()


def _unreadable(error: OSError) -> MeterUnavailable:
    if isinstance(error, PermissionError):
        return MeterUnavailable(
            "rapl",
            f"RAPL is here, but {error.filename} may not be read (root only since Linux 5.10, CVE-2020-8694)",
            "run as root, or let a group read energy_uj (udev or tmpfiles.d: chgrp, chmod g+r); chmod o+r "
            "opens the PLATYPUS side channel to every user",
        )
    remedy = "see whether dmesg tells more"
    return MeterUnavailable("rapl", f"cannot read {error.filename}: {error.strerror} ({why(error)})", remedy)
