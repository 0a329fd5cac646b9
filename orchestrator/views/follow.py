"""Follows a store that another thread or process writes: what goes on, for the price of what is new.

A ``Follower`` remembers how far it has read each job's events and adds those that came since to the job's
tally; what devices said last is read anew each time. Asking again gives what asking for the first time would.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.spec import JobSpec
from mas_edge.orchestrator.views.status import status
from mas_edge.orchestrator.views.status_values import Known
from mas_edge.orchestrator.views.tally import Tally

if TYPE_CHECKING:
    from mas_edge.orchestrator.job import Event
    from mas_edge.orchestrator.store import Store
    from mas_edge.orchestrator.views.status_values import Status


class Follower:
    """What goes on, of a store that was opened in the same thread."""

    def __init__(self, store: Store[Event]) -> None:
        self._store = store
        self._tallies: dict[str, Tally] = {}
        self._read: dict[str, int] = {}  # number of the last event that was added

    def status(self, wall_s: float) -> Status:
        """The status at a Unix time, which says when the day began; raises what reading the store raises."""
        for name, body in self._store.jobs():
            tally = self._tallies.get(name)
            if tally is None:
                tally = self._tallies[name] = Tally(msgspec.json.decode(body, type=JobSpec))
            for seq, time_s, event_wall_s, event in self._store.history(name, self._read.get(name, 0)):
                tally.add(time_s, event_wall_s, event)
                self._read[name] = seq
        return status(tuple(self._tallies.values()), self._known(), midnight_s(wall_s))

    def _known(self) -> dict[str, Known]:
        hellos, presence = self._store.devices(), self._store.presence()
        heard = self._store.last_heard()
        live = {progress.key.device: progress for progress in self._store.live()}
        known = {}
        for name in hellos.keys() | presence.keys():
            alive, alive_wall_s = presence.get(name, (None, None))
            moments = [moment for moment in (heard.get(name), alive_wall_s) if moment is not None]
            known[name] = Known(
                hello=hellos.get(name),
                alive=alive,
                alive_wall_s=alive_wall_s,
                progress=live.get(name),
                last_seen_wall_s=max(moments, default=None),
            )
        return known


def midnight_s(wall_s: float) -> float:
    """When the day of a Unix time began by the local clock, in Unix time."""
    day = time.localtime(wall_s)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))
