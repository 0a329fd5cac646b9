"""What every meter promises, shown on every driver that is installed.

A driver whose sensor this machine does not have is opened on a recorded tree; one that reads the host
alone (pyjoules) is shown to refuse clearly, or to keep the promises where it can work.
"""

from __future__ import annotations

import gc
import threading
from itertools import pairwise
from pathlib import Path

import boards
import pytest

from mas_edge.profiling.meters import MeterUnavailable, begin, drivers, end, open_one


def rapl_tree(root: Path) -> None:
    folder = root / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    for name, text in {"name": "package-0", "max_energy_range_uj": "262143328850", "energy_uj": "5"}.items():
        (folder / name).write_text(text + "\n")


BOARDS = {
    "rapl": rapl_tree,
    "tegrastats:interval_ms=20": boards.tegrastats,
    "ina3221": lambda root: boards.ina3221(root, {"VDD_IN": (5000, 1060), "VDD_SOC": (4960, 288)}),
    "rpi_pmic": boards.vcgencmd,
    "battery:interval_ms=20": boards.battery,
}
"""Specifications, and what makes a root on which they can be opened."""


@pytest.fixture(params=drivers())
def spec(request, tmp_path):
    """A specification of each driver and the root on which it can be opened."""
    for board, make in BOARDS.items():
        if board.partition(":")[0] == request.param:
            make(tmp_path)
            return board, tmp_path
    if request.param == "replay":
        path = tmp_path / "log.csv"
        path.write_text("t_s,power_w\n0,3\n1,5\n2,4\n")
        return f"replay:{path},idle_w=1", Path("/")
    return request.param, Path("/")


@pytest.fixture
def meter(spec):
    name, root = spec
    try:
        opened = open_one(name, root=root)
    except MeterUnavailable as error:
        pytest.skip(f"refused here: {error}")
    yield opened
    opened.close()


def test_a_counter_never_falls_and_its_clock_never_goes_back(meter):
    readings = [meter.read() for _ in range(50)]
    for a, b in pairwise(readings):
        assert b.t_ns >= a.t_ns
        assert b.energy_j >= a.energy_j
        assert b.variance_j2 >= a.variance_j2
        assert all(b.flags[flag] >= times for flag, times in a.flags.items())


def test_a_sensor_says_what_it_is(meter):
    sensor = meter.sensor
    assert sensor.method in {"counter", "sampled", "estimated"}
    assert sensor.scope in {"package", "gpu", "module", "board"}
    assert sensor.detail
    assert 0 <= sensor.gain_u < 1
    assert (sensor.method == "estimated") == (sensor.name == "estimate")


def test_opened_twice_it_is_one_and_the_same_sensor(spec, meter):
    name, root = spec
    again = open_one(name, root=root)
    again.close()
    assert again.sensor == meter.sensor


def test_an_idle_power_is_positive_or_unknown(meter):
    assert meter.idle is None or (meter.idle.power_w > 0 and meter.idle.u_w >= 0 and meter.idle.how)


def test_a_window_settles(meter):
    energy = end(begin(meter)).settle()
    assert energy.energy_j >= 0
    assert energy.t1_ns >= energy.t0_ns


def test_samples_enclose_the_window_or_are_not_needed(meter):
    t0_ns = meter.read().t_ns
    t1_ns = t0_ns + 1
    samples = meter.samples(t0_ns, t1_ns)
    assert (samples is None) == (meter.sensor.method != "sampled")
    assert samples is None or (samples[0].t_ns <= t0_ns and samples[-1].t_ns >= t1_ns)


def test_closing_gives_everything_back_and_twice_is_once(spec):
    name, root = spec
    gc.collect()
    before = held()
    for _ in range(3):
        try:
            opened = open_one(name, root=root)
        except MeterUnavailable:
            continue
        opened.read()
        opened.close()
        opened.close()
    assert held() == before


def test_a_meter_opens_or_says_why_and_what_would_help(spec):
    name, root = spec
    try:
        open_one(name, root=root).close()
    except MeterUnavailable as error:
        refusal = error.refusal
    else:
        return
    assert refusal.sensor == name.partition(":")[0]
    assert refusal.reason
    assert refusal.remedy


def held() -> tuple[int, int]:
    """Open descriptors and living threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
