"""NVIDIA's GPUs by the energy counter of their driver (NVML): whole devices, and nothing but them.

``nvmlDeviceGetTotalEnergyConsumption`` counts millijoules since the driver was loaded, on Volta and later;
a Jetson's NVML starts and then refuses it (its sensors are ``tegrastats`` and ``ina3221``), so that a GPU
counts as usable once it has been *read*. Several GPUs are summed, each a rail; one that does not count is
named in the sensor's detail. A counter that falls has begun anew: ``gap``. Processor and board are not in
it, and what one process used of a GPU is not known.

Sources: NVML API reference (Device Queries). Power sensors of these GPUs are off by up to 5 % and are renewed
about every 100 ms: Yang, Adamek and Armour, "Accurate and Convenient Energy Measurements for GPUs", SC24.
"""

# ruff: noqa: N802 - the names are the library's

from __future__ import annotations

import contextlib
import errno
from typing import Any, Protocol, cast

from mas_edge.profiling.counter import Limits
from mas_edge.profiling.drivers.counters import CounterMeter, Tally, tally
from mas_edge.profiling.meters import DriverOptions, Meter, MeterUnavailable, given_idle, sensor_host
from mas_edge.wire.messages import Sensor

LIMITS = Limits(modulus_uj=None, greatest_w=3000.0)
"""64 bits of millijoules do not wrap; no board draws 3 kW."""
UPDATE_NS = 100_000_000
"""The time between two updates: what a reading is late by at most."""
GAIN_U = 0.05 / 3**0.5
"""Relative standard uncertainty of a sensor that is off by up to 5 %, uniformly."""


class Nvml(Protocol):
    """What is needed of the library ``pynvml``; each call raises ``NVMLError``."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Loads the driver's library; calls nest."""
        ...

    def nvmlShutdown(self) -> None:
        """Ends one ``nvmlInit``."""
        ...

    def nvmlDeviceGetCount(self) -> int:
        """How many GPUs there are."""
        ...

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Any:
        """What the other calls name a GPU by."""
        ...

    def nvmlDeviceGetName(self, handle: Any, /) -> str:
        """The product."""
        ...

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, /) -> int:
        """Millijoules since the driver was loaded."""
        ...


def open_meter(options: DriverOptions, library: Nvml | None = None) -> Meter:
    """All GPUs that tell their energy, in one meter; raises MeterUnavailable if none does."""
    given = options.numbers("nvml", "idle_w", "idle_u_w")
    nvml = library or _library()
    counting, silent = _gpus(nvml, options)
    if not counting:
        remedy = "it takes a GPU of the Volta generation or later; on a Jetson use tegrastats or ina3221"
        raise MeterUnavailable("nvml", "; ".join(silent) or "NVML knows of no GPU", remedy)
    detail = "total of " + ", ".join(one.rail for one in counting)
    sensor = Sensor(
        name="nvml",
        method="counter",
        scope="gpu",
        sensor_host=sensor_host(options.root, "nvml"),
        detail="; without ".join([detail, *silent]),
        gain_u=GAIN_U,
        rate_hz=1e9 / UPDATE_NS,
    )
    return CounterMeter(sensor, given_idle(given), counting, options.clock_ns, UPDATE_NS)


def _library() -> Nvml:
    try:
        import pynvml  # noqa: PLC0415 - its users alone pay for it
    except ImportError as error:
        raise MeterUnavailable("nvml", str(error), "pip install 'mas-edge[nvidia]'") from error
    return cast("Nvml", pynvml)


def _gpus(nvml: Nvml, options: DriverOptions) -> tuple[list[Tally], list[str]]:
    """The GPUs that could be read, and why the others could not."""
    counting: list[Tally] = []
    silent: list[str] = []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise MeterUnavailable("nvml", f"NVML does not start: {error}", "it takes NVIDIA's driver") from error
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                source = _Gpu(nvml, index)
                counting.append(tally(source.rail, source, LIMITS, options.clock_ns, counted=True))
            except (nvml.NVMLError, OSError) as error:
                silent.append(f"gpu{index} ({error})")
    finally:
        nvml.nvmlShutdown()
    return counting, silent


class _Gpu:
    """The counter of one GPU, which keeps the library started: NVML counts its starts and ends."""

    def __init__(self, nvml: Nvml, index: int) -> None:
        self._nvml, self._handle = nvml, nvml.nvmlDeviceGetHandleByIndex(index)
        self.rail = f"gpu{index} {nvml.nvmlDeviceGetName(self._handle)}"
        nvml.nvmlInit()

    def read_uj(self) -> int:
        """Microjoules since the driver was loaded; raises OSError (EIO) with NVML's words."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) * 1000
        except self._nvml.NVMLError as error:
            raise OSError(errno.EIO, str(error)) from error

    def close(self) -> None:
        """Ends this GPU's use of the library."""
        with contextlib.suppress(self._nvml.NVMLError):  # a driver that is gone need not be told
            self._nvml.nvmlShutdown()
