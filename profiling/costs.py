"""The rows of a report: every phase of every training by itself, and summed in the ways one asks for.

A *level* names what a row stands for and what is summed: ``all``; a task group; a group's phase; a group's
round; a device; or ``row``, one phase of one training on one device, of which all others are sums. Each row
has the figures of ``bill.Cost`` and what follows from them: mean power, joules per sample and per round,
the energy-delay product, and CO2e if the user says what a kWh emits. What follows from an unknown figure
is unknown. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from mas_edge.profiling.bill import Billed, Cost, sum_spend

Level: TypeAlias = Literal["all", "group", "group-phase", "group-round", "device", "row"]

KEYS: dict[Level, tuple[str, ...]] = {
    "all": (),
    "group": ("job", "group"),
    "group-phase": ("job", "group", "phase"),
    "group-round": ("job", "group", "round"),
    "device": ("device",),
    "row": ("device", "job", "group", "round", "phase"),
}
"""What tells two rows of a level apart; over everything else they are sums."""

J_PER_KWH = 3.6e6


class Number(msgspec.Struct, frozen=True):
    """A value that is known, and its standard uncertainty (None: not known)."""

    value: float
    u: float | None

    def times(self, factor: float) -> Number:
        """Both times a factor that is known exactly."""
        return Number(self.value * factor, None if self.u is None else self.u * abs(factor))


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report; of ``device``, ``job``, ``group``, ``round`` and ``phase``, None means all.

    ``mean_w`` is window energy over wall time: the power of the whole device while this ran.
    ``j_per_example`` is attributed energy over what was trained in the same group, round and device,
    whatever the phase, so that phases add up; None if nothing was. ``edp_js`` (energy-delay product) is
    attributed energy times wall time, in a sum that of all devices. A round that two groups trained
    counts twice in ``rounds``.
    """

    level: Level
    device: str | None
    job: str | None
    group: str | None
    round: int | None
    phase: str | None
    devices: int
    rounds: int
    sensors: tuple[str, ...]
    scopes: tuple[str, ...]
    cost: Cost
    mean_w: Number | None
    j_per_example: Number | None
    j_per_round: Number | None
    edp_js: Number | None
    examples_per_s: float | None
    s_per_round: float
    co2e_g: Number | None = None


def rows(billed: Iterable[Billed]) -> tuple[Row, ...]:
    """The rows of every level, in the order of ``Level``, each level's in order of appearance."""
    kept = tuple(billed)
    levels: tuple[Level, ...] = get_args(Level)
    return tuple(row for level in levels for row in _of_level(level, kept))


def of_level(given: Iterable[Row], level: Level) -> tuple[Row, ...]:
    """The rows of one level."""
    return tuple(row for row in given if row.level == level)


def with_co2e(given: Iterable[Row], g_per_kwh: float) -> tuple[Row, ...]:
    """The rows with what their attributed energy emitted where a kWh emits so many grams of CO2e."""
    return tuple(
        msgspec.structs.replace(row, co2e_g=co2e_g(attributed(row.cost), g_per_kwh)) for row in given
    )


def co2e_g(energy_j: Number | None, g_per_kwh: float) -> Number | None:
    """Grams of CO2 equivalent of an energy where a kWh emits so many; None for an unknown energy."""
    return energy_j and energy_j.times(g_per_kwh / J_PER_KWH)


def attributed(cost: Cost) -> Number | None:
    """The joules that a sum is charged with, None if unknown."""
    return number(cost.attributed_energy_j, cost.attributed_u_j)


def number(value: float | None, u: float | None) -> Number | None:
    """A value with its uncertainty, None if it is unknown."""
    return None if value is None else Number(value, u)


def _of_level(level: Level, kept: Sequence[Billed]) -> Iterable[Row]:
    keys = KEYS[level]
    around = tuple(key for key in keys if key != "phase")
    trained = {name: sum(row.spend.examples for row in of) for name, of in _grouped(kept, around).items()}
    for name, members in _grouped(kept, keys).items():
        named = dict(zip(keys, name, strict=True))
        yield _row(level, members, trained[tuple(named[key] for key in around)])


def _row(level: Level, members: Sequence[Billed], trained: int) -> Row:
    """The sum of members that have the level's keys in common."""
    cost, keys, first = sum_spend(members), KEYS[level], members[0]
    rounds = len({(row.spend.job, row.spend.group, row.spend.round) for row in members})
    sensors = {row.sensor for row in members if row.sensor}
    joules = attributed(cost)
    return Row(
        level=level,
        device=first.device if "device" in keys else None,
        job=first.spend.job if "job" in keys else None,
        group=first.spend.group if "group" in keys else None,
        round=first.spend.round if "round" in keys else None,
        phase=first.spend.phase if "phase" in keys else None,
        devices=len({row.device for row in members}),
        rounds=rounds,
        sensors=tuple(sorted({sensor.name for sensor in sensors})),
        scopes=tuple(sorted({sensor.scope for sensor in sensors})),
        cost=cost,
        mean_w=_over(number(cost.window_energy_j, cost.window_u_j), cost.wall_s),
        j_per_example=_over(joules, trained),
        j_per_round=_over(joules, rounds),
        edp_js=joules and joules.times(cost.wall_s),
        examples_per_s=cost.examples / cost.wall_s if cost.examples and cost.wall_s else None,
        s_per_round=cost.wall_s / rounds,
    )


def _over(number: Number | None, divisor: float) -> Number | None:
    return None if number is None or not divisor else number.times(1 / divisor)


def _grouped(kept: Sequence[Billed], keys: Sequence[str]) -> dict[tuple[str | int, ...], list[Billed]]:
    found: dict[tuple[str | int, ...], list[Billed]] = {}
    for row in kept:
        name = tuple(row.device if key == "device" else getattr(row.spend, key) for key in keys)
        found.setdefault(name, []).append(row)
    return found
