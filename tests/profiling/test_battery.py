from __future__ import annotations

import boards
import pytest

from mas_edge.profiling.drivers import battery
from mas_edge.profiling.drivers.battery import power_w
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable


def opened(root, argument=""):
    return battery.open_meter(DriverOptions(root, argument))


@pytest.mark.parametrize(
    ("texts", "watts"),
    [
        ({"power_now": "12500000"}, 12.5),
        ({"power_now": "-12500000"}, 12.5),
        ({"current_now": "-1500000", "voltage_now": "11400000"}, 17.1),
    ],
)
def test_what_it_gives_whatever_sign_its_driver_likes(tmp_path, texts, watts):
    folder = boards.battery(tmp_path, **texts)
    if "current_now" in texts:
        (folder / "power_now").unlink()
    assert power_w([folder]) == pytest.approx(watts)


def test_a_laptop_on_two_batteries_uses_both(tmp_path):
    folders = [boards.battery(tmp_path, "BAT0"), boards.battery(tmp_path, "BAT1", power_now="2500000")]
    assert power_w(folders) == pytest.approx(15.0)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_on_mains_it_says_nothing_and_so_do_we(tmp_path, status):
    boards.battery(tmp_path, status=status)
    with pytest.raises(MeterUnavailable, match=f"BAT0 is {status}, not Discharging; pull the plug"):
        opened(tmp_path)


def test_mains_a_port_and_a_mouse_are_no_batteries_of_this_device(tmp_path):
    boards.battery(tmp_path, "AC", type="Mains")
    boards.battery(tmp_path, "ucsi-source-psy-1", type="USB")
    boards.battery(tmp_path, "hidpp_battery_0", scope="Device")
    with pytest.raises(MeterUnavailable, match="no battery in"):
        opened(tmp_path)


def test_a_battery_that_does_not_tell_its_power_is_refused(tmp_path):
    (boards.battery(tmp_path) / "power_now").unlink()
    with pytest.raises(MeterUnavailable, match="current_now"):
        opened(tmp_path)


def test_one_of_several_can_be_named(tmp_path):
    boards.battery(tmp_path, "BAT0", status="Charging")
    boards.battery(tmp_path, "BAT1")
    with pytest.raises(MeterUnavailable, match="no battery BAT7 in"):
        opened(tmp_path, "BAT7")


def test_it_is_a_coarse_sensor_that_stops_when_the_plug_goes_in(tmp_path):
    folder = boards.battery(tmp_path)
    meter = opened(tmp_path, "BAT0,interval_ms=20,idle_w=3")
    try:
        assert (meter.sensor.scope, meter.sensor.rate_hz) == ("board", 50.0)
        assert "coarse" in meter.sensor.detail
        assert meter.idle.power_w == 3.0
        first = meter.read()
        (folder / "status").write_text("Charging\n")
        while not meter.read().flags.get("failed_read"):
            meter.samples(first.t_ns, meter.read().t_ns + 1)
        assert meter.read().energy_j - first.energy_j <= 12.5 * 2.1
    finally:
        meter.close()
