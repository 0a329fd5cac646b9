"""The lines of NVIDIA's tegrastats: which power rails they show, whatever release and board printed them.

A line is fields in any order, separated by blanks::

    line    = [MM-DD-YYYY HH:MM:SS] field+
    field   = memory | cpu | engine | temperature | rail | anything else
    memory  = ("RAM" | "SWAP" | "IRAM") used "/" all ("MB" | "kB") ["(" ... ")"]
    cpu     = "CPU" "[" load "@" MHz or "off", by commas "]"
    rail    = NAME now "/" mean ["/" greatest]  |  NAME now "mW"

Powers are milliwatts with or without the unit, and may be negative (a rail that feeds back). ``now`` is one
conversion of the monitor, ``mean`` is over the time since tegrastats was started and so no power of now:
it only serves to check our own sum (``Means``). A name and what follows it make a rail if both look like it:
some boards have rails named CPU and GPU beside the processors' load and the temperatures of these names.

Sources: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility"; jetson_stats, energymon and the lines of
the boards in tests/profiling/tegrastats_samples.txt. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mas_edge.profiling.drivers.rails import NOT_CONNECTED, Total, no_total, total_of

PROBED = 5
"""If so many lines show no rail, there will be none."""
AGREE = 2
"""So many lines must show one and the same set of rails before it is believed: lines may come in halves."""
LATEST = 5
"""How many of the lines that came at once are looked at."""
CHECK_S, TOLERANCE = 60.0, 0.01
"""How often the printed mean is held against ours, and how far off it may be."""

_NO_RAILS = frozenset({"RAM", "SWAP", "IRAM", NOT_CONNECTED})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")
_POWER = re.compile(r"(-?\d+)(?:(?:mW)?/(-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)?|mW)")


@dataclass(frozen=True)
class Rails:
    """The powers on one line; a rail without a mean is not in ``mean_w``."""

    now_w: Mapping[str, float]
    mean_w: Mapping[str, float]


def parse(line: str) -> Rails | None:
    """The rails on a line, None if it has none; a name that is there twice is no rail's."""
    found = [
        (name, power[1], power[2])
        for name, word in pairwise(line.split())
        if ("/" in word or "mW" in word)
        and (power := _POWER.fullmatch(word))
        and _NAME.fullmatch(name)
        and name not in _NO_RAILS
    ]
    names = [name for name, _, _ in found]
    now_w = {name: int(now) / 1000 for name, now, _ in found if names.count(name) == 1}
    mean_w = {name: int(mean) / 1000 for name, _, mean in found if mean and name in now_w}
    return Rails(now_w, mean_w) if now_w else None


@dataclass(frozen=True)
class Layout:
    """What every line of one tegrastats shows: its rails, and which add up; ``wanted`` by the user."""

    names: frozenset[str]
    total: Total
    wanted: tuple[str, ...] = ()

    def newest(self, lines: Sequence[str]) -> Rails | None:
        """The rails of the last line, or of one just before it, that is whole."""
        found = (parse(line) for line in reversed(lines[-LATEST:]))
        return next((rails for rails in found if rails and self.fits(rails)), None)

    def fits(self, rails: Rails) -> bool:
        """Whether a line has all the rails, and none that would make another total of them."""
        return self.names <= rails.now_w.keys() and total_of(rails.now_w, self.wanted) == self.total

    def mean_w(self, rails: Rails) -> float | None:
        """The total's mean since tegrastats was started, None if the line does not say."""
        return self.total.of(rails.mean_w) if rails.mean_w.keys() >= set(self.total.rails) else None


class UnknownLayout(ValueError):
    """Lines of which no total can be had: why, and what would help."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def layout_of(lines: Sequence[Rails | None], wanted: tuple[str, ...] = ()) -> Layout | None:
    """The layout that the first lines agree on; None if it takes more of them. Raises UnknownLayout."""
    seen = [frozenset(rails.now_w) for rails in lines if rails]
    for names in seen:
        total = total_of(names, wanted)
        if total and seen.count(names) >= AGREE:
            return Layout(names, total, wanted)
    if not seen and len(lines) >= PROBED:
        remedy = "run as root, as old releases want; a Nano 2GB has no sensor at all"
        raise UnknownLayout(f"its first {len(lines)} lines show no power rail", remedy)
    if len(lines) < 2 * PROBED:
        return None
    raise UnknownLayout(*no_total("tegrastats", frozenset[str]().union(*seen), wanted))


@dataclass(frozen=True)
class Means:
    """Our mean power since tegrastats was started, held against the one that it prints.

    ``differs`` says that this was done with the newest sample, and that the two were not the same.
    """

    t0_ns: int
    t_ns: int
    power_w: float
    checked_ns: int
    energy_j: float = 0.0
    differs: bool = False

    def after(self, t_ns: int, power_w: float, stated_w: float | None) -> Means:
        """With one more sample; ``stated_w`` is the mean on its line. Compared once a minute."""
        energy_j = self.energy_j + (self.power_w + power_w) / 2 * (t_ns - self.t_ns) / 1e9
        if stated_w is None or t_ns - self.checked_ns < CHECK_S * 1e9:
            return Means(self.t0_ns, t_ns, power_w, self.checked_ns, energy_j)
        own_w = energy_j / (t_ns - self.t0_ns) * 1e9
        differs = abs(stated_w - own_w) > TOLERANCE * abs(own_w)
        return Means(self.t0_ns, t_ns, power_w, t_ns, energy_j, differs)
