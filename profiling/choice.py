"""Which meter a process uses: the ``[energy]`` table of a configuration, and the same on a command line.

``auto`` stands for ``meters.AUTO``, as far as installed; other names are tried in the order in which they
were given. A meter is usable once it has answered twice with time in between (``probe``), not once it
could be opened. Whatever was refused on the way is handed back, to be reported; that no meter is usable is
an error. With ``require = "measured"`` an estimate counts as refused, so that a sensor that is missing stops
whoever asked for one. Agent, orchestrator and ``mas-profile`` share it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mas_edge.profiling.meters import (
    AUTO,
    Meter,
    MeterError,
    MeterUnavailable,
    drivers,
    open_one,
)
from mas_edge.wire.messages import Refusal, Sensor

PATIENCE_S = 2.0
"""How long a meter may take to answer a second time; one that renews slowly may take three turns."""


class EnergyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[energy]`` table: a meter's name, or a list of names of which the first usable one is taken.

    ``require`` "measured" refuses estimates.
    """

    meter: str | tuple[str, ...] = "auto"
    require: Literal["measured"] | None = None


class NoMeter(MeterError, LookupError):
    """None of the meters that were named can be used; the text has each one's reason and remedy."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An installed driver on this host: what it would measure, or why it cannot.

    ``expected_2u`` is twice the relative standard uncertainty of a window of ten seconds.
    """

    name: str
    automatic: bool
    usable: bool
    sensor: Sensor | None = None
    expected_2u: float | None = None
    refusal: Refusal | None = None

    @property
    def measured(self) -> bool:
        """Whether its joules would be counted or sampled, and not a model's."""
        return self.sensor is not None and self.sensor.method != "estimated"


def choose(energy: EnergyConfig, *, root: Path = Path("/")) -> tuple[Meter, tuple[Refusal, ...]]:
    """The first usable meter, and what was refused before it.

    Raises NoMeter, and what no other meter could make good: UnknownMeter and MeterOptionsRefused.
    """
    refused: list[Refusal] = []
    for spec in _order(energy.meter):
        try:
            return _opened(spec, root, energy.require), tuple(refused)
        except MeterUnavailable as error:
            refused.append(error.refusal)
    reasons = (f"{r.sensor}: {r.reason}" + (f" ({r.remedy})" if r.remedy else "") for r in refused)
    raise NoMeter(f"no usable meter: {'; '.join(reasons)}")


def survey(root: Path = Path("/")) -> tuple[Candidate, ...]:
    """Every installed driver, opened and read once without an argument."""
    return tuple(_candidate(name, root) for name in drivers())


def probe(meter: Meter) -> None:
    """Returns once the meter has answered twice, the second time later; raises MeterUnavailable."""
    first, start_s = meter.read(), time.monotonic()
    patience_s = max(PATIENCE_S, 3 / (meter.sensor.rate_hz or PATIENCE_S))
    while meter.read().t_ns <= first.t_ns:
        if time.monotonic() - start_s > patience_s:
            reason = f"nothing new in {patience_s:g} s after its first answer"
            raise MeterUnavailable(meter.sensor.name, reason, "see whether the sensor is stuck")
        time.sleep(0.01)


def expected_2u(sensor: Sensor) -> float:
    """Twice the relative standard uncertainty that a window of ten seconds will have, roughly.

    The sensor's gain, and for samples the error of a load that switches between 5 and 12 W every 10 to
    600 ms, as simulated: 1.4 % at 10 Hz and 10 % at 1 Hz, and in between and beyond as 1 / sqrt(samples).
    """
    sampling = 0.0
    if sensor.method == "sampled":
        rate_hz = sensor.rate_hz or 1.0
        sampling = (0.14 if rate_hz >= 5 else 0.32) / (10 * rate_hz) ** 0.5
    return float(2 * (sensor.gain_u**2 + sampling**2) ** 0.5)


def _order(names: str | Sequence[str]) -> Iterable[str]:
    installed = drivers()
    for name in (names,) if isinstance(names, str) else names:
        yield from (one for one in AUTO if one in installed) if name == "auto" else (name,)


def _opened(spec: str, root: Path, require: Literal["measured"] | None = None) -> Meter:
    meter = open_one(spec, root=root)
    try:
        if require == "measured" and meter.sensor.method == "estimated":
            remedy = "give the host a sensor, or do without require = measured"
            raise MeterUnavailable(meter.sensor.name, "it is an estimate, and measured is required", remedy)
        probe(meter)
    except MeterError:
        meter.close()
        raise
    return meter


def _candidate(name: str, root: Path) -> Candidate:
    automatic = name in AUTO
    try:
        meter = _opened(name, root)
    except MeterUnavailable as error:
        return Candidate(name=name, automatic=automatic, usable=False, refusal=error.refusal)
    meter.close()
    return Candidate(
        name=name,
        automatic=automatic,
        usable=True,
        sensor=meter.sensor,
        expected_2u=expected_2u(meter.sensor),
    )
