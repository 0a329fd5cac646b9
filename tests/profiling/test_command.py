"""A real command under a meter: its slices, its processor time, its end, and meters that go away."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from mas_edge.profiling.command import CommandRefused, follow
from mas_edge.profiling.meters import open_one
from mas_edge.profiling.runs import bill

SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


@pytest.fixture
def meter(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n" + "".join(f"{k / 10},4\n" for k in range(11)))
    opened = open_one(f"replay:{path},idle_w=1")
    yield opened
    opened.close()


def test_a_command_is_cut_into_slices_that_follow_each_other(meter):
    course = follow(meter, ["sleep", "0.6"])
    assert len(course.slices) == 3
    for a, b in zip(course.slices, course.slices[1:], strict=False):
        assert a.t1_ns == b.t0_ns
    made = bill(course, meter.sensor)
    assert made.energy_j == pytest.approx(4.0 * made.wall_s)
    assert made.wall_s == pytest.approx(0.6, abs=0.2)
    assert made.peak_w == pytest.approx(4.0)


def test_processor_time_is_of_the_command_and_all_that_it_started(meter):
    course = follow(
        meter, ["sh", "-c", f'"{sys.executable}" -c "{SPIN}" & "{sys.executable}" -c "{SPIN}"; wait']
    )
    assert 0.6 <= course.cpu_s < 2.0
    used_s = sum(use.cpu_s for piece in course.slices for use in piece.uses)
    assert used_s == pytest.approx(course.cpu_s, abs=0.03)


def test_the_end_of_a_command_is_noticed_at_once(meter):
    start_s = time.monotonic()
    course = follow(meter, ["sleep", "0.3"])
    assert time.monotonic() - start_s < 0.3 + 0.2
    assert course.exit_code == 0


def test_a_command_that_a_signal_ended_has_the_shells_code(meter):
    assert follow(meter, ["sh", "-c", "kill -TERM $$"]).exit_code == 128 + signal.SIGTERM


def test_sigterm_is_handed_on_and_the_figures_are_still_made(meter):
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    course = follow(meter, ["sleep", "30"])
    assert course.interrupted
    assert course.exit_code == 128 + signal.SIGTERM
    assert bill(course, meter.sensor).energy_j > 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigint_is_the_commands_business(meter):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    course = follow(meter, ["sleep", "0.3"])
    assert (course.interrupted, course.exit_code) == (True, 0)


@pytest.mark.parametrize("command", [["no-such-command-here"], ["a\0b"], ["/etc"]])
def test_a_command_that_cannot_be_started_is_refused(meter, command):
    with pytest.raises(CommandRefused, match="cannot run"):
        follow(meter, command)


def test_no_thread_or_child_is_left(meter):
    before = threading.active_count()
    follow(meter, ["true"])
    while threading.active_count() > before:  # the one that waited is on its last line
        time.sleep(0.001)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def rapl(server):
    opened = open_one("rapl:idle_w=2", root=server.root)
    yield opened
    opened.close()


def test_a_counter_that_goes_away_leaves_the_energy_unknown_and_says_why(rapl, server):
    zone = server.folder("intel-rapl:1") / "energy_uj"
    course = follow(rapl, ["sh", "-c", f"sleep 0.3; : > {zone}; sleep 0.3; exit 5"])
    made = bill(course, rapl.sensor)
    assert "package-0" in course.lost
    assert made.energy_j is made.mean_w is None
    assert {"sensor_lost", "no_reading"} <= set(made.flags)
    assert made.exit_code == 5
    assert made.wall_s >= 0.6


def test_a_counter_that_comes_back_loses_nothing(rapl, server):
    zone = server.folder("intel-rapl:1") / "energy_uj"
    script = f"sleep 0.3; : > {zone}; sleep 0.3; echo 4000000 > {zone}; sleep 0.3"
    course = follow(rapl, ["sh", "-c", script])
    assert course.lost is None
    assert bill(course, rapl.sensor).energy_j == pytest.approx(3.0)


def test_a_counter_that_stands_still_is_said_to(rapl):
    made = bill(follow(rapl, ["sleep", "0.15"]), rapl.sensor)
    assert "not_counting" in made.flags


def test_a_window_that_no_counter_can_resolve_has_no_joules(rapl):
    made = bill(follow(rapl, ["true"]), rapl.sensor)
    assert "short_window" in made.flags
    if made.wall_s < 0.01:
        assert made.energy_j is None
