"""Under which conditions a device trains: what an operator asks, what was observed, and what follows.

``judge`` compares the ``[conditions]`` table with ``Facts`` and names every condition that is not met, with
the numbers. A device with a reason declines what it is asked, and says when it looks again. A round that has
begun is finished, unless a limit protects the device (power, temperature): then it is given up at the next
micro-batch. A limit that was broken is so until the device is clear of it by a margin: at its edge it would
begin and give up rounds for ever. What is asked and cannot be observed counts as not met.

Pure: how facts are read is ``edge_agent.facts``' business. The clock is the host's local time as people read
it, daylight saving included: an hour that is skipped opens no window, and one that comes twice opens it
twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from mas_edge.wire.messages import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

POWER, TEMPERATURE, HOURS, ENERGY, LOAD, DISK = "power", "temperature", "hours", "energy", "load", "disk"
HARD = frozenset({POWER, TEMPERATURE})
"""The conditions that end a round that has begun."""

MARGIN_C, MARGIN_PERCENT = 5.0, 5.0
"""How far below its limit a device cools, and how far above it charges, before it trains again."""

AGAIN_S, SOON_S, LONGEST_S, DAY_S = 60.0, 5.0, 900.0, 86400.0
"""When a device looks again that cannot say better; that has just begun to look; the longest; a day."""

Percent: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=100)]
Celsius: TypeAlias = Annotated[float, msgspec.Meta(ge=-40, le=150)]
"""Where electronics work, and some more."""
_TIME = r"([01]\d|2[0-3]):[0-5]\d"


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[conditions]`` table of ``agent.toml``; what is not given is not asked.

    ``mains``: train on mains power only. ``battery_percent``: on battery too, from this charge on.
    ``temperature_c``: only while the hottest sensor is below. ``hours``: windows as "22:00-06:00" local time.
    ``energy_j_per_day``: joules of training, from midnight to midnight. ``others_cpu_percent``: only while
    other processes take less of the host's processors, over the last minute.
    """

    mains: bool = False
    battery_percent: Percent | None = None
    temperature_c: Celsius | None = None
    hours: tuple[str, ...] = ()
    energy_j_per_day: Annotated[float, msgspec.Meta(gt=0)] | None = None
    others_cpu_percent: Percent | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for hours that are none: what a pattern would say is not for people."""
        for window in self.hours:
            if not re.fullmatch(f"{_TIME}-{_TIME}", window, re.ASCII):
                raise ValueError(f'{window!r} is no window of time: write "22:00-06:00"')


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed; None is unknown. ``clock_s`` counts from midnight of the host's local time."""

    clock_s: float
    on_mains: bool | None = None
    battery_percent: float | None = None
    temperature_c: float | None = None
    energy_today_j: float = 0.0
    others_cpu_percent: float | None = None
    full_disk: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why the device may not train now, if it may not; ``hard`` ends a round that has begun."""

    reasons: tuple[Reason, ...] = ()
    again_s: float = 0.0

    @property
    def hard(self) -> bool:
        """Whether a round that has begun must end."""
        return any(reason.condition in HARD for reason in self.reasons)

    @property
    def names(self) -> frozenset[str]:
        """The conditions that are not met."""
        return frozenset(reason.condition for reason in self.reasons)

    @property
    def words(self) -> str:
        """One line for people."""
        return "; ".join(f"{reason.condition}: {reason.detail}" for reason in self.reasons)


FREE = Verdict()
"""Nothing stands against training."""


def judge(asked: Conditions, facts: Facts, broken: Collection[str] = ()) -> Verdict:
    """What stands against training now; ``broken`` names the conditions that were not met a moment ago."""
    found = (
        (POWER, _power(asked, facts, margin=MARGIN_PERCENT * (POWER in broken))),
        (TEMPERATURE, _temperature(asked, facts, margin_c=MARGIN_C * (TEMPERATURE in broken))),
        (HOURS, _hours(asked, facts)),
        (ENERGY, _energy(asked, facts)),
        (LOAD, _load(asked, facts)),
        (DISK, facts.full_disk),
    )
    reasons = tuple(Reason(condition=name, detail=detail) for name, detail in found if detail)
    if not reasons:
        return FREE
    return Verdict(reasons=reasons, again_s=max(_again_s(r.condition, asked, facts) for r in reasons))


def _power(asked: Conditions, facts: Facts, *, margin: float) -> str | None:
    least = asked.battery_percent
    if facts.on_mains or (least is None and not asked.mains):
        return None
    if facts.on_mains is None:
        return "not known whether this is mains or battery"
    charge = "an unknown charge" if facts.battery_percent is None else f"{facts.battery_percent:.0f} %"
    if least is None:
        return f"on battery at {charge}, asked is mains"
    needed = min(least + margin, 100.0)
    if facts.battery_percent is not None and facts.battery_percent >= needed:
        return None
    return f"on battery at {charge}, asked are {needed:.0f} % or mains"


def _temperature(asked: Conditions, facts: Facts, *, margin_c: float) -> str | None:
    if asked.temperature_c is None:
        return None
    limit_c = asked.temperature_c - margin_c
    if facts.temperature_c is None:
        return f"no sensor can be read, asked is less than {limit_c:.1f} °C"
    return (
        None
        if facts.temperature_c < limit_c
        else f"{facts.temperature_c:.1f} °C, asked is less than {limit_c:.1f} °C"
    )


def _hours(asked: Conditions, facts: Facts) -> str | None:
    if not asked.hours or any(_until_open_s(window, facts.clock_s) == 0 for window in asked.hours):
        return None
    hour, minute = divmod(int(facts.clock_s) // 60, 60)
    return f"it is {hour:02}:{minute:02}, asked is {' or '.join(asked.hours)}"


def _energy(asked: Conditions, facts: Facts) -> str | None:
    limit_j = asked.energy_j_per_day
    if limit_j is None or facts.energy_today_j < limit_j:
        return None
    return f"{facts.energy_today_j:.0f} J today, asked is less than {limit_j:.0f} J"


def _load(asked: Conditions, facts: Facts) -> str | None:
    limit = asked.others_cpu_percent
    if limit is None:
        return None
    if facts.others_cpu_percent is None:
        return "not known yet what other processes take"
    if facts.others_cpu_percent < limit:
        return None
    return f"others take {facts.others_cpu_percent:.0f} % of the processors, asked is less than {limit:.0f} %"


def _again_s(condition: str, asked: Conditions, facts: Facts) -> float:
    """When this condition may be met again, as far as a clock can say."""
    match condition:
        case "hours":
            pause_s = min(_until_open_s(window, facts.clock_s) for window in asked.hours)
        case "energy":
            pause_s = DAY_S - facts.clock_s
        case "load" if facts.others_cpu_percent is None:
            pause_s = SOON_S
        case _:
            return AGAIN_S
    return min(max(pause_s, 1.0), LONGEST_S)


def _until_open_s(window: str, clock_s: float) -> float:
    """Seconds until a window opens, 0 inside of it; it may reach into the next day."""
    first_s, past_s = (int(text[:2]) * 3600.0 + int(text[3:]) * 60.0 for text in window.split("-"))
    length_s = (past_s - first_s) % DAY_S or DAY_S
    since_s = (clock_s - first_s) % DAY_S
    return 0.0 if since_s < length_s else DAY_S - since_s
