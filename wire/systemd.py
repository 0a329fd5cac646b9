"""What a service tells systemd: that it is ready, what it is doing, and that it is alive.

``Supervisor`` speaks the protocol of sd_notify(3): READY=1 after the start, STATUS= when the text changes,
WATCHDOG=1 a few times within the interval that the unit's WatchdogSec= asks for (sd_watchdog_enabled(3)),
and only as long as the caller says that it is well: a process that hangs, or that cannot get on, is silent
and is started again. RELOADING=1 and READY=1 stand around a reload. Where nobody listens nothing is sent. A
datagram and two variables need no library: sdnotify has had no release since 2017, and systemd-python is
built against the C library of each board.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mas_edge.wire.host import sd_notify

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMES = 4
"""Signs of life within the watchdog's interval."""
STATUS_S = 1.0
"""A status that changes faster is told once in this time."""


class Supervisor:
    """systemd, if it started us."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._watchdog_s = watchdog_s(environment)
        self._alive_s = self._told_s = float("-inf")
        self._status = ""

    def ready(self) -> None:
        """The service does its work from now on."""
        sd_notify("READY=1")

    def reloading(self, time_s: float) -> None:
        """It reads its configuration again, until ``ready``; ``time_s`` is of CLOCK_MONOTONIC."""
        sd_notify(f"RELOADING=1\nMONOTONIC_USEC={round(time_s * 1e6)}")

    def stopping(self) -> None:
        """It is on its way out."""
        sd_notify("STOPPING=1")

    def turn(self, status: str, time_s: float, *, well: bool) -> None:
        """Once in each turn of the service's loop: what it does, and whether it gets on."""
        if status != self._status and time_s - self._told_s >= STATUS_S:
            self._status, self._told_s = status, time_s
            sd_notify(f"STATUS={status}")
        if self._watchdog_s and well and time_s - self._alive_s >= self._watchdog_s / TIMES:
            self._alive_s = time_s
            sd_notify("WATCHDOG=1")


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How long systemd waits for a sign of life of this process; None if it does not wait."""
    interval, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not interval.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(interval) / 1e6 or None
