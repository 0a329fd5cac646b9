"""Processor time and memory of the host and of one process, as the kernel's /proc counts them.

Plain reads of procfs under a root that is an argument. Host time is the first line of /proc/stat, in
ticks of 10 ms (USER_HZ is 100 on every supported board), steal left out; a process' time is the
nanoseconds of its living threads (/proc/PID/task/*/schedstat, first field), never below the ticks of
/proc/PID/stat, which remember the threads that have ended. See proc(5) and the kernel's
Documentation/scheduler/sched-stats.rst. It keeps no state, and no history of a process that is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from dataclasses import dataclass
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""malloc.h"""

TICK_S = 0.01
"""Length of a tick of /proc/stat and /proc/PID/stat."""


@dataclass(frozen=True)
class HostTime:
    """Seconds since boot, summed over the cores: working, and all together."""

    busy_s: float
    total_s: float


def host_time(root: Path = Path("/")) -> HostTime:
    """The host's time so far; raises OSError without a readable /proc/stat."""
    path = root / "proc/stat"
    return parse_host_time(path.read_bytes(), path)


def parse_host_time(stat: bytes, path: Path) -> HostTime:
    """The host's time from the text of /proc/stat, or its beginning; raises OSError naming the path."""
    fields = stat.partition(b"\n")[0].split()
    if fields[:1] != [b"cpu"] or len(fields) < 8 or not all(field.isdigit() for field in fields[1:8]):
        raise OSError(f"{path}: no line 'cpu' with seven counters")
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


def tree_cpu_ns(pid: int, root: Path = Path("/")) -> int | None:
    """Processor nanoseconds of a process and of all below it, the dead ones in ticks; None if it is gone.

    Children are found where the kernel lists them (CONFIG_PROC_CHILDREN, proc(5)); those that have ended
    count once their parent has waited for them.
    """
    total_ns, found = process_cpu_ns(pid, root), [pid]
    if total_ns is None:
        return None
    for parent in found:
        folder = root / "proc" / str(parent)
        try:
            waited_for = (folder / "stat").read_text().rpartition(")")[2].split()[13:15]
            tasks = list((folder / "task").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_ns += round(sum(map(int, waited_for)) * TICK_S * 1e9)
        for child in (int(word) for task in tasks for word in _words(task / "children")):
            total_ns += process_cpu_ns(child, root) or 0
            found.append(child)
    return total_ns


def peak_rss_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """The most memory that the process had resident, since it was last forgotten (VmHWM); None if gone."""
    return _status_bytes(pid, "VmHWM:", root)


def rss_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """The memory that the process has resident (VmRSS); None if it is gone."""
    return _status_bytes(pid, "VmRSS:", root)


def file_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """Of that, pages of files, which the kernel can drop and read again (RssFile); None if it is gone."""
    return _status_bytes(pid, "RssFile:", root)


def _status_bytes(pid: int, name: str, root: Path) -> int | None:
    try:
        status = (root / "proc" / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def memory_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for want of memory since boot, the host's or a group's.

    The line oom_kill of /proc/vmstat; None before Linux 4.13, which has none.
    """
    for line in (root / "proc/vmstat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None


def forget_peak_rss(root: Path = Path("/")) -> None:
    """Lets ``peak_rss_bytes`` of this process start anew; without effect where the kernel cannot.

    Writing 5 to clear_refs resets VmHWM: proc(5).
    """
    with contextlib.suppress(OSError):
        (root / "proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """What this process frees from now on stays its own until ``give_memory_back``, below 32 MB a piece.

    By default glibc gives the top of its heap back, and every training step faults thousands of pages in
    again: 6 to 8 % of the network ``small``'s time (bench/train_step.py). The peak is the same; mallopt(3).
    """
    with contextlib.suppress(AttributeError):  # another libc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_memory_back() -> None:
    """What this process has freed goes back to the system, so that what is resident is what is in use.

    glibc keeps it otherwise, and one work's peak would be counted in the next one's; malloc_trim(3).
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _first_number(path: Path) -> int:
    words = _words(path)
    return int(words[0]) if words else 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # the thread ended after it was listed; the ticks of its process remember it
