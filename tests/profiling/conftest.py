"""A clock that is set by hand and a powercap tree whose counters are files."""

from __future__ import annotations

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
    """Zones by entry name, as the kernel lists them: flat, whatever their nesting."""

    root: Path
    energies: dict[str, int] = field(default_factory=dict)

    def zone(self, entry, name, energy_uj, range_uj=PACKAGE_RANGE_UJ):
        folder = self.folder(entry)
        folder.mkdir(parents=True)
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
