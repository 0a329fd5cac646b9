"""Cgroups with a quota of processor time, v1 or v2, whichever the machine has; root.

Their weight is the highest there is, so that a busy machine does not keep a process from its quota.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

PERIOD_US = 50_000
V1, V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def quota(name: str, share: float):
    """The file to write processes into, of a new group with that share of one processor; skips without."""
    folder = _grouped(name, share)
    try:
        yield folder / "cgroup.procs"
    finally:
        for process in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (folder.parent / "cgroup.procs").write_text(process)
        for _ in range(100):  # the kernel lets go of the last process a moment later
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.01)


def _grouped(name: str, share: float) -> Path:
    quota_us = round(share * PERIOD_US)
    v2 = (V2 / "cgroup.controllers").exists()
    folder = (V2 if v2 else V1) / name
    try:
        if v2:
            (V2 / "cgroup.subtree_control").write_text("+cpu")
            folder.mkdir()
            (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
            (folder / "cpu.weight").write_text("10000")
            return folder
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        (folder / "cpu.shares").write_text("262144")
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"it takes root and a cgroup of the cpu controller: {error}")
    return folder
