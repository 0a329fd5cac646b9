"""Power samples -> energy: the integral of a sampled power, with the uncertainty of sampling.

Power is taken as linear between samples (trapezoid rule) and interpolated at the edges of a window:
a running sum of 10 Hz samples that is read without interpolation is 20 to 70 % off over 0.25 s. The
variance of an interval has three parts. A power that switches once, at a moment uniform in the interval:
(dp dt)^2 / 12. A sample that stands out from both its neighbours, by h from the nearer, is a spike of
unknown length, and others like it were missed: 5/6 (h dt)^2 more, so that a spike counts (h dt)^2, which is
the variance of randomly hit spikes far shorter than dt and of white noise (without this, +-2u held the
truth in 60 % of simulated windows of both; with it in more than 85 %). And the resolution of the sensor.
Below 5 Hz steps say too little, and sd(P)^2 dt^2 takes the place of the first two.

What no samples can tell: a load whose period is a multiple of their interval, and in a window of a second
spikes that all fell between them.
Pure: no clock and no input or output. It does not know the sensor's own error (see ``Sensor.gain_u``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median

SLOW_S = 0.2
"""Sampling intervals above this use the spread of the power instead of its steps."""

GAP = 3.0
"""An interval this many times the median one is a gap."""

FEW = 20
"""A window with fewer samples than this is flagged ``few_samples``."""


@dataclass(frozen=True)
class Sample:
    """Power at a moment of the monotonic clock.

    ``u_w`` is the standard uncertainty of this sample by itself (the sensor's resolution); ``gap`` says
    that the interval which ends here is known to be one, however long it is.
    """

    t_ns: int
    power_w: float
    u_w: float = 0.0
    gap: bool = False


@dataclass(frozen=True)
class Integral:
    """Energy of a window, its variance, and flags: ``gap``, ``edge_extrapolated``, ``few_samples``."""

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
    return Curve(
        t_ns=tuple(sample.t_ns for sample in samples),
        energy_j=tuple(accumulate((trapezoid_j(a, b) for a, b in pairwise(samples)), initial=0.0)),
        variance_j2=tuple(accumulate(_variances_j2(samples), initial=0.0)),
        power_w=tuple((a.power_w, b.power_w) for a, b in pairwise(samples)),
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
    limit_s = gap_s(samples)
    inside = [(a, b) for a, b in pairwise(samples) if b.t_ns > t0_ns and a.t_ns < t1_ns]
    if any(is_gap(a, b, limit_s) for a, b in inside):
        flags.append("gap")
    if sum(1 for sample in samples if t0_ns <= sample.t_ns <= t1_ns) < FEW:
        flags.append("few_samples")
    return Integral(end_j - start_j, end_j2 - start_j2, tuple(flags))


def trapezoid_j(a: Sample, b: Sample) -> float:
    """Energy between two samples."""
    return (a.power_w + b.power_w) / 2 * (b.t_ns - a.t_ns) / 1e9


def interval_j2(before: Sample | None, a: Sample, b: Sample, spread_w: float | None, *, gap: bool) -> float:
    """Variance of the energy from ``a`` to ``b``; ``before`` is the sample that precedes ``a``.

    ``spread_w`` is the power's standard deviation where the steps between samples say too little: if
    they are slow, and over a gap. There the whole step may have come at its beginning or end, too: |dp| dt
    is added to the uncertainty.
    """
    dt, step_w = (b.t_ns - a.t_ns) / 1e9, b.power_w - a.power_w
    if spread_w is not None:
        sampling_w2 = spread_w**2
    else:
        came_w = a.power_w - before.power_w if before else 0.0
        spike_w = min(abs(came_w), abs(step_w)) if came_w * step_w < 0 else 0.0
        sampling_w2 = (step_w**2 + 10 * spike_w**2) / 12
    resolution_w2 = (a.u_w**2 + b.u_w**2) / 2
    return (sampling_w2 + resolution_w2 + (step_w**2 if gap else 0.0)) * dt**2


def gap_s(samples: Sequence[Sample]) -> float:
    """The length above which an interval between samples is a gap; takes two samples or more."""
    return GAP * median(b.t_ns - a.t_ns for a, b in pairwise(samples)) / 1e9


def is_gap(a: Sample, b: Sample, limit_s: float) -> bool:
    """Whether samples are missing between these two."""
    return b.gap or (b.t_ns - a.t_ns) / 1e9 > limit_s


def are_slow(samples: Sequence[Sample]) -> bool:
    """Whether two or more samples come below 5 Hz."""
    return (samples[-1].t_ns - samples[0].t_ns) / 1e9 > SLOW_S * (len(samples) - 1)


def spread_w(samples: Sequence[Sample]) -> float:
    """Standard deviation of the power of samples."""
    mean_w = fmean(sample.power_w for sample in samples)
    return float(fmean((sample.power_w - mean_w) ** 2 for sample in samples) ** 0.5)


def _variances_j2(samples: Sequence[Sample]) -> list[float]:
    slow, limit_s, sd_w = are_slow(samples), gap_s(samples), spread_w(samples)
    gaps = [is_gap(a, b, limit_s) for a, b in pairwise(samples)]
    return [
        interval_j2(before, a, b, sd_w if slow or gap else None, gap=gap)
        for before, (a, b), gap in zip((None, *samples), pairwise(samples), gaps, strict=False)
    ]
