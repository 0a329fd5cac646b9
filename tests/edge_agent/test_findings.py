"""What the doctor makes of facts: levels, remedies, and the numbers of a round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent import findings
from mas_edge.edge_agent.findings import Finding
from mas_edge.wire.messages import Baseline, Caps, Refusal, Sensor

GB = 10**9


def counter(method="counter"):
    return Sensor(name="rapl", method=method, scope="package", sensor_host="h", detail="two zones")


@pytest.mark.parametrize(
    ("available", "cap", "level"),
    [
        (8 * GB, None, "ok"),
        (8 * GB, 2 * GB, "ok"),
        (1 * GB, 2 * GB, "warning"),  # the limit promises what is not there
        (8 * GB, 200 << 20, "error"),  # torch alone is larger
        (200 << 20, None, "error"),
    ],
)
def test_memory_must_hold_a_training_process(available, cap, level):
    found = findings.memory(available, cap)
    assert found.level == level
    assert (found.remedy is None) == (level == "ok")


@pytest.mark.parametrize(("free", "level"), [(50 << 20, "error"), (500 << 20, "warning"), (5 * GB, "ok")])
def test_disk(free, level):
    assert findings.disk(free, "/var/lib/mas-edge").level == level


@pytest.mark.parametrize(
    ("number", "cap", "level", "says"),
    [
        (2, 800 << 20, "ok", "2 trainings at a time, 1 thread each"),
        (3, 800 << 20, "warning", "torch takes 367 MB a process"),
        (2, None, "warning", "whatever they take"),
    ],
)
def test_trainings_beside_each_other_need_a_process_each(number, cap, level, says):
    found = findings.slots(number, cap, 1)
    assert found.level == level
    assert says in found.text
    assert (found.remedy is None) == (level == "ok")


def test_limits_are_ok_only_where_the_kernel_holds_memory():
    assert findings.caps(Caps(memory_bytes=GB, memory_source="MemoryMax"), "1 GB").level == "ok"
    assert findings.caps(Caps(), "none").level == "warning"
    assert findings.caps(Caps(memory_bytes=GB, memory_enforced=False), "1 GB").level == "warning"
    assert findings.caps(Caps(memory_bytes=GB, cpus=0.5, cpus_enforced=False), "1 GB").level == "warning"


def test_an_estimate_is_a_warning_that_says_what_kept_the_sensors_away():
    refused = (Refusal(sensor="rapl", reason="not readable", remedy="install the udev rule"),)
    found = findings.sensor(counter("estimated"), refused)
    assert (found.level, found.remedy) == ("warning", "rapl: not readable (install the udev rule)")
    assert findings.sensor(counter(), refused).level == "ok"


def test_the_time_is_trusted_only_if_somebody_keeps_it():
    assert findings.clock(synchronised=True).level == "ok"
    assert findings.clock(synchronised=False).level == "warning"
    assert "unknown" in findings.clock(synchronised=None).text


def test_data_without_labels_teach_nothing_and_missing_ones_are_named():
    tasks = ("gravity", "jerk")
    assert findings.data("watch", 100, 20, {"gravity", "jerk"}, tasks).level == "ok"
    assert "not for jerk" in findings.data("watch", 100, 20, {"gravity"}, tasks).text
    assert findings.data("watch", 100, 20, {"other"}, tasks).level == "error"
    assert findings.data("watch", 0, 20, {"gravity"}, tasks).level == "error"
    assert findings.data("watch", 100, 0, {"gravity"}, tasks).level == "warning"


def extrapolated(**facts):
    given_ = {"start_s": 2.0, "wall_s": 10.0, "steps": 20, "of": 60, "energy_j": 50.0, "u_j": 1.0}
    rest = {"gain_u": 0.0, "idle": None, "peak_rss_bytes": None}
    return findings.extrapolated("watch", **{**given_, **rest, **facts})


def test_the_rest_of_a_round_costs_as_much_per_step_as_what_was_tried():
    cost = extrapolated(idle=Baseline(power_w=3.0, u_w=0.1, how="measured"))
    assert (cost.wall_s, cost.energy_j, cost.u_j) == (30.0, 150.0, 3.0)
    assert cost.above_idle_j == pytest.approx((50 - 30) * 3)
    assert cost.above_idle_u_j == pytest.approx(3 * 2**0.5)
    text = findings.round_cost(cost, "counter").text
    assert "30 s, 150 ±6 J (counter" in text
    assert "60 ±8.5 J of it above idle" in text
    assert "from 20 of 60 steps" in text


def test_joules_that_nobody_knows_are_not_zero():
    cost = extrapolated(energy_j=None, u_j=None)
    assert (cost.energy_j, cost.u_j, cost.above_idle_j) == (None, None, None)
    assert "joules unknown" in findings.round_cost(cost, "").text


@given(
    steps=st.integers(1, 1000),
    more=st.integers(0, 10_000),
    energy_j=st.floats(0, 1e6),
    gain_u=st.floats(0, 1),
    idle_w=st.floats(0, 100),
)
def test_a_round_never_costs_less_than_what_was_tried(steps, more, energy_j, gain_u, idle_w):
    idle = Baseline(power_w=idle_w, u_w=0.0, how="measured")
    cost = extrapolated(steps=steps, of=steps + more, energy_j=energy_j, gain_u=gain_u, idle=idle)
    assert cost.wall_s >= 10.0
    assert cost.energy_j >= energy_j
    assert cost.u_j >= gain_u * energy_j
    assert cost.above_idle_j <= cost.energy_j


def test_the_page_shows_each_remedy_below_its_line_and_the_worst_decides():
    found = [
        Finding(about="disk", level="ok", text="500 MB free"),
        Finding(about="broker", level="error", text="no broker", remedy="start it"),
    ]
    assert findings.page(found).splitlines() == [
        "ok      disk    500 MB free",
        "error   broker  no broker",
        "                -> start it",
    ]
    assert findings.worst(found) == "error"
    assert findings.worst(found[:1]) == "ok"


@pytest.mark.parametrize(
    ("idle", "wrong", "level", "text"),
    [
        (None, None, "warning", "the idle power is not known"),
        (Baseline(power_w=3.0, u_w=0.1, how="stated"), None, "ok", "3 ±0.2 W, stated"),
        (
            Baseline(power_w=3.0, u_w=0.1, how="measured", wall_s=60.0, drift_w=-0.25),
            None,
            "ok",
            "3 ±0.2 W, measured over 60 s, -0.25 W since the one before",
        ),
        (
            Baseline(power_w=3.0, u_w=0.1, how="measured", wall_s=60.0),
            "governor: powersave, now performance",
            "warning",
            "3 ±0.2 W, measured over 60 s, does not hold: governor: powersave, now performance",
        ),
    ],
)
def test_an_idle_power_is_told_with_what_it_rests_on(idle, wrong, level, text):
    found = findings.baseline(idle, wrong)
    assert found.level == level
    assert found.text.startswith(text)
    assert (found.remedy is not None) == (level == "warning")


def test_what_a_device_can_do_is_said_with_what_it_lacks():
    both = findings.abilities(trains=True, infers=True)
    assert (both.level, both.text) == ("ok", "trains and infers")
    one = findings.abilities(trains=False, infers=True)
    assert (one.level, one.text) == ("ok", "infers: not installed: torch")
    none = findings.abilities(trains=False, infers=False)
    assert none.level == "error"
    assert none.text == "can neither train nor infer: not installed: torch, onnxruntime"
