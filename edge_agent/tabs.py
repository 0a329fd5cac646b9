"""What the training in a slot has used since it was last asked: its worker's phases, and the daemon's work.

A worker says its phases' times as sums over its life, a few times a second; differences are what a slice of
time is charged with. Where several workers share the host, a slice ends while most of them are silent:
what such a one has used of the processor since its last word is read from the kernel and charged in
advance, to the phase that it was most at, and taken off that phase's next differences. So every slice holds
the processor time that was used in it, and over time each phase what its worker said. What the daemon itself
uses goes in equal shares to the trainings whose weights travel, else to all. Nothing is kept on disk here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.profiling.cpu import process_cpu_ns
from mas_edge.profiling.rows import Use
from mas_edge.profiling.stopwatch import PhaseTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.edge_agent.moments import Moment
    from mas_edge.wire.messages import Key

Doing: TypeAlias = Literal["fetch", "wait", "runtime", "upload"]
"""What the daemon is at: getting weights, waiting for memory, running a worker, delivering an answer."""

RESTING = "idle"
"""The worker's phase between two works, which is nobody's."""

LEAST_S = 1e-3
"""What a silent worker used less than this is charged with its next word."""


class Tab:
    """One slot's training in hand, if any; the worker's sums stay from one training to the next."""

    def __init__(self) -> None:
        self.key: Key | None = None
        self.doing: Doing = "fetch"
        self.billed = False
        self._phases: dict[str, PhaseTime] = {}  # as the worker said last
        self._advance: dict[str, PhaseTime] = {}  # charged before it was said
        self._most = "load"
        self._pid: int | None = None
        self._seen_s, self._seen_cpu_ns = 0.0, 0

    @property
    def unbilled(self) -> Key | None:
        """The training in hand, unless its bill was made."""
        return None if self.billed else self.key

    @property
    def travels(self) -> bool:
        """Whether weights or an answer are on their way."""
        return self.key is not None and self.doing in {"fetch", "upload"}

    def begin(self, key: Key) -> None:
        """Another training is in hand."""
        self.key, self.doing, self.billed = key, "fetch", False

    def train(self, *, warm: bool) -> None:
        """The worker begins; a new one counts from zero."""
        self.doing, self._most = "runtime", "load"
        if not warm:
            self._phases, self._advance, self._pid = {}, {}, None

    def follow(self, pid: int | None) -> None:
        """The worker is this process; its processor time so far is charged with what it says of it."""
        self._pid = pid
        self._read()

    def heard(self, phases: tuple[PhaseTime, ...]) -> tuple[Use, ...]:
        """What the worker says that it used since its last word, less what was charged in advance."""
        found = tuple(use for phase in phases if (use := self._said(phase)) is not None)
        self._phases = {phase.phase: phase for phase in phases}
        if found:
            self._most = max(found, key=lambda use: use.wall_s).phase
        self._read()
        return found

    def silent(self) -> tuple[Use, ...]:
        """What the worker used of the processor since it was last heard or asked, by the kernel's count."""
        if self.key is None or self.doing != "runtime":
            return ()
        since_s, since_ns = self._seen_s, self._seen_cpu_ns
        if time.monotonic() - since_s < LEAST_S or not self._read():
            return ()
        wall_s, cpu_s = self._seen_s - since_s, max(self._seen_cpu_ns - since_ns, 0) / 1e9
        ahead = self._advance.get(self._most, PhaseTime(phase=self._most, wall_s=0.0, cpu_s=0.0))
        self._advance[self._most] = PhaseTime(
            phase=self._most, wall_s=ahead.wall_s + wall_s, cpu_s=ahead.cpu_s + cpu_s
        )
        return (self.use(self.key, self._most, wall_s, cpu_s),)

    @staticmethod
    def use(key: Key, phase: str, wall_s: float, cpu_s: float) -> Use:
        """A use of this training."""
        return Use(job=key.job, group=key.group, round=key.round, phase=phase, wall_s=wall_s, cpu_s=cpu_s)

    def _said(self, phase: PhaseTime) -> Use | None:
        before = self._phases.get(phase.phase)
        wall_s = phase.wall_s - (before.wall_s if before else 0.0)
        cpu_s = max(phase.cpu_s - (before.cpu_s if before else 0.0), 0.0)
        if self.key is None or phase.phase == RESTING or wall_s <= 0.0:
            return None
        if ahead := self._advance.get(phase.phase):
            paid_s, paid_cpu_s = min(wall_s, ahead.wall_s), min(cpu_s, ahead.cpu_s)
            wall_s, cpu_s = wall_s - paid_s, cpu_s - paid_cpu_s
            self._advance[phase.phase] = msgspec.structs.replace(
                ahead, wall_s=ahead.wall_s - paid_s, cpu_s=ahead.cpu_s - paid_cpu_s
            )
        return self.use(self.key, phase.phase, wall_s, cpu_s)

    def _read(self) -> bool:
        """Whether the kernel says what the worker has used."""
        used_ns = None if self._pid is None else process_cpu_ns(self._pid)
        self._seen_s, self._seen_cpu_ns = time.monotonic(), used_ns or 0
        return used_ns is not None


def daemons(tabs: Sequence[Tab], first: Moment, last: Moment) -> tuple[Use, ...]:
    """What the daemon used between two moments, for each training in hand."""
    hand = [tab for tab in tabs if tab.key is not None]
    carriers = [tab for tab in hand if tab.travels] or hand
    return tuple(_daemons(tab, carriers, first, last) for tab in hand)


def _daemons(tab: Tab, carriers: Sequence[Tab], first: Moment, last: Moment) -> Use:
    assert tab.key is not None  # noqa: S101 - of trainings in hand only
    wall_s = 0.0 if tab.doing == "runtime" else (last.seen_ns - first.seen_ns) / 1e9
    use = Tab.use(tab.key, tab.doing, wall_s, 0.0)
    if tab not in carriers:
        return use
    i, n = carriers.index(tab), len(carriers)
    return msgspec.structs.replace(
        use,
        cpu_s=(last.own_cpu_s - first.own_cpu_s) / n,
        sent_bytes=_part(last.sent_bytes - first.sent_bytes, i, n),
        received_bytes=_part(last.received_bytes - first.received_bytes, i, n),
    )


def _part(whole: int, i: int, n: int) -> int:
    """The i-th of n parts that are as equal as whole numbers can be."""
    return whole * (i + 1) // n - whole * i // n
