"""What the runtime costs around the training: CPU time, memory and bytes of a small job, in all processes.

``.venv/bin/python bench/overhead.py`` runs the same job several times as `mas demo` would (embedded broker,
orchestrator, two agents with one person each, their workers, the torch child; two rounds of three tasks) and
prints markdown tables; with ``--demo`` it runs `mas demo` instead. Exit code 1 if a limit is broken.

CPU time is what the kernel charged to all processes below this one, read when they are reaped
(``RUSAGE_CHILDREN``, getrusage(2)); orphans, had there been any, are reaped by this process (prctl(2),
PR_SET_CHILD_SUBREAPER), so that nothing is missed. Memory is sampled 20 times a second and summed over the
processes: RSS counts a page once per process that maps it, PSS splits shared pages. Bytes are what the
agents' bills say they sent and received (topics and payloads): each went to its last reader once.
``--sockets`` asks the kernel too (``ss``: what the broker's connections have got acknowledged), which costs
CPU time of its own. A busy machine spoils wall times most.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mas_edge.orchestrator.demos.demo import STATE, prepare, run
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.report import profiles
from mas_edge.orchestrator.service import read_store
from mas_edge.orchestrator.spec import JobSpec, Policy, check
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 2
TASKS = ("exercise", "gravity", "jerk")
CLIENTS: dict[str, tuple[str, ...]] = {"edge-1": ("1",), "edge-2": ("2",)}
LIMITS: dict[str, dict[str, float]] = {
    "all-in-one": {"cpu_s": 12.0, "rss_gb": 1.0, "round_mb": 6.8},
    "one-by-one": {"cpu_s": 20.0},
    "mas demo, watch": {"wall_s": 120.0, "rss_gb": 3.0 * 1.073741824},  # 3 GiB
    "mas demo, buildings": {"wall_s": 180.0, "rss_gb": 4.0 * 1.073741824},
}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ROLES = {
    "wire.broker": "broker",
    "orchestrator.cli serve": "orchestrator",
    "edge_agent.cli": "agents",
    "edge_agent.worker": "workers",
    "models.job": "torch child",
    "mas demo": "demo",
}


@dataclass
class Seen:
    """What a run of some processes took; ``None`` was not looked at."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_gb: float = 0.0
    pss_gb: float = 0.0
    round_mb: float | None = None
    closing_mb: float | None = None
    socket_mb: float | None = None
    role_cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    role_rss_mb: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class Sampler:
    """Looks at the processes below this one until stopped."""

    EVERY_S, PSS_EVERY = 0.05, 5

    def __init__(self, sockets_of: Path | None = None) -> None:
        self.seen = Seen()
        self._sockets_of = sockets_of
        self._roles: dict[tuple[int, float], str] = {}
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._acknowledged: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Seen:
        self._before_s = cpu_of_the_reaped_s()
        self._start_s = time.perf_counter()
        self._thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.seen.wall_s = time.perf_counter() - self._start_s
        self._stop.set()
        self._thread.join()
        reap_orphans()
        self.seen.cpu_s = cpu_of_the_reaped_s() - self._before_s
        for process, cpu_s in self._cpu_s.items():
            self.seen.role_cpu_s[self._roles.get(process, "others")] += cpu_s
        if self._acknowledged:
            self.seen.socket_mb = sum(self._acknowledged.values()) / 1e6

    def _look_on(self) -> None:
        this, turn, due_s = psutil.Process(), 0, time.monotonic()
        while not self._stop.is_set():
            processes = this.children(recursive=True)
            self._memory(processes, with_pss=turn % self.PSS_EVERY == 0)
            if self._sockets_of and turn % 2 == 0:
                self._sockets(self._sockets_of)
            turn += 1
            due_s = max(due_s + self.EVERY_S, time.monotonic())
            self._stop.wait(due_s - time.monotonic())

    def _memory(self, processes: list[psutil.Process], *, with_pss: bool) -> None:
        rss_mb: defaultdict[str, float] = defaultdict(float)
        pss_bytes = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                name = (process.pid, process.create_time())
                self._cpu_s[name] = sum(process.cpu_times()[:2])
                # what has ended and waits to be reaped has no command line any more, but its CPU time
                role = self._roles[name] = role_of(process) or self._roles.get(name, "others")
                rss_mb[role] += process.memory_info().rss / 1e6
                pss_bytes += process.memory_full_info().pss if with_pss else 0
        seen = self.seen
        seen.rss_gb = max(seen.rss_gb, sum(rss_mb.values()) / 1e3)
        seen.pss_gb = max(seen.pss_gb, pss_bytes / 1e9)
        for role, mb in rss_mb.items():
            seen.role_rss_mb[role] = max(seen.role_rss_mb[role], mb)

    def _sockets(self, config: Path) -> None:
        """What each connection of the broker has got acknowledged so far."""
        port = config.exists() and re.search(r"mqtt://127\.0\.0\.1:(\d+)", config.read_text("utf-8"))
        if port:
            ask = ["ss", "-tniOH", f"sport = :{port[1]}"]
            for line in subprocess.check_output(ask, text=True).splitlines():
                if count := re.search(r"bytes_acked:(\d+)", line):
                    self._acknowledged[line.split()[4]] = int(count[1])


class Quiet:
    """Shows nothing of a run."""

    def event(self, *_: object) -> None:
        """Nothing."""

    look = event


def reap_orphans() -> None:
    """Wait for processes whose parent ended first."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def cpu_of_the_reaped_s() -> float:
    """User and system seconds of all children that have been waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def import_torch_s() -> float:
    """CPU seconds of that, with the files in the page cache: how fast this machine is."""
    for _ in range(2):
        before_s = cpu_of_the_reaped_s()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return cpu_of_the_reaped_s() - before_s


def role_of(process: psutil.Process) -> str | None:
    """What a process of ours is, by its command line."""
    command = " ".join(process.cmdline())
    return next((role for words, role in ROLES.items() if words in command), None)


def plan(policy: Policy) -> DemoPlan:
    """Two rounds of one epoch; nothing is evaluated but by the agents."""
    training = Training(
        workload="watch",
        network="small",
        rounds=ROUNDS,
        epochs=1,
        batch=32,
        lr=0.05,
        seed=1,
        reproducible=True,
    )
    spec = JobSpec(name="overhead", tasks=TASKS, training=training, policy=policy, devices=tuple(CLIENTS))
    return DemoPlan(spec=check(spec), clients=CLIENTS)


def job(policy: Policy, folder: Path, *, sockets: bool) -> Seen:
    """One run of the job in this empty folder."""
    given = plan(policy)
    prepare(given, folder)
    with Sampler(folder / "orchestrator.toml" if sockets else None) as seen:
        run(given, folder, "estimate", Quiet())
    seen.round_mb, seen.closing_mb = billed_mb(folder, given.spec.name)
    return seen


def billed_mb(folder: Path, name: str) -> tuple[float, float]:
    """What the agents sent and received: for the rounds that train, and for the one that only evaluates."""
    with contextlib.closing(read_store(folder / STATE)) as store:
        billed = profiles([(time_s, event) for _, time_s, event in store.events(name)])
    mb = [0.0, 0.0]
    for row in (row for _, profile in billed for row in profile.rows):
        mb[row.round >= ROUNDS] += (row.sent_bytes + row.received_bytes) / 1e6
    return mb[0], mb[1]


def demo(workload: str, folder: Path) -> Seen:
    """`mas demo` with its defaults on a workload."""
    command = [Path(sys.executable).with_name("mas"), "demo", "--workload", workload, "--out", folder / "run"]
    with Sampler() as seen:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return seen


def middle(runs: list[Seen], name: str) -> float | None:
    """The median of a figure, None if it was not looked at."""
    values = [getattr(seen, name) for seen in runs]
    return None if None in values else statistics.median(values)


COLUMNS = {"wall_s": "wall (s)", "cpu_s": "CPU-s", "rss_gb": "peak RSS (GB)", "pss_gb": "peak PSS (GB)"}
BYTES = {"round_mb": "MB, two rounds", "closing_mb": "MB, closing evaluation", "socket_mb": "MB, sockets"}


def table(results: dict[str, list[Seen]], columns: dict[str, str]) -> bool:
    """Print medians beside limits; whether all limits hold."""
    print(f"| {' | '.join(['', *columns.values()])} |\n|---|{'---:|' * len(columns)}")
    kept = True
    for name, runs in results.items():
        cells = [name]
        for column in columns:
            value, limit = middle(runs, column), LIMITS.get(name, {}).get(column)
            cells.append("-" if value is None else f"{value:.2f}" + (f" (≤ {limit:.3g})" if limit else ""))
            kept = kept and (limit is None or (value is not None and value <= limit))
        print(f"| {' | '.join(cells)} |")
    return kept


def per_process(results: dict[str, list[Seen]]) -> None:
    """Print where the CPU time and the memory were, in the last run of each."""
    print("\nWhere it went (last run; CPU time as last seen, without a process's final moments):\n")
    print("| | process | CPU-s | peak RSS (MB) |\n|---|---|---:|---:|")
    for name, runs in results.items():
        seen = runs[-1]
        for role, cpu_s in sorted(seen.role_cpu_s.items()):
            print(f"| {name} | {role} | {cpu_s:.2f} | {seen.role_rss_mb[role]:.0f} |")
        print(f"| {name} | sum, of {seen.cpu_s:.2f} charged | {sum(seen.role_cpu_s.values()):.2f} | |")


def measured(options: argparse.Namespace) -> Iterator[tuple[str, Seen]]:
    """The name of a run and what it took, in turn."""
    policies: tuple[Policy | None, ...] = (None,) if options.demo else ("all-in-one", "one-by-one")
    for _ in range(options.repeats):
        for policy in policies:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                seen = job(policy, folder, sockets=options.sockets) if policy else demo(options.demo, folder)
            yield policy or f"mas demo, {options.demo}", seen


def main() -> int:
    """Print the tables; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--demo", nargs="?", const="watch", metavar="WORKLOAD", help="measure `mas demo`")
    which.add_argument("--sockets", action="store_true", help="ask the kernel for the bytes, too")
    options = parser.parse_args()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("prctl(PR_SET_CHILD_SUBREAPER) failed: orphans would not be counted")
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()};")
    print(f"load {os.getloadavg()[0]:.1f} before, `import torch` takes {import_torch_s():.2f} CPU-s.")
    print(f"Medians of {options.repeats} runs; limits in brackets.\n")
    results: defaultdict[str, list[Seen]] = defaultdict(list)
    for name, seen in measured(options):
        results[name].append(seen)
    kept = table(results, COLUMNS if options.demo else COLUMNS | BYTES)
    per_process(results)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
