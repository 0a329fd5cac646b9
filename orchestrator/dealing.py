"""Which devices train which of a partition's groups: all that they can, unless that is too much for them.

Data are on the devices, so a device trains every group that it can (``orchestrator.capacity``), one after
the other, and the slowest device decides how long a round takes. One for which all its groups take too
long, or too many joules of its day, trains the cheapest that it has room for: small boards get small
groups. As each group counts the same, cheapest first is the most groups that it can have. What is too long
is said by the job's time or by a round's deadline (*hard*), or else it is twice what the median device
takes (*soft*): then each device keeps one group, and a group with too few devices takes those back that it
makes latest least. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mas_edge.orchestrator.cost_model import figure

if TYPE_CHECKING:
    from collections.abc import Mapping

Matrix: TypeAlias = NDArray[np.float64]
Choice: TypeAlias = NDArray[np.bool_]

DAY_S = 86_400.0

SLOWEST = 2.0
"""Without a limit in seconds, no device takes longer for a round than so many times the median one."""

EVEN = 1.1
"""Groups whose costs are this close count as equal; of those, the one with the fewest devices goes first."""


@dataclass(frozen=True)
class Limits:
    """What is left, None without a limit; of ``enough`` devices a group needs at least so many.

    ``rounds`` are to be trained still. ``time_s`` and ``energy_j`` are left to the job, ``round_s`` is a
    round's deadline, ``device_day_j`` what each device may use in a day and ``used_j`` what it has, by
    device. ``waiting_s`` a round takes beyond its slowest device.
    """

    rounds: int
    enough: int = 1
    time_s: float | None = None
    energy_j: float | None = None
    round_s: float | None = None
    device_day_j: float | None = None
    used_j: tuple[float, ...] = ()
    waiting_s: float = 0.0

    @property
    def longest_s(self) -> float | None:
        """Seconds of its own that a device may take for a round; None if nothing says so."""
        given = [] if self.round_s is None else [self.round_s]
        if self.time_s is not None and self.rounds:
            given.append(self.time_s / self.rounds - self.waiting_s)
        return min(given, default=None)


@dataclass(frozen=True)
class Denied:
    """What a group would have brought a device to in a round, and what there is room for."""

    load: float
    room: float
    by: Literal["day", "limit", "median"]

    def words(self) -> str:
        """For people."""
        if self.by == "day":
            return f"would use {figure(self.load)} J a round, its day leaves {figure(self.room)} J"
        bound = "a round may take" if self.by == "limit" else f"{SLOWEST:g} times the median is"
        return f"may take {figure(self.load)} s a round, {bound} {figure(self.room)} s"


@dataclass(frozen=True, eq=False)
class Dealt:
    """Who trains what (groups, devices), and why not where a device could: by (group, device)."""

    chosen: Choice
    why: Mapping[tuple[int, int], Denied]


@dataclass(frozen=True)
class _Longest:
    """Seconds that a device may take for a round."""

    s: float
    hard: bool


def deal(able: Choice, seconds: Matrix | None, joules: Matrix | None, limits: Limits) -> Dealt:
    """Deals groups to devices; all matrices are (groups, devices), costs are of a round, None is unknown.

    Under a hard limit ``seconds`` are those that it has to be kept with.
    """
    chosen, why = able.copy(), dict[tuple[int, int], Denied]()
    longest = _longest(able, seconds, limits)
    most_j = None if joules is None else _most_j(able, seconds, limits)
    late = np.zeros(able.shape[1], bool)
    if seconds is not None and longest is not None:
        late |= (seconds * able).sum(axis=0) > longest.s
    if joules is not None and most_j is not None:
        late |= (joules * able).sum(axis=0) > most_j
    for device in map(int, np.flatnonzero(late)):
        room_j = None if most_j is None else float(most_j[device])
        why.update(_trim(device, chosen, seconds, joules, longest, room_j))
    if seconds is not None and longest is not None and not longest.hard:
        _give_back(chosen, why, seconds, limits.enough)
    return Dealt(chosen, why)


def _longest(able: Choice, seconds: Matrix | None, limits: Limits) -> _Longest | None:
    """By a limit, or else by what the median device takes for all that it can train."""
    if seconds is None:
        return None
    if limits.longest_s is not None:
        return _Longest(limits.longest_s, hard=True)
    loads = (seconds * able).sum(axis=0)[able.any(axis=0)]
    return _Longest(SLOWEST * float(np.median(loads)), hard=False) if len(loads) else None


def _most_j(able: Choice, seconds: Matrix | None, limits: Limits) -> Matrix | None:
    """(devices,): joules a round that a device may use so as to keep to its day.

    So many of the rounds that are left fall into a day as the quickest device could do: it may be fewer.
    """
    if limits.device_day_j is None or not limits.rounds:
        return None
    rounds = float(limits.rounds)
    loads = np.zeros(0) if seconds is None else (seconds * able).sum(axis=0)
    if (loads > 0).any():
        rounds = min(rounds, max(1.0, DAY_S / (float(loads[loads > 0].min()) + limits.waiting_s)))
    used = np.array(limits.used_j) if limits.used_j else np.zeros(able.shape[1])
    most: Matrix = np.maximum(limits.device_day_j - used, 0.0) / rounds
    return most


def _trim(
    device: int,
    chosen: Choice,
    seconds: Matrix | None,
    joules: Matrix | None,
    longest: _Longest | None,
    room_j: float | None,
) -> dict[tuple[int, int], Denied]:
    """Takes from a device what it has no room for, the dearest first; why, for each group that it loses."""
    mine = [int(g) for g in np.flatnonzero(chosen[:, device])]
    s = {g: 0.0 if seconds is None else float(seconds[g, device]) for g in mine}
    j = {g: 0.0 if joules is None else float(joules[g, device]) for g in mine}
    takers = {g: int(chosen[g].sum()) for g in mine}
    total_s = total_j = 0.0
    lost: dict[tuple[int, int], Denied] = {}
    while mine:
        least = min(s[g] for g in mine)
        near = [g for g in mine if s[g] <= EVEN * least]
        g = min(near, key=lambda g: (takers[g], s[g], g))
        mine.remove(g)
        keeps_one = longest is not None and not longest.hard and total_s == 0.0
        if room_j is not None and total_j + j[g] > room_j:
            lost[g, device] = Denied(total_j + j[g], room_j, "day")
        elif longest is not None and total_s + s[g] > longest.s and not keeps_one:
            by: Literal["limit", "median"] = "limit" if longest.hard else "median"
            lost[g, device] = Denied(total_s + s[g], longest.s, by)
        else:
            total_s, total_j = total_s + s[g], total_j + j[g]
            continue
        chosen[g, device] = False
    return lost


def _give_back(chosen: Choice, why: dict[tuple[int, int], Denied], seconds: Matrix, enough: int) -> None:
    """Groups with too few devices take back those that are only slow, the quickest first."""
    for g in range(len(chosen)):
        slow = [d for (group, d), denied in why.items() if group == g and denied.by == "median"]
        slow.sort(key=lambda d: float((seconds[:, d] * chosen[:, d]).sum() + seconds[g, d]))
        for d in slow[: max(0, enough - int(chosen[g].sum()))]:
            chosen[g, d] = True
            del why[g, d]
