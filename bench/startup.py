"""What the commands cost before any work: time to say what they do, memory and CPU time of idle daemons.

``.venv/bin/python bench/startup.py`` prints two markdown tables. ``--help`` is timed from exec to exit, the
first run (which fills the page cache) left out. Then a broker, one orchestrator without jobs and one agent
without work run on loopback; once they have settled, their resident memory is read and their CPU time
over a minute is divided by that minute. Exit code 1 if a limit is broken. A busy machine spoils the times,
never the memory.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mas_edge.wire import broker

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP_LIMIT_S, RUNS = 0.3, 10
SETTLE_S, IDLE_S = 8.0, 60.0
AGENT_MB, AGENT_CPU, ORCHESTRATOR_MB = 45, 0.005, 80
AGENT = """
device = "edge-1"
fleet = "bench"
state = "{folder}/agent"
[broker]
url = "{url}"
[data.watch]
clients = ["1"]
[data.buildings]
clients = ["1"]
"""
ORCHESTRATOR = """
fleet = "bench"
state = "{folder}/orchestrator"
[broker]
url = "{url}"
"""


def installed(command: str) -> str:
    """Where a command of this environment is."""
    return str(Path(sys.executable).with_name(command))


def help_s(command: str) -> float:
    """Wall seconds of one ``COMMAND --help``; raises CalledProcessError if it fails."""
    start_s = time.perf_counter()
    subprocess.run([installed(command), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start_s


def helps() -> Iterator[tuple[str, bool]]:
    """A row per command, and whether its limit is kept."""
    for command in ("mas", "mas-agent", "mas-profile"):
        help_s(command)
        times_s = [help_s(command) for _ in range(RUNS)]
        middle_s = statistics.median(times_s)
        figures = f"{middle_s:.3f} | {min(times_s):.3f} | {max(times_s):.3f}"
        yield f"| `{command} --help` | {figures} | {HELP_LIMIT_S} |", middle_s <= HELP_LIMIT_S


def daemon(command: str, config: str, folder: Path) -> subprocess.Popen[bytes]:
    """A daemon that runs with this configuration; its log is ``COMMAND.log``."""
    program, word = command.split()
    path = folder / f"{program}.toml"
    path.write_text(config, encoding="utf-8")
    with path.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([installed(program), word, "--config", str(path)], stderr=log)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and its children so far."""
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def idle(folder: Path) -> Iterator[tuple[str, bool]]:
    """A row per daemon, and whether its limits are kept. Children count (there should be none)."""
    with ExitStack() as ending:
        serving, address = broker.start()
        ending.callback(serving.wait)
        ending.callback(serving.terminate)
        say = {"folder": folder, "url": f"mqtt://{address.host}:{address.port}"}
        running = {
            "mas serve": daemon("mas serve", ORCHESTRATOR.format(**say), folder),
            "mas-agent run": daemon("mas-agent run", AGENT.format(**say), folder),
        }
        for process in running.values():
            ending.callback(process.wait)
            ending.callback(process.terminate)
        time.sleep(SETTLE_S)
        seen = {name: psutil.Process(process.pid) for name, process in running.items()}
        before_s = {name: cpu_s(process) for name, process in seen.items()}
        time.sleep(IDLE_S)
        for name, process in seen.items():
            if running[name].poll() is not None:
                log = (folder / f"{name.split(maxsplit=1)[0]}.log").read_text(encoding="utf-8")
                raise SystemExit(f"{name} ended with code {running[name].returncode}: {log}")
            share = (cpu_s(process) - before_s[name]) / IDLE_S
            tree = (process, *process.children(recursive=True))
            rss_mb = sum(p.memory_info().rss for p in tree) / 1e6
            most_mb, most_cpu = (AGENT_MB, AGENT_CPU) if "agent" in name else (ORCHESTRATOR_MB, None)
            limit = f"{most_mb} MB" + (f", {most_cpu:.1%}" if most_cpu else "")
            kept = rss_mb <= most_mb and (most_cpu is None or share <= most_cpu)
            yield f"| `{name}` | {rss_mb:.1f} | {share:.2%} | {limit} |", kept


def main() -> int:
    """Print the tables; 1 if a limit is broken."""
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    kept = []
    print(f"| command | median of {RUNS} (s) | fastest (s) | slowest (s) | limit (s) |")
    print("|---|---|---|---|---|")
    for row, fine in helps():
        print(row)
        kept.append(fine)
    print(f"\n| idle daemon | resident (MB) | CPU over {IDLE_S:.0f} s | limit |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row, fine in idle(Path(folder)):
            print(row)
            kept.append(fine)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
