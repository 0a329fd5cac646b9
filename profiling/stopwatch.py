"""Wall and processor time per phase, taken inside the process that works.

``enter(phase)`` ends the running phase and begins another; ``snapshot`` is what each phase has used
so far, the running one included, so that a supervisor can ask at any time and take differences.
Processor time is that of the whole process (``time.process_time_ns``: all threads, also those of a
tensor library's pool), which is why one process works for one task group at a time.
It is not safe to use from two threads, and knows nothing of joules.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class PhaseTime(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a phase so far: passed, and worked by the process."""

    phase: str
    wall_s: float
    cpu_s: float


class Stopwatch:
    """Times phases that follow each other without a gap, from the first ``enter`` on."""

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._clock_ns, self._cpu_ns = clock_ns, cpu_ns
        self._spent_ns: dict[str, tuple[int, int]] = {}
        self._phase: str | None = None
        self._since_ns = (0, 0)

    @property
    def phase(self) -> str | None:
        """The running phase, None before the first ``enter``."""
        return self._phase

    def enter(self, phase: str) -> None:
        """Ends the running phase and begins (or goes on with) this one."""
        now_ns = (self._clock_ns(), self._cpu_ns())
        self._spent_ns = self._until(now_ns)
        self._phase, self._since_ns = phase, now_ns
        self._spent_ns.setdefault(phase, (0, 0))

    def snapshot(self) -> tuple[PhaseTime, ...]:
        """Every phase's time so far, in order of first entry; never less than the last time."""
        spent_ns = self._until((self._clock_ns(), self._cpu_ns()))
        return tuple(
            PhaseTime(phase=phase, wall_s=wall / 1e9, cpu_s=cpu / 1e9)
            for phase, (wall, cpu) in spent_ns.items()
        )

    def _until(self, now_ns: tuple[int, int]) -> dict[str, tuple[int, int]]:
        spent_ns = dict(self._spent_ns)
        if self._phase is not None:
            wall, cpu = spent_ns[self._phase]
            wall_0, cpu_0 = self._since_ns
            spent_ns[self._phase] = (wall + now_ns[0] - wall_0, cpu + now_ns[1] - cpu_0)
        return spent_ns
