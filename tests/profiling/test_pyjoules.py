"""The unmodified library reads a fake /sys that only a child process sees (root, mount namespace)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mas_edge.profiling.drivers import pyjoules
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable

SCRIPT = """
import os, pathlib, shutil, sys
from mas_edge.profiling.drivers import pyjoules, rapl
from mas_edge.profiling.meters import DriverOptions, between
root = pathlib.Path("/sys/class/powercap")
def zone(folder, entry, name, uj):
    (root / folder).mkdir(parents=True)
    (root / folder / "name").write_text(name + "\\n")
    (root / folder / "max_energy_range_uj").write_text("262143328850\\n")
    (root / folder / "energy_uj").write_text(f"{uj}\\n")
    if not (root / entry).exists():
        (root / entry).symlink_to(root / folder)
def set_uj(entry, uj):
    (root / entry / "energy_uj").write_text(f"{uj}\\n")
zone("intel-rapl/intel-rapl:0", "intel-rapl:0", "package-0", 1000000)
zone("intel-rapl/intel-rapl:0/intel-rapl:0:0", "intel-rapl:0:0", "dram", 500000)
clock = [0]
options = DriverOptions(clock_ns=lambda: clock[0])
theirs, ours = pyjoules.open_meter(options), rapl.open_meter(options)
for package, dram in [(21000000, 2500000), (262143000000, 3000000), (4000000, 3000000)]:
    first = theirs.read(), ours.read()
    set_uj("intel-rapl:0", package)
    set_uj("intel-rapl:0:0", dram)
    clock[0] += 1000 * 10**9
    for before, after in zip(first, (theirs.read(), ours.read())):
        energy = between(before, after)
        print(energy.energy_j, "gap" in energy.flags, end=" ")
    print()
ours.close()
"""


def test_it_reads_the_host_alone(tmp_path):
    with pytest.raises(MeterUnavailable, match="host's own"):
        pyjoules.open_meter(DriverOptions(tmp_path))


@pytest.mark.skipif(Path("/", pyjoules.TREE).exists(), reason="this host has RAPL")
def test_a_host_without_rapl_is_a_clear_refusal_where_the_library_breaks():
    with pytest.raises(MeterUnavailable, match="does not exist"):
        pyjoules.open_meter(DriverOptions())


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_it_agrees_with_rapl_until_a_wrap_and_never_shows_a_negative_joule():
    command = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs tmpfs /sys/class && exec "$0" -c "$1"']
    done = subprocess.run([*command, sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    if "mount" in done.stderr and done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    plain, _, wrap = (line.split() for line in done.stdout.splitlines())
    assert float(plain[0]) == pytest.approx(float(plain[2])) == pytest.approx(22.0)
    assert wrap[:2] == ["0.0", "True"]
    assert float(wrap[2]) == pytest.approx(262143.328911 - 262143.0 + 4.0)
    assert wrap[3] == "False"
