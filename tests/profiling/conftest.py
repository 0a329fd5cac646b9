"""A clock that is set by hand and a powercap tree whose counters are files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613


@dataclass
class Clock:
    """Nanoseconds that pass only when told."""

    t_ns: int = 1_000_000_000

    def __call__(self) -> int:
        return self.t_ns

    def pass_s(self, seconds: float) -> None:
        self.t_ns += round(seconds * 1e9)


@dataclass
class Powercap:
    """Zones by entry name, as the kernel lists them: nested folders, and a flat link to each of them."""

    root: Path
    energies: dict[str, int] = field(default_factory=dict)

    def zone(self, entry, name, energy_uj, range_uj=PACKAGE_RANGE_UJ):
        controller, *numbers = entry.split(":")
        nested = [":".join([controller, *numbers[: k + 1]]) for k in range(len(numbers))]
        folder = self.root / "sys/class/powercap" / "/".join([controller, *nested])
        folder.mkdir(parents=True)
        self.folder(entry).symlink_to("/".join([controller, *nested]))
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.set(entry, energy_uj)

    def set(self, entry, energy_uj):
        self.energies[entry] = energy_uj
        (self.folder(entry) / "energy_uj").write_text(f"{energy_uj}\n")

    def add(self, entry, energy_uj):
        self.set(entry, self.energies[entry] + energy_uj)

    def folder(self, entry):
        return self.root / "sys/class/powercap" / entry


def _seen_from_inside(tree, script, *arguments):
    """What a Python script prints that sees the tree as this host's own /sys/class/powercap.

    Only the child does (a mount namespace); skips where that is not allowed.
    """
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    mount = (
        "mount -t tmpfs tmpfs /sys/class && mkdir /sys/class/powercap && mount --bind $0 /sys/class/powercap"
    )
    shell = [
        "unshare",
        "-m",
        "bash",
        "-c",
        f'{mount} || exit 99; exec "$@"',
        str(tree / "sys/class/powercap"),
    ]
    command = [*shell, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 99:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def seen_from_inside():
    """Runs a script in a mount namespace in which a powercap tree is the host's own."""
    return _seen_from_inside


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def powercap(tmp_path):
    """A root with an empty powercap tree and a boot id."""
    (tmp_path / "sys/class/powercap/intel-rapl").mkdir(parents=True)
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("a-boot\n")
    return Powercap(tmp_path)


@pytest.fixture
def server(powercap):
    """Two sockets with dram, cores inside the first, and psys listed before all of them."""
    powercap.zone("intel-rapl:0", "psys", 5_000_000)
    powercap.zone("intel-rapl:1", "package-0", 1_000_000)
    powercap.zone("intel-rapl:1:0", "core", 500_000)
    powercap.zone("intel-rapl:1:1", "dram", 200_000, DRAM_RANGE_UJ)
    powercap.zone("intel-rapl:2", "package-1", 3_000_000)
    powercap.zone("intel-rapl:2:0", "dram", 100_000, DRAM_RANGE_UJ)
    return powercap
