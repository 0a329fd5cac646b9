"""One fake tree, read by us and by the unmodified pyJoules: where they agree, and where and why they do not.

The library is used as its users do: an ``EnergyMeter`` over the devices that its factory finds. Each
disagreement is pinned with its reason, so that a release that mends one is noticed here. Others (Zeus) are
compared in bench/meters.py.
"""

from __future__ import annotations

import json

import pytest

BOTH = """
import json, pathlib, sys
from pyJoules.device.device_factory import DeviceFactory
from pyJoules.device.rapl_device import RaplDevice
from pyJoules.energy_meter import EnergyMeter
from mas_edge.profiling.drivers import rapl
from mas_edge.profiling.meters import DriverOptions, begin, end
theirs = EnergyMeter(DeviceFactory.create_devices(RaplDevice.available_domains()))
clock = [0]
ours = rapl.open_meter(DriverOptions(clock_ns=lambda: clock[0]))
found = []
for change in json.loads(sys.argv[1]):
    mark = begin(ours, lambda: clock[0])
    theirs.start()
    for entry, value in change.items():
        pathlib.Path("/sys/class/powercap", entry, "energy_uj").write_text(f"{value}\\n")
    clock[0] += 1000 * 10**9
    theirs.stop()
    energy = end(mark).settle()
    sample = {name: uj / 1e6 for name, uj in theirs.get_trace()[0].energy.items()}
    found.append({"ours": energy.energy_j, "rails": dict(energy.by_rail_j), "theirs": sample})
ours.close()
print(json.dumps(found))
"""
ALONE = """
from pyJoules.device.device_factory import DeviceFactory
from pyJoules.energy_meter import EnergyMeter
from mas_edge.profiling.meters import MeterUnavailable, open_one
meter = EnergyMeter(DeviceFactory.create_devices())
meter.start()
meter.stop()
try:
    meter.get_trace()
except TypeError as error:
    print(error)
try:
    open_one("rapl")
except MeterUnavailable as error:
    print(error)
"""


@pytest.fixture
def two_sockets(powercap):
    """As the library likes it: zone N is package N."""
    for socket in (0, 1):
        powercap.zone(f"intel-rapl:{socket}", f"package-{socket}", 1_000_000)
        powercap.zone(f"intel-rapl:{socket}:0", "core", 400_000)
        powercap.zone(f"intel-rapl:{socket}:1", "dram", 200_000, 65_712_999_613)
    return powercap


@pytest.fixture
def both(seen_from_inside):
    return lambda tree, *changes: json.loads(seen_from_inside(tree.root, BOTH, json.dumps(changes)))


def total(sample):
    """What a user of the library adds up, who knows that cores are inside of packages."""
    return sum(value for name, value in sample.items() if name.startswith(("package", "dram")))


def test_in_a_plain_window_they_agree(both, two_sockets):
    (window,) = both(
        two_sockets,
        {
            "intel-rapl:0": 61_000_000,
            "intel-rapl:0:0": 41_000_000,
            "intel-rapl:0:1": 3_200_000,
            "intel-rapl:1": 46_000_000,
            "intel-rapl:1:1": 2_200_000,
        },
    )
    assert window["ours"] == pytest.approx(110.0, rel=1e-9)
    assert total(window["theirs"]) == pytest.approx(window["ours"], rel=0.01)
    assert window["rails"]["package-0/core"] == pytest.approx(window["theirs"]["core_0"], rel=0.01)


def test_over_a_wrap_the_library_loses_the_whole_range(both, two_sockets):
    """It subtracts, and does not know max_energy_range_uj."""
    first, wrap = both(two_sockets, {"intel-rapl:0": 262_143_000_000}, {"intel-rapl:0": 7_200_000})
    assert first["ours"] == pytest.approx(262_142.0)
    assert wrap["ours"] == pytest.approx(0.328911 + 7.2, abs=1e-6)
    assert total(wrap["theirs"]) == pytest.approx(-262_135.8, abs=0.1)


def test_with_psys_first_the_library_keeps_the_memory_and_loses_the_packages(both, server):
    """It takes zone N for package N, compares the name, and drops what differs."""
    (window,) = both(server, {"intel-rapl:1": 21_000_000, "intel-rapl:1:1": 1_200_000})
    assert window["ours"] == pytest.approx(21.0)
    assert sorted(window["theirs"]) == ["core_1", "dram_1", "dram_2"]
    assert total(window["theirs"]) == pytest.approx(1.0)


def test_adding_up_all_that_the_library_finds_counts_the_cores_twice(both, two_sockets):
    (window,) = both(two_sockets, {"intel-rapl:0": 11_000_000, "intel-rapl:0:0": 8_400_000})
    assert window["ours"] == pytest.approx(10.0)
    assert sum(window["theirs"].values()) == pytest.approx(18.0)


def test_without_rapl_the_library_breaks_where_we_say_what_is_missing(seen_from_inside, tmp_path):
    (tmp_path / "sys/class/powercap").mkdir(parents=True)
    theirs, ours = seen_from_inside(tmp_path, ALONE).splitlines()
    assert "reduce() of empty iterable" in theirs
    assert ours.startswith("rapl: /sys/class/powercap has no package zone; ")
