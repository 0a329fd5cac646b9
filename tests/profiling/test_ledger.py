from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling import traces
from mas_edge.profiling.ledger import BUSY_U_S, LOST, Ledger, Slice, Use, charge, lose, metered, rows
from mas_edge.profiling.meters import Reading, between
from mas_edge.wire.messages import Key, Rail

KEY = Key(job="j", group="a", round=0, attempt=0, device="d")


def use(group="a", phase="step", wall_s=1.0, cpu_s=1.0, round_=0, **more):
    return Use(job="j", group=group, round=round_, phase=phase, wall_s=wall_s, cpu_s=cpu_s, **more)


def second(k, energy_j, *uses, busy_s=2.0, **more):
    return Slice(
        t0_ns=k * 10**9, t1_ns=(k + 1) * 10**9, energy_j=energy_j, busy_s=busy_s, uses=tuple(uses), **more
    )


def charged(*slices, idle_w=2.0, idle_u_w=0.0, gain_u=0.0, idle_gpu_w=None):
    ledger = Ledger()
    for piece in slices:
        ledger = charge(ledger, piece, idle_w, idle_u_w, gain_u, idle_gpu_w)
    return ledger


def only(ledger):
    (row,) = rows(ledger)
    return row


def test_a_group_alone_is_charged_by_its_processor_time():
    row = only(charged(second(0, 10.0, use(cpu_s=1.5))))
    assert (row.window_energy_j, row.dynamic_energy_j) == (10.0, 8.0)
    assert row.attributed_energy_j == pytest.approx(8.0 * 1.5 / 2.0)
    assert row.exclusive_fraction == 1.0


def test_two_groups_share_dynamic_energy_and_both_see_the_whole_window():
    a, b = rows(charged(second(0, 10.0, use("a", cpu_s=0.5), use("b", cpu_s=1.5))))
    assert (a.window_energy_j, b.window_energy_j) == (10.0, 10.0)
    assert (a.attributed_energy_j, b.attributed_energy_j) == pytest.approx((2.0, 6.0))
    assert (a.exclusive_fraction, b.exclusive_fraction) == (0.0, 0.0)


def test_phases_of_a_group_split_its_window_by_time():
    forward, backward = rows(
        charged(second(0, 10.0, use(phase="forward", wall_s=0.25), use(phase="backward", wall_s=0.75)))
    )
    assert (forward.window_energy_j, backward.window_energy_j) == pytest.approx((2.5, 7.5))


def test_a_busy_time_below_the_sum_of_its_parts_is_not_believed():
    row = only(charged(second(0, 10.0, use(cpu_s=4.0), busy_s=2.0)))
    assert row.attributed_energy_j == pytest.approx(8.0)


def test_noise_below_idle_stays_negative():
    row = only(charged(second(0, 1.0, use(cpu_s=2.0))))
    assert row.dynamic_energy_j == pytest.approx(-1.0)
    assert row.attributed_energy_j == pytest.approx(-1.0)
    assert row.flags == ("below_noise",)


def test_without_an_idle_power_only_the_window_is_known():
    row = only(charged(second(0, 10.0, use()), idle_w=None))
    assert row.window_energy_j == 10.0
    assert row.dynamic_energy_j is row.attributed_energy_j is row.dynamic_u_j is None
    assert row.flags == ()


def test_without_busy_time_nothing_is_attributed():
    row = only(charged(second(0, 10.0, use(), busy_s=None)))
    assert row.dynamic_energy_j == 8.0
    assert row.attributed_energy_j is None


def test_one_slice_that_was_not_measured_makes_the_sum_unknown_and_says_so():
    row = only(charged(second(0, 10.0, use()), second(1, None, use())))
    assert row.window_energy_j is None
    assert row.flags == ("partial",)
    assert row.wall_s == 2.0


def test_a_device_without_a_meter_has_seconds_and_no_flags():
    row = only(charged(second(0, None, use(cpu_s=0.5))))
    assert (row.cpu_s, row.window_energy_j, row.flags) == (0.5, None, ())


def test_what_errs_alike_in_every_slice_does_not_average_away():
    slices = [second(k, 10.0, use(cpu_s=2.0), variance_j2=0.04) for k in range(100)]
    row = only(charged(*slices, idle_u_w=0.1, gain_u=0.05))
    assert row.window_u_j == pytest.approx(((100 * 0.04) + (0.05 * 1000) ** 2) ** 0.5)
    assert row.dynamic_u_j == pytest.approx((100 * 0.04 + (0.05 * 800) ** 2 + (0.1 * 100) ** 2) ** 0.5)


def test_the_resolution_of_the_processor_clock_is_in_the_attributed_share():
    row = only(charged(second(0, 10.0, use(cpu_s=1.0))))
    assert row.attributed_u_j == pytest.approx(4.0 * BUSY_U_S / 2.0)


def test_bytes_add_up_and_of_memory_the_peak_stays():
    row = only(
        charged(
            second(0, 1.0, use(sent_bytes=5, peak_rss_bytes=70, examples=8)),
            second(1, 1.0, use(received_bytes=7, peak_rss_bytes=50, examples=8)),
            second(2, 1.0, use()),
        )
    )
    assert (row.sent_bytes, row.received_bytes, row.peak_rss_bytes, row.examples) == (5, 7, 70, 16)


def test_flags_of_a_slice_stay_with_the_rows_that_ran_in_it():
    a, b = rows(charged(second(0, 9.0, use("a"), flags=("gap",)), second(1, 9.0, use("b"))))
    assert (a.flags, b.flags) == (("gap",), ())


def gpu_second(k, energy_j, gpu_j, *uses, **more):
    rails = (Rail(name="VDD_CPU_CV", energy_j=1.0), Rail(name="VDD_GPU_SOC", energy_j=gpu_j))
    return second(k, energy_j, *uses, rails=rails, **more)


def test_what_a_gpu_used_for_two_groups_is_nobodys_row_and_the_rest_is_shared_by_processor_time():
    ledger = charged(
        gpu_second(0, 10.0, 5.0, use("a", cpu_s=0.5, gpu=True), use("b", cpu_s=1.5, gpu=True)), idle_gpu_w=1.0
    )
    a, b = rows(ledger)
    assert ledger.shared_gpu.value_j == pytest.approx(5.0 - 1.0)
    assert (a.attributed_energy_j, b.attributed_energy_j) == pytest.approx((1.0, 3.0))
    assert a.flags == b.flags == ("shared_gpu",)
    assert ledger.background.value_j == pytest.approx(0.0)


def test_what_a_gpu_used_for_one_group_stays_with_the_rest():
    ledger = charged(gpu_second(0, 10.0, 5.0, use("a", phase="step", gpu=True), use("b")))
    assert ledger.shared_gpu.value_j == 0.0
    assert [row.flags for row in rows(ledger)] == [(), ()]


def test_on_a_board_without_a_rail_for_its_gpu_the_split_is_marked():
    ledger = charged(second(0, 10.0, use("a", gpu=True), use("b", gpu=True), use("c")))
    assert ledger.shared_gpu.value_j == 0.0
    assert [row.flags for row in rows(ledger)] == [("gpu_by_cpu",), ("gpu_by_cpu",), ()]


def test_without_an_idle_power_what_a_gpu_shared_is_unknown():
    ledger = charged(gpu_second(0, 10.0, 5.0, use("a", gpu=True), use("b", gpu=True)), idle_w=None)
    assert ledger.shared_gpu.value_j is None


def test_peak_power_is_that_of_the_greatest_slice_and_no_sliver_has_a_say():
    sliver = Slice(t0_ns=2 * 10**9, t1_ns=2 * 10**9 + 10**6, energy_j=1.0, busy_s=0.0, uses=(use(),))
    row = only(charged(second(0, 4.0, use()), second(1, 9.0, use()), sliver))
    assert row.peak_w == 9.0
    assert (row.t0_ns, row.t1_ns) == (0, 2 * 10**9 + 10**6)


def test_rails_follow_the_window():
    row = only(charged(gpu_second(0, 10.0, 5.0, use(wall_s=0.5)), gpu_second(1, 10.0, 3.0, use())))
    assert row.rails == (Rail(name="VDD_CPU_CV", energy_j=1.5), Rail(name="VDD_GPU_SOC", energy_j=5.5))


def test_how_the_meter_did_is_counted_over_all_slices():
    readings = [
        Reading(k * 10**9, 5.0 * k, samples=10 * k, flags={"gap": k // 2, "failed_read": k}, cpu_s=k / 100)
        for k in range(4)
    ]
    ledger = charged(*(metered(between(a, b), 1.0, (), 0.002) for a, b in pairwise(readings)))
    assert (ledger.sampling.samples, ledger.sampling.gaps, ledger.sampling.failed_reads) == (30, 1, 3)
    assert ledger.sampling.rate_hz == 10.0
    assert ledger.profiler_cpu_s == pytest.approx(3 * 0.012)


def test_an_abandoned_attempt_becomes_one_row_and_keeps_its_joules():
    before = charged(
        second(0, 10.0, use(phase="load"), use("b")), second(1, 10.0, use(phase="step", examples=9), use("b"))
    )
    after = lose(before, KEY)
    lost, other = rows(after)
    assert (lost.phase, lost.examples, lost.wall_s) == (LOST, 0, 2.0)
    assert other == rows(before)[1]
    sums = [sum(row.attributed_energy_j for row in rows(ledger)) for ledger in (before, after)]
    assert sums[0] == pytest.approx(sums[1])


def test_a_second_attempt_stands_beside_what_the_first_has_lost():
    ledger = lose(charged(second(0, 10.0, use())), KEY)
    ledger = lose(charge(ledger, second(1, 10.0, use()), 2.0, 0.0), KEY)
    ledger = charge(ledger, second(2, 10.0, use()), 2.0, 0.0)
    assert {row.phase: row.wall_s for row in rows(ledger)} == {LOST: 2.0, "step": 1.0}


def test_rows_of_another_training_are_left_out():
    ledger = charged(second(0, 1.0, use("a"), use("b"), use("a", round_=1)))
    assert [(row.group, row.round) for row in rows(ledger, KEY)] == [("a", 0)]


def test_a_ledger_on_disk_is_the_ledger():
    ledger = charged(second(0, 10.0, use(), use("b")), second(3, None, use()), gain_u=0.1)
    assert msgspec.json.decode(msgspec.json.encode(ledger), type=Ledger) == ledger


def test_time_that_nobody_looked_at_is_a_step_without_energy():
    ledger = charged(second(0, 10.0), second(3, 5.0), second(4, None), second(5, 5.0))
    assert ledger.trace.t_ns == tuple(k * 10**9 for k in (0, 1, 3, 4, 5, 6))
    assert ledger.trace.energy_j == (0, 10, 10, 15, 15, 20)


def test_a_slice_that_goes_back_is_refused():
    with pytest.raises(ValueError, match="cannot follow"):
        charged(second(1, 1.0), second(0, 1.0))


def test_two_looks_at_one_sample_charge_no_energy_and_keep_the_time_worked():
    still = Slice(t0_ns=5, t1_ns=5, energy_j=0.0, busy_s=0.1, uses=(use(wall_s=0.1, cpu_s=0.1),))
    ledger = charged(still)
    row = only(ledger)
    assert (row.wall_s, row.attributed_energy_j, ledger.trace.t_ns) == (0.1, 0.0, ())


def test_what_ran_all_the_time_has_all_energy_although_readings_are_of_older_samples():
    edges_s = (0.0, 0.2, 0.5, 0.7, 0.7, 1.0)  # samples ten times a second, looked at every 0.2 s
    pieces = [
        Slice(
            t0_ns=round(a * 1e9),
            t1_ns=round(b * 1e9),
            energy_j=10 * (b - a),
            busy_s=0.2,
            uses=(use(wall_s=0.2, cpu_s=0.1),),
            seen_s=0.2,
        )
        for a, b in pairwise(edges_s)
    ]
    row = only(charged(*pieces))
    assert (row.window_energy_j, row.wall_s) == pytest.approx((10.0, 1.0))
    assert row.attributed_energy_j == pytest.approx((10.0 - 2.0) / 2)


def test_a_rail_that_dwarfs_the_total_is_no_overflow():
    both = (use("a", gpu=True), use("b", gpu=True))
    ledger = charged(gpu_second(0, 1e-300, 5.0, *both, variance_j2=1.0))
    assert ledger.shared_gpu.u_j == pytest.approx(1.0)


def test_a_long_trace_is_thinned_and_tells_the_same_union():
    pieces = [second(k, 0.0 if k % 100 == 50 else 1.0 + k % 7) for k in range(3 * traces.POINTS)]
    ledger = charged(*pieces)
    united = traces.union([(ledger.trace, 2.0)])
    assert len(ledger.trace.t_ns) <= traces.POINTS
    assert united.energy_j == pytest.approx(sum(piece.energy_j for piece in pieces), rel=1e-12)
    assert united.wall_s == sum(piece.energy_j > 0 for piece in pieces)


uses = st.lists(
    st.builds(
        use,
        group=st.sampled_from("abc"),
        phase=st.sampled_from(["load", "step"]),
        wall_s=st.floats(0, 2),
        cpu_s=st.floats(0, 4),
        gpu=st.booleans(),
    ),
    max_size=5,
)
parts = st.tuples(st.floats(0, 500), st.floats(0, 8), st.floats(0, 500) | st.none(), uses)


@given(st.lists(parts, min_size=1, max_size=10), st.floats(0, 50), st.floats(0, 50))
def test_groups_background_idle_and_shared_gpu_are_the_total(seconds, idle_w, idle_gpu_w):
    ledger = charged(
        *(
            second(k, energy_j, *used, busy_s=busy_s)
            if gpu_j is None
            else gpu_second(k, energy_j, gpu_j, *used, busy_s=busy_s)
            for k, (energy_j, busy_s, gpu_j, used) in enumerate(seconds)
        ),
        idle_w=idle_w,
        idle_gpu_w=idle_gpu_w,
    )
    attributed_j = sum(row.attributed_energy_j for row in rows(ledger))
    closed_j = attributed_j + ledger.background.value_j + ledger.idle.value_j + ledger.shared_gpu.value_j
    largest_j = max(ledger.total.value_j, ledger.idle.value_j, abs(ledger.shared_gpu.value_j), 1e-3)
    assert abs(closed_j - ledger.total.value_j) <= 1e-9 * largest_j


@given(st.lists(st.floats(0, 500), min_size=2, max_size=10), st.floats(0, 5), st.integers(1, 9))
def test_cutting_time_finer_changes_no_sum_of_a_steady_host(energies, idle_w, cuts):
    whole = charged(*(second(k, e, use(cpu_s=1.2)) for k, e in enumerate(energies)), idle_w=idle_w)
    fine = Ledger()
    for k, energy_j in enumerate(energies):
        edges = [k * 10**9 + i * 10**9 // cuts for i in range(cuts + 1)]
        for t0_ns, t1_ns in pairwise(edges):
            share = (t1_ns - t0_ns) / 1e9
            piece = Slice(
                t0_ns=t0_ns,
                t1_ns=t1_ns,
                energy_j=energy_j * share,
                busy_s=2.0 * share,
                uses=(use(wall_s=share, cpu_s=1.2 * share),),
            )
            fine = charge(fine, piece, idle_w, 0.0)
    one, other = only(whole), only(fine)
    assert other.attributed_energy_j == pytest.approx(one.attributed_energy_j, abs=1e-6)
    assert other.window_energy_j == pytest.approx(one.window_energy_j, abs=1e-6)
