"""What the runs of a command cost: the four figures of each, and the mean of several.

``bill`` puts a run's slices through the ledger, under an idle power or without one (then dynamic and
attributed energy are unknown); ``together`` makes the mean of repeated runs, whose spread counts in its
uncertainty. The energy is the sensor's, whoever used it; what the command had of it is the attributed
figure. A counter that moves every millisecond says nothing about less than ``SHORTEST_S``: its joules are
unknown then. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, hypot
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import msgspec

from mas_edge.profiling import ledger as books
from mas_edge.profiling.bill import FIGURES
from mas_edge.profiling.hosts import known_sum
from mas_edge.profiling.ledger import Ledger, Slice
from mas_edge.wire.messages import Baseline, Machine, Rail, Refusal, Sampling, Sensor, Spend

if TYPE_CHECKING:
    from mas_edge.profiling.meters import Energy

SHORTEST_S = 0.01
"""A counter that is renewed every millisecond says nothing about less than this."""
SHORT_S = 0.1
"""Below this a run is flagged ``short_window``."""

_MEANT = (
    "wall_s", "cpu_s", "busy_s", "energy_j", "mean_w", "window_energy_j", "dynamic_energy_j",
    "attributed_energy_j", "idle_j", "background_j",
)  # fmt: skip
_UNCERTAIN = {
    "energy_j": "energy_u_j",
    "mean_w": "mean_u_w",
    "window_energy_j": "window_u_j",
    "dynamic_energy_j": "dynamic_u_j",
    "attributed_energy_j": "attributed_u_j",
}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run cost; energies in joules with a standard uncertainty each, None where unknown.

    ``energy_j`` is the window's and the same as ``window_energy_j``. ``peak_w`` is the greatest mean power
    of a slice. ``cpu_s`` is of the command and all that it started, ``busy_s`` of the host.
    """

    exit_code: int
    wall_s: float
    cpu_s: float
    busy_s: float | None
    energy_j: float | None
    energy_u_j: float | None
    mean_w: float | None
    mean_u_w: float | None
    peak_w: float | None
    window_energy_j: float | None
    window_u_j: float | None
    dynamic_energy_j: float | None
    dynamic_u_j: float | None
    attributed_energy_j: float | None
    attributed_u_j: float | None
    exclusive_fraction: float | None
    idle_j: float | None
    background_j: float | None
    rails: tuple[Rail, ...]
    sampling: Sampling | None
    profiler_cpu_s: float
    flags: tuple[str, ...]


class Measured(Run, frozen=True, kw_only=True):
    """One run or the mean of several, and what it rests on.

    Of several runs, energies, powers and times are means, ``energy_u_j`` counts their spread, and ``sd``
    fields are the standard deviation over them, None for one run. ``exit_code`` is the first that is not 0.
    """

    command: tuple[str, ...]
    method: str
    sensor: str
    scope: str
    about: Sensor
    baseline: Baseline | None
    machine: Machine
    refused: tuple[Refusal, ...]
    repeats: tuple[Run, ...]
    energy_sd_j: float | None = None
    wall_sd_s: float | None = None


@dataclass(frozen=True)
class Course:
    """What happened while a command ran.

    ``whole`` is the window from start to end, which knows its uncertainty better than its slices do;
    ``lost`` is what the meter said when it stopped answering.
    """

    slices: tuple[Slice, ...]
    whole: Energy | None
    exit_code: int
    cpu_s: float
    interrupted: bool
    lost: str | None


def bill(course: Course, sensor: Sensor, baseline: Baseline | None = None) -> Run:
    """The four figures of a course; without a baseline dynamic and attributed are unknown."""
    ledger = Ledger()
    idle_w, idle_u_w = (baseline.power_w, baseline.u_w) if baseline else (None, None)
    for piece in _sure(course):
        ledger = books.charge(ledger, piece, idle_w, idle_u_w, sensor.gain_u)
    (row,) = books.rows(ledger)
    wall_s = fsum(piece.t1_ns - piece.t0_ns for piece in course.slices) / 1e9
    known = sensor.method != "counter" or wall_s >= SHORTEST_S
    row = row if known else msgspec.structs.replace(row, **dict.fromkeys(FIGURES))
    return Run(
        exit_code=course.exit_code,
        wall_s=wall_s,
        cpu_s=course.cpu_s,
        busy_s=known_sum(piece.busy_s for piece in course.slices),
        energy_j=row.window_energy_j,
        energy_u_j=row.window_u_j,
        mean_w=None if row.window_energy_j is None or not wall_s else row.window_energy_j / wall_s,
        mean_u_w=None if row.window_u_j is None or not wall_s else row.window_u_j / wall_s,
        peak_w=row.peak_w,
        **{name: getattr(row, name) for name in FIGURES},
        exclusive_fraction=row.exclusive_fraction,
        idle_j=ledger.idle.value_j,
        background_j=ledger.background.value_j if known else None,
        rails=_rails(course) if known else (),
        sampling=ledger.sampling,
        profiler_cpu_s=ledger.profiler_cpu_s,
        flags=_flags(course, row, sensor, wall_s),
    )


def together(runs: Sequence[Run], gain_u: float) -> Run:
    """The mean of one or more runs.

    The uncertainty of its energies is the greater of what the runs' own says (their common gain
    does not average away) and of their spread, sd / sqrt(n), with the gain.
    """
    if len(runs) == 1:
        return runs[0]
    means = {name: _mean(getattr(run, name) for run in runs) for name in _MEANT}
    for energy, u in _UNCERTAIN.items():
        means[u] = _mean_u([(getattr(run, energy), getattr(run, u)) for run in runs], gain_u)
    return msgspec.structs.replace(
        runs[0],
        **means,
        exit_code=next((run.exit_code for run in runs if run.exit_code), 0),
        peak_w=max((run.peak_w for run in runs if run.peak_w is not None), default=None),
        rails=tuple(
            Rail(
                name=rail.name,
                energy_j=fmean(r.energy_j for run in runs for r in run.rails if r.name == rail.name),
            )
            for rail in runs[0].rails
        ),
        profiler_cpu_s=fsum(run.profiler_cpu_s for run in runs),
        flags=tuple(sorted({flag for run in runs for flag in run.flags})),
    )


def measured(
    runs: Sequence[Run],
    *,
    command: tuple[str, ...],
    sensor: Sensor,
    baseline: Baseline | None,
    machine: Machine,
    refused: tuple[Refusal, ...],
    flags: Iterable[str] = (),
) -> Measured:
    """One or more runs, and what they rest on; ``flags`` are what else is to be said of them."""
    mean = together(runs, sensor.gain_u)
    fields = {name: getattr(mean, name) for name in Run.__struct_fields__}
    return Measured(
        **{**fields, "flags": tuple(sorted({*mean.flags, *flags}))},
        command=command,
        method=sensor.method,
        sensor=sensor.name,
        scope=sensor.scope,
        about=sensor,
        baseline=baseline,
        machine=machine,
        refused=refused,
        repeats=tuple(runs),
        energy_sd_j=spread(run.energy_j for run in runs),
        wall_sd_s=spread(run.wall_s for run in runs),
    )


def spread(values: Iterable[float | None]) -> float | None:
    """Standard deviation of the values; None for fewer than two, or if one is unknown."""
    found = list(values)
    known = [value for value in found if value is not None]
    return stdev(known) if len(known) == len(found) > 1 else None


# --- inside ---------------------------------------------------------------------------------------


def _sure(course: Course) -> Iterable[Slice]:
    """The slices with their parts of the variance of the whole, as neighbours' samples tell it."""
    if course.whole is None or course.whole.wall_s <= 0:
        return course.slices
    rate = course.whole.variance_j2 / course.whole.wall_s
    return (
        msgspec.structs.replace(piece, variance_j2=rate * (piece.t1_ns - piece.t0_ns) / 1e9)
        for piece in course.slices
    )


def _rails(course: Course) -> tuple[Rail, ...]:
    by_rail_j = course.whole.by_rail_j if course.whole and not course.lost else {}
    return tuple(Rail(name=name, energy_j=energy_j) for name, energy_j in by_rail_j.items())


def _flags(course: Course, row: Spend, sensor: Sensor, wall_s: float) -> tuple[str, ...]:
    flags = {*row.flags, *(course.whole.flags if course.whole else ())}
    if wall_s < SHORT_S:
        flags.add("short_window")
    if course.lost:
        flags.add("sensor_lost")
    if sensor.method == "counter" and wall_s >= SHORT_S and row.window_energy_j == 0.0:
        flags.add("not_counting")  # no host that is on uses nothing
    return tuple(sorted(flags))


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    total = known_sum(found)
    return None if total is None else total / len(found)


def _mean_u(pairs: Sequence[tuple[float | None, float | None]], gain_u: float) -> float | None:
    mean_j, sd_j = _mean(energy for energy, _ in pairs), spread(energy for energy, _ in pairs)
    own_j = _mean(u for _, u in pairs)
    if mean_j is None or sd_j is None or own_j is None:
        return None
    return max(own_j, hypot(sd_j / len(pairs) ** 0.5, gain_u * mean_j))
