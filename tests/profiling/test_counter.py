from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.counter import Count, Limits, advance, edges_j2, rapl_modulus_uj, safe_interval_s

UNITS = 2**32
RANGE_UJ = 262_143_328_850
MILLISECOND = 1_000_000
PACKAGE = Limits(rapl_modulus_uj(RANGE_UJ), greatest_w=500.0)
ANYTHING = Limits(rapl_modulus_uj(RANGE_UJ), greatest_w=1e12)

units = st.integers(0, UNITS - 1)
milliseconds = st.integers(0, 60_000)


def run(limits, shown, start_uj=0):
    """Counts and doubts after each (value, milliseconds since the one before)."""
    counts, doubts, t_ns = [Count(start_uj, 0)], [], 0
    for value_uj, passed in shown:
        t_ns += passed * MILLISECOND
        count, doubt = advance(counts[-1], value_uj, t_ns, limits)
        counts.append(count)
        doubts.append(doubt)
    return counts, doubts


@given(st.sampled_from([15, 61, 1000]), units, st.lists(st.tuples(units, milliseconds), max_size=40))
def test_any_schedule_of_wraps_gives_the_true_total(unit_uj, start, steps):
    """Against a counter of Python's unlimited integers, with at most one wrap between two values."""
    limits = Limits(rapl_modulus_uj((UNITS - 1) * unit_uj), 1e12)
    shown, true = [], start
    for moved, passed in steps:
        true += moved
        shown.append((true % UNITS * unit_uj, passed))
    counts, _ = run(limits, shown, start_uj=start * unit_uj)
    assert counts[-1].total_uj == (true - start) * unit_uj


@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), milliseconds), max_size=40))
def test_whatever_a_counter_shows_its_total_never_falls_nor_outruns_its_greatest_power(shown):
    counts, doubts = run(PACKAGE, shown)
    for (before, after), doubt, (_, passed) in zip(pairwise(counts), doubts, shown, strict=True):
        step_j = (after.total_uj - before.total_uj) / 1e6
        assert 0 <= step_j <= PACKAGE.greatest_w * max(passed / 1e3, 1.0)
        assert doubt != "gap" or step_j == 0


@given(st.lists(st.tuples(st.integers(0, RANGE_UJ), milliseconds), min_size=2, max_size=30), st.data())
def test_adjacent_windows_add_up_exactly(shown, data):
    counts, _ = run(PACKAGE, shown)
    cut = data.draw(st.integers(0, len(counts) - 1))
    first = counts[cut].total_uj - counts[0].total_uj
    second = counts[-1].total_uj - counts[cut].total_uj
    assert first + second == counts[-1].total_uj


@given(st.lists(st.tuples(st.integers(0, RANGE_UJ), milliseconds), min_size=1, max_size=30), st.data())
def test_reading_more_often_changes_no_total(shown, data):
    """As long as nothing is doubted, a value in between is neither lost nor counted twice."""
    true_uj, t_ms, path = 0, 0, []
    for step_uj, passed in shown:
        true_uj, t_ms = true_uj + step_uj % 1_000_000, t_ms + passed
        path.append((true_uj, t_ms))
    some = [point for point in path[:-1] if data.draw(st.booleans())] + path[-1:]

    def total(points):
        times = [0, *(t for _, t in points)]
        return run(
            ANYTHING,
            [
                (v % ANYTHING.modulus_uj, b - a)
                for (v, _), (a, b) in zip(points, pairwise(times), strict=True)
            ],
        )[0][-1].total_uj

    assert total(some) == total(path) == true_uj


def test_a_step_that_no_power_explains_is_left_out_and_counting_goes_on():
    counts, doubts = run(PACKAGE, [(9_000_000, 1000), (5_000_000_000, 1000), (5_003_000_000, 1000)])
    assert doubts == [None, "gap", None]
    assert [count.total_uj for count in counts] == [0, 9_000_000, 9_000_000, 12_000_000]


def test_a_counter_without_a_known_modulus_that_falls_is_a_gap():
    limits = Limits(None, 1000.0)
    counts, doubts = run(limits, [(1_000_000, 1000), (10, 1000), (500_010, 1000)])
    assert doubts == [None, "gap", None]
    assert counts[-1].total_uj == 1_500_000


def test_an_interval_in_which_a_whole_turn_may_hide_is_a_lower_bound():
    turn_s = RANGE_UJ / 1e6 / PACKAGE.greatest_w
    assert run(PACKAGE, [(1, round(turn_s * 990))])[1] == [None]
    assert run(PACKAGE, [(1, round(turn_s * 1010))])[1] == ["lower_bound"]


def test_after_a_sleep_no_step_is_believed():
    count, doubt = advance(Count(5_000_000, 0), 5_000_100, 10**9, PACKAGE, slept=True)
    assert (count.total_uj, doubt) == (0, "gap")
    assert advance(count, 5_000_200, 2 * 10**9, PACKAGE) == (Count(5_000_200, 2 * 10**9, 100), None)


def test_a_reader_that_had_to_wait_for_a_processor_has_no_gap():
    """The clock was read 50 ms after the value, the next time at once: 5 J seem to take 0.1 ms."""
    _, doubts = run(PACKAGE, [(1_000_000, 50), (6_000_000, 0)])
    assert doubts == [None, None]


def test_a_clock_that_goes_back_adds_no_more_than_a_second_could():
    far_uj = 501_000_000
    assert advance(Count(0, 10**10), far_uj, 10**9, PACKAGE)[1] == "gap"
    assert advance(Count(0, 10**10), far_uj - 2_000_000, 10**9, PACKAGE)[1] is None


@pytest.mark.parametrize(
    ("range_uj", "modulus_uj"),
    [(262_143_328_850, 262_143_328_911), (65_712_999_613, 65_712_999_628), (65_532_610_987, 65_532_611_002)],
)
def test_the_modulus_is_one_unit_above_the_range(range_uj, modulus_uj):
    assert rapl_modulus_uj(range_uj) == modulus_uj


@given(st.integers(1, 2**50), st.floats(1.0, 5000.0))
def test_at_the_safe_interval_at_most_half_a_turn_can_pass(modulus_uj, greatest_w):
    seconds = safe_interval_s(Limits(modulus_uj, greatest_w), 30.0)
    assert seconds <= 30.0
    assert seconds * greatest_w * 1e6 <= modulus_uj / 2 * (1 + 1e-9)


def test_an_edge_can_be_wrong_by_no_more_than_the_window_holds():
    assert edges_j2(4.0, 200 * MILLISECOND, MILLISECOND) == pytest.approx(2 * 0.02**2 / 3)
    assert edges_j2(4.0, 0, MILLISECOND) == pytest.approx(2 * 4.0**2 / 3)
