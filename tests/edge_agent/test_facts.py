"""What the conditions are judged by, read from trees as kernels show them."""

from __future__ import annotations

import time

import pytest

from mas_edge.edge_agent import facts
from mas_edge.edge_agent.conditions import Conditions
from mas_edge.edge_agent.facts import Observer, local_clock_s, power, temperature_c


def tree(root, **files):
    """Files under a root; the path's / are written as __."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def supply(root, name, **files):
    for key, text in files.items():
        tree(root, **{f"sys__class__power_supply__{name}__{key}": text})
    return root


def test_a_machine_without_a_battery_is_on_mains(tmp_path):
    assert power(tmp_path) == (True, None)
    assert power(supply(tmp_path, "AC", type="Mains", online="1")) == (True, None)


@pytest.mark.parametrize(
    ("online", "status", "mains"),
    [
        ("1", "Charging", True),
        ("1", "Full", True),
        ("1", "Discharging", False),
        ("0", "Discharging", False),
        ("0", "Unknown", False),
        ("1", "Unknown", True),
        (None, "Not charging", True),
        (None, "Unknown", None),
    ],
)
def test_a_battery_and_its_charger_say_where_the_power_comes_from(tmp_path, online, status, mains):
    supply(tmp_path, "BAT0", type="Battery", status=status, capacity="57", present="1")
    if online:
        supply(tmp_path, "AC", type="Mains", online=online)
    assert power(tmp_path) == (mains, 57.0)


def test_the_emptiest_battery_counts_and_that_of_a_mouse_does_not(tmp_path):
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity="80")
    supply(tmp_path, "BAT1", type="Battery", status="Unknown", capacity="30")
    supply(tmp_path, "hid-mouse", type="Battery", scope="Device", status="Discharging", capacity="5")
    assert power(tmp_path) == (False, 30.0)


def test_the_hottest_zone_counts_and_what_is_no_temperature_does_not(tmp_path):
    zones = {"cpu-thermal": "51500", "gpu-thermal": "52000", "cv0-thermal": "-256000", "PMIC-Die": "100000"}
    for number, (kind, text) in enumerate(zones.items()):
        tree(
            tmp_path,
            **{
                f"sys__class__thermal__thermal_zone{number}__type": kind,
                f"sys__class__thermal__thermal_zone{number}__temp": text,
            },
        )
    (tmp_path / "sys/class/thermal/thermal_zone9").mkdir()  # one that cannot be read
    tree(tmp_path, sys__class__thermal__cooling_device0__temp="99000")
    assert temperature_c(tmp_path) == 52.0


def test_a_machine_without_zones_is_as_hot_as_its_chips_say(tmp_path):
    assert temperature_c(tmp_path) is None
    tree(
        tmp_path,
        sys__class__hwmon__hwmon0__temp1_input="40000",
        sys__class__hwmon__hwmon1__temp2_input="61000",
    )
    tree(tmp_path, sys__class__hwmon__hwmon1__temp3_input="nonsense")
    assert temperature_c(tmp_path) == 61.0


@pytest.fixture
def berlin(monkeypatch):
    """The clock of Central Europe, in the rule that needs no time zone files."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_clock_is_the_one_on_the_wall_also_when_it_is_changed():
    spring = 1774746000.0  # 2026-03-29 01:00 UTC, when 02:00 becomes 03:00
    assert [local_clock_s(spring + s) / 3600 for s in (-3600, 0, 3600)] == [1.0, 3.0, 4.0]
    autumn = 1792890000.0  # 2026-10-25 01:00 UTC, when 03:00 becomes 02:00
    assert [local_clock_s(autumn + s) / 3600 for s in (-3600, 0, 3600)] == [2.0, 2.0, 3.0]


OTHERS = Conditions(others_cpu_percent=50)


class Host:
    """A /proc whose processors have worked for so long."""

    def __init__(self, root) -> None:
        self.root, self.observer = root, Observer(root)

    def look(self, now_s: float, busy_s: float, own_s: float, pids=(7,), asked=OTHERS):
        idle_s = 2 * now_s - busy_s  # two processors
        tree(self.root, proc__stat=f"cpu  {busy_s * 100:.0f} 0 0 {idle_s * 100:.0f} 0 0 0 0")
        for pid in pids:
            tree(
                self.root,
                **{
                    f"proc__{pid}__stat": f"{pid} (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0",
                    f"proc__{pid}__task__{pid}__schedstat": f"{own_s * 1e9:.0f} 0 0",
                },
            )
        seen = self.observer.facts(
            asked, now_s=now_s, wall_s=0.0, pids=pids, energy_today_j=0.0, full_disk=None
        )
        return seen.others_cpu_percent


def test_others_load_is_what_is_not_ours_over_the_last_minute(tmp_path):
    host = Host(tmp_path)
    assert host.look(100.0, 50.0, 10.0) is None
    assert host.look(102.0, 51.0, 10.5) is None, "too short to tell"
    assert host.look(110.0, 60.0, 15.0) == pytest.approx(25.0)  # 10 s busy, 5 of them ours, of 20
    assert host.look(150.0, 140.0, 15.0) == pytest.approx(85.0)
    assert host.look(240.0, 140.0, 15.0) == pytest.approx(0.0), "what is over a minute ago is forgotten"


def test_a_worker_that_came_or_went_makes_the_count_begin_anew(tmp_path):
    host = Host(tmp_path)
    host.look(100.0, 50.0, 10.0)
    assert host.look(110.0, 60.0, 15.0) == pytest.approx(25.0)
    assert host.look(112.0, 62.0, 5.0, pids=(7, 8)) == pytest.approx(25.0), "as before, until it is known"
    assert host.look(122.0, 82.0, 15.0, pids=(7, 8)) == pytest.approx(0.0)


def test_nothing_is_read_that_is_not_asked(tmp_path):
    assert Host(tmp_path).look(1.0, 0.0, 0.0, asked=Conditions()) is None
    seen = Observer(tmp_path / "nowhere").facts(
        Conditions(), now_s=0.0, wall_s=0.0, pids=(), energy_today_j=3.0, full_disk="full"
    )
    assert (seen.on_mains, seen.temperature_c, seen.energy_today_j, seen.full_disk) == (
        None,
        None,
        3.0,
        "full",
    )


def test_a_host_that_does_not_tell_its_load_leaves_it_unknown(tmp_path):
    seen = Observer(tmp_path).facts(
        OTHERS, now_s=0.0, wall_s=0.0, pids=(), energy_today_j=0.0, full_disk=None
    )
    assert seen.others_cpu_percent is None


def test_today_is_a_date():
    assert facts.today() == time.strftime("%Y-%m-%d")
