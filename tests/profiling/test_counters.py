"""The meter over counters, on sources that are scripts: what a thread does, and what is left of it."""

from __future__ import annotations

import errno
import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mas_edge.profiling.counter import Count, Limits
from mas_edge.profiling.drivers.counters import FASTEST_S, SLEPT_NS, CounterMeter, FileSource, Tally, slept_ns
from mas_edge.profiling.meters import MeterUnavailable
from mas_edge.wire.messages import Sensor

SENSOR = Sensor(name="scripted", method="counter", scope="board", sensor_host="h")
TURN_UJ = 1_000_000
FAST = Limits(TURN_UJ, greatest_w=1000.0)


class Script:
    """A counter that moves by each read, and says when it was read often enough."""

    def __init__(self, step_uj, reads=1, clock=None):
        self.value_uj, self.step_uj, self.left, self.clock = 0, step_uj, reads, clock
        self.read_enough, self.closed = threading.Event(), 0

    def read_uj(self):
        if self.clock:
            self.clock.pass_s(0.001)
        self.value_uj = (self.value_uj + self.step_uj) % TURN_UJ
        self.left -= 1
        if self.left <= 0:
            self.read_enough.set()
        return self.value_uj

    def close(self):
        self.closed += 1


class Broken(Script):
    def read_uj(self):
        raise OSError(errno.ENODATA, "no data")


def meter_of(*sources, clock=lambda: 0):
    tallies = [Tally(f"rail-{k}", True, source, FAST, Count(0, 0)) for k, source in enumerate(sources)]
    return CounterMeter(SENSOR, None, tallies, clock, late_ns=1_000_000)


def test_its_thread_counts_the_wraps_that_nobody_saw(clock):
    source = Script(step_uj=600_000, reads=4, clock=clock)
    meter = meter_of(source, clock=clock)
    assert source.read_enough.wait(FASTEST_S * 100)
    energy_j = meter.read().energy_j
    reads = 4 - source.left
    meter.close()
    assert energy_j == pytest.approx(0.6 * reads)
    assert energy_j > 2 * TURN_UJ / 1e6  # more than two turns, of which a reader of edges sees one


def test_a_value_is_stamped_with_the_middle_of_its_read(clock):
    source = Script(step_uj=1, clock=clock)  # whose read takes a millisecond
    one = Tally("rail", True, source, FAST, Count(0, 0))
    before_ns = clock()
    one.look(clock, slept=False)
    assert one.count.t_ns == before_ns + 500_000


def test_each_failure_is_counted_and_named(clock):
    source = Broken(0)
    meter = meter_of(Script(1), source, clock=clock)
    with pytest.raises(MeterUnavailable, match=r"no answer from rail-1 \(ENODATA\)"):
        meter.read()
    meter.close()


def test_closing_ends_the_thread_and_closes_each_source_once():
    sources, before = [Script(1), Script(1)], threading.active_count()
    meter = meter_of(*sources)
    assert threading.active_count() == before + 1
    meter.close()
    meter.close()
    assert threading.active_count() == before
    assert [source.closed for source in sources] == [1, 1]


def test_a_closed_meter_says_so():
    meter = meter_of(Script(1))
    meter.close()
    with pytest.raises(MeterUnavailable, match="closed"):
        meter.read()


def test_a_meter_that_was_forgotten_leaves_nothing_behind():
    source, before = Script(1), threading.active_count()
    meter = meter_of(source)
    del meter
    gc.collect()
    assert (threading.active_count(), source.closed) == (before, 1)


def test_a_process_that_breaks_inside_a_window_ends_at_once_and_says_only_that(server):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mas_edge.profiling.meters import begin, open_one\n"
        "mark = begin(open_one('rapl', root=Path(sys.argv[1])))\n"
        "raise SystemExit('broke inside')\n"
    )
    command = [sys.executable, "-c", script, str(server.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (1, "broke inside\n")


def test_a_file_is_opened_again_after_its_driver_was(tmp_path):
    path = tmp_path / "energy_uj"
    path.write_text("5\n")
    source = FileSource(path)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.read_uj()
    path.write_text("7\n")
    assert source.read_uj() == 7
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    source.close()


def test_a_host_that_is_awake_does_not_seem_to_sleep():
    first = slept_ns()
    assert abs(slept_ns() - first) < SLEPT_NS
