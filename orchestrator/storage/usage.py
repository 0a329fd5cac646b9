"""What the jobs have used of each device: joules, device-seconds, and which answers are counted already.

Folded from stored events as they happen, and again at a restart; it holds nothing that they do not. Joules
of a day count against a job's ``device_energy_j_per_day``. A day is one of job time, which stands still while
the orchestrator is down: an orchestrator that was off for a night allows no more than the quota, only later.
Seconds are those of the bills, whatever else the host did meanwhile. Pure but for its own memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mas_edge.orchestrator.events import GaveUp, Heard, Late
from mas_edge.orchestrator.job_state import Initialised, Judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mas_edge.orchestrator.job import Event
    from mas_edge.wire.messages import Key, Profile, Spend

DAY_S = 86_400.0


class Usage:
    """What has been used so far, by all jobs."""

    def __init__(self) -> None:
        self._counted: set[Key] = set()
        self._used_j: defaultdict[str, float] = defaultdict(float)
        self._today_j: dict[tuple[str, str], tuple[int, float]] = {}
        self._seconds: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._window: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def counted(self, key: Key) -> bool:
        """Whether an answer under this key stands in the store."""
        return key in self._counted

    def add(self, job: str, event: Event, time_s: float) -> None:
        """An event of a job was stored at this job time; one that is no device's answer changes nothing."""
        match event:
            case Heard():
                key, profile = event.update.key, event.update.profile
            case GaveUp() | Late():
                key, profile = event.key, event.profile
            case Initialised() | Judged():
                self._used_j[job] += sum(_energy_j(row) for row in event.profile.rows)
                return
            case _:
                return
        self._counted.add(key)
        self._bill(job, key.device, profile, int(time_s // DAY_S))

    def used_j(self, job: str) -> float:
        """Joules that the job has used so far, those of the orchestrator's work for it included."""
        return self._used_j[job]

    def today_j(self, job: str, device: str, time_s: float) -> float:
        """Joules that the job used of the device on the day of this job time, as far as they are known."""
        day, energy_j = self._today_j.get((job, device), (-1, 0.0))
        return energy_j if day == time_s // DAY_S else 0.0

    def seconds(self, device: str) -> Mapping[str, float]:
        """Device-seconds that each job used of this device; jobs that used none are not named."""
        return self._seconds.get(device, {})

    def power_w(self, device: str) -> float | None:
        """Mean power of the device over all that it was billed for; None if no energy is known."""
        energy_j, wall_s = self._window[device]
        return energy_j / wall_s if wall_s > 0 else None

    def _bill(self, job: str, device: str, profile: Profile, day: int) -> None:
        before, energy_j = self._today_j.get((job, device), (day, 0.0))
        used_j = sum(_energy_j(row) for row in profile.rows)
        self._used_j[job] += used_j
        self._today_j[job, device] = day, used_j + (energy_j if before == day else 0.0)
        self._seconds[device][job] += sum(row.wall_s for row in profile.rows)
        window_j, wall_s = self._window[device]
        known = [row for row in profile.rows if row.window_energy_j is not None]
        window_j += sum(row.window_energy_j or 0.0 for row in known)
        self._window[device] = window_j, wall_s + sum(row.wall_s for row in known)


def _energy_j(row: Spend) -> float:
    """What the group itself used; where no idle power is known all that the host used, which is more."""
    attributed_j, window_j = row.attributed_energy_j, row.window_energy_j
    return (attributed_j if attributed_j is not None else window_j) or 0.0
