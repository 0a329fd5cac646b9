from __future__ import annotations

import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.drivers import rapl
from mas_edge.profiling.drivers.rapl import Count, advance
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable, between

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613
UNITS = 2**32


@pytest.fixture
def opened(server, clock):
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock))
    yield meter
    meter.close()


def used(meter, clock, seconds, change):
    first = meter.read()
    change()
    clock.pass_s(seconds)
    return between(first, meter.read())


def test_the_total_is_packages_and_dram_and_nothing_that_they_contain(opened, server, clock):
    def change():
        for entry, energy_uj in [
            ("0", 90_000_000),
            ("1", 10_000_000),
            ("1:0", 7_000_000),
            ("1:1", 2_000_000),
        ]:
            server.add(f"intel-rapl:{entry}", energy_uj)
        server.add("intel-rapl:2", 20_000_000)
        server.add("intel-rapl:2:0", 1_000_000)

    energy = used(opened, clock, 1.0, change)
    assert energy.energy_j == pytest.approx(33.0, rel=1e-12)
    assert energy.by_rail_j["package-0/core"] == pytest.approx(7.0)
    assert energy.by_rail_j["psys"] == pytest.approx(90.0)
    assert energy.flags == ()


@pytest.mark.parametrize("entry", ["intel-rapl:1", "intel-rapl:2", "intel-rapl:1:1"])
def test_each_zone_wraps_at_its_own_range(server, clock, entry):
    range_uj = DRAM_RANGE_UJ if entry.count(":") == 2 else PACKAGE_RANGE_UJ
    server.set(entry, range_uj - 3_000_000)
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock))
    energy = used(meter, clock, 1.0, lambda: server.set(entry, 4_000_000))
    meter.close()
    assert energy.energy_j == pytest.approx(7.0, abs=1e-3)
    assert "gap" not in energy.flags


def test_two_zones_that_wrap_in_one_interval_both_count(server, clock):
    server.set("intel-rapl:1", PACKAGE_RANGE_UJ)
    server.set("intel-rapl:1:1", DRAM_RANGE_UJ)
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock))

    def change():
        server.set("intel-rapl:1", 5_000_000)
        server.set("intel-rapl:1:1", 2_000_000)

    energy = used(meter, clock, 1.0, change)
    meter.close()
    assert energy.energy_j == pytest.approx(7.0, abs=1e-3)


def test_the_greatest_value_is_reached_without_a_wrap(server, clock):
    server.set("intel-rapl:1", PACKAGE_RANGE_UJ - 1_000_000)
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock))
    energy = used(meter, clock, 1.0, lambda: server.set("intel-rapl:1", PACKAGE_RANGE_UJ))
    meter.close()
    assert energy.energy_j == pytest.approx(1.0)


def test_a_counter_that_was_reset_is_a_gap_and_counts_on_from_there(opened, server, clock):
    server.add("intel-rapl:2", 500_000_000)
    clock.pass_s(1.0)
    opened.read()
    energy = used(opened, clock, 1.0, lambda: server.set("intel-rapl:2", 0))
    assert energy.energy_j == 0.0
    assert energy.flags == ("gap",)
    after = used(opened, clock, 1.0, lambda: server.set("intel-rapl:2", 2_000_000))
    assert after.energy_j == pytest.approx(2.0)
    assert after.flags == ()


def test_an_interval_in_which_a_wrap_may_hide_is_a_lower_bound(opened, server, clock):
    energy = used(opened, clock, 1000.0, lambda: server.add("intel-rapl:1", 1_000_000))
    assert energy.flags == ("lower_bound",)


def test_a_zone_that_stops_answering_is_missing_and_never_zero(opened, server, clock):
    first = opened.read()
    (server.folder("intel-rapl:1") / "energy_uj").write_text("")
    clock.pass_s(1.0)
    with pytest.raises(MeterUnavailable, match="package-0"):
        opened.read()
    server.add("intel-rapl:1", 4_000_000)
    clock.pass_s(1.0)
    energy = between(first, opened.read())
    assert energy.energy_j == pytest.approx(4.0)
    assert energy.flags == ("failed_read",)


def test_a_controller_that_shows_the_same_zone_again_is_not_counted_twice(powercap, clock):
    powercap.zone("intel-rapl-mmio:0", "package-0", 77)
    powercap.zone("intel-rapl:0", "package-0", 1_000_000)
    meter = rapl.open_meter(DriverOptions(powercap.root, clock_ns=clock))
    energy = used(meter, clock, 1.0, lambda: powercap.add("intel-rapl:0", 3_000_000))
    meter.close()
    assert energy.energy_j == pytest.approx(3.0)
    assert meter.sensor.detail == "total of package-0"


def test_the_other_controller_serves_where_the_first_cannot_be_read(powercap, clock):
    powercap.zone("intel-rapl:0", "package-0", 1)
    (powercap.folder("intel-rapl:0") / "energy_uj").unlink()
    powercap.zone("intel-rapl-mmio:0", "package-0", 1_000_000)
    meter = rapl.open_meter(DriverOptions(powercap.root, clock_ns=clock))
    energy = used(meter, clock, 1.0, lambda: powercap.add("intel-rapl-mmio:0", 3_000_000))
    meter.close()
    assert energy.energy_j == pytest.approx(3.0)


@pytest.mark.parametrize(("second_uj", "counted_j"), [(10_000_000, 2.0), (900_000_000, 4.0)])
def test_dies_are_summed_unless_they_mirror_each_other(powercap, clock, second_uj, counted_j):
    powercap.zone("intel-rapl:0", "package-0-die-0", 10_000_000)
    powercap.zone("intel-rapl:1", "package-0-die-1", second_uj)
    meter = rapl.open_meter(DriverOptions(powercap.root, clock_ns=clock))

    def change():
        powercap.add("intel-rapl:0", 2_000_000)
        powercap.add("intel-rapl:1", 2_000_000)

    energy = used(meter, clock, 1.0, change)
    mirrored = "mirrored_dies" in meter.read().flags
    meter.close()
    assert energy.energy_j == pytest.approx(counted_j)
    assert mirrored == (counted_j == 2.0)


def test_an_unknown_zone_is_reported_and_never_added(powercap, clock):
    powercap.zone("intel-rapl:0", "package-0", 1_000_000)
    powercap.zone("intel-rapl:1", "something-new", 1_000_000)
    meter = rapl.open_meter(DriverOptions(powercap.root, clock_ns=clock))
    energy = used(meter, clock, 1.0, lambda: powercap.add("intel-rapl:1", 5_000_000))
    meter.close()
    assert energy.energy_j == 0.0
    assert energy.by_rail_j["something-new"] == pytest.approx(5.0)


def test_a_host_without_rapl_is_told_what_it_lacks(tmp_path):
    with pytest.raises(MeterUnavailable, match="does not exist") as caught:
        rapl.open_meter(DriverOptions(tmp_path))
    assert "intel_rapl" in caught.value.refusal.remedy


def test_a_tree_without_a_package_is_refused(powercap):
    powercap.zone("intel-rapl:0", "psys", 1)
    with pytest.raises(MeterUnavailable, match="no package zone"):
        rapl.open_meter(DriverOptions(powercap.root))


def test_a_zone_of_the_total_that_cannot_be_read_refuses_the_whole(server):
    path = server.folder("intel-rapl:1:1") / "energy_uj"
    path.unlink()
    path.mkdir()
    with pytest.raises(MeterUnavailable, match="intel-rapl:1:1/energy_uj"):
        rapl.open_meter(DriverOptions(server.root))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_counters_that_are_roots_are_told_from_no_counters_at_all():
    root = Path(tempfile.mkdtemp())  # not under tmp_path, which nobody may not enter
    try:
        folder = root / "sys/class/powercap/intel-rapl:0"
        folder.mkdir(parents=True)
        root.chmod(0o755)
        for name, text in {
            "name": "package-0",
            "max_energy_range_uj": "262143328850",
            "energy_uj": "5",
        }.items():
            (folder / name).write_text(text)
        (folder / "energy_uj").chmod(0o400)
        assert "may not be read" in refusal_as_nobody(root)
        assert "chmod" in refusal_as_nobody(root)
    finally:
        shutil.rmtree(root)


def refusal_as_nobody(root: Path) -> str:
    """What opening says in a child that has given up its rights."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            rapl.open_meter(DriverOptions(root))
        except MeterUnavailable as error:
            os.write(send, str(error).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_a_late_edge_is_in_the_uncertainty(opened, server, clock):
    energy = used(opened, clock, 0.2, lambda: server.add("intel-rapl:1", 4_000_000))
    # 20 W, each edge late by 0 to 1 ms: a uniform error of 20 mJ has the variance (20 mJ)^2 / 3.
    assert energy.variance_j2 == pytest.approx(2 * 0.02**2 / 3)


@given(
    st.integers(2**20, UNITS - 1),
    st.lists(st.tuples(st.integers(0, UNITS - 1), st.integers(1, 30_000)), max_size=30),
)
def test_any_schedule_of_wraps_gives_the_true_total(start, steps):
    """Against a counter of Python's unlimited integers: 61 uJ units, at most one wrap per look."""
    unit_uj, t_ns, true = 61, 0, start
    count = Count(range_uj=(UNITS - 1) * unit_uj, greatest_w=1e9, value_uj=start * unit_uj, t_ns=0)
    totals = [0]
    for units, milliseconds in steps:
        true += units
        t_ns += milliseconds * 1_000_000
        count, _ = advance(count, (true % UNITS) * unit_uj, t_ns)
        totals.append(count.total_uj)
    assert totals[-1] == (true - start) * unit_uj
    assert all(a <= b for a, b in pairwise(totals))


@given(st.lists(st.tuples(st.integers(0, PACKAGE_RANGE_UJ), st.integers(0, 60_000)), max_size=30))
def test_whatever_a_counter_shows_its_total_never_falls(shown):
    count, t_ns = Count(PACKAGE_RANGE_UJ, 500.0, 0, 0), 0
    for value_uj, milliseconds in shown:
        t_ns += milliseconds * 1_000_000
        after, flag = advance(count, value_uj, t_ns)
        step_j = (after.total_uj - count.total_uj) / 1e6
        assert 0 <= step_j <= 500.0 * (milliseconds / 1e3 + 0.01)
        assert flag != "gap" or step_j == 0
        count = after
