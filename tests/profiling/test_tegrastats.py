"""A real child process for every way in which a tegrastats can go wrong."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boards
import pytest

from mas_edge.profiling import cli
from mas_edge.profiling.drivers import tegrastats
from mas_edge.profiling.meters import (
    DriverOptions,
    MeterOptionsRefused,
    MeterUnavailable,
    begin,
    between,
    end,
)

ORIN_NX_W = 5.299


@pytest.fixture
def opened(tmp_path):
    """Opens the board's tegrastats at 50 Hz, and closes it."""
    meters = []

    def open_with(argument="interval_ms=20"):
        meters.append(tegrastats.open_meter(DriverOptions(tmp_path, argument)))
        return meters[-1]

    yield open_with
    for meter in meters:
        meter.close()


def settled(condition, seconds=8.0):
    """Waits for what another process has to do."""
    deadline_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert condition()


def children():
    """Living processes that this one has started, zombies included."""
    return [
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


def held():
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children())


def leaked(before):
    """What is held now beyond what was; what an earlier test left may have gone meanwhile."""
    return [now - was for now, was in zip(held(), before, strict=True) if now > was]


def flagged(meter, flag, times=1):
    return lambda: meter._stream._running.flags.get(flag, 0) >= times


def test_a_board_says_what_it_measures_and_how(opened, tmp_path):
    program = boards.tegrastats(tmp_path)
    meter = opened()
    assert (meter.sensor.method, meter.sensor.scope, meter.sensor.rate_hz) == ("sampled", "module", 50.0)
    assert meter.sensor.detail == f"VDD_IN (no fan, carrier, USB, NVMe) by {program}"
    assert meter.sensor.sensor_host.endswith(":rails:VDD_IN")
    assert meter.idle is None
    settled(lambda: meter.read().samples > 4)
    rails = meter.read().by_rail_j
    assert rails["VDD_IN"] == pytest.approx(meter.read().energy_j, rel=0.5)
    assert rails.keys() == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}


@pytest.mark.parametrize("name", ["agx-orin-nc", "thor-mw-only", "agx-xavier-32"])
def test_a_window_has_the_power_of_the_line(opened, tmp_path, name):
    printed = boards.LINES[name]
    boards.tegrastats(tmp_path, printed.line)
    meter = opened()
    mark = begin(meter)
    time.sleep(0.1)
    energy = end(mark).settle()
    assert meter.sensor.scope == printed.scope
    assert energy.energy_j / energy.wall_s == pytest.approx(printed.power_w, rel=1e-6)


def test_without_a_program_it_says_where_it_looked(opened):
    with pytest.raises(MeterUnavailable, match=r"no program tegrastats.*/usr/bin.*JetPack"):
        opened()


def test_the_interval_has_bounds(opened):
    with pytest.raises(MeterOptionsRefused, match="interval_ms"):
        opened("interval_ms=0")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'you must be root' >&2; exit 3", "ended with status 3, having said 'you must be root'"),
        ("kill -9 $$", "ended by signal 9"),
        (
            f"while :; do {boards.say(boards.LINES['nano-no-rails'].line)}; sleep 0.02; done",
            "show no power rail",
        ),
        (
            "while :; do echo VDD_A 1/1 VDD_B 2/2; sleep 0.01; done",
            "no known total for its rails VDD_A, VDD_B",
        ),
        ("while :; do head -c 300 /dev/urandom; echo; sleep 0.01; done", "show no power rail"),
        ("while :; do echo VDD_IN -9/-9; sleep 0.01; done", "none of its first 20 looks is a power"),
    ],
    ids=["dies", "is killed", "no rails", "unknown rails", "garbage", "negative"],
)
def test_what_gives_no_total_is_refused_and_leaves_nothing(opened, tmp_path, script, reason):
    boards.program(tmp_path, "tegrastats", script)
    gc.collect()
    before = held()
    with pytest.raises(MeterUnavailable, match=reason) as caught:
        opened()
    assert caught.value.refusal.remedy
    assert leaked(before) == []


def test_the_rails_of_a_carrier_of_ones_own_are_added_up(opened, tmp_path):
    boards.tegrastats(tmp_path, "RAM 1/2MB CPU [off] VDD_A 1000mW/1mW VDD_B 2500mW/2mW VDD_C 9mW/9mW")
    meter = opened("interval_ms=20,rails=VDD_A+VDD_B,idle_w=2")
    energy = end(begin(meter)).settle()
    settled(lambda: meter.read().samples > 3)
    reading = meter.read()
    assert meter.idle.power_w == 2.0
    assert energy.energy_j >= 0
    assert reading.energy_j == pytest.approx(reading.by_rail_j["VDD_A"] * 3.5)


def test_a_child_that_ends_is_started_again_and_the_gap_is_said(opened, tmp_path):
    boards.program(
        tmp_path, "tegrastats", f"for k in 1 2 3 4 5 6 7 8; do {boards.say(boards.ORIN_NX)}; sleep 0.02; done"
    )
    meter = opened()
    first = meter.read()
    settled(lambda: meter.read().samples > 12)
    used = between(first, meter.read())
    assert {"gap", "restarted"} <= set(used.flags)
    assert used.energy_j / used.wall_s == pytest.approx(ORIN_NX_W)
    assert len(children()) <= 1


def test_garbage_half_lines_and_impossible_totals_are_no_samples(opened, tmp_path):
    half = boards.ORIN_NX[: boards.ORIN_NX.index("VDD_IN") + 9]
    bad = ["VDD_IN -9mW/9mW VDD_CPU_GPU_CV 1mW/1mW VDD_SOC 1mW/1mW", "", half, "CPU [", "VDD_SOC 7mW/7mW"]
    words = "; sleep 0.02; ".join(boards.say(line) for line in (*bad, boards.ORIN_NX))
    boards.program(
        tmp_path, "tegrastats", f"{boards.say(boards.ORIN_NX)}\nwhile :; do {words}; sleep 0.02; done"
    )
    meter = opened()
    first = meter.read()
    settled(lambda: meter.read().samples > 6)
    used = between(first, meter.read())
    assert "failed_read" in used.flags
    assert used.energy_j / used.wall_s == pytest.approx(ORIN_NX_W)


def test_a_line_that_comes_in_pieces_is_one_line(opened, tmp_path):
    head, tail = boards.ORIN_NX[:300], boards.ORIN_NX[300:]
    body = f"while :; do printf %s '{head}'; sleep 0.02; {boards.say(tail)}; sleep 0.02; done"
    boards.program(tmp_path, "tegrastats", body)
    meter = opened()
    settled(lambda: meter.read().samples > 4)
    assert "failed_read" not in meter.read().flags
    assert meter.read().energy_j > 0


def test_a_flood_is_no_more_than_some_samples_an_interval(opened, tmp_path):
    boards.program(tmp_path, "tegrastats", f"while :; do {boards.say(boards.ORIN_NX)}; done")
    meter = opened()
    first, cost_s = meter.read(), time.process_time()
    settled(lambda: flagged(meter, "burst", 3)() and meter.read().samples > 12)
    used = between(first, meter.read())
    assert used.sampling.samples / used.wall_s < 2.5 / 0.02
    assert used.energy_j / used.wall_s == pytest.approx(ORIN_NX_W)
    assert time.process_time() - cost_s < 0.5 * used.wall_s


def test_lines_that_are_held_back_on_a_pipe_are_had_from_a_terminal(opened, tmp_path):
    """libc buffers by the block on a pipe: here sixteen lines at a time, unless it is a terminal."""
    body = f"""
if [ -t 1 ]; then many=1; else many=16; fi
while :; do
    block=; for k in $(seq $many); do sleep 0.02; block="${{block}}{boards.ORIN_NX}\n"; done
    printf "$block"
done""".replace("%", "%%")
    boards.program(tmp_path, "tegrastats", body)
    meter = opened()
    first = meter.read()
    settled(lambda: meter.read().samples > 12)
    used = between(first, meter.read())
    assert used.wall_s / used.sampling.samples < 16 * 0.02 / 2


def test_a_program_that_flushes_its_logfile_alone_is_had_from_there(opened, tmp_path):
    body = f"""
while [ $# -gt 0 ]; do if [ "$1" = --logfile ]; then log=$2; fi; shift; done
if [ "$log" ]; then while :; do {boards.say(boards.ORIN_NX)} >>"$log"; sleep 0.02; done; fi
for k in 1 2 3 4 5 6 7 8; do {boards.say(boards.ORIN_NX)}; done; sleep 60
"""
    boards.program(tmp_path, "tegrastats", body)
    meter = opened()
    settled(lambda: meter.read().samples > 8)


@pytest.mark.slow  # it has to be silent for three seconds to be noticed
def test_a_silent_child_gets_a_terminal_and_is_then_refused(opened, tmp_path):
    boards.program(tmp_path, "tegrastats", "exec sleep 60")
    start_s = time.monotonic()
    with pytest.raises(MeterUnavailable, match="prints nothing for 3 s, also on a terminal"):
        opened()
    assert time.monotonic() - start_s < 9


@pytest.mark.slow  # it has to be silent for three seconds to be noticed
@pytest.mark.parametrize("then", ["sleep 60", "while :; do echo babble; sleep 0.1; done"])
def test_a_child_that_falls_silent_or_babbles_is_started_again(opened, tmp_path, then):
    once = tmp_path / "once"
    body = f"""
many=9999; [ -e {once} ] || many=10
touch {once}
for k in $(seq $many); do {boards.say(boards.ORIN_NX)}; sleep 0.02; done
{then}
"""
    boards.program(tmp_path, "tegrastats", body)
    meter = opened()
    first = meter.read()
    settled(lambda: between(first, meter.read()).sampling.samples > 15)
    assert {"gap", "restarted"} <= set(between(first, meter.read()).flags)


def test_closing_leaves_no_descriptor_thread_or_child(opened, tmp_path):
    boards.tegrastats(tmp_path)
    gc.collect()
    before = held()
    for _ in range(3):
        meter = opened()
        assert len(children()) == 1
        meter.close()
        meter.close()
    assert leaked(before) == []


def test_a_child_that_ignores_sigterm_is_killed_with_its_family(opened, tmp_path):
    boards.tegrastats(tmp_path, before=f"trap '' TERM; sleep 77 & echo $! >{tmp_path}/family")
    meter = opened()
    child = children()[0]
    meter.close()
    family = int((tmp_path / "family").read_text())
    settled(lambda: not alive(child) and not alive(family))


HOLDER = """
import sys, time
from pathlib import Path
from mas_edge.profiling.drivers import tegrastats
from mas_edge.profiling.meters import DriverOptions
meter = tegrastats.open_meter(DriverOptions(Path(sys.argv[1]), "interval_ms=20"))
print(meter._stream._running.count, flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "raise SystemExit(3)", "import os; os.abort()"])
def test_no_child_outlives_a_process_that_is_killed_or_crashes(tmp_path, then):
    boards.tegrastats(tmp_path, before=f"trap '' TERM HUP PIPE; echo $$ >{tmp_path}/pid")
    words = [sys.executable, "-c", HOLDER.format(then=then), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert int(holder.stdout.readline()) >= 2
        child = int((tmp_path / "pid").read_text())
        if "sleep" in then:
            holder.kill()
    settled(lambda: not alive(child))


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_sampler_costs_less_than_the_child_and_both_are_counted(opened, tmp_path):
    boards.tegrastats(tmp_path, before="k=0; while [ $k -lt 20000 ]; do k=$((k+1)); done")
    meter = opened()
    settled(lambda: meter.read().cpu_s > 0)
    assert 0 < meter.read().cpu_s < 5


def test_a_suspended_process_goes_on_with_what_is_new(opened, tmp_path):
    """The child is stopped and continued, as a debugger or a frozen cgroup would: a gap, and no lost end."""
    boards.tegrastats(tmp_path)
    meter = opened()
    settled(lambda: meter.read().samples > 5)
    first, child = meter.read(), children()[0]
    os.kill(child, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(child, signal.SIGCONT)
    settled(flagged(meter, "gap"))
    used = between(first, meter.read())
    assert used.energy_j / used.wall_s == pytest.approx(ORIN_NX_W)


def test_a_command_is_measured_by_the_tegrastats_on_path(tmp_path):
    """At the real 10 Hz and on PATH, as a user has it; in a process of its own for its environment."""
    folder = boards.tegrastats(tmp_path, interval_s=0.1).parent
    words = ["run", "--meter", "tegrastats", "--json", "--", "sleep", "2"]
    done = subprocess.run(
        [sys.executable, "-m", cli.__name__, *words],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    measured = json.loads(done.stdout)
    assert measured["mean_w"] == pytest.approx(ORIN_NX_W, rel=0.03)
    assert measured["energy_j"] == pytest.approx(ORIN_NX_W * measured["wall_s"], rel=0.03)
    assert (measured["method"], measured["sensor"], measured["scope"]) == ("sampled", "tegrastats", "module")
