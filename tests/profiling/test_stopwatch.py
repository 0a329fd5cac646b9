from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.stopwatch import PhaseTime, Stopwatch


def test_nothing_runs_before_the_first_phase(clock):
    watch = Stopwatch(clock, clock)
    clock.pass_s(1)
    assert watch.snapshot() == ()


def test_the_running_phase_is_in_the_snapshot(clock):
    watch = Stopwatch(clock, lambda: clock() // 2)
    watch.enter("load")
    clock.pass_s(1)
    assert watch.snapshot() == (PhaseTime(phase="load", wall_s=1.0, cpu_s=0.5),)


def test_a_phase_that_comes_again_goes_on_counting(clock):
    watch = Stopwatch(clock, clock)
    for phase, seconds in [("forward", 1), ("backward", 2), ("forward", 3)]:
        watch.enter(phase)
        clock.pass_s(seconds)
    assert [(time.phase, time.wall_s) for time in watch.snapshot()] == [("forward", 4.0), ("backward", 2.0)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**9), st.integers(0, 10**9))))
def test_phases_add_up_to_all_time_since_the_first(steps):
    now = [0, 0]
    watch = Stopwatch(lambda: now[0], lambda: now[1])
    for phase, wall_ns, cpu_ns in steps:
        watch.enter(phase)
        now[0] += wall_ns
        now[1] += cpu_ns
    snapshot = watch.snapshot()
    assert round(sum(time.wall_s for time in snapshot) * 1e9) == now[0]
    assert round(sum(time.cpu_s for time in snapshot) * 1e9) == now[1]


def test_by_default_it_times_this_process():
    watch = Stopwatch()
    watch.enter("work")
    total = sum(range(200_000))
    (time,) = watch.snapshot()
    assert total
    assert 0 < time.cpu_s <= time.wall_s * 1.5 + 0.01
