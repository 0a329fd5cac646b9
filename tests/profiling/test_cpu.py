from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from mas_edge.profiling.cpu import (
    host_time,
    memory_kills,
    peak_rss_bytes,
    process_cpu_ns,
    tree_cpu_ns,
)


def test_busy_time_leaves_out_idle_waiting_and_steal(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  100 20 30 400 50 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    host = host_time(tmp_path)
    assert host.busy_s == pytest.approx(1.63)
    assert host.total_s == pytest.approx(6.13)


def test_a_proc_that_is_none_is_an_error(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("intr 5\n")
    with pytest.raises(OSError, match="no line 'cpu'"):
        host_time(tmp_path)


def fake_process(root, schedstats, ticks=(0, 0)):
    for thread, nanoseconds in schedstats.items():
        folder = root / f"proc/7/task/{thread}"
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(f"{nanoseconds} 55 3\n")
    (root / "proc/7/stat").write_text("7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 {} {} 0 0 20 0\n".format(*ticks))


def test_a_process_is_the_sum_of_its_threads(tmp_path):
    fake_process(tmp_path, {7: 1_000_000_123, 8: 500})
    assert process_cpu_ns(7, tmp_path) == 1_000_000_623


def test_time_of_threads_that_have_ended_is_kept_by_the_ticks(tmp_path):
    fake_process(tmp_path, {7: 1_000}, ticks=(30, 12))
    assert process_cpu_ns(7, tmp_path) == 420_000_000


def test_a_process_that_is_gone_is_unknown(tmp_path):
    assert process_cpu_ns(7, tmp_path) is None
    assert peak_rss_bytes(7, tmp_path) is None


def test_the_kernels_counts_of_this_process_agree_with_its_own():
    def burn():
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    own_ns = time.process_time_ns()
    assert process_cpu_ns(os.getpid()) == pytest.approx(own_ns, abs=40_000_000)
    assert peak_rss_bytes(os.getpid()) > 1_000_000


def test_a_tree_is_a_process_and_all_below_it_with_what_they_waited_for(tmp_path):
    for pid, children, cpu_ns, waited_ticks in (
        (7, "8 9", 1000, 3),
        (8, "10", 20, 0),
        (9, "", 3, 1),
        (10, "", 400, 0),
    ):
        folder = tmp_path / f"proc/{pid}/task/{pid}"
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(f"{cpu_ns} 0 1\n")
        (folder / "children").write_text(children)
        stat = f"{pid} (a b) S 1 7 7 0 -1 0 0 0 0 0 0 0 {waited_ticks} 0 20 0\n"
        (tmp_path / f"proc/{pid}/stat").write_text(stat)
    assert tree_cpu_ns(7, tmp_path) == 1423 + 4 * 10_000_000
    assert tree_cpu_ns(11, tmp_path) is None


def test_a_peak_that_was_forgotten_begins_anew():
    code = """
import os
from mas_edge.profiling.cpu import forget_peak_rss, peak_rss_bytes, rss_bytes
me = os.getpid()
bytearray(40_000_000)
high = peak_rss_bytes(me)
forget_peak_rss()
low, now = peak_rss_bytes(me), rss_bytes(me)
held = bytearray(30_000_000)
print(high, low, now, peak_rss_bytes(me))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    high, low, now, then = map(int, said.split())
    if low == high:
        pytest.skip("this kernel does not forget a peak (/proc/self/clear_refs)")
    assert now <= low < now + 5_000_000
    assert then > now + 20_000_000


def test_kills_for_want_of_memory_are_the_kernels_count(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 3\nnr_free 9\n")
    assert memory_kills(tmp_path) == 3
    (tmp_path / "proc/vmstat").write_text("pgfault 12\n")
    assert memory_kills(tmp_path) is None
    assert memory_kills() is None or memory_kills() >= 0


def test_what_is_freed_stays_resident_until_it_is_given_back():
    code = """
import os
from mas_edge.profiling.cpu import give_memory_back, keep_freed_memory, rss_bytes
keep_freed_memory()
give_memory_back()
before = rss_bytes(os.getpid())
held = [bytearray(os.urandom(1 << 20)) for _ in range(16)]
del held
kept = rss_bytes(os.getpid()) - before
give_memory_back()
print(kept, rss_bytes(os.getpid()) - before)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    kept, left = map(int, said.split())
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc is told to keep it")
    assert kept > 12 << 20
    assert left < 4 << 20
