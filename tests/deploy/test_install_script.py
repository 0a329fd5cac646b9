"""install.sh where it needs no machine of its own; tests/board runs it on one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mas_edge.edge_agent.config import AgentConfig
from mas_edge.orchestrator.service import OrchestratorConfig
from mas_edge.wire.host import load_config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
INSTALL = DEPLOY / "install.sh"


def bash(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--agnet",), "unknown argument --agnet: see"),
        (("--wheels",), "--wheels needs a value"),
        (("--wheels", ""), "--wheels needs a value"),
        (("--wheels", "/nowhere"), "--wheels /nowhere: no such directory; scripts/wheels DIR makes one"),
        (("--identity", "/nowhere"), "--identity /nowhere: no such directory; mas enroll NAME makes one"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, said):
    code, out, err = bash(INSTALL, "--dry-run", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"install.sh: {said}")
    assert err.count("\n") == 1


def test_the_orchestrators_identity_needs_its_role(tmp_path):
    (tmp_path / "orchestrator.key").touch()
    code, _, err = bash(INSTALL, "--dry-run", "--identity", tmp_path)
    assert (code, err.endswith("is the orchestrator's: say --orchestrator\n")) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="is root")
def test_without_root_nothing_is_tried():
    code, _, err = bash(INSTALL)
    assert (code, "needs root" in err) == (2, True)


def test_help_explains_every_option():
    code, out, _ = bash(INSTALL, "--help")
    assert code == 0
    for option in (
        "--agent",
        "--orchestrator",
        "--wheels",
        "--identity",
        "--python",
        "--uninstall",
        "--dry-run",
    ):
        assert f"\n  {option} " in out


@pytest.mark.parametrize(
    ("compatible", "board"),
    [
        (b"nvidia,p3767-0005\0nvidia,tegra234\0", "jetson"),
        (b"seeed,j401\0nvidia,tegra234\0", "jetson"),  # a carrier board of somebody else
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", "raspberry-pi"),
    ],
)
def test_a_board_is_known_by_its_device_tree_and_has_a_drop_in(tmp_path, compatible, board):
    (tmp_path / "compatible").write_bytes(compatible)
    assert bash("bash", "-c", f"source {INSTALL}; board_in {tmp_path}/compatible")[:2] == (0, f"{board}\n")
    assert (DEPLOY / f"mas-agent.service.d/{board}.conf").is_file()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="has an NVIDIA card")
def test_other_boards_need_none(tmp_path):
    (tmp_path / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    for place in ("compatible", "nothing"):
        assert bash("bash", "-c", f"source {INSTALL}; board_in {tmp_path}/{place}")[:2] == (0, "")


def test_a_python_may_lie_in_a_folder_with_a_space(tmp_path):
    program = tmp_path / "a b" / "python"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho /bin/sh\n")
    program.chmod(0o755)
    code, out, err = bash("bash", "-c", f"source {INSTALL}; python='{program}'; choose_python; echo $python")
    assert (code, out.splitlines()[-1], err) == (0, str(program), "")


def test_the_example_configurations_are_ones():
    assert load_config(DEPLOY / "agent.toml", AgentConfig).device == "edge-1"
    assert load_config(DEPLOY / "orchestrator.toml", OrchestratorConfig).fleet == "home"
