from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import boards
import pytest

from mas_edge.profiling.drivers import ina3221
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable, between

ORIN_NANO = {"VDD_IN": (5000, 1060), "VDD_CPU_GPU_CV": (4960, 160), "VDD_SOC": (4960, 288)}


@pytest.fixture
def opened(tmp_path):
    meters = []

    def open_with(argument=""):
        meters.append(ina3221.open_meter(DriverOptions(tmp_path, argument)))
        return meters[-1]

    yield open_with
    for meter in meters:
        meter.close()


def power_w(meter):
    """The newest sample's."""
    return meter._stream._running.recent[-1].power_w


def rails_w(meter):
    return dict(meter._stream._running.by_rail_w)


def samples(meter, more):
    """Two readings with at least so many samples between them."""
    first = last = meter.read()
    while last.samples < first.samples + more:
        meter.samples(last.t_ns, last.t_ns + 1)
        last = meter.read()
    return first, last


def test_volts_times_amperes_of_the_labelled_channels(opened, tmp_path):
    boards.ina3221(tmp_path, ORIN_NANO)
    meter = opened()
    assert (meter.sensor.method, meter.sensor.scope) == ("sampled", "module")
    assert power_w(meter) == pytest.approx(5.3)
    assert rails_w(meter) == pytest.approx({"VDD_IN": 5.3, "VDD_CPU_GPU_CV": 0.7936, "VDD_SOC": 1.42848})


def test_it_is_the_sensor_that_tegrastats_reads(opened, tmp_path):
    boards.ina3221(tmp_path, ORIN_NANO)
    assert opened().sensor.sensor_host.endswith(":rails:VDD_IN")


def test_an_older_kernel_gives_milliwatts(opened, tmp_path):
    boards.ina3221x(tmp_path, {"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366})
    meter = opened()
    assert power_w(meter) == pytest.approx(1.75)
    assert rails_w(meter).keys() == {"POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"}


def test_thor_has_a_monitor_of_the_whole_board(opened, tmp_path):
    boards.ina3221(
        tmp_path, {"VDD_GPU": (20000, -20), "VDD_CPU_SOC_MSS": (20000, 400), "VIN_SYS_5V0": (5000, 1524)}
    )
    boards.ina238(tmp_path, 26_686_000)
    meter = opened()
    assert (power_w(meter), meter.sensor.scope) == (pytest.approx(26.686), "board")
    assert rails_w(meter)["VDD_GPU"] == pytest.approx(-0.4)


@pytest.mark.parametrize("hwmon", [0, 7])
def test_the_number_of_the_device_does_not_matter(opened, tmp_path, hwmon):
    boards.ina3221(tmp_path, ORIN_NANO, hwmon=hwmon)
    assert power_w(opened()) == pytest.approx(5.3)


def test_channels_that_are_not_connected_or_switched_off_are_no_rails(opened, tmp_path):
    folder = boards.ina3221(tmp_path, {"VDD_IN": (5000, 1060), "NC": (0, 0), "VDD_SOC": (4960, 288)})
    (folder / "curr3_input").unlink()
    (folder / "curr3_input").mkdir()  # cannot be read: EISDIR, as the kernel says ENODATA
    assert rails_w(opened()).keys() == {"VDD_IN"}


def test_the_current_counts_in_steps_of_the_shunt(opened, tmp_path):
    boards.ina3221(tmp_path, {"VDD_IN": (5000, 1000)}, shunt_uohm=5000)
    step_w = 40e-6 / 0.005 * 5
    assert opened()._stream._running.recent[-1].u_w == pytest.approx(step_w / 12**0.5)


def test_a_sum_is_known_only_if_all_of_it_answers(opened, tmp_path):
    folder = boards.ina3221(
        tmp_path, {"VDD_GPU_SOC": (20000, 160), "VDD_CPU_CV": (20000, 220), "VIN_SYS_5V0": (5000, 953)}
    )
    meter = opened()
    assert power_w(meter) == pytest.approx(3.2 + 4.4 + 4.765)
    (folder / "in2_input").write_text("")
    first = meter.read()
    while not meter.read().flags.get("failed_read"):
        meter.samples(meter.read().t_ns, meter.read().t_ns + 1)
    (folder / "in2_input").write_text("20000\n")
    while meter.read().samples < first.samples + 2:
        meter.samples(meter.read().t_ns, meter.read().t_ns + 1)
    used = between(first, meter.read())
    assert used.energy_j / used.wall_s == pytest.approx(12.365)
    assert "failed_read" in used.flags


def test_the_user_says_which_rails_add_up_on_a_carrier_of_ones_own(opened, tmp_path):
    boards.ina3221(tmp_path, {"VDD_A": (5000, 100), "VDD_B": (5000, 300)})
    with pytest.raises(MeterUnavailable, match=r"no known total for its rails VDD_A, VDD_B; .*rails=A\+B"):
        opened()
    assert power_w(opened("rails=VDD_A+VDD_B")) == pytest.approx(2.0)


def test_a_host_without_monitors_is_told(opened):
    with pytest.raises(MeterUnavailable, match=r"no power monitor of a Jetson in .*i2c/drivers"):
        opened()


def test_a_refusal_leaves_no_file_open(opened, tmp_path):
    boards.ina3221(tmp_path, {"VDD_A": (5000, 100), "VDD_B": (5000, 300)})
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MeterUnavailable):
        opened()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_monitors_that_may_not_be_read_are_told_from_none_at_all():
    root = Path(tempfile.mkdtemp())  # not under tmp_path, which nobody may not enter
    try:
        root.chmod(0o755)
        folder = boards.ina3221(root, {"VDD_IN": (5000, 1000)})
        (folder / "curr1_input").chmod(0o400)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                ina3221.open_meter(DriverOptions(root))
            except MeterUnavailable as error:
                os.write(send, str(error).encode())
            os._exit(0)
        os.close(send)
        with os.fdopen(receive) as pipe:
            assert "may not be read; run as root" in pipe.read()
        os.waitpid(child, 0)
    finally:
        shutil.rmtree(root)


def test_a_window_has_the_boards_power(opened, tmp_path):
    boards.ina3221(tmp_path, ORIN_NANO)
    used = between(*samples(opened(), 2))
    assert used.energy_j / used.wall_s == pytest.approx(5.3)
    assert used.by_rail_j["VDD_IN"] == pytest.approx(used.energy_j)
