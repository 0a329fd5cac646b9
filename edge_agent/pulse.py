"""Whether a worker hangs: when it last said something, and when its processor time last grew.

``Patience`` decides from durations alone; ``Pulse`` remembers the moments of one training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long a worker may give no sign of life: without using processor time, and while it does."""

    still_s: float = 120.0
    silent_s: float = 1800.0
    times: float = 20.0
    """Nor is it given up before this many times the longest silence that it broke itself."""
    look_s: float = 1.0

    def lost(self, silent_s: float, still_s: float, longest_s: float) -> bool:
        """Whether a worker hangs that was silent for so long, and without processor time for so long."""
        still = min(silent_s, still_s) > self.still_s
        return still or silent_s > max(self.silent_s, self.times * longest_s)


class Pulse:
    """When the worker last gave a sign of life, and when its processor time last grew."""

    def __init__(self, *, again: bool = False) -> None:
        self.heard_s = self.moved_s = self.felt_s = time.monotonic()
        self.longest_s = 0.0
        self.cpu_ns: int | None = None
        self.killed_s: float | None = None
        self.again = again
        self.detail = ""

    def heard(self) -> None:
        """The worker said something."""
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self.heard_s)
        self.heard_s = now_s

    def feel(self, now_s: float, cpu_ns: int | None) -> None:
        """Its processor time was looked at; None is not known."""
        self.felt_s = now_s
        if cpu_ns is None or self.cpu_ns is None or cpu_ns - self.cpu_ns > 1e6 * 10:
            self.moved_s, self.cpu_ns = now_s, cpu_ns
