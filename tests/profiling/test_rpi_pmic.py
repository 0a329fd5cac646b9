from __future__ import annotations

import time

import boards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.drivers import rpi_pmic
from mas_edge.profiling.drivers.rpi_pmic import rails_w
from mas_edge.profiling.meters import DriverOptions, MeterUnavailable, between


@pytest.fixture
def opened(tmp_path):
    meters = []

    def open_it():
        meters.append(rpi_pmic.open_meter(DriverOptions(tmp_path)))
        return meters[-1]

    yield open_it
    for meter in meters:
        meter.close()


def test_a_real_answer_adds_up_over_the_rails_that_have_both():
    rails = rails_w(boards.PI5)
    assert len(rails) == 12
    assert sum(rails.values()) == pytest.approx(boards.PI5_W, abs=1e-6)
    assert rails["VDD_CORE"] == pytest.approx(5.03652 * 0.8936988)
    assert not rails.keys() & {"EXT5V", "BATT"}


def test_a_battery_that_is_no_number_changes_nothing():
    assert rails_w(boards.PI5.replace("volt(25)=0.00341880V", "volt(25)=nanV")) == rails_w(boards.PI5)


def test_a_rail_that_is_no_number_is_none():
    rails = rails_w(boards.PI5.replace("current(7)=5.03652000A", "current(7)=nanA"))
    assert "VDD_CORE" not in rails
    assert len(rails) == 11


@given(st.text())
def test_any_other_answer_has_no_rails(text):
    assert rails_w(text) == {}


def test_a_board_gives_its_power(opened, tmp_path):
    boards.vcgencmd(tmp_path)
    meter = opened()
    first = meter.read()
    meter.samples(first.t_ns, first.t_ns + 1)
    used = between(first, meter.read())
    assert used.energy_j / used.wall_s == pytest.approx(boards.PI5_W, rel=1e-6)
    assert (meter.sensor.method, meter.sensor.scope) == ("sampled", "module")
    assert "12 rails" in meter.sensor.detail


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'error=1 error_msg=\"Command not registered\"'", "Command not registered"),
        ("echo 'VCHI initialization failed' >&2; exit 255", "VCHI initialization failed"),
        ("exit 1", "does not answer"),
        ("echo ' EXT5V_V volt(24)=4.92V'", "EXT5V_V"),
    ],
)
def test_firmware_that_has_no_such_sensor_is_refused_with_its_own_words(opened, tmp_path, body, reason):
    boards.program(tmp_path, "vcgencmd", body)
    with pytest.raises(MeterUnavailable, match=reason) as caught:
        opened()
    assert "Raspberry Pi 5" in caught.value.refusal.remedy


def test_without_the_program_it_is_refused(opened):
    with pytest.raises(MeterUnavailable, match="no program vcgencmd"):
        opened()


def test_an_answer_that_lacks_a_rail_is_no_sample(opened, tmp_path):
    boards.vcgencmd(tmp_path)
    meter = opened()
    boards.vcgencmd(tmp_path, boards.PI5.replace("VDD_CORE_A", "VDD_CORF_A"))
    deadline_s = time.monotonic() + 5
    while not meter.read().flags.get("failed_read") and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert meter.read().flags["failed_read"] >= 1


def test_what_the_calls_cost_is_counted(tmp_path):
    boards.program(
        tmp_path, "vcgencmd", f"k=0; while [ $k -lt 9000 ]; do k=$((k+1)); done\ncat <<'END'\n{boards.PI5}END"
    )
    asked = rpi_pmic._Asked(tmp_path / "usr/bin/vcgencmd", time.monotonic_ns)
    assert len(asked.learn()) == 12
    assert 0.001 < asked.cost_s < 5


def test_a_call_that_hangs_is_killed(tmp_path):
    boards.program(tmp_path, "vcgencmd", "exec sleep 60")
    asked = rpi_pmic._Asked(tmp_path / "usr/bin/vcgencmd", time.monotonic_ns, timeout_s=0.05)
    start_s = time.monotonic()
    with pytest.raises(MeterUnavailable, match="does not answer"):
        asked.learn()
    assert time.monotonic() - start_s < 2
