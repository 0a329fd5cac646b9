"""A hardware counter that wraps, stops and starts anew -> a total that only grows.

Energy counters are a few bits wide: RAPL's has 2**32 units, so a value below the last one is a wrap, or
the counter began anew (a driver was loaded again, the host slept). Power tells them apart: a step that
nothing here could have drawn since the last value is left out and flagged ``gap``, and counting goes on
from there. Two wraps between two values look like one, so that an interval long enough for a
whole turn is flagged ``lower_bound``. All arithmetic is in whole microjoules, free of rounding.

Source: kernel Documentation/power/powercap/powercap.rst. Pure: whoever reads the counter brings the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Doubt: TypeAlias = Literal["gap", "lower_bound"]
"""What may be wrong with a step: it was left out, or a whole turn may be missing from it."""


JUDGED_NS = 1_000_000_000
"""Power is judged over at least this: whoever reads may be kept from a processor between value and clock."""


@dataclass(frozen=True)
class Limits:
    """What is known of a counter beforehand.

    ``modulus_uj`` is one unit above its greatest value, None where it does not wrap or nobody knows;
    ``greatest_w`` a power that nothing here can draw.
    """

    modulus_uj: int | None
    greatest_w: float


@dataclass(frozen=True)
class Count:
    """The counter's last value, when that was, and all that was counted since the first one."""

    value_uj: int
    t_ns: int
    total_uj: int = 0


def rapl_modulus_uj(range_uj: int) -> int:
    """The modulus of a counter with 2**32 units, from its greatest value (max_energy_range_uj)."""
    return range_uj + max(1, round(range_uj / (2**32 - 1)))


def advance(
    count: Count, value_uj: int, t_ns: int, limits: Limits, *, slept: bool = False
) -> tuple[Count, Doubt | None]:
    """The count after another value, and what may be wrong with the step.

    ``slept``: the host was suspended since the last value. Then the clock stood still and the counter
    may have begun anew, so that no step can be believed.
    """
    possible_uj = limits.greatest_w * max(t_ns - count.t_ns, JUDGED_NS) / 1e3
    step_uj = value_uj - count.value_uj
    if step_uj < 0 and limits.modulus_uj is not None:
        step_uj += limits.modulus_uj
    if slept or not 0 <= step_uj <= possible_uj:
        return Count(value_uj, t_ns, count.total_uj), "gap"
    turned = limits.modulus_uj is not None and possible_uj > limits.modulus_uj
    return Count(value_uj, t_ns, count.total_uj + step_uj), "lower_bound" if turned else None


def safe_interval_s(limits: Limits, slowest_s: float) -> float:
    """How often to read so that no two wraps hide in an interval: half the fastest turn, or ``slowest_s``."""
    if limits.modulus_uj is None:
        return slowest_s
    return min(slowest_s, limits.modulus_uj / 1e6 / (2 * limits.greatest_w))


def edges_j2(energy_j: float, wall_ns: int, late_ns: int) -> float:
    """Variance of a window's energy, both of whose values are up to ``late_ns`` old, uniformly."""
    late_j = energy_j * late_ns / max(wall_ns, late_ns)
    return 2 * late_j**2 / 3
