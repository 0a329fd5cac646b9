"""A real board's sensors as a folder on which meters can be tried: what its kernel and its tools say.

``record`` copies the files that the drivers and ``machine`` read (powercap, INA3221 under both kernels,
hwmon, power supplies, thermal zones, clocks, the board's name) to the same paths below the folder, which is
then a ``root`` for every driver; reads those that move again for some seconds (``changes.csv``: seconds,
path, value); and keeps what tegrastats and vcgencmd printed, as scripts of these names in ``usr/bin`` that
print it again. ``record.json`` says when, on what kernel, and which files could not be read and why.

A file is copied only if its path is on the lists below: no serial numbers, addresses or names of people.
"""

from __future__ import annotations

import csv
import errno
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mas_edge.profiling import machine
from mas_edge.profiling.meters import MeterError
from mas_edge.wire.messages import Machine

RATE_HZ = 10.0
STATE = (
    "proc/stat",
    "proc/device-tree/model",
    "proc/sys/kernel/osrelease",
    "etc/nv_tegra_release",
    "var/lib/nvpmodel/status",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_*_freq",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/class/thermal/thermal_zone*/type",
    "sys/class/thermal/cooling_device*/type",
    "sys/class/thermal/cooling_device*/cur_state",
)
"""What stands still, or whose moving is not told."""
NAMES = (
    "sys/class/powercap/*/name",
    "sys/class/powercap/*/enabled",
    "sys/class/powercap/*/max_energy_range_uj",
    "sys/class/powercap/*/constraint_0_max_power_uw",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/name",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/*_label",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/shunt*_resistor",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/update_interval",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/samples",
    "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*",
    "sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*/*_label",
    "sys/class/hwmon/hwmon*/name",
    "sys/class/hwmon/hwmon*/*_label",
    "sys/class/power_supply/*/type",
    "sys/class/power_supply/*/scope",
    "sys/class/power_supply/*/status",
)
"""What says which sensors there are."""
MOVING = (
    "sys/class/powercap/*/energy_uj",
    "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/*_input",
    "sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_*_input",
    "sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*/power1_input",
    "sys/class/hwmon/hwmon*/power*_input",
    "sys/class/hwmon/hwmon*/energy*_input",
    "sys/class/power_supply/*/*_now",
    "sys/class/thermal/thermal_zone*/temp",
)
"""What is read again and again."""
SCRIPTS = {
    "tegrastats": """#!/bin/sh
# What tegrastats printed on the board, a line every tenth of a second, again and again.
while :; do
    while IFS= read -r line; do echo "$line"; sleep 0.1; done <"${0%/usr/bin/*}/tegrastats.txt"
done
""",
    "vcgencmd": """#!/bin/sh
# What vcgencmd pmic_read_adc printed on the board.
cat "${0%/usr/bin/*}/pmic_read_adc.txt"
""",
}
"""Stand-ins for the board's tools."""


class RecordRefused(MeterError, ValueError):
    """A folder that cannot be recorded into."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording holds: paths as below the root, and what they could not be read for."""

    machine: Machine
    t_s: float
    wall_s: float
    files: tuple[str, ...]
    unreadable: dict[str, str]
    changes: int
    commands: tuple[str, ...]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Folders and tools that say something about power."""
        folders = {str(Path(file).parent) for file in self.files if any(Path(file).match(m) for m in MOVING)}
        return (*sorted(name for name in folders if "thermal" not in name), *self.commands)


def record(root: Path, folder: Path, seconds: float) -> Recorded:
    """Fills a folder that was empty or not there; raises RecordRefused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RecordRefused(f"{folder} is not empty: name a new folder")
        made = _record(root, folder, seconds)
        (folder / "record.json").write_bytes(msgspec.json.format(msgspec.json.encode(made)))
    except OSError as error:
        raise RecordRefused(f"cannot record into {folder}: {error.strerror}") from error
    return made


def _record(root: Path, folder: Path, seconds: float) -> Recorded:
    start_s, t_s = time.monotonic(), time.time()
    unreadable: dict[str, str] = {}
    with _tegrastats(folder):
        kept = _read_all(root, (*STATE, *NAMES), unreadable)
        moving = _read_all(root, MOVING, unreadable)
        changes = _watch(root, folder, moving, seconds)
    for path, text in {**kept, **moving}.items():
        _write(folder / path, text)
    _write(folder / "proc/sys/kernel/random/boot_id", b"recorded\n")
    _pmic(folder)
    return Recorded(
        machine=machine.look(root),
        t_s=t_s,
        wall_s=time.monotonic() - start_s,
        files=(*kept, *moving),
        unreadable=unreadable,
        changes=changes,
        commands=tuple(name for name in SCRIPTS if (folder / "usr/bin" / name).exists()),
    )


def _found(root: Path, patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                yield path.relative_to(root).as_posix()


def _read_all(root: Path, patterns: Iterable[str], unreadable: dict[str, str]) -> dict[str, bytes]:
    found = {}
    for path in _found(root, patterns):
        try:
            found[path] = (root / path).read_bytes()
        except OSError as error:
            unreadable[path] = errno.errorcode.get(error.errno or 0, str(error))
    return found


def _watch(root: Path, folder: Path, moving: Mapping[str, bytes], seconds: float) -> int:
    """Reads what moves until the time is over; how many changes it wrote down."""
    last, changes, start_s = dict(moving), 0, time.monotonic()
    with (folder / "changes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("t_s", "path", "value"))
        while (passed_s := time.monotonic() - start_s) < seconds:
            for path, text in _read_all(root, moving, {}).items():
                if text != last[path]:
                    writer.writerow(
                        (f"{time.monotonic() - start_s:.4f}", path, text.decode("utf-8", "replace").strip())
                    )
                    last[path], changes = text, changes + 1
            time.sleep(max(0.0, min(1 / RATE_HZ, seconds - passed_s)))
    return changes


@contextmanager
def _tegrastats(folder: Path) -> Iterator[None]:
    """Has tegrastats write its lines, if the board has it; afterwards there is a script that repeats them."""
    command, lines = shutil.which("tegrastats"), folder / "tegrastats.txt"
    if command is None:
        yield
        return
    words = [command, "--interval", "100", "--logfile", str(lines)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if lines.exists() and lines.stat().st_size:
        _script(folder, "tegrastats")


def _pmic(folder: Path) -> None:
    """Keeps what the Raspberry Pi's power chip says, if there is vcgencmd to ask it."""
    command = shutil.which("vcgencmd")
    if command is not None:
        said = subprocess.run([command, "pmic_read_adc"], capture_output=True, check=False, timeout=10)
        (folder / "pmic_read_adc.txt").write_bytes(said.stdout)
        _script(folder, "vcgencmd")


def _script(folder: Path, name: str) -> None:
    path = folder / "usr/bin" / name
    _write(path, SCRIPTS[name].encode())
    path.chmod(0o755)


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
