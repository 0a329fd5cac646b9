"""install.sh on a fresh board: what it leaves, what a second run changes, what --uninstall leaves."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

INSTALL = ("/srv/mas-edge/deploy/install.sh", "--wheels", "/srv/wheels")
UNINSTALL = (INSTALL[0], "--uninstall")
UNITS = ("mas-agent.service", "mas-orchestrator.service")


def files(board):
    """Path -> owner, mode, size and last change of everything that an installation could touch."""
    found = board.run("find", "/etc", "/opt", "/usr/local", "/var/lib", "-printf", r"%p|%u %m %s %C@ %l\n")
    return dict(line.split("|", 1) for line in found.splitlines())


def test_installs_once_offline_and_uninstalls_all_but_data(make_board):
    board = make_board()
    before = files(board)

    tried = board.run(*INSTALL, "--dry-run")
    assert "would run: useradd" in tried
    assert "pip install" in tried
    assert files(board) == before

    board.run(*INSTALL, "--agent", "--orchestrator")
    board.run("systemctl", "is-enabled", *UNITS)
    assert board.run("stat", "-c", "%U %a", "/var/lib/mas-edge") == "mas-agent 700\n"
    installed = files(board)

    again = board.call(*INSTALL, "--agent", "--orchestrator")
    assert (again.returncode, again.stderr) == (0, "install.sh: nothing to do\n")
    assert files(board) == installed

    board.path("/etc/mas-edge/agent.toml").write_text("# mine\n")
    board.run(*UNINSTALL)
    left = files(board).keys() - before.keys()
    assert left == {
        "/etc/mas-edge",
        "/etc/mas-edge/agent.toml",
        "/etc/mas-edge/orchestrator.toml",
        "/var/lib/mas-edge",
        "/var/lib/mas-edge-orchestrator",
    }
    assert board.call("id", "mas-agent").returncode == 1
    assert board.call(*UNINSTALL).stderr == "install.sh: nothing to do\n"

    board.run(*INSTALL)
    assert board.path("/etc/mas-edge/agent.toml").read_text() == "# mine\n"
    assert board.run("stat", "-c", "%U", "/var/lib/mas-edge") == "mas-agent\n"


def verify(board):
    checked = board.call("systemd-analyze", "verify", *UNITS)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_units_are_sound_and_closed(fleet):
    verify(fleet)
    for unit in UNITS:
        verdict = fleet.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        assert float(verdict.split(": ")[1].split()[0]) <= 2.5, verdict


@pytest.mark.parametrize("kind", ["jetson", "raspberry-pi", "nvidia"])
def test_what_a_kind_of_board_adds_is_sound(fleet, kind):
    drop_in = "/etc/systemd/system/mas-agent.service.d/board.conf"
    fleet.run("cp", f"/srv/mas-edge/deploy/mas-agent.service.d/{kind}.conf", drop_in)
    try:
        verify(fleet)
    finally:
        fleet.run("rm", drop_in)
