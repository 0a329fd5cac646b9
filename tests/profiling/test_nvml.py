"""NVML's calls over counters that are set by hand, and the library itself where there is no driver."""

# ruff: noqa: N802 - the names are the library's

from __future__ import annotations

import pytest

from mas_edge.profiling.drivers import nvml
from mas_edge.profiling.meters import DriverOptions, MeterOptionsRefused, MeterUnavailable, between


class Gpus:
    """A driver with these counters in mJ by name; one that is an error's text is not told."""

    class NVMLError(Exception):
        """What the library raises."""

    def __init__(self, counters, start=None):
        self.counters, self.start, self.started = dict(counters), start, 0

    def nvmlInit(self):
        if self.start:
            raise self.NVMLError(self.start)
        self.started += 1

    def nvmlShutdown(self):
        if not self.started:
            raise self.NVMLError("Uninitialized")
        self.started -= 1

    def nvmlDeviceGetCount(self):
        return len(self.counters)

    def nvmlDeviceGetHandleByIndex(self, index):
        return list(self.counters)[index]

    def nvmlDeviceGetName(self, handle):
        return handle

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.started:
            raise self.NVMLError("Uninitialized")
        if isinstance(value := self.counters[handle], str):
            raise self.NVMLError(value)
        return value


@pytest.fixture
def gpus():
    return Gpus({"A100": 5_000_000, "A30": 7_000})


@pytest.fixture
def meter(gpus, clock):
    opened = nvml.open_meter(DriverOptions(argument="idle_w=60", clock_ns=clock), gpus)
    yield opened
    opened.close()


def used(meter, gpus, clock, seconds, **counters):
    first = meter.read()
    gpus.counters.update(counters)
    clock.pass_s(seconds)
    return between(first, meter.read())


def test_all_gpus_are_summed_and_each_is_a_rail(meter, gpus, clock):
    energy = used(meter, gpus, clock, 10.0, A100=8_000_000, A30=8_000)
    assert energy.energy_j == pytest.approx(3001.0)
    assert energy.by_rail_j == pytest.approx({"gpu0 A100": 3000.0, "gpu1 A30": 1.0})
    assert energy.flags == ()


def test_it_is_known_to_be_the_gpu_alone(meter):
    sensor = meter.sensor
    assert (sensor.method, sensor.scope) == ("counter", "gpu")
    assert sensor.detail == "total of gpu0 A100, gpu1 A30"
    assert meter.idle.power_w == 60.0


def test_a_driver_that_was_loaded_anew_is_a_gap_and_never_negative(meter, gpus, clock):
    energy = used(meter, gpus, clock, 10.0, A100=12)
    assert (energy.energy_j, energy.flags) == (0.0, ("gap",))
    assert used(meter, gpus, clock, 10.0, A100=1_000_012).energy_j == pytest.approx(1000.0)


def test_a_gpu_that_is_lost_while_it_is_measured_is_a_missing_sample(meter, gpus, clock):
    first = meter.read()
    gpus.counters["A100"] = "GPU is lost"
    with pytest.raises(MeterUnavailable, match=r"gpu0 A100 \(EIO\)"):
        meter.read()
    gpus.counters["A100"] = 5_002_000
    clock.pass_s(1.0)
    energy = between(first, meter.read())
    assert energy.energy_j == pytest.approx(2.0)
    assert "failed_read:gpu0 A100:EIO" in energy.flags


def test_a_late_counter_is_in_the_uncertainty(meter, gpus, clock):
    energy = used(meter, gpus, clock, 2.0, A100=5_400_000)  # 200 W, each edge late by up to 0.1 s
    assert energy.variance_j2 == pytest.approx(2 * 20.0**2 / 3)


def test_a_library_that_starts_and_then_refuses_to_count_is_no_sensor():
    jetson = Gpus({"Orin (nvgpu)": "Not Supported"})
    with pytest.raises(MeterUnavailable, match=r"gpu0 .*Not Supported") as caught:
        nvml.open_meter(DriverOptions(), jetson)
    assert "tegrastats" in caught.value.refusal.remedy
    assert jetson.started == 0


def test_a_gpu_that_does_not_count_is_named(clock):
    gpus = Gpus({"P40": "Not Supported", "A100": 1})
    meter = nvml.open_meter(DriverOptions(clock_ns=clock), gpus)
    meter.close()
    assert meter.sensor.detail == "total of gpu1 A100; without gpu0 ([Errno 5] Not Supported)"
    assert gpus.started == 0


def test_a_driver_without_gpus_is_no_sensor():
    with pytest.raises(MeterUnavailable, match="knows of no GPU"):
        nvml.open_meter(DriverOptions(), Gpus({}))


def test_a_driver_that_does_not_start_says_why():
    with pytest.raises(MeterUnavailable, match="does not start: Driver Not Loaded"):
        nvml.open_meter(DriverOptions(), Gpus({}, start="Driver Not Loaded"))


def test_the_library_is_ended_as_often_as_it_was_started(gpus, clock):
    nvml.open_meter(DriverOptions(clock_ns=clock), gpus).close()
    assert gpus.started == 0


def test_an_argument_that_says_nothing_is_refused(gpus):
    with pytest.raises(MeterOptionsRefused, match="cannot read"):
        nvml.open_meter(DriverOptions(argument="0"), gpus)


def test_nvidias_own_library_has_these_calls():
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    calls = [name for name in vars(nvml.Nvml) if name.startswith("nvml")]
    assert len(calls) == 6
    assert [name for name in calls if not callable(getattr(library, name, None))] == []
    assert issubclass(library.NVMLError, Exception)


def test_a_host_without_nvidias_driver_is_told_so():
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    try:
        library.nvmlInit()
    except library.NVMLError:
        with pytest.raises(MeterUnavailable, match="does not start") as caught:
            nvml.open_meter(DriverOptions())
        assert "driver" in caught.value.refusal.remedy
    else:
        library.nvmlShutdown()
        pytest.skip("this host has NVIDIA's driver")
