from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from mas_edge.profiling.choice import EnergyConfig, NoMeter, choose, expected_2u, probe, survey
from mas_edge.profiling.meters import (
    AUTO,
    MeterOptionsRefused,
    MeterUnavailable,
    Reading,
    UnknownMeter,
    drivers,
)
from mas_edge.wire.messages import Sensor


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n0,4\n10,4\n20,8\n")
    return path


@pytest.fixture
def bare(tmp_path):
    """A host that has processors and no sensor."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    return tmp_path


@pytest.fixture(autouse=True)
def no_programs(monkeypatch, tmp_path):
    """No vendor's tool is found, whatever this machine has."""
    monkeypatch.setenv("PATH", str(tmp_path))


def chosen(*names, root, **more):
    meter, refused = choose(EnergyConfig(meter=names, **more), root=root)
    meter.close()
    return meter.sensor, [refusal.sensor for refusal in refused]


def test_the_first_usable_meter_is_opened_and_the_others_are_told_why(tmp_path, log):
    meter, refused = choose(EnergyConfig(meter=("rapl", f"replay:{log}", "estimate")), root=tmp_path)
    assert meter.sensor.name == "replay"
    assert [refusal.sensor for refusal in refused] == ["rapl"]
    assert "does not exist" in refused[0].reason
    assert refused[0].remedy


def test_auto_falls_to_a_labelled_estimate_and_says_what_it_passed_over(bare):
    sensor, refused = chosen("auto", root=bare)
    assert sensor.method == "estimated"
    assert refused == [name for name in AUTO if name in drivers() and name != "estimate"]


def test_auto_takes_a_counter_before_the_estimate(server):
    (server.root / "proc").mkdir(exist_ok=True)
    (server.root / "proc/stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    assert chosen("auto", root=server.root)[0].name == "rapl"


def test_no_meter_at_all_is_one_line_with_every_reason(tmp_path):
    with pytest.raises(NoMeter, match=r"rapl: .*estimate: .*replay: ") as caught:
        choose(EnergyConfig(meter=("auto", "replay:/nowhere.csv")), root=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_estimate_is_no_measurement(bare, log):
    with pytest.raises(NoMeter, match="estimate: it is an estimate, and measured is required"):
        choose(EnergyConfig(require="measured"), root=bare)
    sensor, refused = chosen("estimate", f"replay:{log}", root=bare, require="measured")
    assert (sensor.name, refused) == ("replay", ["estimate"])


def test_a_meter_that_is_not_installed_is_an_error_with_the_names_there_are():
    with pytest.raises(UnknownMeter, match=r"no meter 'joulebox'.*rapl.*estimate"):
        choose(EnergyConfig(meter="joulebox"))


def test_a_misspelled_option_is_an_error_and_not_a_refusal():
    with pytest.raises(MeterOptionsRefused, match=r"idel_w.*idle_w=NUMBER"):
        choose(EnergyConfig(meter="estimate:idel_w=3"))


def test_the_best_meters_are_named_first():
    assert [name for name in drivers() if name in AUTO] == [name for name in AUTO if name in drivers()]
    assert AUTO[-1] == "estimate"
    assert {"battery", "pyjoules", "replay"}.isdisjoint(AUTO)


def test_every_installed_driver_is_surveyed_with_what_it_has_or_what_would_help(bare):
    found = {candidate.name: candidate for candidate in survey(bare)}
    assert found.keys() == set(drivers())
    assert found["estimate"].usable
    assert not found["estimate"].measured
    for candidate in found.values():
        assert candidate.usable == (candidate.refusal is None) == (candidate.sensor is not None)
        assert candidate.usable or candidate.refusal.remedy


@dataclass
class Stuck:
    """A meter whose answers are those of a list, the last one for ever."""

    t_ns: list[int]
    sensor: Sensor = field(
        default=Sensor(name="s", method="sampled", scope="board", sensor_host="h", rate_hz=100.0)
    )

    def read(self):
        return Reading(self.t_ns.pop(0) if len(self.t_ns) > 1 else self.t_ns[0], 1.0)


def test_a_meter_is_usable_once_it_has_answered_twice():
    meter = Stuck([5, 5, 6, 7])
    probe(meter)
    assert meter.t_ns == [7]


@pytest.mark.slow
def test_a_meter_that_has_nothing_new_is_refused():
    with pytest.raises(MeterUnavailable, match="nothing new in 2 s"):
        probe(Stuck([5]))


@pytest.mark.parametrize(
    ("method", "rate_hz", "gain_u", "relative"),
    [
        ("counter", 1000.0, 0.05, 0.1),
        ("sampled", 10.0, 0.0, 0.028),
        ("sampled", 1.0, 0.0, 0.2),
        ("estimated", None, 0.3, 0.6),
    ],
)
def test_what_to_expect_of_ten_seconds(method, rate_hz, gain_u, relative):
    sensor = Sensor(name="s", method=method, scope="board", sensor_host="h", rate_hz=rate_hz, gain_u=gain_u)
    assert expected_2u(sensor) == pytest.approx(relative, rel=0.02)


def test_a_driver_that_cannot_be_loaded_is_refused_and_stops_nobody(tmp_path, bare):
    info = tmp_path / "site/joulebox-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: joulebox\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mas_edge.meters]\njoulebox = joulebox_of_nobody:open_meter\n")
    words = [sys.executable, "-m", "mas_edge.profiling.cli", "--root", str(bare), "list", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(info.parent)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, timeout=60)
    (entry,) = (entry for entry in json.loads(done.stdout) if entry["name"] == "joulebox")
    assert not entry["usable"]
    assert "No module named 'joulebox_of_nobody'" in entry["refusal"]["reason"]
