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

_Point: TypeAlias = tuple[int, float, float]


@dataclass(frozen=True)
class Union:
    """Seconds in which any trace was metered and what the host used in them; idle None: not known."""

    wall_s: float
    energy_j: float
    variance_j2: float
    idle_j: float | None


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
