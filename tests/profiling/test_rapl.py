from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from mas_edge.profiling.drivers import rapl
from mas_edge.profiling.meters import DriverOptions, MeterOptionsRefused, MeterUnavailable, between

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613


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
    assert energy.by_rail_j["platform"] == pytest.approx(90.0)
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
    rails = ("package-0/core", "platform")
    assert energy.flags == ("lower_bound", *(f"lower_bound:{rail}" for rail in rails))


def test_a_zone_that_stops_answering_is_missing_and_never_zero(opened, server, clock):
    first = opened.read()
    (server.folder("intel-rapl:1") / "energy_uj").write_text("")
    clock.pass_s(1.0)
    with pytest.raises(MeterUnavailable, match=r"package-0 \(EINVAL\)"):
        opened.read()
    server.add("intel-rapl:1", 4_000_000)
    clock.pass_s(1.0)
    energy = between(first, opened.read())
    assert energy.energy_j == pytest.approx(4.0)
    assert energy.flags == ("failed_read", "failed_read:package-0:EINVAL")


def test_a_zone_that_vanishes_is_noticed_and_counts_on_when_it_is_back(opened, server, clock):
    first = opened.read()
    path = server.folder("intel-rapl:2") / "energy_uj"
    path.unlink()
    clock.pass_s(1.0)
    with pytest.raises(MeterUnavailable, match=r"package-1 \(ENOENT\)"):
        opened.read()
    server.add("intel-rapl:2", 6_000_000)  # another file of the same name, as after modprobe
    clock.pass_s(1.0)
    energy = between(first, opened.read())
    assert energy.energy_j == pytest.approx(6.0)
    assert "failed_read:package-1:ENOENT" in energy.flags


def test_a_rail_outside_of_the_total_may_fail_alone(opened, server, clock):
    def change():
        server.add("intel-rapl:1", 2_000_000)
        path = server.folder("intel-rapl:1:0") / "energy_uj"
        path.unlink()
        path.symlink_to("/proc/self/mem")  # whose first byte cannot be read: EIO

    energy = used(opened, clock, 1.0, change)
    assert energy.energy_j == pytest.approx(2.0)
    assert "package-0/core" not in energy.by_rail_j
    assert "failed_read:package-0/core:EIO" in energy.flags


def test_a_host_that_slept_has_a_gap_and_counts_on(server, clock):
    asleep = [0]
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock), lambda: asleep[0])

    def sleep():
        asleep[0] += 3600 * 10**9
        server.set("intel-rapl:1", 500)  # began anew
        server.add("intel-rapl:2", 3_000_000)

    assert used(meter, clock, 1.0, lambda: server.add("intel-rapl:1", 1_000_000)).flags == ()
    slept = used(meter, clock, 1.0, sleep)
    assert (slept.energy_j, "gap" in slept.flags) == (0.0, True)
    after = used(meter, clock, 1.0, lambda: server.add("intel-rapl:1", 2_000_000))
    meter.close()
    assert (after.energy_j, after.flags) == (pytest.approx(2.0), ())


def test_two_clocks_read_one_after_the_other_are_no_sleep(server, clock):
    asleep = iter([0, 400_000_000, 0, 400_000_000] + [400_000_000] * 9)
    meter = rapl.open_meter(DriverOptions(server.root, clock_ns=clock), lambda: next(asleep))
    for _ in range(3):
        assert used(meter, clock, 1.0, lambda: server.add("intel-rapl:1", 1_000_000)).flags == ()
    meter.close()


def test_the_platform_is_the_total_only_where_it_is_asked_for(server, clock):
    meter = rapl.open_meter(DriverOptions(server.root, "total=psys,idle_w=30", clock))

    def change():
        server.add("intel-rapl:0", 90_000_000)
        server.add("intel-rapl:1", 10_000_000)

    energy = used(meter, clock, 1.0, change)
    meter.close()
    assert energy.energy_j == pytest.approx(90.0)
    assert energy.by_rail_j["package-0"] == pytest.approx(10.0)
    assert (meter.sensor.scope, meter.sensor.detail) == ("board", "total of platform")
    assert meter.idle.power_w == 30.0


def test_total_and_platform_are_two_sensors(server, clock):
    specs = ("", "total=psys")
    meters = [rapl.open_meter(DriverOptions(server.root, spec, clock)) for spec in specs]
    for meter in meters:
        meter.close()
    assert meters[0].sensor.sensor_host != meters[1].sensor.sensor_host


def test_a_platform_that_is_not_there_is_refused(powercap):
    powercap.zone("intel-rapl:0", "package-0", 1)
    with pytest.raises(MeterUnavailable, match="no psys zone"):
        rapl.open_meter(DriverOptions(powercap.root, "total=psys"))


@pytest.mark.parametrize("argument", ["total=dram", "psys", "idle_w=much"])
def test_an_argument_that_says_nothing_is_refused(server, argument):
    with pytest.raises(MeterOptionsRefused, match="cannot read"):
        rapl.open_meter(DriverOptions(server.root, argument))


def test_a_boost_beyond_the_long_term_limit_is_believed(powercap, clock):
    powercap.zone("intel-rapl:0", "package-0", 1_000_000)
    for name, microwatts in {
        "constraint_0_max_power_uw": 15_000_000,
        "constraint_1_power_limit_uw": 64_000_000,
    }.items():
        (powercap.folder("intel-rapl:0") / name).write_text(f"{microwatts}\n")
    meter = rapl.open_meter(DriverOptions(powercap.root, clock_ns=clock))
    boost = used(meter, clock, 10.0, lambda: powercap.add("intel-rapl:0", 640_000_000))
    beyond = used(meter, clock, 10.0, lambda: powercap.add("intel-rapl:0", 1_400_000_000))
    meter.close()
    assert (boost.energy_j, boost.flags) == (pytest.approx(640.0), ())
    assert (beyond.energy_j, beyond.flags) == (0.0, ("gap",))


def test_counters_that_stand_at_zero_are_no_sensor(powercap):
    powercap.zone("intel-rapl:0", "package-0", 0)
    powercap.zone("intel-rapl:0:0", "dram", 0, DRAM_RANGE_UJ)
    with pytest.raises(MeterUnavailable, match="stand at zero"):
        rapl.open_meter(DriverOptions(powercap.root))


@pytest.mark.parametrize("file", ["max_energy_range_uj", "energy_uj"])
@pytest.mark.parametrize("text", ["", "garbage", "-1 -1", "0x10"])
def test_a_file_that_holds_no_number_refuses_by_its_name_and_leaves_nothing_open(server, file, text):
    (server.folder("intel-rapl:2:0") / file).write_text(text)
    before = held()
    with pytest.raises(MeterUnavailable, match=rf"intel-rapl:2:0/{file}.*EINVAL"):
        rapl.open_meter(DriverOptions(server.root))
    assert held() == before


def test_a_range_of_nothing_is_refused(server):
    (server.folder("intel-rapl:2") / "max_energy_range_uj").write_text("0\n")
    with pytest.raises(MeterUnavailable, match="0 is no range"):
        rapl.open_meter(DriverOptions(server.root))


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
    meter.close()
    assert energy.energy_j == pytest.approx(counted_j)
    assert ("left out" in meter.sensor.detail) == (counted_j == 2.0)


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
        assert "chmod g+r" in refusal_as_nobody(root)
    finally:
        shutil.rmtree(root)


def held():
    """Open descriptors and living threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


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
