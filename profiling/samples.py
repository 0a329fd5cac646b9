"""Power samples -> energy: the integral of a sampled power, with the uncertainty of sampling.

Power is taken as linear between samples (trapezoid rule) and interpolated at the edges of a window:
a running sum of 10 Hz samples that is read without interpolation is 20 to 70 % off over 0.25 s. The
variance is that of a power that switches at an unknown moment, uniform in each interval:
sum (dp dt)^2 / 12. Below 5 Hz that is too optimistic (its +-2u held the truth in only half of
simulated windows), and sd(P)^2 T^2 / N, which matched the simulated error, takes its place.

Pure: no clock and no input or output. It does not know the sensor's own error (see ``Sensor.gain_u``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median, pstdev

SLOW_S = 0.2
"""Sampling intervals above this use the spread of the power instead of its steps."""

GAP = 3.0
"""An interval this many times the median one is a gap."""


@dataclass(frozen=True)
class Sample:
    """Power at a moment of the monotonic clock; negative for a rail that feeds back."""

    t_ns: int
    power_w: float


@dataclass(frozen=True)
class Integral:
    """Energy of a window, its variance, and what was wrong: ``gap``, ``edge_extrapolated``."""

    energy_j: float
    variance_j2: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """Energy as a function of time, zero at the first knot.

    ``power_w[k]`` is the power at the two ends of the interval from knot k to k + 1, linear between.
    """

    t_ns: tuple[int, ...]
    energy_j: tuple[float, ...]
    variance_j2: tuple[float, ...]
    power_w: tuple[tuple[float, float], ...]

    def at(self, t_ns: int) -> tuple[float, float]:
        """Energy and variance from the first knot to ``t_ns``; beyond an end its power is held.

        A held part is uncertain by as much as it holds.
        """
        if t_ns <= self.t_ns[0]:
            held_j = self.power_w[0][0] * (t_ns - self.t_ns[0]) / 1e9
            return held_j, -(held_j**2)
        if t_ns >= self.t_ns[-1]:
            held_j = self.power_w[-1][1] * (t_ns - self.t_ns[-1]) / 1e9
            return self.energy_j[-1] + held_j, self.variance_j2[-1] + held_j**2
        k = bisect_right(self.t_ns, t_ns) - 1
        since_ns, (start_w, end_w) = t_ns - self.t_ns[k], self.power_w[k]
        share = since_ns / (self.t_ns[k + 1] - self.t_ns[k])
        energy_j = (start_w + (end_w - start_w) * share / 2) * since_ns / 1e9
        variance_j2 = (self.variance_j2[k + 1] - self.variance_j2[k]) * share
        return self.energy_j[k] + energy_j, self.variance_j2[k] + variance_j2


def cumulate(samples: Sequence[Sample]) -> Curve:
    """The curve through samples in order of time; raises ValueError with fewer than two."""
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} power sample(s): it takes two to know an energy")
    powers = tuple((a.power_w, b.power_w) for a, b in pairwise(samples))
    energies = ((a.power_w + b.power_w) / 2 * (b.t_ns - a.t_ns) / 1e9 for a, b in pairwise(samples))
    return Curve(
        t_ns=tuple(sample.t_ns for sample in samples),
        energy_j=tuple(accumulate(energies, initial=0.0)),
        variance_j2=tuple(accumulate(_variances(samples), initial=0.0)),
        power_w=powers,
    )


def counted(t_ns: Sequence[int], energy_j: Sequence[float]) -> Curve:
    """The curve through a counter's readings: power is constant between them, nothing is sampled."""
    powers = (
        (f - e) / (b - a) * 1e9 for (a, b), (e, f) in zip(pairwise(t_ns), pairwise(energy_j), strict=True)
    )
    return Curve(
        t_ns=tuple(t_ns),
        energy_j=tuple(energy - energy_j[0] for energy in energy_j),
        variance_j2=(0.0,) * len(t_ns),
        power_w=tuple((power, power) for power in powers),
    )


def integrate(samples: Sequence[Sample], t0_ns: int, t1_ns: int) -> Integral:
    """Energy between two moments from the samples around them.

    Wants a sample at or before ``t0_ns`` and one at or after ``t1_ns``; a side without one is
    held and flagged ``edge_extrapolated``. An interval that is a gap counts, flagged ``gap`` and
    with a wider variance. Raises ValueError with fewer than two samples.
    """
    curve = cumulate(samples)
    (start_j, start_j2), (end_j, end_j2) = curve.at(t0_ns), curve.at(t1_ns)
    flags = []
    if samples[0].t_ns > t0_ns or samples[-1].t_ns < t1_ns:
        flags.append("edge_extrapolated")
    limit_s = _gap_s(samples)
    if any(
        b.t_ns > t0_ns and a.t_ns < t1_ns and (b.t_ns - a.t_ns) / 1e9 > limit_s for a, b in pairwise(samples)
    ):
        flags.append("gap")
    return Integral(end_j - start_j, end_j2 - start_j2, tuple(flags))


def _variances(samples: Sequence[Sample]) -> list[float]:
    intervals_s = [(b.t_ns - a.t_ns) / 1e9 for a, b in pairwise(samples)]
    steps_w = [b.power_w - a.power_w for a, b in pairwise(samples)]
    slow, limit_s = fmean(intervals_s) > SLOW_S, _gap_s(samples)
    spread_w = pstdev(sample.power_w for sample in samples) if slow else 0.0
    return [
        ((spread_w * dt) ** 2 if slow else (dp * dt) ** 2 / 12) + ((dp * dt) ** 2 if dt > limit_s else 0.0)
        for dp, dt in zip(steps_w, intervals_s, strict=True)
    ]


def _gap_s(samples: Sequence[Sample]) -> float:
    return GAP * median((b.t_ns - a.t_ns) / 1e9 for a, b in pairwise(samples))
