from __future__ import annotations

import pytest

from mas_edge.profiling.machine import look, same_settings, settings_that_differ, since
from mas_edge.wire.messages import Machine

CPU = "sys/devices/system/cpu"

ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
    f"{CPU}/online": "0-3,5\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "schedutil\n",
    f"{CPU}/cpu0/cpufreq/scaling_min_freq": "115200\n",
    f"{CPU}/cpu0/cpufreq/scaling_max_freq": "1510400\n",
    f"{CPU}/cpu5/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu5/cpufreq/scaling_min_freq": "729600\n",
    f"{CPU}/cpu5/cpufreq/scaling_max_freq": "1344000\n",
    "sys/class/thermal/thermal_zone0/temp": "48625\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone2/temp": "51281\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "cpu-freq-thermal\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon4/oc1_event_cnt": "3\n",
}


def host(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_a_boards_settings_and_warmth_are_read(tmp_path):
    assert look(host(tmp_path, ORIN_NANO)) == Machine(
        model="NVIDIA Jetson Orin Nano Developer Kit",
        kernel="5.15.148-tegra, L4T R36.4.3",
        power_mode="0001",
        governor="performance+schedutil",
        cores=5,
        clock_min_hz=115_200_000,
        clock_max_hz=1_510_400_000,
        temperature_c=51.281,
        throttled=False,
        throttle_count=3,
    )


def test_a_host_that_tells_nothing_is_all_unknown(tmp_path):
    assert look(tmp_path) == Machine()


def test_files_that_hold_anything_else_are_unknown(tmp_path):
    files = {
        f"{CPU}/online": "all\n",
        f"{CPU}/cpu0/cpufreq/scaling_min_freq": "<unknown>\n",
        "sys/class/thermal/thermal_zone0/temp": "\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "zz\n",
        "proc/device-tree/model": "\xff\xfe",
    }
    found = look(host(tmp_path, files))
    assert found.cores is found.clock_min_hz is found.temperature_c is found.throttled is None


def test_a_pc_is_named_by_its_maker(tmp_path):
    files = {"sys/class/dmi/id/sys_vendor": "Intel\n", "sys/class/dmi/id/product_name": "NUC11\n"}
    assert look(host(tmp_path, files)).model == "Intel NUC11"


@pytest.mark.parametrize(
    ("files", "throttled"),
    [
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"}, False),  # it was, since boot
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}, True),  # bit 2: throttled now
        (
            {"sys/devices/platform/soc/soc:firmware/get_throttled": "1\n"},
            False,
        ),  # under-voltage alone slows nothing
        (
            {
                "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0\n",
                "sys/class/thermal/cooling_device0/cur_state": "1\n",
            },
            True,
        ),
        (
            {
                "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
                "sys/class/thermal/cooling_device0/cur_state": "4\n",
            },
            None,
        ),
    ],
)
def test_a_fan_is_no_throttle_and_what_was_is_not_now(tmp_path, files, throttled):
    assert look(host(tmp_path, files)).throttled is throttled


def test_settings_are_what_decides_the_idle_power_and_not_warmth():
    one = Machine(
        governor="performance", clock_min_hz=1, temperature_c=40.0, throttled=False, throttle_count=0
    )
    warm = Machine(
        governor="performance", clock_min_hz=1, temperature_c=80.0, throttled=True, throttle_count=9
    )
    other = Machine(governor="schedutil", clock_min_hz=1)
    assert same_settings(one, warm)
    assert not same_settings(one, other)
    assert settings_that_differ(one, other) == ("governor: schedutil, was performance",)


@pytest.mark.parametrize(("before", "now", "throttled"), [(3, 3, False), (3, 4, True), (None, 4, False)])
def test_an_event_since_the_last_look_is_throttling(before, now, throttled):
    first, last = Machine(throttle_count=before), Machine(throttled=False, throttle_count=now)
    assert since(first, last).throttled is throttled


def test_this_machine_can_be_looked_at():
    assert look().kernel
