"""`mas serve` with its broker and two agents, each a process, and `mas` from a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from mas_edge.orchestrator.launching.remote import NobodyThere, Orchestrator
from mas_edge.wire.host import free_port

LIMIT_S = 180
ENERGY = '[energy]\nmeter = "estimate:idle_w=2,max_w=7"\n'


class Fleet:
    """A folder with configurations, and the processes that were started from it."""

    def __init__(self, root, stack: ExitStack) -> None:
        self.root, self.stack, port = root, stack, free_port()
        self.socket = root / "state" / "control.sock"
        broker = f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
        (root / "orchestrator.toml").write_text(
            f'fleet = "t"\nstate = "{root}/state"\n{broker}embedded = true\n{ENERGY}[page]\nport = 0\n'
        )
        for n in (1, 2):
            (root / f"edge-{n}.toml").write_text(
                f'device = "edge-{n}"\nfleet = "t"\nstate = "{root}/edge-{n}"\n{broker}{ENERGY}'
                f'[data.watch]\nclients = ["{n}"]\n'
            )
        self.serving = self.serve()
        self.agents = [
            self.process("mas_edge.edge_agent.cli", "run", "--config", f"edge-{n}.toml") for n in (1, 2)
        ]
        self.until(lambda: len(self.mas("devices")) == 2)

    def process(self, *words) -> subprocess.Popen:
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        log = self.stack.enter_context((self.root / f"{words[0]}.log").open("ab"))
        started = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=self.root, env=env, stdout=log, stderr=log
        )
        self.stack.callback(started.wait, LIMIT_S)
        self.stack.callback(started.terminate)
        return started

    def serve(self) -> subprocess.Popen:
        """Start the orchestrator; it listens when this returns."""
        started = self.process("mas_edge.orchestrator.cli", "serve", "--config", "orchestrator.toml")
        self.until(self.listens)
        return started

    def listens(self) -> bool:
        try:
            with Orchestrator(self.socket):
                return True
        except NobodyThere:
            assert all(each.poll() is None for each in getattr(self, "agents", ()))
            return False

    def run(self, *words) -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONSAFEPATH": "1", "MAS_SOCKET": str(self.socket)}
        command = [sys.executable, "-m", "mas_edge.orchestrator.cli", *words]
        return subprocess.run(
            command, cwd=self.root, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )

    def mas(self, *words):
        """What a command prints as JSON; it must succeed."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *words) -> str:
        """The one line of a command that is refused."""
        done = self.run(*words)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout, line[:5]) == (2, "", "mas: ")
        return line

    def task(self, name, more="", **training) -> str:
        keys = "\n".join(f"{key} = {value}" for key, value in training.items())
        (self.root / f"{name}.toml").write_text(
            f'[task]\nworkload = "watch"\ntask = "{name}"\n{more}\n[training]\npreset = "tiny"\n{keys}\n'
        )
        return f"{name}.toml"

    def jobs(self) -> dict:
        return {job["name"]: job for job in self.mas("ps", "--all")["jobs"]}

    def phase(self, job: str) -> str:
        return self.jobs().get(job, {}).get("phase", "")

    def until_trains(self, job: str) -> None:
        """Until its first round is over."""
        self.until(lambda: self.jobs().get(job, {}).get("round") not in {None, 0})

    def until(self, true) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < end_s, self.log()
            time.sleep(0.2)

    def until_over(self, *jobs) -> dict:
        self.until(lambda: all(self.phase(job) in {"done", "failed"} for job in jobs))
        found = self.jobs()
        assert [found[job]["phase"] for job in jobs] == ["done"] * len(jobs), self.log()
        return found

    def serve_again(self) -> None:
        """Kill the orchestrator as a power cut would, and start it anew."""
        self.serving.send_signal(signal.SIGKILL)
        self.serving.wait(LIMIT_S)
        self.serving = self.serve()

    def log(self) -> str:
        return (self.root / "mas_edge.orchestrator.cli.log").read_text()


@contextmanager
def a_fleet(root):
    with ExitStack() as stack:
        yield Fleet(root, stack)
