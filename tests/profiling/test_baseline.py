from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.baseline import (
    BaselineRefused,
    after,
    drifted,
    load,
    measure,
    mismatch,
    stated,
    store,
    summary,
)
from mas_edge.profiling.meters import Idle, MeterUnavailable, Reading, open_one
from mas_edge.wire.messages import Baseline, Machine, Sensor

SENSOR = Sensor(name="s", method="counter", scope="board", sensor_host="boot-1:/s", detail="total of a")


class Script:
    """A meter that reads what a script says: watts of each second, or an error; a rail for a GPU."""

    sensor, idle = SENSOR, None

    def __init__(self, clock, *watts, gap_at=()):
        self.clock, self.watts, self.gap_at = clock, watts, gap_at
        self.start_ns = clock()

    def read(self):
        seconds = (self.clock() - self.start_ns) // 10**9
        if seconds and self.watts[seconds - 1] is None:
            raise MeterUnavailable("s", "no answer")
        energy_j = float(sum(watts or 0.0 for watts in self.watts[:seconds]))
        gaps = sum(at < seconds for at in self.gap_at)
        return Reading(self.clock(), energy_j, by_rail_j={"VDD_GPU": energy_j / 4}, flags={"gap": gaps})


def measured(clock, tmp_path, *watts, **more):
    meter = Script(clock, *watts, **more)
    return measure(meter, len(watts), root=tmp_path, wait=clock.pass_s, wall_clock_s=lambda: 1.7e9)


def test_a_baseline_is_the_mean_power_with_its_spread_and_state(clock, tmp_path):
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("6.1\n")
    found = measured(clock, tmp_path, 4.0, 5.0, 6.0, 4.0, 6.0)
    assert (found.power_w, found.n, found.wall_s, found.t_s) == (5.0, 5, 5.0, 1.7e9)
    assert found.sd_w == pytest.approx(1.0)
    assert found.u_w == pytest.approx(1.0 / 5**0.5)
    assert found.gpu_w == 1.25
    assert (found.how, found.sensor, found.machine.kernel) == ("measured", SENSOR, "6.1")


def test_progress_is_told_second_by_second(clock, tmp_path):
    told = []
    meter = Script(clock, 4.0, 6.0, 5.0)
    measure(meter, 3.0, lambda *words: told.append(words), root=tmp_path, wait=clock.pass_s)
    assert told == [(1.0, 3.0, 4.0), (2.0, 3.0, 5.0), (3.0, 3.0, 5.0)]


def test_seconds_in_which_the_meter_did_not_answer_are_in_the_next_block(clock, tmp_path):
    found = measured(clock, tmp_path, 4.0, None, 8.0, 4.0, 4.0)
    assert found.n == 4
    assert found.power_w == pytest.approx(4.0)


def test_seconds_with_a_gap_do_not_count(clock, tmp_path):
    found = measured(clock, tmp_path, 4.0, 400.0, 4.0, 4.0, gap_at=(1,))
    assert (found.power_w, found.n, found.u_w) == (4.0, 3, 0.0)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 2.9])
def test_too_short_a_baseline_is_refused(clock, tmp_path, seconds):
    with pytest.raises(BaselineRefused, match="take 3 or more"):
        measure(Script(clock, 4.0), seconds, root=tmp_path, wait=clock.pass_s)


def test_a_meter_that_was_silent_most_of_the_time_gives_none(clock, tmp_path):
    with pytest.raises(BaselineRefused, match="only 1 of 4 s"):
        measured(clock, tmp_path, 4.0, None, None, None)


def test_powers_that_hang_together_tell_less():
    rng = random.Random(7)
    free = [rng.gauss(5, 1) for _ in range(400)]
    walk, tied = 0.0, []
    for _ in range(400):
        walk = 0.9 * walk + rng.gauss(0, 1)
        tied.append(5 + walk)
    _, sd_w, u_w = summary(free)
    assert u_w == pytest.approx(sd_w / 20, rel=0.15)
    _, sd_w, u_w = summary(tied)
    # n_eff = n (1 - 0.9) / (1 + 0.9): a mean of 400 is worth 21
    assert u_w == pytest.approx(sd_w / 21**0.5, rel=0.35)


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=50))
def test_a_mean_is_never_surer_than_independent_seconds_nor_less_sure_than_one(powers_w):
    _, sd_w, u_w = summary(powers_w)
    assert sd_w / len(powers_w) ** 0.5 * 0.999 <= u_w <= sd_w * 1.001


def test_two_measurements_are_uncertain_by_half_of_what_lies_between_them():
    before = Baseline(power_w=4.0, u_w=0.01, how="measured", sd_w=0.1, n=30, wall_s=30.0, gpu_w=1.0)
    after = msgspec.structs.replace(before, power_w=5.0, gpu_w=2.0)
    both = drifted(before, after)
    assert (both.power_w, both.u_w, both.drift_w) == (4.5, 0.5, 1.0)
    assert (both.n, both.wall_s, both.gpu_w) == (60, 60.0, 1.5)
    assert drifted(before, before).u_w == 0.01


def test_measured_again_the_later_one_counts_and_knows_the_drift():
    earlier = Baseline(power_w=4.0, u_w=0.01, how="measured")
    later = after(earlier, Baseline(power_w=4.5, u_w=0.02, how="measured"))
    assert (later.power_w, later.drift_w, later.u_w) == (4.5, 0.5, 0.25)


def test_what_a_user_says_is_a_baseline_too():
    assert stated(None) is None
    assert stated(Idle(3.0, 0.1, "given by the user")) == Baseline(
        power_w=3.0, u_w=0.1, how="given by the user"
    )


@pytest.fixture
def kept():
    return Baseline(
        power_w=4.0,
        u_w=0.1,
        how="measured",
        sensor=SENSOR,
        machine=Machine(governor="performance", temperature_c=40.0),
    )


def test_a_baseline_holds_after_a_reboot_and_when_it_is_warmer(kept):
    now = msgspec.structs.replace(SENSOR, sensor_host="boot-2:/s")
    assert mismatch(kept, now, Machine(governor="performance", temperature_c=70.0)) is None


def test_another_governor_or_another_sensor_ends_it(kept):
    assert mismatch(kept, SENSOR, Machine(governor="schedutil")) == "governor: schedutil, was performance"
    other = msgspec.structs.replace(SENSOR, name="rapl")
    assert "not rapl" in mismatch(kept, other, Machine(governor="performance"))


def test_a_baseline_on_disk_is_the_baseline(kept, tmp_path):
    store(tmp_path / "baseline.json", kept)
    assert load(tmp_path / "baseline.json") == kept
    assert load(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["", "[]", '{"power_w": "four"}', "\udcff"])
def test_a_file_that_is_no_baseline_is_an_error_with_its_name(tmp_path, text):
    path = tmp_path / "baseline.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BaselineRefused, match=r"baseline\.json holds no baseline"):
        load(path)


def test_a_folder_that_is_not_there_is_an_error_with_its_name(kept, tmp_path):
    with pytest.raises(BaselineRefused, match="cannot write"):
        store(tmp_path / "nowhere/baseline.json", kept)


def test_a_counter_that_stands_still_measures_no_baseline(server, clock):
    meter = open_one("rapl", root=server.root, clock_ns=clock)
    with pytest.raises(BaselineRefused, match="rapl counted nothing in 3 s"):
        measure(meter, 3.0, root=server.root, wait=clock.pass_s)
    meter.close()
