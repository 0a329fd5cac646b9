from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from mas_edge.profiling import baseline, cli
from mas_edge.wire.messages import Baseline


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n" + "".join(f"{k / 10},4\n" for k in range(11)))
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A host that has processors and no sensor, and no vendor's program on PATH."""
    (tmp_path / "root/proc").mkdir(parents=True)
    (tmp_path / "root/proc/stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setenv("PATH", "/bin")
    return tmp_path / "root"


def test_every_installed_meter_is_listed_with_its_state(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"rapl", "estimate", "pyjoules", "replay"} <= listed.keys()
    for entry in listed.values():
        assert not entry["usable"]
        assert entry["refusal"]["reason"]
        assert entry["refusal"]["remedy"]


def test_the_list_says_what_would_help(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "list"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^rapl +refused  .* does not exist$", text, re.MULTILINE)
    assert "remedy   it takes x86" in text
    assert re.search(r"^auto tries .*rapl, .*then estimate$", text, re.MULTILINE)


def test_a_host_without_sensors_is_told_why_and_that_is_no_failure(bare, capsys):
    assert cli.main(["--root", str(bare), "list"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^estimate +usable   board, est\., ±60% over 10 s: generic", text, re.MULTILINE)
    assert cli.main(["--root", str(bare), "list", "--require", "measured"]) == 1
    assert "measured is required" in capsys.readouterr().err


def test_with_a_counter_the_requirement_is_met(server, capsys):
    assert cli.main(["--root", str(server.root), "list", "--require", "measured"]) == 0
    assert re.search(r"^rapl +usable   package, counter", capsys.readouterr().out, re.MULTILINE)


def test_what_must_be_measured_is_not_estimated(bare, capfd):
    assert cli.main(["--root", str(bare), "run", "--require", "measured", "--", "echo", "hi"]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "estimate: it is an estimate, and measured is required" in said.err


def test_a_command_is_measured_and_its_exit_code_handed_on(log, capfd):
    assert cli.main(["run", "--meter", f"replay:{log}", "--json", "--", "sh", "-c", "echo hi; exit 3"]) == 3
    said, line = capfd.readouterr().out.splitlines()
    measured = json.loads(line)
    assert said == "hi"
    assert measured["mean_w"] == pytest.approx(4.0)
    assert measured["energy_j"] == pytest.approx(4.0 * measured["wall_s"])
    assert (measured["method"], measured["sensor"], measured["scope"]) == ("sampled", "replay", "board")
    assert measured["dynamic_energy_j"] is measured["attributed_energy_j"] is measured["baseline"] is None
    assert measured["command"] == ["sh", "-c", "echo hi; exit 3"]


def test_with_a_baseline_the_commands_share_is_said(log, capfd):
    meter = f"replay:{log},idle_w=1"
    assert cli.main(["run", "--meter", meter, "--json", "--", "sleep", "0.3"]) == 0
    measured = json.loads(capfd.readouterr().out)
    assert measured["baseline"]["how"] == "given by the user"
    assert measured["dynamic_energy_j"] == pytest.approx(3.0 * measured["wall_s"])
    parts = [measured[name] for name in ("attributed_energy_j", "background_j", "idle_j")]
    assert sum(parts) == pytest.approx(measured["energy_j"])


def test_repeated_runs_are_told_one_by_one_and_as_their_mean(log, capfd):
    words = ["run", "--meter", f"replay:{log}", "--repeat", "3"]
    assert cli.main([*words, "--json", "--", "sleep", "0.02"]) == 0
    measured = json.loads(capfd.readouterr().out)
    energies = [run["energy_j"] for run in measured["repeats"]]
    assert len(energies) == 3
    assert measured["energy_j"] == pytest.approx(sum(energies) / 3)
    assert measured["energy_sd_j"] is not None
    assert cli.main([*words, "--csv", "--", "sleep", "0.02"]) == 0
    lines = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [line["run"] for line in lines] == ["1", "2", "3"]
    assert all(float(line["energy_j"]) > 0 and line["method"] == "sampled" for line in lines)
    assert lines[0]["dynamic_energy_j"] == ""


@pytest.mark.slow
def test_a_measured_baseline_is_taken_out_and_its_drift_told(log, capfd):
    words = ["run", "--meter", f"replay:{log}", "--baseline", "3", "--json", "--", "sleep", "0.5"]
    assert cli.main(words) == 0
    said = capfd.readouterr()
    measured = json.loads(said.out)
    assert measured["baseline"]["power_w"] == pytest.approx(4.0)
    assert measured["baseline"]["drift_w"] == pytest.approx(0.0, abs=1e-6)
    assert measured["dynamic_energy_j"] == pytest.approx(0.0, abs=1e-3)
    assert "short_baseline" in measured["flags"]
    assert said.err.count("idle power: 4.00 W over 3 s") == 2


def test_a_baseline_is_kept_for_an_agent_and_knows_its_drift(log, tmp_path, capfd):
    path = tmp_path / "baseline.json"
    baseline.store(path, Baseline(power_w=3.5, u_w=0.01, how="measured"))
    words = ["baseline", "--meter", f"replay:{log}", "--seconds", "3", "--out", str(path), "--json"]
    assert cli.main(words) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["power_w"], said["drift_w"]) == pytest.approx((4.0, 0.5))
    assert json.loads(path.read_text()) == said


def test_a_board_is_recorded(server, tmp_path, capfd):
    folder = tmp_path / "fixture"
    assert cli.main(["--root", str(server.root), "record", str(folder), "--seconds", "0"]) == 0
    assert "sensor      sys/class/powercap/intel-rapl:1" in capfd.readouterr().err
    assert cli.main(["--root", str(folder), "list", "--require", "measured"]) == 0
    assert cli.main(["record", str(folder)]) == 2


def test_a_calibration_is_told_as_the_estimate_will_use_it(bare, capfd):
    words = ["--root", str(bare), "calibrate", "--load", "idle", "--seconds", "1", "--watts", "5"]
    assert cli.main(words) == 0
    text = capfd.readouterr().err
    assert "idle        5.00 W at 0% load over 1 s" in text
    assert "5 W idle" in text
    assert "at the plug), for" not in text
    assert "(calibrated" in text


def test_the_report_for_people_leaves_the_commands_output_alone(log, capfd):
    assert cli.main(["run", "--meter", f"replay:{log}", "--", "echo", "hi"]) == 0
    captured = capfd.readouterr()
    assert captured.out == "hi\n"
    assert "J  (sampled, board)" in captured.err
    assert "W mean" in captured.err


def test_an_estimate_says_so_and_names_what_was_refused(capfd):
    assert cli.main(["run", "--meter", "replay:/nowhere.csv", "--meter", "estimate", "--", "true"]) == 0
    text = capfd.readouterr().err
    assert "est., board" in text
    assert "refused     replay: cannot read /nowhere.csv" in text


def test_a_command_that_a_signal_ended_has_the_shells_code(log):
    code = cli.main(["run", "--meter", f"replay:{log}", "--", "sh", "-c", "kill -TERM $$"])
    assert code == 128 + signal.SIGTERM


def test_an_interrupt_ends_the_command_and_the_report_is_still_made(log):
    words = [
        sys.executable,
        "-m",
        "mas_edge.profiling.cli",
        "run",
        "--meter",
        f"replay:{log}",
        "--repeat",
        "9",
    ]
    running = subprocess.Popen(
        [*words, "--json", "--", "sh", "-c", "echo up; exec sleep 30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout.readline() == "up\n"
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    out, errors = running.communicate(timeout=20)
    measured = json.loads(out)
    assert (running.returncode, measured["exit_code"]) == (130, 130)
    assert measured["energy_j"] > 0
    assert len(measured["repeats"]) == 1
    assert errors == ""


def test_an_interrupt_while_the_idle_power_is_measured_is_one_line(log, capfd):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert cli.main(["baseline", "--meter", f"replay:{log}", "--seconds", "30"]) == 130
    assert capfd.readouterr().err == "mas-profile: interrupted\n"


def test_without_any_joules_it_fails_with_the_remedy(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "run", "--meter", "rapl", "--", "true"]) == 1
    assert "modprobe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run"], "no command"),
        (["run", "--", "no-such-command-here"], "cannot run 'no-such-command-here'"),
        (["run", "--meter", "joulebox", "--", "true"], "no meter 'joulebox'"),
        (["run", "--meter", "estimate:w=x", "--", "true"], "cannot read 'w=x'"),
        (["run", "--meter", "estimate", "--repeat", "0", "--", "true"], "--repeat 0: take 1 or more"),
        (["run", "--meter", "estimate", "--baseline", "1", "--", "true"], "take 3 or more"),
        (["baseline", "--meter", "estimate", "--seconds", "0"], "take 3 or more"),
        (["record", "/proc/nothing/can/be/here"], "cannot record into"),
        (["calibrate", "--watts", "-3"], "take some watts"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, complaint, capsys):
    assert cli.main(words) == 2
    text = capsys.readouterr().err
    assert complaint in text
    assert text.count("\n") == 1


def test_a_reader_that_has_had_enough_is_no_traceback(bare):
    command = [sys.executable, "-m", "mas_edge.profiling.cli", "--root", str(bare), "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"")


def test_the_command_line_loads_nothing_that_a_board_does_not_have():
    script = (
        "import sys, mas_edge.profiling.cli as cli; cli.parser().format_help();"
        "print([name for name in ('numpy', 'torch', 'paho', 'rich', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
