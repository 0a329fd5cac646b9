"""How much memory and processor time the agent with its workers may take, and who holds it to that.

``Fence.set`` looks first at what is in force: the limits of the process' control group and of all above it,
which is what MemoryMax and CPUQuota of its unit are. Where ``[caps]`` asks for less, it moves the process
into a group of its own below: root may, and an agent whose subtree was delegated (v2; systemd's Delegate=
hands out no memory or cpu controller on v1). The group holds daemon and workers together; a worker asks to
be killed first (oom_score_adj), so that the daemon lives. Where that is refused, each worker gets an
RLIMIT_DATA for its part, which counts what is mapped rather than resident, and processor time is held by the
number of threads only; both are labelled as not enforced.

Sources: the kernel's admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst;
cgroups(7), proc_pid_mountinfo(5), getrlimit(2). It measures nothing, and knows nothing of training.
"""

from __future__ import annotations

import logging
import math
import os
import resource
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec

from mas_edge.wire.messages import Caps

log = logging.getLogger(__name__)

UNLIMITED_BYTES = 1 << 62
"""cgroup v1 says "no limit" with a number close to the largest one."""

PERIOD_US, LEAST_US = 100_000, 1000
"""The kernel's default period of a processor quota, and the least quota that it takes."""

OWN = "mas-edge-agent-"
"""Our own groups begin so; the process' number follows."""


MOST_CPUS = 8192
"""More processors than Linux knows (NR_CPUS)."""


class CapsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[caps]`` table: what the agent with its worker may take at most, besides what its unit says."""

    memory_bytes: Annotated[int, msgspec.Meta(ge=64 << 20)] | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0, le=MOST_CPUS)] | None = None


@dataclass(frozen=True)
class _Place:
    """Where a controller's files of our group are: from the mount point down to the group."""

    mount: Path
    group: Path
    unified: bool

    def upwards(self) -> tuple[Path, ...]:
        """The group and all above it that are visible."""
        return (self.group, *(p for p in self.group.parents if p == self.mount or self.mount in p.parents))


@dataclass(frozen=True)
class _Limit:
    value: float
    source: str


class Fence:
    """The limits of one process, itself by default, and of the children that it will have."""

    def __init__(self, root: Path = Path("/"), pid: int | None = None) -> None:
        self._root, self._pid = root, os.getpid() if pid is None else pid
        self._made: dict[str, _Place] = {}  # controller -> the group that we made for it
        self._worker_bytes: int | None = None
        self._workers: dict[int, int] = {}  # slot -> process

    def set(self, asked: CapsConfig) -> Caps:
        """Hold us to what is asked, if nothing does already; what is in force now. May be called again.

        Of a worker that runs already, only what it allocates from now on is counted.
        """
        memory, enforced = self._hold("memory", asked.memory_bytes)
        cpu, cpu_enforced = self._hold("cpu", asked.cpus)
        self._worker_bytes = None
        if memory and not enforced:
            self._worker_bytes = int(memory.value)
            memory = _Limit(memory.value, "[caps], by RLIMIT_DATA of the worker")
        if cpu and not cpu_enforced:
            cpu = _Limit(cpu.value, "[caps], by the number of threads only")
        return Caps(
            memory_bytes=int(memory.value) if memory else None,
            memory_source=memory.source if memory else "",
            memory_enforced=enforced,
            cpus=cpu.value if cpu else None,
            cpus_source=cpu.source if cpu else "",
            cpus_enforced=cpu_enforced,
        )

    def around(self, worker: int, own_bytes: int, slot: int = 0, slots: int = 1) -> None:
        """Limit a worker that was just started, where no group does; ``own_bytes`` are the daemon's."""
        self._workers[slot] = worker
        if self._worker_bytes is not None:
            limit = max(self._worker_bytes - own_bytes, 0) // slots
            with suppress(ProcessLookupError):
                resource.prlimit(worker, resource.RLIMIT_DATA, (limit, limit))

    def _hold(self, controller: str, asked: float | None) -> tuple[_Limit | None, bool]:
        """What limits us, the least of all, and whether a group does."""
        place = _place(controller, self._root, self._pid)
        made = self._made.get(controller)
        if made:
            try:
                _write_limit(made, controller, asked)
            except OSError as error:  # less than is in use
                log.warning("the limit of %s stays as it was: %s", controller, error)
        limit = _least(place, controller) if place else None
        if asked is None or (limit and limit.value <= asked):
            return limit, True
        if place and not made and (own := self._enter(place, controller, asked)):
            self._made[controller] = own
            return _least(own, controller), True
        return _Limit(asked, "[caps]"), False

    def _enter(self, place: _Place, controller: str, asked: float) -> _Place | None:
        """A group of our own that we are in, with the limit; None where the kernel or its owner refuses."""
        group = place.group / f"{OWN}{self._pid}"
        if place.group.name == group.name:  # made for another controller of the same hierarchy
            group = place.group
        _remove_left(place.group)
        try:
            if group != place.group:
                group.mkdir(exist_ok=True)
            if place.unified:  # a group with processes of its own hands nothing down: leave it first
                self._move(group)
                (group.parent / "cgroup.subtree_control").write_text(f"+{controller}")
            own = replace(place, group=group)
            _write_limit(own, controller, asked)
            self._move(group)
        except OSError as error:
            log.info("no control group of our own for %s: %s", controller, error)
            with suppress(OSError):
                self._move(place.group)
                group.rmdir()
            return None
        return own

    def _move(self, group: Path) -> None:
        (group / "cgroup.procs").write_text(str(self._pid))
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(worker))


def threads(caps: Caps, processors: int, slots: int = 1) -> int:
    """Threads of each training: as many as its part of the processor time feeds, one without a limit."""
    if caps.cpus is None:
        return 1
    part = caps.cpus / slots
    whole = math.ceil(part) if caps.cpus_enforced else math.floor(part)
    return max(min(whole, processors // slots), 1)


def in_words(caps: Caps) -> str:
    """One line for people."""
    memory = "no limit" if caps.memory_bytes is None else f"{caps.memory_bytes / 1e6:.0f} MB"
    cpus = "no limit" if caps.cpus is None else f"{caps.cpus:g} processors"
    by_memory, by_cpus = (
        f" ({source})" if source else "" for source in (caps.memory_source, caps.cpus_source)
    )
    return f"memory: {memory}{by_memory}; processor time: {cpus}{by_cpus}"


# --- control groups -------------------------------------------------------------------------------


def _place(controller: str, root: Path, pid: int) -> _Place | None:
    """Where the controller that governs the process has its files; None if it is not mounted."""
    mounts = _mounts(root)
    groups = _groups(root, pid)
    for name, unified in ((controller, False), ("", True)):
        if name in mounts and name in groups:
            top, mount = mounts[name]
            inside = os.path.relpath(groups[name], top)
            group = mount if inside == "." or inside.startswith("..") else mount / inside
            if group.is_dir() and (not unified or controller in _words(mount / "cgroup.controllers")):
                return _Place(mount, group, unified)
    return None


def _mounts(root: Path) -> dict[str, tuple[str, Path]]:
    """Controller ("" for the unified hierarchy) -> the group at the top of its mount, and the mount point."""
    found: dict[str, tuple[str, Path]] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3 or kinds[0] not in {"cgroup", "cgroup2"}:
            continue
        for name in [""] if kinds[0] == "cgroup2" else kinds[2].split(","):
            found.setdefault(name, (fields[3], root / fields[4].lstrip("/")))
    return found


def _groups(root: Path, pid: int) -> dict[str, str]:
    """Controller ("" for the unified hierarchy) -> the process' group."""
    found = {}
    for line in _lines(root / f"proc/{pid}/cgroup"):
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _least(place: _Place, controller: str) -> _Limit | None:
    read = _memory if controller == "memory" else _cpus
    limits = [limit for folder in place.upwards() for limit in read(folder, place.mount)]
    return min(limits, key=lambda limit: limit.value, default=None)


def _memory(group: Path, mount: Path) -> list[_Limit]:
    """Of one group; above memory.high the kernel slows a group down to a crawl, so that counts too."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    read = {name: "".join(_words(group / name)) for name in names}
    return [
        _Limit(float(word), _source(name, group, mount))
        for name, word in read.items()
        if word.isdigit() and int(word) < UNLIMITED_BYTES
    ]


def _cpus(group: Path, mount: Path) -> list[_Limit]:
    unified, quota = _words(group / "cpu.max"), _words(group / "cpu.cfs_quota_us")
    if len(unified) == 2 and unified[0] != "max":
        return [_Limit(int(unified[0]) / int(unified[1]), _source("cpu.max", group, mount))]
    period = _words(group / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return [_Limit(int(quota[0]) / int(period[0]), _source("cpu.cfs_quota_us", group, mount))]
    return []


def _source(name: str, group: Path, mount: Path) -> str:
    return f"{name} of /{group.relative_to(mount)}".removesuffix(".")


def _write_limit(own: _Place, controller: str, asked: float | None) -> None:
    text = "max" if own.unified else "-1"
    if controller == "memory":
        name = "memory.max" if own.unified else "memory.limit_in_bytes"
        text = text if asked is None else str(int(asked))
    else:
        name = "cpu.max" if own.unified else "cpu.cfs_quota_us"
        text = text if asked is None else str(max(round(asked * PERIOD_US), LEAST_US))
        text = f"{text} {PERIOD_US}" if own.unified else text
    (own.group / name).write_text(text)


def _remove_left(parent: Path) -> None:
    """Groups of agents that are gone; the kernel keeps one that has a process in it."""
    for path in parent.glob(f"{OWN}*"):
        with suppress(OSError):
            path.rmdir()


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
