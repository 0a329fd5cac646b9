"""The driver over the unmodified library, which reads a fake tree that only a child process sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mas_edge.profiling.drivers import pyjoules
from mas_edge.profiling.meters import DriverOptions, MeterOptionsRefused, MeterUnavailable

WINDOWS = """
import json, os, pathlib, sys
from mas_edge.profiling.drivers import pyjoules
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable, between
clock = [0]
try:
    meter = pyjoules.open_meter(DriverOptions(clock_ns=lambda: clock[0]))
except MeterUnavailable as error:
    print(json.dumps(str(error)))
    sys.exit()
found = []
for change in json.loads(sys.argv[1]):
    first = meter.read()
    for entry, value in change.items():
        path = pathlib.Path("/sys/class/powercap", entry, "energy_uj")
        path.unlink() if value is None else path.write_text(f"{value}\\n")
    clock[0] += 1000 * 10**9
    energy = between(first, meter.read())
    found.append((energy.energy_j, "gap" in energy.flags))
print(json.dumps(found))
"""


@pytest.fixture
def desktop(powercap):
    powercap.zone("intel-rapl:0", "package-0", 1_000_000)
    powercap.zone("intel-rapl:0:0", "core", 300_000)
    powercap.zone("intel-rapl:0:1", "dram", 500_000)
    return powercap


@pytest.fixture
def windows(seen_from_inside):
    """(joules, whether there was a gap) of windows in which counters change, or the refusal."""
    return lambda tree, *changes: json.loads(seen_from_inside(tree.root, WINDOWS, json.dumps(changes)))


def test_it_counts_packages_and_memory_and_never_a_negative_joule(windows, desktop):
    plain, wrap, after, missing, back = windows(
        desktop,
        {"intel-rapl:0": 21_000_000, "intel-rapl:0:0": 9_000_000, "intel-rapl:0:1": 2_500_000},
        {"intel-rapl:0": 4_000_000},
        {"intel-rapl:0": 5_000_000},
        {"intel-rapl:0:1": None, "intel-rapl:0": 6_000_000},
        {"intel-rapl:0:1": 3_500_000},
    )
    assert plain == [pytest.approx(22.0), False]
    assert wrap == [0.0, True]
    assert after == [pytest.approx(1.0), False]
    assert missing == [pytest.approx(1.0), True]
    assert back == [pytest.approx(1.0), True]


def test_a_tree_with_psys_first_is_refused_because_the_library_loses_its_packages(windows, server):
    assert "finds 0 of 2 package zones (package-0, package-1)" in windows(server)


def test_a_package_that_the_library_passes_over_is_a_refusal(windows, powercap):
    for number, name in enumerate(["package-0", "psys", "package-1"]):
        powercap.zone(f"intel-rapl:{number}", name, 1_000_000)
    assert "finds 1 of 2 package zones" in windows(powercap)


def test_dies_are_refused(windows, powercap):
    powercap.zone("intel-rapl:0", "package-0-die-0", 1_000_000)
    powercap.zone("intel-rapl:1", "package-0-die-1", 2_000_000)
    assert "finds 0 of 2 package zones" in windows(powercap)


def test_a_counter_without_a_number_is_a_refusal_and_not_a_value_error(windows, desktop):
    (desktop.folder("intel-rapl:0:1") / "energy_uj").write_text("garbage\n")
    assert "the library broke" in windows(desktop)


def test_it_reads_the_host_alone(tmp_path):
    with pytest.raises(MeterUnavailable, match="host's own"):
        pyjoules.open_meter(DriverOptions(tmp_path))


def test_it_takes_no_argument():
    with pytest.raises(MeterOptionsRefused, match="cannot read"):
        pyjoules.open_meter(DriverOptions(argument="gpu"))


@pytest.mark.skipif(Path("/", pyjoules.TREE).exists(), reason="this host has RAPL")
def test_a_host_without_rapl_is_a_clear_refusal_where_the_library_breaks():
    with pytest.raises(MeterUnavailable, match="does not exist"):
        pyjoules.open_meter(DriverOptions())
