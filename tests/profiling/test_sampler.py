from __future__ import annotations

import gc
import threading
import time
from itertools import count, pairwise
from pathlib import Path

import pytest

from mas_edge.profiling.drivers.sampler import KEPT, Sampler, Stop, polled
from mas_edge.profiling.meters import MeterUnavailable, begin, end
from mas_edge.profiling.running import Look
from mas_edge.profiling.samples import integrate
from mas_edge.wire.messages import Sensor

STEP_NS = 100_000_000
SENSOR = Sensor(name="fed", method="sampled", scope="board", sensor_host="fed")


@pytest.fixture
def fed(clock):
    """Opens meters over feeds on the hand-set clock, and closes them."""
    opened = []

    def open_over(feed, **options):
        usual = {"name": "fed", "interval_s": 0.1, "idle": None, "clock_ns": clock}
        opened.append(Sampler(feed, lambda: SENSOR, **{**usual, **options}))
        return opened[-1]

    yield open_over
    for meter in opened:
        meter.close()


def looks_until_told(powers, clock, then=None):
    """A feed of one look each tenth of a second of the clock, that then raises, ends or waits."""

    def feed(stop):
        for power_w in powers:
            clock.pass_s(0.1)
            yield Look(clock.t_ns, power_w, {"rail": power_w} if power_w is not None else {})
        if then is None:
            stop.wait(60)
        elif isinstance(then, Exception):
            raise then

    return feed


def settled(condition):
    """Waits for another thread to have made it so."""
    deadline_s = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.002)
    assert condition()


def held():
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def leaked(before):
    """What is held now beyond what was; what an earlier test left may have gone meanwhile."""
    return [now - was for now, was in zip(held(), before, strict=True) if now > was]


def test_a_meter_is_open_at_its_second_sample_and_reads_at_its_newest(fed, clock):
    start_ns = clock.t_ns
    meter = fed(looks_until_told([None, 4.0, 6.0, 6.0], clock))
    settled(lambda: meter.read().samples == 3)
    reading = meter.read()
    assert reading.t_ns == start_ns + 4 * STEP_NS
    assert reading.energy_j == pytest.approx(0.5 + 0.6)
    assert reading.by_rail_j == pytest.approx({"rail": 1.1})
    assert reading.flags == {"failed_read": 1}
    assert meter.sensor is SENSOR


def test_a_window_is_interpolated_at_both_of_its_edges(fed, clock):
    meter = fed(looks_until_told([4.0] * 10 + [8.0] * 30, clock))
    settled(lambda: meter.read().samples == 40)
    t1_ns = clock.t_ns - STEP_NS // 2
    samples = meter.samples(t1_ns - 25 * STEP_NS, t1_ns)
    assert (samples[0].t_ns, samples[-1].t_ns) == (t1_ns - 25.5 * STEP_NS, t1_ns + STEP_NS // 2)
    assert integrate(samples, t1_ns - 25 * STEP_NS, t1_ns).energy_j == pytest.approx(20.0)


def test_a_window_of_no_length_has_no_energy(fed, clock):
    meter = fed(looks_until_told([4.0] * 5, clock))
    energy = end(begin(meter, clock)).settle()
    assert energy.energy_j == 0.0
    assert "short_window" in energy.flags


def test_a_window_whose_last_sample_does_not_come_is_held_and_said(fed, clock):
    meter = fed(looks_until_told([4.0] * 40, clock))
    settled(lambda: meter.read().samples == 40)
    mark = begin(meter, clock)
    clock.pass_s(0.25)
    energy = end(mark).settle()
    assert energy.energy_j == pytest.approx(1.0)
    assert "edge_extrapolated" in energy.flags


def test_a_window_longer_than_what_is_kept_is_the_difference_of_two_readings(fed, clock):
    start_ns = clock.t_ns
    meter = fed(looks_until_told([4.0] * (KEPT + 500), clock))
    settled(lambda: meter.read().samples == KEPT + 500)
    assert meter.samples(start_ns + 5 * STEP_NS, clock.t_ns) is None
    assert len(meter.samples(clock.t_ns - 100 * STEP_NS, clock.t_ns)) == 101


def test_a_reading_that_stands_still_is_refused_until_there_is_a_sample_again(fed, clock):
    go = threading.Event()

    def feed(stop):
        yield from (Look(clock.t_ns + k, 4.0) for k in (0, 1))
        while not go.is_set():
            if stop.wait(0.001):
                return
        yield Look(clock.t_ns, 4.0)
        stop.wait(60)

    meter = fed(feed)
    first = meter.read()
    clock.pass_s(6)
    with pytest.raises(MeterUnavailable, match="no sample for 6 s"):
        meter.read()
    go.set()
    settled(lambda: meter._stream._running.count == 3)
    last = meter.read()
    assert last.energy_j - first.energy_j == pytest.approx(24.0)
    assert last.flags["gap"] == 1


def test_a_host_that_slept_flags_the_interval(fed, clock):
    asleep_ns = iter([0, 0, 0, 3 * 10**9])
    meter = fed(looks_until_told([4.0] * 3, clock), slept_ns=lambda: next(asleep_ns))
    settled(lambda: meter.read().samples == 3)
    assert meter.read().flags == {"gap": 1}
    assert meter.read().energy_j == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (MeterUnavailable("fed", "nobody there", "ask again"), "nobody there; ask again"),
        (OSError(5, "no answer"), "it broke.*no answer"),
        ("ends", "it has ended"),
    ],
)
@pytest.mark.parametrize("samples", [0, 1, 2])
def test_a_feed_that_breaks_refuses_the_sensor_or_its_readings(fed, clock, then, reason, samples):
    gc.collect()
    before = held()
    feed = looks_until_told([4.0] * samples, clock, then)
    if samples < 2:
        with pytest.raises(MeterUnavailable, match=reason):
            fed(feed)
        assert leaked(before) == []
        return
    meter = fed(feed)
    settled(lambda: threading.active_count() == before[1])
    with pytest.raises(MeterUnavailable, match=reason):
        meter.read()


def test_a_power_of_zero_is_no_sensor(fed, clock):
    with pytest.raises(MeterUnavailable, match="0 W"):
        fed(looks_until_told([0.0, 0.0], clock))


def test_a_closed_meter_says_so(fed, clock):
    meter = fed(looks_until_told([4.0] * 3, clock))
    meter.close()
    meter.close()
    with pytest.raises(MeterUnavailable, match="closed"):
        meter.read()


def test_a_meter_that_is_forgotten_leaves_nothing_behind(clock):
    gc.collect()
    before, ended = held(), threading.Event()

    def feed(stop):
        try:
            for _ in count():
                clock.pass_s(0.1)
                yield Look(clock.t_ns, 4.0)
                if stop.wait(0.01):
                    return
        finally:
            ended.set()

    meter = Sampler(feed, lambda: SENSOR, name="fed", interval_s=0.1, idle=None, clock_ns=clock)
    assert held() != before
    del meter
    gc.collect()
    assert ended.wait(5)
    settled(lambda: not leaked(before))


def test_the_cost_of_the_feed_and_of_what_it_has_others_do_is_counted(fed, clock):
    meter = fed(looks_until_told([4.0] * 30, clock), cost_s=lambda: 2.5)
    settled(lambda: meter.read().samples == 30)
    assert 2.5 < meter.read().cpu_s < 3.5


def test_a_polled_sensor_is_asked_at_its_interval_and_closed_at_the_end():
    closed, stop = threading.Event(), Stop()
    feed = polled(lambda: Look(time.monotonic_ns(), 4.0), 0.02, closed.set)(stop)
    start_s = time.monotonic()
    looks = [next(feed) for _ in range(4)]
    assert 0.06 <= time.monotonic() - start_s < 1
    assert all(b.t_ns > a.t_ns for a, b in pairwise(looks))
    stop.set()
    assert list(feed) == []
    assert closed.is_set()
    stop.close()


def test_who_waits_for_a_descriptor_is_told_to_stop():
    stop = Stop()
    waiting = threading.Thread(target=stop.wait, args=(60,))
    waiting.start()
    stop.set()
    waiting.join(5)
    assert not waiting.is_alive()
    stop.close()
