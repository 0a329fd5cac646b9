"""When what happened: clocks of devices on job time, phases as bars, power as steps."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from finished import MODEL, RAPL, a_run, events, heard
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.reports.charts import busiest
from mas_edge.orchestrator.reports.timeline import Bar, timeline


def bar(device, kind, t0_s, t1_s):
    return Bar(device=device, group="g", round=0, kind=kind, t0_s=t0_s, t1_s=t1_s)


def test_a_devices_clock_is_put_on_job_time_by_its_fastest_delivery():
    when = a_run().timeline
    first = min(when.bars, key=lambda bar: bar.t0_s)
    assert (first.kind, first.t0_s) == ("fetch", pytest.approx(1.0 + 0.1))  # every bill took 0.1 s to arrive
    slow = [(t + (5.0 if k % 2 else 0.0), event) for k, (t, event) in enumerate(events())]
    assert [b.t0_s for b in timeline(slow).bars] == pytest.approx([b.t0_s for b in when.bars])


def test_phases_that_alternate_are_one_bar_of_training():
    (bars, *_) = [timeline([(3.0, heard("d1", "a", 0, 100.0, 1.0, RAPL))]).bars]
    assert [(b.kind, round(b.t1_s - b.t0_s, 6)) for b in bars] == [("fetch", 0.5), ("train", 2.0)]


def test_hosts_have_a_power_each_and_a_host_without_a_sensor_has_none():
    assert [power.devices for power in a_run().timeline.powers] == [("d1", "d2")]
    other = msgspec.structs.replace(MODEL, sensor_host="elsewhere")
    assert [power.devices for power in a_run(sensors=(RAPL, other)).timeline.powers] == [("d1",), ("d2",)]
    none = a_run(joules=None, sensors=(None, None)).timeline
    assert none.powers == ()
    assert {b.device for b in none.bars} == {"d1", "d2"}


def test_the_energy_under_the_power_is_the_hosts_total():
    run = a_run()
    (power,) = run.timeline.powers
    steps = zip(power.t0_s, power.t1_s, power.power_w, strict=True)
    assert sum((t1 - t0) * watts for t0, t1, watts in steps) == pytest.approx(run.bill.total_j)


def test_the_background_of_power_is_what_most_devices_were_at():
    bars = [
        bar("a", "train", 0, 4),
        bar("b", "train", 0, 2),
        bar("b", "upload", 2, 5),
        bar("c", "upload", 2, 3),
    ]
    assert busiest(bars) == [(0, 2, "train"), (2, 3, "upload"), (3, 4, "train"), (4, 5, "upload")]


@given(
    st.lists(
        st.tuples(st.sampled_from(["fetch", "train", "upload"]), st.floats(0, 10), st.floats(0.01, 5)),
        max_size=12,
    )
)
def test_the_background_covers_exactly_the_time_in_which_anybody_was_at_work(work):
    bars = [bar(str(k), kind, t0_s, t0_s + wall_s) for k, (kind, t0_s, wall_s) in enumerate(work)]
    found = busiest(bars)
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    covered, end_s = 0.0, 0.0
    for one in sorted(bars, key=lambda b: b.t0_s):
        covered += max(0.0, one.t1_s - max(one.t0_s, end_s))
        end_s = max(end_s, one.t1_s)
    assert sum(t1 - t0 for t0, t1, _ in found) == pytest.approx(covered)
