"""Which meter a process uses, as its configuration says: the ``[energy]`` table.

Agent and orchestrator share it. What was refused on the way to a usable meter is handed back, to be
reported; that no named meter is usable is an error, never a silent estimate. ``auto`` ends with the
labelled estimate and so always finds one on Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.profiling.meters import MeterError, open_meter

if TYPE_CHECKING:
    from mas_edge.profiling.meters import Meter
    from mas_edge.wire.messages import Refusal


class EnergyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[energy]`` table: a meter's name, or a list of names of which the first usable one is taken."""

    meter: str | tuple[str, ...] = "auto"


class NoMeter(MeterError, LookupError):
    """None of the meters that were named can be used; the text has each one's reason and remedy."""


def choose(energy: EnergyConfig) -> tuple[Meter, tuple[Refusal, ...]]:
    """The first usable meter, and what was refused before it; raises NoMeter and other MeterErrors."""
    meter, refused = open_meter(energy.meter)
    if meter is None:
        reasons = (f"{r.sensor}: {r.reason}" + (f" ({r.remedy})" if r.remedy else "") for r in refused)
        raise NoMeter(f"no usable meter: {'; '.join(reasons)}")
    return meter, refused
