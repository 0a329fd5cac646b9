"""Two runs side by side: ratios with the interval in which they lie, and whether that is more than noise.

A ratio of two energies has the relative uncertainty sqrt(u1^2 + u2^2), which is that of the difference of
their logarithms (JCGM 100:2008, 5.1.6). If both runs rest on one and the same measuring sensor its common
error (gain) is in both and cancels; a model's error is not taken to. Where the same devices took part in
both, the spread of their own ratios is added: what differs from device to device may differ from run to
run. A ratio is *within noise* where the two +-2u intervals overlap, or the ratio's own holds 1. What has no
uncertainty (seconds, bytes, losses of a single run) gets a ratio and no verdict. Pure.
"""

from __future__ import annotations

import math
from statistics import stdev
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.reports.summary import all_of, short_names
from mas_edge.profiling.costs import Number, attributed, number, of_level
from mas_edge.profiling.report import UNKNOWN, Table, method, uncertain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.orchestrator.reports.runs import RunReport

Verdict: TypeAlias = Literal["less", "more", "within noise"]

STUDENT_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""The 97.5 % quantile for 1, 2, ... degrees of freedom; beyond, 2.2 is on the safe side."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both runs; ``low`` and ``high`` enclose ``ratio`` with about 95 %.

    None: unknown. ``energetic`` figures rest on joules and are as good as the runs' methods.
    """

    name: str
    one: Number | None
    other: Number | None
    ratio: float | None
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None
    energetic: bool = False


def compare(one: RunReport, other: RunReport) -> tuple[Ratio, ...]:
    """Every figure that both runs have, the first over the second."""
    gain_u = _common_gain(one, other)
    devices = _logs(one, other)
    energies = [
        _energy("attributed J", _joules(one), _joules(other), gain_u, devices),
        _energy("fleet total J", _total(one), _total(other), gain_u, ()),
        _energy("mJ/sample", _per_sample(one), _per_sample(other), gain_u, ()),
        *_groups(one, other, gain_u),
    ]
    plain = [
        _plain("wall s", one.wall_s, other.wall_s),
        _plain("CPU s", _cpu_s(one), _cpu_s(other)),
        _plain("MB sent and received", _megabytes(one), _megabytes(other)),
        _plain("held-out loss, relative", one.report.held_out_relative, other.report.held_out_relative),
        _plain("unseen loss, relative", one.report.unseen_relative, other.report.unseen_relative),
    ]
    return (*energies, *plain)


def table(ratios: Sequence[Ratio], one: RunReport, other: RunReport, names: tuple[str, str]) -> Table:
    """The comparison as text."""
    methods = [method(run.bill.methods) for run in (one, other)]
    return Table(
        title=f"{names[0]} over {names[1]}, \N{PLUS-MINUS SIGN}2u",
        headers=("", *names, "ratio", "95 % interval", ""),
        rows=tuple(_cells(ratio, " / ".join(dict.fromkeys(methods))) for ratio in ratios),
        notes=tuple(_notes(ratios, methods)),
    )


def _cells(found: Ratio, how: str) -> tuple[str, ...]:
    interval = UNKNOWN
    if found.low is not None and found.high is not None:
        interval = f"{found.low:.2f} to {found.high:.2f}"
    return (
        f"{found.name} ({how})" if found.energetic else found.name,
        uncertain(found.one),
        uncertain(found.other),
        UNKNOWN if found.ratio is None else f"{found.ratio:.2f}",
        interval,
        found.verdict or UNKNOWN,
    )


def _notes(ratios: Sequence[Ratio], methods: Sequence[str]) -> list[str]:
    notes = ["within noise: the intervals of the two runs overlap, or that of their ratio holds 1"]
    if methods[0] != methods[1]:
        notes.append(f"mixed: the joules of one run are {methods[0]}, those of the other {methods[1]}")
    if any(found.verdict is None for found in ratios):
        notes.append("no verdict where a single run does not tell how much a figure varies")
    return notes


def _groups(one: RunReport, other: RunReport, gain_u: float) -> list[Ratio]:
    """Task groups that both runs had."""
    theirs = {row.group: row for row in of_level(other.rows, "group")}
    names = short_names(one.report)
    return [
        _energy(
            f"attributed J, {names.get(row.group, row.group)}",
            attributed(row.cost),
            attributed(theirs[row.group].cost),
            gain_u,
            (),
        )
        for row in of_level(one.rows, "group")
        if row.group is not None and row.group in theirs
    ]


def _energy(
    name: str, one: Number | None, other: Number | None, gain_u: float, logs: Sequence[float]
) -> Ratio:
    found = Ratio(name=name, one=one, other=other, ratio=_over(one, other), energetic=True)
    if one is None or other is None or found.ratio is None:
        return found
    if one.u is None or other.u is None or found.ratio <= 0:
        return found
    own = [math.sqrt(max((n.u or 0.0) ** 2 / n.value**2 - gain_u**2, 0.0)) for n in (one, other)]
    half = math.hypot(2 * math.hypot(*own), _spread(logs))
    log = math.log(found.ratio)
    apart = abs(one.value - other.value) > 2 * (own[0] * one.value + own[1] * other.value)
    noise = abs(log) <= half or not apart
    verdict: Verdict = "within noise" if noise else "less" if log < 0 else "more"
    low, high = math.exp(log - half), math.exp(log + half)
    return msgspec.structs.replace(found, low=low, high=high, verdict=verdict)


def _spread(logs: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of the devices' log ratios; 0 with fewer than two."""
    if len(logs) < 2:
        return 0.0
    t = STUDENT_T[min(len(logs) - 2, len(STUDENT_T) - 1)]
    return t * stdev(logs) / math.sqrt(len(logs))


def _logs(one: RunReport, other: RunReport) -> tuple[float, ...]:
    """ln(energy / energy) of every device that trained in both runs."""
    theirs = {row.device: attributed(row.cost) for row in of_level(other.rows, "device") if row.cost.examples}
    pairs = [
        (attributed(row.cost), theirs[row.device])
        for row in of_level(one.rows, "device")
        if row.device in theirs and row.cost.examples
    ]
    return tuple(math.log(a.value / b.value) for a, b in pairs if a and b and a.value > 0 and b.value > 0)


def _common_gain(one: RunReport, other: RunReport) -> float:
    """The relative error that both runs share, 0 unless one and the same sensor measured both."""
    sensors = {host.sensor for run in (one, other) for host in run.bill.hosts}
    if len(sensors) != 1 or (sensor := sensors.pop()) is None or sensor.method == "estimated":
        return 0.0
    return sensor.gain_u


def _plain(name: str, one: float | None, other: float | None) -> Ratio:
    numbers = number(one, None), number(other, None)
    return Ratio(name=name, one=numbers[0], other=numbers[1], ratio=_over(*numbers))


def _over(one: Number | None, other: Number | None) -> float | None:
    return None if one is None or other is None or not other.value else one.value / other.value


def _joules(run: RunReport) -> Number | None:
    row = all_of(run)
    return None if row is None else attributed(row.cost)


def _per_sample(run: RunReport) -> Number | None:
    """In mJ."""
    row = all_of(run)
    return None if row is None or row.j_per_example is None else row.j_per_example.times(1e3)


def _cpu_s(run: RunReport) -> float | None:
    row = all_of(run)
    return None if row is None else row.cost.cpu_s


def _total(run: RunReport) -> Number | None:
    return number(run.bill.total_j, run.bill.total_u_j)


def _megabytes(run: RunReport) -> float | None:
    row = all_of(run)
    return None if row is None else (row.cost.sent_bytes + row.cost.received_bytes) / 1e6
