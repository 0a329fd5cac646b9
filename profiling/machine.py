"""How a host is set and how warm it is, as the kernel and the board's own files say.

``look`` reads what decides a board's idle power (power mode, governor, clock limits, cores that are on:
4.76 W against 6.63 W with jetson_clocks on an Orin Nano), its temperature and whether it is slowed by
heat. ``same_settings`` is what a stored baseline asks: temperature and throttling are none. Whatever a host
does not tell stays None. A look reads some dozens of files and takes milliseconds; it starts no process.

Sources: kernel Documentation/ABI (thermal zones and cooling devices, cpufreq, thermal_throttle counters of
x86, get_throttled of the Raspberry Pi's firmware driver); NVIDIA's nvpmodel keeps its mode in
/var/lib/nvpmodel/status. Clocks of GPU and memory are not looked at.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mas_edge.wire.messages import Machine

_CPU = "sys/devices/system/cpu"
_SLOWING = ("cpu", "gpu", "thermal-", "throttle", "processor")
"""Kinds of cooling device that slow a processor down, by a part of their type; fans do not."""
_PI_SLOWED = 0b1110
"""Of get_throttled: clock capped, throttled, soft temperature limit; each as it is now."""


def look(root: Path = Path("/")) -> Machine:
    """The host as it is now."""
    clocks = [_clock_limits(folder) for folder in sorted((root / _CPU).glob("cpu[0-9]*/cpufreq"))]
    governors = {_text(folder / "scaling_governor") for folder in (root / _CPU).glob("cpu[0-9]*/cpufreq")}
    zones = (_number(zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*"))
    degrees = [
        zone / 1000 for zone in zones if zone is not None and zone > 0
    ]  # a sensor that is off says -256
    return Machine(
        model=_model(root),
        kernel=_kernel(root),
        power_mode=_power_mode(root),
        governor="+".join(sorted(filter(None, governors))) or None,
        cores=_cores(root),
        clock_min_hz=min((low for low, _ in clocks if low), default=None),
        clock_max_hz=max((high for _, high in clocks if high), default=None),
        temperature_c=max(degrees, default=None),
        throttled=_throttled(root),
        throttle_count=_throttle_count(root),
    )


def same_settings(one: Machine, other: Machine) -> bool:
    """Whether a host's idle power may be taken to be the same, its warmth aside."""
    return _settings(one) == _settings(other)


def settings_that_differ(one: Machine, other: Machine) -> tuple[str, ...]:
    """What changed from one to the other, as ``governor: schedutil, was performance``."""
    a, b = (msgspec.structs.asdict(_settings(machine)) for machine in (one, other))
    return tuple(f"{name}: {b[name]}, was {a[name]}" for name in a if a[name] != b[name])


def since(before: Machine | None, now: Machine) -> Machine:
    """``now``, with ``throttled`` also if heat has slowed the host since ``before``."""
    if before is None or before.throttle_count is None or now.throttle_count is None:
        return now
    return msgspec.structs.replace(
        now, throttled=bool(now.throttled) or now.throttle_count > before.throttle_count
    )


def _settings(machine: Machine) -> Machine:
    return msgspec.structs.replace(machine, temperature_c=None, throttled=None, throttle_count=None)


def _model(root: Path) -> str | None:
    if board := _text(root / "proc/device-tree/model"):
        return board
    dmi = root / "sys/class/dmi/id"
    words = [word for name in ("sys_vendor", "product_name") if (word := _text(dmi / name))]
    return " ".join(words) or None


def _kernel(root: Path) -> str | None:
    kernel, l4t = _text(root / "proc/sys/kernel/osrelease"), _text(root / "etc/nv_tegra_release")
    if kernel and l4t:  # "# R35 (release), REVISION: 4.1, GCID: ..."
        release, _, rest = l4t.removeprefix("# ").partition(" (release), REVISION: ")
        return f"{kernel}, L4T {release}.{rest.partition(',')[0]}"
    return kernel


def _power_mode(root: Path) -> str | None:
    status = (_text(root / "var/lib/nvpmodel/status") or "").split()
    return next((word.partition(":")[2] for word in status if word.startswith("pmode:")), None)


def _cores(root: Path) -> int | None:
    """Processors that are on: ``0-2,4`` are four."""
    text = _text(root / _CPU / "online")
    try:
        ranges = [part.partition("-") for part in (text or "").split(",") if part]
        return sum(int(last or first) - int(first) + 1 for first, _, last in ranges) or None
    except ValueError:
        return None


def _clock_limits(folder: Path) -> tuple[int | None, int | None]:
    low, high = (_number(folder / name) for name in ("scaling_min_freq", "scaling_max_freq"))
    return None if low is None else low * 1000, None if high is None else high * 1000


def _throttled(root: Path) -> bool | None:
    """Whether heat or current slows the host now; None if nothing here could tell."""
    told = [_pi_slowed(root / "sys/devices/platform/soc/soc:firmware/get_throttled")]
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        kind, state = (_text(device / "type") or "").lower(), _number(device / "cur_state")
        if state is not None and "fan" not in kind and any(word in kind for word in _SLOWING):
            told.append(state > 0)
    return max((word for word in told if word is not None), default=None)


def _pi_slowed(path: Path) -> bool | None:
    try:
        return bool(int(_text(path) or "", 16) & _PI_SLOWED)
    except ValueError:
        return None


def _throttle_count(root: Path) -> int | None:
    cores = (root / _CPU).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    overcurrents = (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")
    counts = [count for path in (*cores, *overcurrents) if (count := _number(path)) is not None]
    return sum(counts) if counts else None


def _text(path: Path) -> str | None:
    """A file's text without its end; None if it is not there, not readable, or empty."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ") or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None
