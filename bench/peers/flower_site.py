"""The work on Flower: a SuperLink with its SQLite database, a SuperNode per node, `flwr run` per group.

Its environment is made by ``environment``: Flower's own packages from the registry, and the torch and the
packages of the environment that runs this, so that both systems compute with the same libraries.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.peers.processes import Processes
from bench.peers.sites import (
    HERE,
    SERVER,
    Links,
    Said,
    Work,
    first_weights,
    listening_port,
    node_name,
)
from mas_edge.wire.host import free_port

VERSION = "1.41.0"
CONNECTION = "bench"
BEGUN, ENDED = "[ROUND 1/", "aggregate_train: Received"


def environment(folder: Path) -> Path:
    """Flower's commands; installed in this folder if they are not there yet."""
    bin_ = folder / "bin"
    if not (bin_ / "flower-superlink").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([bin_ / "pip", "install", "-q", f"flwr=={VERSION}"], check=True)
    said = subprocess.run([bin_ / "flwr", "--version"], check=True, capture_output=True, text=True).stdout
    if VERSION not in said:
        raise SystemExit(f"{folder} holds {said.strip()}, not {VERSION}: remove it, or name another folder")
    torch, ours = importlib.util.find_spec("torch"), importlib.util.find_spec("mas_edge.wire")
    assert torch is not None  # noqa: S101 - a dependency of ours
    assert torch.origin is not None  # noqa: S101
    assert ours is not None  # noqa: S101
    assert ours.origin is not None  # noqa: S101
    packages = next(folder.glob("lib/python3*/site-packages"))
    link = folder / "ours"
    link.mkdir(exist_ok=True)
    (link / "mas_edge").unlink(missing_ok=True)
    (link / "mas_edge").symlink_to(Path(ours.origin).parent.parent)
    (packages / "ours.pth").write_text(f"{Path(torch.origin).parent.parent}\n{link}\n", encoding="utf-8")
    return bin_


class Flower:
    """A run per group, submitted at the same time."""

    def __init__(self, folder: Path, work: Work, links: Links, bin_: Path) -> None:
        self._folder, self._work, self.links, self._bin = folder, work, links, bin_
        path = f"{bin_}:/usr/bin:/bin"  # it starts its own commands by name
        quiet = {"FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0"}
        self.processes = Processes(folder, {"PATH": path, "FLWR_HOME": str(folder / "home"), **quiet})
        self._names = ["+".join(group) for group in work.groups]
        self._weights = first_weights(folder, work.groups)
        self._marks: dict[str, float] = {}

    def begin(self) -> None:
        """Start SuperLink and SuperNodes, and submit the runs as soon as it listens."""
        command = (
            self._command("flower-superlink"),
            "--insecure",
            "--disable-runtime-dependency-installation",
        )
        database = str(self._folder / "superlink.db")
        port = listening_port(
            self.processes, SERVER, lambda port: (*command, "--port", str(port), "--database", database)
        )
        for number in range(1, self._work.nodes + 1):
            node = node_name(number)
            link = f"127.0.0.1:{self.links.open(node, port)}"
            command = (self._command("flower-supernode"), "--insecure", "--superlink", link)
            config = f'device="{node}" client="{number}"'
            self.processes.start(node, *command, "--port", str(free_port()), "--node-config", config)
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        connection = f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        text = f'[superlink]\ndefault = "{CONNECTION}"\n{connection}'
        (home / "config.toml").write_text(text, encoding="utf-8")
        for name in self._names:
            self._submit(name)

    def _submit(self, name: str) -> None:
        out = self._folder / f"out-{name}"
        out.mkdir()
        config = {
            "training": msgspec.json.encode(self._work.training).decode(),
            "tasks": name.replace("+", ","),
            "weights": str(self._weights[name]),
            "out": str(out),
        }
        lines = [f"{key} = '{value}'" for key, value in config.items()]
        path = self._folder / f"run-{name}.toml"
        path.write_text("\n".join([*lines, f"nodes = {self._work.nodes}"]) + "\n", encoding="utf-8")
        app = (str(HERE / "flower"), CONNECTION, "--run-config", str(path), "--stream")
        self.processes.start(f"run-{name}", self._command("flwr"), "run", *app)

    def _command(self, name: str) -> str:
        return str(self._bin / name)

    def over(self) -> bool:
        """Whether every run's stream of logs ended."""
        return all(self.processes.code(f"run-{name}") is not None for name in self._names)

    def said(self) -> Said:
        """What `flwr list` says."""
        asked = self.processes.ask(self._command("flwr"), "list", CONNECTION, "--format", "json")
        try:
            runs = json.loads(asked.stdout)["runs"]
        except (json.JSONDecodeError, KeyError):
            return Said(" ".join((asked.stdout + asked.stderr).split()))
        states = [run["status"] for run in runs]
        over = all(state.startswith("finished") for state in states)
        done = all("completed" in state for state in states)
        return Said(", ".join(states), goes_on=not over, over=over, done=done)

    def losses(self) -> dict[str, float]:
        """As the runs left them: sums over the clients, divided by counts."""
        found: dict[str, float] = {}
        for name in self._names:
            path = self._folder / f"out-{name}" / "losses.json"
            if not path.exists():
                raise SystemExit(f"Flower's run of {name} left no losses: see {self._folder}")
            left = json.loads(path.read_text("utf-8"))
            last = self._work.rounds
            for number, sums in left["rounds"].items():
                found |= _means(sums, {"trained": int(number), "held-out": int(number) - 1})
            found |= _means(left["closing"][str(last)], {"held-out": last})
        return found

    def round_s(self) -> float | None:
        """From the first line of the first round to its aggregation, as the stream of logs comes in."""
        log, now_s = self.processes.log(f"run-{self._names[0]}"), time.monotonic()
        for mark in (BEGUN, ENDED):
            if mark in log:
                self._marks.setdefault(mark, now_s)
        return self._marks[ENDED] - self._marks[BEGUN] if ENDED in self._marks else None

    def close(self) -> None:
        """End everything."""
        self.processes.close()
        self.links.close()


def _means(sums: dict[str, float], rounds: dict[str, int]) -> dict[str, float]:
    found = {}
    for key, value in sums.items():
        what, _, rest = key.partition(".")
        task, _, figure = rest.partition(".")
        if figure == "loss_sum":
            found[f"{what} {task}, round {rounds[what]}"] = value / sums[f"{what}.{task}.count"]
    return found
