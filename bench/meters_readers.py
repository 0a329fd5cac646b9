"""The readers that bench/meters.py compares: each runs here, in a process and an environment of its own.

``python bench/meters_readers.py NAME`` does what each line of standard input says (``begin``, ``end``,
``latency COUNT``) and answers in JSON. It imports nothing but the library it is asked for, so that any Python
that has that library can run it. The libraries are used as their manuals say.
"""

# ruff: noqa: D102 - what they do, ``Reader`` says

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reader(Protocol):
    """A library's way to measure a window; ``end`` gives its joules."""

    def begin(self) -> None: ...

    def end(self) -> float: ...


class Ours:
    """The driver ``rapl``."""

    def __init__(self) -> None:
        from mas_edge.profiling import meters  # noqa: PLC0415 - Zeus' environment does not have it

        self._meters, self._meter = meters, meters.open_one("rapl")

    def begin(self) -> None:
        self._mark = self._meters.begin(self._meter)

    def end(self) -> float:
        return float(self._meters.end(self._mark).settle().energy_j)


class PyJoules:
    """Packages and memory, as its users add them up."""

    def __init__(self) -> None:
        from pyJoules.device.device_factory import DeviceFactory  # noqa: PLC0415
        from pyJoules.device.rapl_device import RaplDevice  # noqa: PLC0415
        from pyJoules.energy_meter import EnergyMeter  # noqa: PLC0415

        domains = RaplDevice.available_package_domains() + RaplDevice.available_dram_domains()
        self._meter = EnergyMeter(DeviceFactory.create_devices(domains))

    def begin(self) -> None:
        self._meter.start()

    def end(self) -> float:
        self._meter.stop()
        return float(sum(self._meter.get_trace()[0].energy.values()) / 1e6)


class Zeus:
    """Processors and memory of its monitor, which has no GPU to wait for."""

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor  # noqa: PLC0415

        self._monitor = ZeusMonitor(gpu_indices=[])

    def begin(self) -> None:
        self._monitor.begin_window("window", sync_execution=False)

    def end(self) -> float:
        found = self._monitor.end_window("window", sync_execution=False)
        return float(sum((found.cpu_energy or {}).values()) + sum((found.dram_energy or {}).values()))


READERS: Mapping[str, type[Reader]] = {"ours": Ours, "pyJoules": PyJoules, "Zeus": Zeus}


def window_us(reader: Reader) -> float:
    start_ns = time.perf_counter_ns()
    reader.begin()
    reader.end()
    return (time.perf_counter_ns() - start_ns) / 1e3


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


def main() -> int:
    """Serves until standard input ends."""
    reader = READERS[sys.argv[1]]()
    answer(None)
    for line in sys.stdin:
        match line.split():
            case ["begin"]:
                answer(reader.begin())
            case ["end"]:
                answer(reader.end())
            case ["latency", count]:
                answer([window_us(reader) for _ in range(int(count))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
