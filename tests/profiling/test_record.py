from __future__ import annotations

import csv
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mas_edge.profiling.meters import begin, end, open_one
from mas_edge.profiling.record import RecordRefused, record

LINE = "RAM 1/2MB VDD_IN 5000mW/5000mW VDD_CPU_GPU_CV 500mW/500mW VDD_SOC 1500mW/1500mW"

PMIC = "VDD_CORE_A current(7)=1.0A\nVDD_CORE_V volt(15)=0.9V\nEXT5V_V volt(24)=5.1V"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A tegrastats that writes a line and waits, and a vcgencmd."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "tegrastats").write_text(f'#!/bin/sh\nwhile echo "{LINE}" >>"$4"; do sleep 0.1; done\n')
    (folder / "vcgencmd").write_text(f"#!/bin/sh\necho '{PMIC}'\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def nothing_on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_on_path")
def test_a_recorded_tree_is_a_root_on_which_the_driver_sees_the_same(server, tmp_path):
    made = record(server.root, tmp_path / "fixture", 0.1)
    assert "sys/class/powercap/intel-rapl:1" in made.sensors
    there, here = (open_one("rapl", root=root) for root in (server.root, tmp_path / "fixture"))
    assert here.sensor.detail == there.sensor.detail
    there.close()
    here.close()


@pytest.mark.usefixtures("nothing_on_path")
def test_what_moves_is_read_again_and_written_down(server, tmp_path):
    timer = threading.Timer(0.15, server.add, ("intel-rapl:1", 7_000_000))
    timer.start()
    made = record(server.root, tmp_path / "fixture", 0.4)
    with (tmp_path / "fixture/changes.csv").open() as file:
        (change,) = csv.DictReader(file)
    assert made.changes == 1
    assert change["path"] == "sys/class/powercap/intel-rapl:1/energy_uj"
    assert change["value"] == "8000000"
    assert 0.1 < float(change["t_s"]) < 0.4
    first = (tmp_path / "fixture" / change["path"]).read_text()
    assert first == "1000000\n"


@pytest.mark.usefixtures("nothing_on_path")
def test_a_file_that_cannot_be_read_is_named_and_not_made_up(server, tmp_path):
    path = server.folder("intel-rapl:2:0") / "energy_uj"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # reading its beginning is an input/output error, also for root
    made = record(server.root, tmp_path / "fixture", 0.05)
    assert made.unreadable == {"sys/class/powercap/intel-rapl:2:0/energy_uj": "EIO"}
    assert not (tmp_path / "fixture/sys/class/powercap/intel-rapl:2:0/energy_uj").exists()
    kept = json.loads((tmp_path / "fixture/record.json").read_text())
    assert kept["unreadable"] == made.unreadable


@pytest.mark.usefixtures("nothing_on_path")
def test_nothing_that_names_the_host_or_its_people_is_kept(server, tmp_path):
    for path in ("proc/cmdline", "etc/hostname", "proc/device-tree/serial-number"):
        (server.root / path).parent.mkdir(parents=True, exist_ok=True)
        (server.root / path).write_text("secret")
    record(server.root, tmp_path / "fixture", 0.05)
    texts = [path.read_text() for path in (tmp_path / "fixture").rglob("*") if path.is_file()]
    assert not any("secret" in text or "a-boot" in text for text in texts)


@pytest.mark.usefixtures("programs")
def test_what_the_boards_programs_said_is_said_again(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "fixture"
    root.mkdir()
    made = record(root, folder, 0.3)
    assert made.commands == ("tegrastats", "vcgencmd")
    assert made.sensors == made.commands
    said = subprocess.run(
        [folder / "usr/bin/vcgencmd", "pmic_read_adc"], capture_output=True, text=True, check=True
    )
    assert said.stdout == PMIC + "\n"
    again = subprocess.Popen(
        [folder / "usr/bin/tegrastats", "--interval", "100"], stdout=subprocess.PIPE, text=True
    )
    lines = [again.stdout.readline() for _ in range(5)]
    again.kill()
    again.wait()
    again.stdout.close()
    assert set(lines) == {LINE + "\n"}


@pytest.mark.usefixtures("programs")
def test_every_meter_of_a_recorded_board_opens_on_the_folder(tmp_path, monkeypatch):
    root, folder = tmp_path / "root", tmp_path / "fixture"
    monitor = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    monitor.mkdir(parents=True)
    values = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1000"}
    for name, text in {**values, "shunt1_resistor": "5000", "update_interval": "1"}.items():
        (monitor / name).write_text(f"{text}\n")
    record(root, folder, 0.3)
    monkeypatch.setenv("PATH", f"{folder}/usr/bin:/usr/bin:/bin")
    for name, total_w in (("tegrastats", 5.0), ("ina3221", 5.0), ("rpi_pmic", 0.9)):
        meter = open_one(name, root=folder)
        mark = begin(meter)
        time.sleep(0.3)
        energy = end(mark).settle()
        meter.close()
        assert energy.energy_j / energy.wall_s == pytest.approx(total_w, rel=0.01)


@pytest.mark.usefixtures("nothing_on_path")
def test_a_board_without_sensors_is_recorded_as_one(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    made = record(root, tmp_path / "fixture", 0.0)
    assert (made.sensors, made.files, made.changes) == ((), (), 0)


def test_a_folder_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RecordRefused, match="is not empty"):
        record(Path("/nowhere"), tmp_path, 0.0)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordRefused, match="cannot record into"):
        record(Path("/nowhere"), tmp_path / "file/fixture", 0.0)
