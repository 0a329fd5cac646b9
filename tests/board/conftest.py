"""Boards for the tests of deploy/: throw-away Debians with a real systemd, made by the script `board`.

The bare root is made once per recipe and kept in the cache directory; a board is a copy of it (half a second)
that is booted (another half). The wheels that install.sh installs from are those of this checkout, made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mas_edge.profiling.cpu import process_cpu_ns

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).with_name("board")
INSTALL = "/srv/mas-edge/deploy/install.sh"
PYTHON = "/opt/mas-edge/venv/bin/python"
OFFLINE = ("--wheels", "/srv/wheels")
AGENT = "mas-agent.service"


@dataclass(frozen=True)
class Board:
    """A machine of its own below ``root``; ``run`` is a command in it, as root."""

    root: Path

    def boot(self) -> None:
        subprocess.run([RECIPE, "up", self.root], check=True, timeout=90)

    def power_off(self) -> None:
        subprocess.run([RECIPE, "down", self.root], check=True, timeout=60)
        subprocess.run(
            ["rm", "-rf", "--one-file-system", self.root], check=True
        )  # shutil's is ten times slower

    def call(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [RECIPE, "exec", self.root, *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=300)

    def run(self, *words: str, given: str | None = None) -> str:
        """Standard output; fails the test with what the command said if it failed."""
        done = self.call(*words, given=given)
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def show(self, prop: str, unit: str = AGENT) -> str:
        return self.run("systemctl", "show", "--value", f"--property={prop}", unit).strip()

    def cpu_s(self) -> float:
        """Processor time of the agent's daemon and its worker: cgroup v1 need not count that of a unit."""
        first = Path(f"{self.root}.pid").read_text().strip()
        pids = self.run("pgrep", "--uid", "mas-agent").split()
        return sum(process_cpu_ns(int(pid), Path(f"/proc/{first}/root")) or 0 for pid in pids) / 1e9

    def drop_in(self, **settings: str) -> None:
        """These settings of the agent's unit instead of any that were given before, and a fresh agent."""
        lines = ["[Service]", *(f"{key}={value}" for key, value in settings.items())]
        self.path(f"/etc/systemd/system/{AGENT}.d/test.conf").write_text("\n".join(lines) + "\n")
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "restart", AGENT)

    def journal(self, unit: str = AGENT) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


@pytest.fixture(scope="session")
def until():
    """``until(reached, limit_s, why)``: what ``reached()`` returned when true; fails with ``why()``."""
    return wait_until


def wait_until(reached, limit_s: float, why):
    until_s = time.monotonic() + limit_s
    while not (found := reached()):
        if time.monotonic() > until_s:
            pytest.fail(f"not within {limit_s:.0f} s: {why()}")
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def bare() -> Path:
    """The root of a bare Debian; nobody boots or changes it."""
    if os.geteuid() != 0:
        pytest.skip("a board needs root")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed (apt-get install debootstrap)")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the board is a Debian 12: its wheels are made by Python 3.11")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "mas-edge" / "boards" / hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:16]
    subprocess.run([RECIPE, "make", root], check=True, timeout=580)
    return root


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [ROOT / "scripts/wheels", folder, "orchestrator"],
        check=True,
        timeout=580,
        env={**os.environ, "PYTHON": sys.executable},
    )
    return folder


@pytest.fixture(scope="session")
def make_board(bare, wheels, tmp_path_factory):
    """Makes and boots a fresh board that has the checkout's deploy/ and the wheels in /srv."""
    made = []

    def make() -> Board:
        board = Board(tmp_path_factory.mktemp("boards") / f"board-{len(made)}")
        subprocess.run(["cp", "-a", bare, board.root], check=True)
        made.append(board)
        for name in ("deploy", "docs"):
            shutil.copytree(ROOT / name, board.path(f"/srv/mas-edge/{name}"))
        shutil.copytree(wheels, board.path("/srv/wheels"), copy_function=os.link)
        board.boot()
        return board

    yield make
    for board in made:
        board.power_off()


@pytest.fixture(scope="session")
def fleet(make_board) -> Board:
    """A board with an agent of its own, the orchestrator and the broker, all enrolled; all are up."""
    board = make_board()
    board.run(INSTALL, "--agent", "--orchestrator", *OFFLINE)
    board.run(
        *("mas", "broker-config", "--fleet", "home", "--name", "localhost"),
        *("--out", "/etc/mosquitto/mas-edge"),
    )
    board.run("chown", "-R", "mosquitto:", "/etc/mosquitto/mas-edge")
    board.run("ln", "-s", "../mas-edge/mosquitto.conf", "/etc/mosquitto/conf.d/mas-edge.conf")
    board.run("systemctl", "restart", "mosquitto")
    url = ("--broker", "mqtts://localhost")
    data = ("--data", "watch=1,5", "--data", "buildings=1,2,3,4,5,6,7,8")
    board.run("mas", "enroll", "edge-1", *url, *data, "--out", "/root/edge-1")
    board.run("mas", "enroll", "orchestrator", *url, "--out", "/root/orchestrator")
    board.run(INSTALL, "--agent", *OFFLINE, "--identity", "/root/edge-1")
    board.run(INSTALL, "--orchestrator", *OFFLINE, "--identity", "/root/orchestrator")
    board.run("systemctl", "start", "mas-orchestrator", "mas-agent")
    return board
