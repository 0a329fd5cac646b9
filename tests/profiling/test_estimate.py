from __future__ import annotations

import pytest

from mas_edge.profiling.drivers import estimate
from mas_edge.profiling.meters import DriverOptions, MeterOptionsRefused, MeterUnavailable, between


@pytest.fixture
def host(tmp_path):
    """A two-core host whose ticks are set by hand: (busy, idle)."""

    class Host:
        root = tmp_path

        def ticks(self, busy, idle):
            (tmp_path / "proc").mkdir(exist_ok=True)
            line = f"{busy} 0 0 {idle} 0 0 0 0 0 0"
            (tmp_path / "proc/stat").write_text(f"cpu  {line}\ncpu0 {line}\ncpu1 {line}\nctxt 5\n")

        def board(self, model):
            (tmp_path / "proc/device-tree").mkdir(parents=True)
            (tmp_path / "proc/device-tree/model").write_text(model + "\0")

        def clocks(self, now_khz, greatest_khz):
            folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
            folder.mkdir(parents=True)
            (folder / "scaling_cur_freq").write_text(f"{now_khz}\n")
            (folder / "cpuinfo_max_freq").write_text(f"{greatest_khz}\n")

    made = Host()
    made.ticks(0, 0)
    return made


def energy_j(host, clock, busy, idle, argument="idle_w=2,max_w=10"):
    meter = estimate.open_meter(DriverOptions(host.root, argument, clock))
    first = meter.read()
    host.ticks(busy, idle)
    clock.pass_s(1.0)
    return between(first, meter.read()).energy_j


def test_power_lies_between_idle_and_full_by_the_cores_work(host, clock):
    assert energy_j(host, clock, busy=50, idle=150) == pytest.approx(2 + 8 * 0.25)


def test_an_idle_host_uses_its_idle_power(host, clock):
    assert energy_j(host, clock, busy=0, idle=200) == pytest.approx(2.0)


def test_a_slow_clock_takes_its_share_off(host, clock):
    host.clocks(600_000, 1_200_000)
    assert energy_j(host, clock, busy=200, idle=0) == pytest.approx(2 + 8 * 0.5)


def test_a_core_that_was_switched_off_counts_no_clock(host, clock):
    host.clocks(600_000, 1_200_000)
    off = host.root / "sys/devices/system/cpu/cpu1/cpufreq"
    off.mkdir(parents=True)
    (off / "scaling_cur_freq").write_text("<unknown>\n")
    (off / "cpuinfo_max_freq").write_text("1200000\n")
    assert energy_j(host, clock, busy=200, idle=0) == pytest.approx(2 + 8 * 0.5)


def test_a_proc_that_turns_to_garbage_is_a_missing_sample_and_counts_on(host, clock):
    meter = estimate.open_meter(DriverOptions(host.root, "idle_w=2,max_w=10", clock))
    first = meter.read()
    (host.root / "proc/stat").write_text("cpu  1 x\n")
    clock.pass_s(1.0)
    with pytest.raises(MeterUnavailable, match="no line 'cpu'"):
        meter.read()
    host.ticks(200, 200)
    clock.pass_s(1.0)
    assert between(first, meter.read()).energy_j == pytest.approx(2 * (2 + 8 * 0.5))


def test_a_closed_estimate_says_so(host, clock):
    meter = estimate.open_meter(DriverOptions(host.root, "", clock))
    meter.close()
    meter.close()
    with pytest.raises(MeterUnavailable, match="closed"):
        meter.read()


def test_ticks_that_did_not_move_are_read_with_the_next(host, clock):
    meter = estimate.open_meter(DriverOptions(host.root, "idle_w=2,max_w=10", clock))
    first = meter.read()
    clock.pass_s(0.001)
    assert between(first, meter.read()).energy_j == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("model", "idle_w"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", 2.7),
        ("NVIDIA Jetson Orin Nano Developer Kit", 4.8),
        ("Some board", 4.0),
    ],
)
def test_constants_come_from_the_board(host, clock, model, idle_w):
    host.board(model)
    meter = estimate.open_meter(DriverOptions(host.root, "", clock))
    assert meter.idle.power_w == idle_w


def test_every_joule_is_labelled_with_model_constants_and_uncertainty(host, clock):
    sensor = estimate.open_meter(DriverOptions(host.root, "", clock)).sensor
    assert sensor.method == "estimated"
    assert sensor.gain_u >= 0.2
    assert "2-core" in sensor.detail
    assert "assumed" in sensor.detail


def test_no_board_of_the_table_claims_to_be_better_than_forty_per_cent():
    for _, constants in estimate.BOARDS:
        assert 0 < constants.idle_w < constants.max_w
        assert constants.gain_u >= 0.2
        assert constants.source


def test_constants_that_contradict_each_other_are_refused(host):
    with pytest.raises(MeterOptionsRefused, match="idle_w <= max_w"):
        estimate.open_meter(DriverOptions(host.root, "idle_w=9,max_w=3"))


def test_a_host_without_proc_cannot_be_estimated(tmp_path):
    with pytest.raises(MeterUnavailable, match="no processor times"):
        estimate.open_meter(DriverOptions(tmp_path))
