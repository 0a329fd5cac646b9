from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.drivers.powercap import names, twin_group, zones

SERVER = {
    "intel-rapl:0": "psys",
    "intel-rapl:1": "package-0",
    "intel-rapl:1:0": "core",
    "intel-rapl:1:1": "dram",
    "intel-rapl:2": "package-1",
    "intel-rapl:2:0": "dram",
    "intel-rapl-mmio:0": "package-0",
}


def rails(named, *kinds):
    return [zone.rail for zone in zones(named) if zone.kind in kinds]


def test_a_zone_is_what_its_name_says_whatever_its_number():
    assert rails(SERVER, "package") == ["package-0", "package-1", "package-0"]
    assert rails(SERVER, "dram") == ["package-0/dram", "package-1/dram"]
    assert rails(SERVER, "psys") == ["platform"]
    assert rails(SERVER, "other") == ["package-0/core"]


def test_the_preferred_controller_comes_first():
    assert [zone.entry for zone in zones(SERVER) if zone.rail == "package-0"] == [
        "intel-rapl:1",
        "intel-rapl-mmio:0",
    ]


@given(st.permutations(sorted(SERVER.items())))
def test_the_order_of_the_listing_does_not_matter(items):
    assert zones(dict(items)) == zones(SERVER)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("package-0", "package"),
        ("package-12-die-3", "package"),
        ("dram", "dram"),
        ("psys", "psys"),
        ("psys-1", "psys"),
        ("core", "other"),
        ("uncore", "other"),
        ("package-0-die-", "other"),
        ("my-package-0", "other"),
        ("dram2", "other"),
        ("", "other"),
    ],
)
def test_kinds(name, kind):
    assert zones({"intel-rapl:0": name})[0].kind == kind


@given(st.lists(st.sampled_from(["package-0", "dram", "core", "psys", "odd"]), max_size=8))
def test_within_one_controller_no_two_zones_share_a_rail(kinds):
    named = {f"intel-rapl:{k}": name for k, name in enumerate(kinds)}
    found = [zone.rail for zone in zones(named)]
    assert len(found) == len(set(found)) == len(kinds)


def test_only_zones_are_taken_from_the_listing(powercap):
    powercap.zone("intel-rapl:0", "package-0", 1)
    powercap.zone("intel-rapl:0:0", "core", 1)
    for other in ("dtpm:0", "intel-rapl:0:0:0", "intel-rapl:x"):
        (powercap.root / "sys/class/powercap" / other).mkdir()
    assert names(powercap.root) == {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core"}


@pytest.mark.parametrize(
    ("rail", "group"),
    [
        ("package-0-die-1", "package-0"),
        ("package-0-die-1/dram", "package-0/dram"),
        ("package-0", None),
        ("package-0/dram", None),
    ],
)
def test_what_the_dies_of_a_package_have_in_common(rail, group):
    assert twin_group(rail) == group
