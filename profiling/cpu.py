"""Processor time and memory of the host and of one process, as the kernel's /proc counts them.

Plain reads of procfs under a root that is an argument. Host time is the first line of /proc/stat, in
ticks of 10 ms (USER_HZ is 100 on every supported board), steal left out; a process' time is the
nanoseconds of its living threads (/proc/PID/task/*/schedstat, first field), never below the ticks of
/proc/PID/stat, which remember the threads that have ended. See proc(5) and the kernel's
Documentation/scheduler/sched-stats.rst. It keeps no state, and no history of a process that is gone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.01
"""Length of a tick of /proc/stat and /proc/PID/stat."""


@dataclass(frozen=True)
class HostTime:
    """Seconds since boot, summed over the cores: working, and all together."""

    busy_s: float
    total_s: float


def host_time(root: Path = Path("/")) -> HostTime:
    """The host's time so far; raises OSError without a readable /proc/stat."""
    fields = (root / "proc/stat").read_text().split("\n", 1)[0].split()
    if fields[:1] != ["cpu"] or len(fields) < 8:
        raise OSError(f"{root / 'proc/stat'}: no line 'cpu' with seven counters")
    user, nice, system, idle, iowait, irq, softirq = (int(ticks) * TICK_S for ticks in fields[1:8])
    busy = user + nice + system + irq + softirq
    return HostTime(busy_s=busy, total_s=busy + idle + iowait)


def process_cpu_ns(pid: int, root: Path = Path("/")) -> int | None:
    """Processor nanoseconds of a process and all its threads so far; None if it is gone."""
    folder = root / "proc" / str(pid)
    try:
        stat = (folder / "stat").read_text()
        threads = [_first_number(task / "schedstat") for task in (folder / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return None
    user, system = stat.rpartition(")")[2].split()[11:13]
    ticks_ns = round((int(user) + int(system)) * TICK_S * 1e9)
    return max(sum(threads), ticks_ns)


def peak_rss_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """The most memory that the process ever had resident (VmHWM); None if it is gone."""
    try:
        status = (root / "proc" / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def forget_peak_rss(root: Path = Path("/")) -> None:
    """Lets ``peak_rss_bytes`` of this process start anew; without effect where the kernel cannot.

    Writing 5 to clear_refs resets VmHWM: proc(5).
    """
    with contextlib.suppress(OSError):
        (root / "proc/self/clear_refs").write_text("5")


def _first_number(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # the thread ended after it was listed; the ticks of its process remember it
