from __future__ import annotations

import pytest

from mas_edge.profiling.meters import (
    DriverOptions,
    Mark,
    MeterOptionsRefused,
    MeterUnavailable,
    Pending,
    Reading,
    begin,
    between,
    end,
    given_idle,
    open_one,
    sensor_host,
)
from mas_edge.wire.messages import Sensor


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n0,4\n10,4\n20,8\n")
    return path


@pytest.fixture
def counted(tmp_path):
    path = tmp_path / "counted.csv"
    path.write_text("t_s,energy_j\n0,0\n10,40\n")
    return path


def test_a_window_has_the_energy_between_its_edges(log, clock):
    meter = open_one(f"replay:{log}", clock_ns=clock)
    clock.pass_s(4)
    mark = begin(meter, clock)
    clock.pass_s(3)
    energy = end(mark).settle()
    assert energy.energy_j == pytest.approx(12)
    assert energy.wall_s == pytest.approx(3)
    assert energy.flags == ("few_samples",)


def test_a_mark_can_be_ended_again_later(log, clock):
    mark = begin(open_one(f"replay:{log}", clock_ns=clock), clock)
    found = []
    for _ in range(2):
        clock.pass_s(1)
        found.append(end(mark).settle().energy_j)
    assert found == pytest.approx([4, 8])


def test_windows_overlap_freely(log, clock):
    meter = open_one(f"replay:{log}", clock_ns=clock)
    outer = begin(meter, clock)
    clock.pass_s(1)
    inner = begin(meter, clock)
    clock.pass_s(1)
    assert (end(outer).settle().energy_j, end(inner).settle().energy_j) == pytest.approx((8, 4))


def test_a_short_window_says_that_it_is(counted, clock):
    mark = begin(open_one(f"replay:{counted}", clock_ns=clock), clock)
    clock.pass_s(0.05)
    assert end(mark).settle().flags == ("short_window",)


def test_only_flags_raised_inside_a_window_are_its_own():
    first = Reading(0, 1.0, flags={"gap": 2, "failed_read": 1})
    last = Reading(10**9, 3.0, flags={"gap": 2, "failed_read": 4})
    assert between(first, last).flags == ("failed_read",)


@pytest.mark.parametrize(("counted_j", "rails"), [(4.0, {"GPU": 3.0}), (0.0, {})])
def test_rails_have_their_share_of_the_window_and_are_unknown_without_a_sample_in_it(
    counted_j, rails, log, clock
):
    first = Reading(0, 0.0, by_rail_j={"GPU": 0.0})
    last = Reading(round(counted_j * 1e9), counted_j, by_rail_j={"GPU": counted_j / 4})
    mark = Mark(open_one(f"replay:{log}", clock_ns=clock), first, 2 * 10**9, clock)
    energy = Pending(mark, last, 5 * 10**9).settle()
    assert energy.energy_j == pytest.approx(12.0)
    assert energy.by_rail_j == pytest.approx(rails)


def test_a_rail_that_is_missing_at_one_edge_is_left_out():
    first = Reading(0, 1.0, by_rail_j={"a": 1.0, "b": 5.0})
    last = Reading(10**9, 3.0, by_rail_j={"a": 2.5})
    assert between(first, last).by_rail_j == {"a": 1.5}


def test_the_gain_of_a_sensor_is_in_the_uncertainty_of_every_window():
    energy = between(Reading(0, 0.0, 1.0), Reading(10**9, 40.0, 10.0))
    sensor = Sensor(name="s", method="counter", scope="board", sensor_host="h", gain_u=0.1)
    assert energy.u_j(sensor) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("argument", "plain", "numbers"),
    [
        ("", "", {}),
        ("/a.csv", "/a.csv", {}),
        ("/a.csv,w=2", "/a.csv", {"w": 2.0}),
        ("w=2,v=-1e3", "", {"w": 2.0, "v": -1000.0}),
    ],
)
def test_an_argument_is_a_plain_word_and_numbers(argument, plain, numbers):
    assert DriverOptions(argument=argument).parse("x", "w", "v") == (plain, numbers)


@pytest.mark.parametrize("argument", ["w=much", "u=1", "/a.csv,b.csv", "w"])
def test_an_argument_that_says_nothing_is_refused(argument):
    options = DriverOptions(argument=f"/a.csv,{argument}")
    with pytest.raises(MeterOptionsRefused, match="cannot read"):
        options.parse("x", "w")


def test_a_sensor_is_one_and_the_same_for_all_processes_of_a_boot(powercap, tmp_path):
    assert sensor_host(powercap.root, "/a") == "a-boot:/a"
    assert sensor_host(tmp_path / "nothing", "/a") == "unknown-boot:/a"


def test_a_refusal_is_also_the_error_that_a_caller_expects():
    error = MeterUnavailable("rapl", "no such tree", "modprobe it")
    assert isinstance(error, OSError)
    assert str(error) == "rapl: no such tree; modprobe it"
    assert error.refusal.remedy == "modprobe it"


def test_idle_power_is_known_only_when_stated():
    assert given_idle({}) is None
    assert given_idle({"idle_w": 3.0}).power_w == 3.0
