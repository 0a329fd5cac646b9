"""Joules that know how sure they are: sums, differences and shares of uncertain energies.

Two kinds of error are kept apart. What differs from slice to slice (sampling, edges, clock ticks) is a
variance and adds as one. What is the same in every slice of a meter (its gain, the idle power that is
subtracted) is a signed standard deviation per cause and adds linearly, so that a long window does not
average away what no window can. An energy that is not known makes every sum that holds it unknown.
Pure arithmetic; after the GUM (JCGM 100:2008, 5.1 and 5.2).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sum of joules; the empty one is neither known nor unknown.

    ``gain_j`` and ``idle_j`` are how much one standard deviation of the meter's gain and of the idle
    power would move ``energy_j``; ``known`` and ``unknown`` say whether any part was so.
    """

    energy_j: float = 0.0
    variance_j2: float = 0.0
    gain_j: float = 0.0
    idle_j: float = 0.0
    known: bool = False
    unknown: bool = False

    @property
    def value_j(self) -> float | None:
        """The sum, None unless all of it is known."""
        return self.energy_j if self.known and not self.unknown else None

    @property
    def u_j(self) -> float | None:
        """Standard uncertainty of ``value_j``."""
        u = (self.variance_j2 + self.gain_j**2 + self.idle_j**2) ** 0.5
        return None if self.value_j is None else float(u)

    def plus(self, other: Figure) -> Figure:
        """Both together."""
        return Figure(
            energy_j=self.energy_j + other.energy_j,
            variance_j2=self.variance_j2 + other.variance_j2,
            gain_j=self.gain_j + other.gain_j,
            idle_j=self.idle_j + other.idle_j,
            known=self.known or other.known,
            unknown=self.unknown or other.unknown,
        )

    def less(self, part: Figure) -> Figure:
        """The rest without ``part``; their common errors cancel as far as they are common."""
        return Figure(
            energy_j=self.energy_j - part.energy_j,
            variance_j2=self.variance_j2 + part.variance_j2,
            gain_j=self.gain_j - part.gain_j,
            idle_j=self.idle_j - part.idle_j,
            known=self.known,
            unknown=self.unknown or part.unknown,
        )

    def part(self, share: float, share_u: float = 0.0) -> Figure:
        """A share of it, itself known to a relative standard uncertainty of ``share_u``."""
        energy_j = self.energy_j * share
        return Figure(
            energy_j=energy_j,
            variance_j2=self.variance_j2 * share**2 + (energy_j * share_u) ** 2,
            gain_j=self.gain_j * share,
            idle_j=self.idle_j * share,
            known=self.known,
            unknown=self.unknown,
        )


UNKNOWN = Figure(unknown=True)
"""Joules that nobody measured."""


def measured(energy_j: float, variance_j2: float, gain_u: float) -> Figure:
    """What a meter of this relative gain uncertainty counted."""
    return Figure(energy_j=energy_j, variance_j2=variance_j2, gain_j=gain_u * energy_j, known=True)


def idling(power_w: float, u_w: float, wall_s: float, gain_u: float) -> Figure:
    """What a host would have used in that time doing nothing."""
    energy_j = power_w * wall_s
    return Figure(energy_j=energy_j, gain_j=gain_u * energy_j, idle_j=u_w * wall_s, known=True)


def gpu_energy_j(by_rail_j: Mapping[str, float]) -> float | None:
    """What the rails that feed a GPU had, by their names (VDD_GPU_SOC, VDD_CPU_GPU_CV); None without one."""
    fed = [energy_j for rail, energy_j in by_rail_j.items() if "gpu" in rail.lower()]
    return sum(fed) if fed else None
