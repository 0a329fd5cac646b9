from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from mas_edge.profiling import cli


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n0,4\n1,4\n")
    return path


def test_every_installed_meter_is_listed_with_its_state(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"rapl", "estimate", "pyjoules", "replay"} <= listed.keys()
    for entry in listed.values():
        assert entry["refusal"]["reason"]
        assert entry["refusal"]["remedy"]


def test_the_list_says_what_would_help(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "list"]) == 0
    text = capsys.readouterr().out
    assert "rapl      refused" in text
    assert "remedy   it takes x86" in text
    assert "auto tries rapl, then estimate" in text


def test_a_command_is_measured_and_its_exit_code_handed_on(log, capfd):
    assert cli.main(["run", "--meter", f"replay:{log}", "--json", "--", "sh", "-c", "echo hi; exit 3"]) == 3
    said, line = capfd.readouterr().out.splitlines()
    measured = json.loads(line)
    assert said == "hi"
    assert measured["mean_w"] == pytest.approx(4.0)
    assert measured["energy_j"] == pytest.approx(4.0 * measured["wall_s"])
    assert measured["sensor"]["method"] == "sampled"
    assert measured["command"] == ["sh", "-c", "echo hi; exit 3"]


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
    assert "refused replay: cannot read /nowhere.csv" in text


def test_a_command_that_a_signal_ended_has_the_shells_code(log):
    code = cli.main(["run", "--meter", f"replay:{log}", "--", "sh", "-c", "kill -TERM $$"])
    assert code == 128 + signal.SIGTERM


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
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, complaint, capsys):
    assert cli.main(words) == 2
    text = capsys.readouterr().err
    assert complaint in text
    assert text.count("\n") == 1


def test_the_command_line_loads_nothing_that_a_board_does_not_have():
    script = (
        "import sys, mas_edge.profiling.cli as cli; cli.parser().format_help();"
        "print([name for name in ('numpy', 'torch', 'paho', 'rich', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
