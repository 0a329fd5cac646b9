from __future__ import annotations

import pytest

from mas_edge.profiling.meters import (
    DriverOptions,
    MeterOptionsRefused,
    MeterUnavailable,
    Reading,
    UnknownMeter,
    begin,
    between,
    drivers,
    end,
    given_idle,
    open_meter,
    open_one,
    sensor_host,
)
from mas_edge.wire.messages import Sensor


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n0,4\n10,4\n20,8\n")
    return path


def test_a_window_has_the_energy_between_its_edges(log, clock):
    meter = open_one(f"replay:{log}", clock_ns=clock)
    clock.pass_s(4)
    mark = begin(meter, clock)
    clock.pass_s(3)
    energy = end(mark).settle()
    assert energy.energy_j == pytest.approx(12)
    assert energy.wall_s == pytest.approx(3)
    assert energy.flags == ()


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


def test_a_short_window_says_that_it_is(log, clock):
    mark = begin(open_one(f"replay:{log}", clock_ns=clock), clock)
    clock.pass_s(0.05)
    assert end(mark).settle().flags == ("short_window",)


def test_only_flags_raised_inside_a_window_are_its_own():
    first = Reading(0, 1.0, flags={"gap": 2, "failed_read": 1})
    last = Reading(10**9, 3.0, flags={"gap": 2, "failed_read": 4})
    assert between(first, last).flags == ("failed_read",)


def test_a_rail_that_is_missing_at_one_edge_is_left_out():
    first = Reading(0, 1.0, by_rail_j={"a": 1.0, "b": 5.0})
    last = Reading(10**9, 3.0, by_rail_j={"a": 2.5})
    assert between(first, last).by_rail_j == {"a": 1.5}


def test_the_gain_of_a_sensor_is_in_the_uncertainty_of_every_window():
    energy = between(Reading(0, 0.0, 1.0), Reading(10**9, 40.0, 10.0))
    sensor = Sensor(name="s", method="counter", scope="board", sensor_host="h", gain_u=0.1)
    assert energy.u_j(sensor) == pytest.approx(5.0)


def test_the_first_usable_meter_is_opened_and_the_others_are_told_why(tmp_path, log):
    meter, refused = open_meter(["rapl", f"replay:{log}", "estimate"], root=tmp_path)
    assert meter.sensor.name == "replay"
    assert [refusal.sensor for refusal in refused] == ["rapl"]
    assert "does not exist" in refused[0].reason
    assert refused[0].remedy


def test_auto_falls_to_a_labelled_estimate_and_says_what_it_passed_over(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    meter, refused = open_meter("auto", root=tmp_path)
    assert meter.sensor.method == "estimated"
    assert [refusal.sensor for refusal in refused] == ["rapl"]


def test_no_meter_at_all_is_none_with_every_reason(tmp_path):
    meter, refused = open_meter(["auto", "replay:/nowhere.csv"], root=tmp_path)
    assert meter is None
    assert [refusal.sensor for refusal in refused] == ["rapl", "estimate", "replay"]


def test_a_meter_that_is_not_installed_is_an_error_with_the_names_there_are():
    with pytest.raises(UnknownMeter, match=r"no meter 'joulebox'.*rapl, estimate"):
        open_meter("joulebox")


def test_a_misspelled_option_is_an_error_and_not_a_refusal():
    with pytest.raises(MeterOptionsRefused, match=r"idel_w.*idle_w=NUMBER"):
        open_meter("estimate:idel_w=3")


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


def test_the_best_meters_are_named_first():
    assert drivers()[:2] == ("rapl", "estimate")


def test_idle_power_is_known_only_when_stated():
    assert given_idle({}) is None
    assert given_idle({"idle_w": 3.0}).power_w == 3.0
