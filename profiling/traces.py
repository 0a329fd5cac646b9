"""A host's energy over time as its agents saw it: grown slice by slice, united without counting twice.

A ``Trace`` is the cumulated energy at moments of the host's monotonic clock. A step over which it does
not grow was not metered (the agent was down, the meter did not answer): no host that is on uses
nothing. Traces of agents on one host overlap; their union takes the earliest first and each later one
from where the union ends, linear between its points. Only differences count, so every agent's meter
may start where it likes. Pure: no clock, no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from typing import TypeAlias

from mas_edge.wire.messages import Trace

POINTS = 512
"""A trace that grows beyond this is thinned to about half."""

SHORT_NS = 100_000_000
"""Too short for a mean power: counters and processor clocks move in steps of up to 10 ms."""

_Point: TypeAlias = tuple[int, float, float]


@dataclass(frozen=True)
class Union:
    """Seconds in which any trace was metered and what the host used in them; idle None: not known."""

    wall_s: float
    energy_j: float
    variance_j2: float
    idle_j: float | None


@dataclass(frozen=True)
class Step:
    """Mean power between two moments of the host's monotonic clock."""

    t0_ns: int
    t1_ns: int
    power_w: float


def extend(trace: Trace, t0_ns: int, t1_ns: int, energy_j: float, variance_j2: float) -> Trace:
    """The trace with one more step; energy 0 for time that was not metered.

    A step without length adds nothing; one that begins before the trace ends raises ValueError.
    """
    points = _points(trace)
    if t1_ns == t0_ns:
        return trace
    if t1_ns < t0_ns or (points and t0_ns < points[-1][0]):
        raise ValueError(f"a step from {t0_ns} to {t1_ns} ns cannot follow {points[-1:]}")
    so_far_j, so_far_j2 = points[-1][1:] if points else (0.0, 0.0)
    if not points or points[-1][0] < t0_ns:
        points.append((t0_ns, so_far_j, so_far_j2))
    points.append((t1_ns, so_far_j + energy_j, so_far_j2 + variance_j2))
    times, energies, variances = zip(*(_thinned(points) if len(points) > POINTS else points), strict=True)
    return Trace(t_ns=times, energy_j=energies, variance_j2=variances)


def union(traces: Iterable[tuple[Trace, float | None]]) -> Union:
    """What (trace, idle power) pairs of one sensor tell together, in any order."""
    runs = [(run, idle_w) for trace, idle_w in traces for run in _runs(trace)]
    runs.sort(key=lambda pair: (pair[0][0][0], -pair[0][-1][0]))
    covered_ns, parts, idle_j = runs[0][0][0][0] if runs else 0, [], []
    for run, idle_w in runs:
        start_ns, end_ns = max(run[0][0], covered_ns), run[-1][0]
        if end_ns <= start_ns:
            continue
        wall_s = (end_ns - start_ns) / 1e9
        parts.append((wall_s, *_since(run, start_ns)))
        idle_j.append(None if idle_w is None else idle_w * wall_s)
        covered_ns = end_ns
    return Union(
        wall_s=fsum(part[0] for part in parts),
        energy_j=fsum(part[1] for part in parts),
        variance_j2=fsum(part[2] for part in parts),
        idle_j=None if None in idle_j else fsum(energy for energy in idle_j if energy is not None),
    )


def powers(traces: Iterable[Trace], most: int = POINTS) -> tuple[Step, ...]:
    """Mean power of a sensor's host step by step, as its agents' traces tell together, in any order.

    Time that no trace metered has no step. A step below ``SHORT_NS`` is joined with its neighbour, since
    counters have a resolution; more than ``most`` steps are joined in pairs until they are fewer.
    """
    runs = sorted((run for trace in traces for run in _runs(trace)), key=lambda run: (run[0][0], -run[-1][0]))
    steps: list[Step] = []
    for run in runs:
        for (t0_ns, e0_j, _), (t1_ns, e1_j, _) in pairwise(run):
            start_ns = max(t0_ns, steps[-1].t1_ns) if steps else t0_ns
            if start_ns < t1_ns:
                step = Step(start_ns, t1_ns, (e1_j - e0_j) / (t1_ns - t0_ns) * 1e9)
                short = steps and min(_length_ns(steps[-1]), _length_ns(step)) < SHORT_NS
                steps += _joined([steps.pop(), step]) if short else [step]
    fewer = steps
    while len(fewer) > most:
        steps, fewer = fewer, [one for k in range(0, len(fewer), 2) for one in _joined(fewer[k : k + 2])]
        if len(fewer) == len(steps):  # gaps everywhere
            break
    return tuple(fewer)


def overlap(own: Trace, others: Iterable[Trace]) -> float:
    """The share of a trace's time in which another one ran too; 0 for an empty trace."""
    if len(own.t_ns) < 2:
        return 0.0
    covered, shared = own.t_ns[0], 0
    for start, end in sorted((other.t_ns[0], other.t_ns[-1]) for other in others if other.t_ns):
        shared += max(0, min(end, own.t_ns[-1]) - max(start, covered))
        covered = max(covered, end)
    return shared / (own.t_ns[-1] - own.t_ns[0])


def _points(trace: Trace) -> list[_Point]:
    return list(zip(trace.t_ns, trace.energy_j, trace.variance_j2, strict=True))


def _thinned(points: list[_Point]) -> list[_Point]:
    """Every second point, and all that border on time that was not metered."""
    last = len(points) - 1
    return [
        point
        for k, point in enumerate(points)
        if k % 2 == 0 or k == last or point[1] in (points[k - 1][1], points[k + 1][1])
    ]


def _runs(trace: Trace) -> list[list[_Point]]:
    """The metered stretches of a trace."""
    runs: list[list[_Point]] = [[]]
    for point in _points(trace):
        if runs[-1] and point[1] <= runs[-1][-1][1]:
            runs.append([])
        runs[-1].append(point)
    return [run for run in runs if len(run) > 1]


def _since(run: list[_Point], t_ns: int) -> tuple[float, float]:
    """Energy and variance from a moment inside a run to its end."""
    end = run[-1]
    for a, b in pairwise(run):
        if t_ns < b[0]:
            share = (t_ns - a[0]) / (b[0] - a[0])
            return end[1] - a[1] - share * (b[1] - a[1]), end[2] - a[2] - share * (b[2] - a[2])
    return 0.0, 0.0


def _length_ns(step: Step) -> int:
    return step.t1_ns - step.t0_ns


def _joined(pair: list[Step]) -> list[Step]:
    """Two steps as one, unless there is a gap between them."""
    if len(pair) < 2 or pair[0].t1_ns < pair[1].t0_ns:
        return pair
    (a, b), wall_ns = pair, pair[1].t1_ns - pair[0].t0_ns
    energy = a.power_w * _length_ns(a) + b.power_w * _length_ns(b)
    return [Step(a.t0_ns, b.t1_ns, energy / wall_ns)]
