"""`mas demo`: a broker, an orchestrator and some agents, each a process of its own, on this machine.

One run has a directory: configurations as an operator would write them, state, logs, and at the end the
report (``orchestrator.reports.page``). The processes are tended (``orchestrator.demos.crew``): what a signal
killed is started again, which is how the demo shows that nothing is lost. This process only looks on: it
reads the store, shows progress, and when the job is over writes the report.

A run that was cut short goes on when the same command is given again for the same directory, and so does a
comparison of several; what is finished is replaced, anything else in the directory is not touched.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator.demos.crew import Crew, CrewFailed
from mas_edge.orchestrator.reports.runs import REPORT
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.wire.host import free_port, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.orchestrator.plan import DemoPlan
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.orchestrator.store import Store
    from mas_edge.wire.messages import Progress

FLEET = "demo"
PLAN, STATE, LOGS, AGENTS = "plan.json", "state", "logs", "agents"
LOOK_S = 0.25
"""How often the demo looks into the store."""
NO_ROOM_BYTES = 1 << 20


class Show(Protocol):
    """Somebody who looks on."""

    def event(self, job: jobs.Job, event: jobs.Event, time_s: float) -> None:
        """Something happened at this job time, and the job is now so."""
        ...

    def look(self, job: jobs.Job, live: tuple[Progress, ...]) -> None:
        """A few times a second: the job, and the latest word of each device."""
        ...


@dataclass(frozen=True)
class Outcome:
    """A finished job, its seconds, and which processes had to be started again."""

    job: jobs.Job
    wall_s: float
    restarts: tuple[str, ...]


class DemoFailed(RuntimeError):
    """The run broke on the way; the text says at what."""


class OutRefused(ValueError):
    """A directory that is in use for something else."""


def prepare(plan: DemoPlan, out: Path) -> None:
    """Make the run's directory ready for this plan: a new run, or the rest of one that was cut short.

    Raises OutRefused for a directory with other things in it, OSError if it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise OutRefused(f"--out {out} is not a directory")
    wanted = msgspec.json.encode(plan)
    if out.is_dir() and any(out.iterdir()):
        if not (out / PLAN).is_file():
            raise OutRefused(
                f"--out {out} holds other things than a run of mas demo: name an empty directory"
            )
        if not (out / REPORT).exists():
            if (out / PLAN).read_bytes() != wanted:
                raise OutRefused(
                    f"--out {out} holds an unfinished run with other options: repeat those, or remove it"
                )
            return
        _remove_run(out)
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    (out / STATE).mkdir()
    with contextlib.closing(open_store(out / STATE)) as store:
        store.add_job(plan.spec.name, msgspec.json.encode(plan.spec))
    write_atomic(out / PLAN, wanted)


def holds(plan: DemoPlan, out: Path) -> bool:
    """Whether a directory has the finished run of just this plan."""
    there = (out / REPORT).is_file() and (out / PLAN).is_file()
    return there and (out / PLAN).read_bytes() == msgspec.json.encode(plan)


def _remove_run(out: Path) -> None:
    """Remove what a run has made; what somebody put beside it stays."""
    for folder in (STATE, LOGS, AGENTS, "weights"):
        if (out / folder).is_dir():
            shutil.rmtree(out / folder)
    for pattern in (
        "orchestrator.toml",
        "edge-*.toml",
        "profile.csv",
        "report.html",
        "manifest.json",
        "affinity.png",
        "losses.png",
        PLAN,
        REPORT,
    ):
        for path in out.glob(pattern):
            path.unlink()


def run(plan: DemoPlan, out: Path, meter: str, show: Show) -> Outcome:
    """Run the job of a prepared directory to its end; ``show`` is called a few times a second.

    Raises CrewFailed if a process of the run failed, and DemoFailed if the job did.
    """
    port = free_port()
    configs = _configure(plan, out, port, meter)
    crew = Crew(out / LOGS)
    try:
        crew.start("broker", _python("mas_edge.wire.broker", "--port", str(port)))
        _await_port(crew, port)
        for name, config in configs.items():
            crew.start(name, config)
        return _look_on(crew, plan.spec, out, show)
    finally:
        crew.stop()


def _look_on(crew: Crew, spec: JobSpec, out: Path, show: Show) -> Outcome:
    watched = _Watched(jobs.Job(spec=spec))
    with contextlib.closing(read_store(out / STATE)) as store:
        while True:
            watched.read(store, show)
            if watched.job.over:
                break
            _explain_full_disk(out)  # agents would wait until there is room
            try:
                crew.tend(time.monotonic())
            except CrewFailed:
                watched.read(store, show)  # the orchestrator ends when its job is over, well or not
                if watched.job.over:
                    break
                _explain_full_disk(out)
                raise
            time.sleep(LOOK_S)
    if watched.job.phase == "failed":
        raise DemoFailed(
            f"the job failed: {watched.job.reason} (logs in {out / LOGS}; remove {out} to try anew)"
        )
    return Outcome(job=watched.job, wall_s=watched.time_s, restarts=tuple(crew.restarts))


@dataclass
class _Watched:
    """The job as far as the store has been read."""

    job: jobs.Job
    seq: int = 0
    time_s: float = 0.0

    def read(self, store: Store[jobs.Event], show: Show) -> None:
        for seq, time_s, event in store.events(self.job.spec.name, self.seq):
            self.job, _owed = jobs.step(self.job, event, time_s)
            self.seq, self.time_s = seq, time_s
            show.event(self.job, event, time_s)
        show.look(self.job, store.live())


def _explain_full_disk(out: Path) -> None:
    if shutil.disk_usage(out).free < NO_ROOM_BYTES:
        raise DemoFailed(f"the disk of {out} is full: make room there, or name another --out")


def _await_port(crew: Crew, port: int) -> None:
    """Wait until the broker listens."""
    for _ in range(200):
        crew.tend(time.monotonic())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise DemoFailed(f"the broker does not listen on port {port}: {crew.last_words('broker')}")


def _configure(plan: DemoPlan, out: Path, port: int, meter: str) -> dict[str, list[str]]:
    """Write every process's configuration; name of the process -> its command line."""
    head = f'fleet = "{FLEET}"\n'
    tail = f'\n[broker]\nurl = "mqtt://127.0.0.1:{port}"\n\n[energy]\nmeter = {json.dumps(meter)}\n'
    config = out / "orchestrator.toml"
    state = json.dumps(str((out / STATE).resolve()))
    write_atomic(config, f"{head}state = {state}\n{tail}".encode())
    commands = {
        "orchestrator": _python("mas_edge.orchestrator.cli", "serve", "--config", str(config), "--until-done")
    }
    for device, clients in plan.clients.items():
        config = out / f"{device}.toml"
        state = json.dumps(str((out / AGENTS / device).resolve()))
        data = f"\n[data.{plan.spec.training.workload}]\nclients = {json.dumps(clients)}\n"
        data += f"root = {json.dumps(plan.root)}\n" if plan.root else ""
        write_atomic(config, f'device = "{device}"\n{head}state = {state}\n{tail}{data}'.encode())
        commands[device] = _python("mas_edge.edge_agent.cli", "run", "--config", str(config))
    return commands


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
