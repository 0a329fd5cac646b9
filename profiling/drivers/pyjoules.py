"""RAPL as the library pyJoules reads it, for those who want its numbers or ours beside them.

Packages and dram as ``RaplDevice`` finds them, summed. The library looks for counters in one place, takes a
zone's number for that of its package, and knows no wraps. So where it would leave out a package or memory
(psys listed first, packages cut into dies) or cannot work at all, the reason is told; and a counter that
fell, or does not answer any more, adds nothing and is flagged ``gap`` instead of making joules negative.
``rapl`` is the driver that measures; this one is never chosen automatically. Written for pyJoules 0.5.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mas_edge.profiling.counter import Count, Limits, advance, edges_j2
from mas_edge.profiling.drivers.powercap import POWERCAP, names, zones
from mas_edge.profiling.meters import DriverOptions, Idle, Meter, MeterUnavailable, Reading, sensor_host
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

TREE = f"{POWERCAP}/intel-rapl"
"""The one place where the library looks."""
LIMITS = Limits(modulus_uj=None, greatest_w=1000.0)
"""The library does not say where a counter wraps."""
UPDATE_NS = 1_000_000
"""As ``rapl``'s."""


def open_meter(options: DriverOptions) -> Meter:
    """The library's RAPL device; raises MeterUnavailable where it finds none, misses some or may not read."""
    options.numbers("pyjoules")
    if options.root != Path("/"):
        raise MeterUnavailable("pyjoules", f"it reads the host's own /sys, not {options.root}", "use rapl")
    if not (options.root / TREE).exists():
        raise MeterUnavailable("pyjoules", f"{options.root / TREE} does not exist", "rapl tells more")
    domains = _domains()
    _complete(options.root, [str(domain.domain) for domain in domains])
    sensor = Sensor(
        name="pyjoules",
        method="counter",
        scope="package",
        sensor_host=sensor_host(options.root, f"/{TREE}"),
        detail="total of " + ", ".join(str(domain.domain) for domain in domains),
        gain_u=0.05,
        rate_hz=1e9 / UPDATE_NS,
    )
    return _PyJoules(sensor, domains, options.clock_ns)


@dataclass
class _Domain:
    """One of the library's domains, with a device of its own, so that each can fail alone."""

    domain: Any
    device: Any
    count: Count
    missing: bool = False

    def read_uj(self) -> int:
        """Raises OSError or ValueError, as the library does."""
        return int(self.device.get_energy()[0])


def _domains() -> list[_Domain]:
    logging.disable(logging.WARNING)  # at import it warns of a missing NVIDIA library that nobody asked for
    try:
        from pyJoules.device.rapl_device import RaplDevice  # noqa: PLC0415 - its users alone pay for it
    except ImportError as error:
        raise MeterUnavailable("pyjoules", str(error), "pip install pyjoules") from error
    finally:
        logging.disable(logging.NOTSET)
    found = []
    try:
        for domain in RaplDevice.available_package_domains() + RaplDevice.available_dram_domains():
            device = RaplDevice()
            device.configure([domain])
            found.append(_Domain(domain, device, Count(int(device.get_energy()[0]), 0)))
    except (OSError, ValueError) as error:
        raise MeterUnavailable("pyjoules", f"the library broke: {error}", "rapl tells more") from error
    return found


def _complete(root: Path, found: Sequence[str]) -> None:
    """Raises MeterUnavailable if the library has found fewer packages or memories than there are."""
    try:
        there = zones(names(root))
    except OSError as error:
        raise MeterUnavailable("pyjoules", f"cannot list the zones: {error}", "rapl tells more") from error
    own = [zone for zone in there if zone.entry.startswith("intel-rapl:")]
    for kind in ("package", "dram"):
        rails = [zone.rail for zone in own if zone.kind == kind]
        seen = sum(name.startswith(kind) for name in found)
        if seen < len(rails) or not found:
            reason = f"the library finds {seen} of {len(rails)} {kind} zones ({', '.join(rails)})"
            raise MeterUnavailable("pyjoules", reason, "use rapl")


class _PyJoules:
    idle: Idle | None = None

    def __init__(self, sensor: Sensor, domains: Sequence[_Domain], clock_ns: Callable[[], int]) -> None:
        self.sensor = sensor
        self._domains, self._clock_ns, self._gaps = domains, clock_ns, 0
        self._last, self._variance_j2 = (clock_ns(), 0.0), 0.0
        for domain in domains:
            domain.count = Count(domain.count.value_uj, clock_ns())

    def read(self) -> Reading:
        """The sum of all domains; one that fell or does not answer adds nothing and flags ``gap``.

        What one used until it answered again comes with that reading, which is a ``gap`` too.
        """
        for domain in self._domains:
            was_missing, domain.missing = domain.missing, False
            try:
                value_uj = domain.read_uj()
            except (OSError, ValueError):
                domain.missing = True
                self._gaps += 1
                continue
            domain.count, doubt = advance(domain.count, value_uj, self._clock_ns(), LIMITS)
            self._gaps += was_missing or doubt is not None
        rails = {str(domain.domain): domain.count.total_uj / 1e6 for domain in self._domains}
        flags = {"gap": self._gaps} if self._gaps else {}
        t_ns, energy_j = self._clock_ns(), sum(rails.values())
        self._variance_j2 += edges_j2(energy_j - self._last[1], t_ns - self._last[0], UPDATE_NS)
        self._last = t_ns, energy_j
        return Reading(t_ns, energy_j, self._variance_j2, rails, flags)

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:  # noqa: ARG002 - Meter's signature
        """None: these are counters."""
        return None

    def close(self) -> None:
        """The library holds nothing."""
