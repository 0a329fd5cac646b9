"""RAPL as the library pyJoules reads it, for those who want its numbers or ours beside them.

Packages and dram as ``RaplDevice`` finds them, summed. The library looks for counters in one fixed
place, refuses nothing clearly and knows no wraps: where it cannot work this says why, and a counter
that fell is left out and flagged ``gap`` instead of making joules negative. ``rapl`` is the driver
that measures; this one is never chosen automatically. Written for pyJoules 0.5.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mas_edge.profiling.meters import DriverOptions, Idle, Meter, MeterUnavailable, Reading, sensor_host
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

TREE = "sys/class/powercap/intel-rapl"
"""The one place where the library looks."""


def open_meter(options: DriverOptions) -> Meter:
    """The library's RAPL device; raises MeterUnavailable where it finds none or may not read it."""
    options.parse("pyjoules")
    if options.root != Path("/"):
        raise MeterUnavailable("pyjoules", f"it reads the host's own /sys, not {options.root}", "use rapl")
    if not (options.root / TREE).exists():
        raise MeterUnavailable("pyjoules", f"{options.root / TREE} does not exist", "rapl tells more")
    device, domains, first_uj = _configured()
    sensor = Sensor(
        name="pyjoules",
        method="counter",
        scope="package",
        sensor_host=sensor_host(options.root, "/sys/class/powercap/intel-rapl"),
        detail="total of " + ", ".join(map(str, domains)),
        gain_u=0.05,
    )
    return _PyJoules(sensor, device, [str(domain) for domain in domains], first_uj, options.clock_ns)


def _configured() -> tuple[Any, Sequence[Any], Sequence[float]]:
    """The library's device, its package and dram domains, and their counters in microjoules."""
    logging.disable(logging.WARNING)  # at import it warns of a missing NVIDIA library that nobody asked for
    try:
        from pyJoules.device.rapl_device import RaplDevice  # noqa: PLC0415 - its users alone pay for it
    except ImportError as error:
        raise MeterUnavailable("pyjoules", str(error), "pip install pyjoules") from error
    finally:
        logging.disable(logging.NOTSET)
    try:
        domains = RaplDevice.available_package_domains() + RaplDevice.available_dram_domains()
        device = RaplDevice()
        device.configure(domains)
        first_uj = device.get_energy()
    except (OSError, ValueError) as error:
        raise MeterUnavailable("pyjoules", f"the library broke: {error}", "rapl tells more") from error
    if not domains:  # so it is where psys comes before the packages, or where they are cut into dies
        raise MeterUnavailable("pyjoules", "the library finds no package here", "use rapl")
    return device, domains, first_uj


class _PyJoules:
    idle: Idle | None = None

    def __init__(
        self,
        sensor: Sensor,
        device: Any,
        rails: Sequence[str],
        first_uj: Sequence[float],
        clock_ns: Callable[[], int],
    ) -> None:
        self.sensor = sensor
        self._device, self._clock_ns, self._last_uj = device, clock_ns, first_uj
        self._by_rail_j = dict.fromkeys(rails, 0.0)
        self._gaps = 0

    def read(self) -> Reading:
        """The sum of all domains; one whose counter fell adds nothing and flags ``gap``."""
        try:
            now_uj = self._device.get_energy()
        except (OSError, ValueError) as error:
            raise MeterUnavailable("pyjoules", f"the library broke: {error}") from error
        for rail, last, now in zip(self._by_rail_j, self._last_uj, now_uj, strict=True):
            self._by_rail_j[rail] += max(now - last, 0.0) / 1e6
            self._gaps += now < last
        self._last_uj = now_uj
        flags = {"gap": self._gaps} if self._gaps else {}
        rails = dict(self._by_rail_j)
        return Reading(self._clock_ns(), sum(rails.values()), by_rail_j=rails, flags=flags)

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:  # noqa: ARG002 - Meter's signature
        """None: these are counters."""
        return None

    def close(self) -> None:
        """The library holds nothing."""
