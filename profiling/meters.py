"""A counter of joules that never decreases: the contract that every sensor fulfils, and its windows.

A *driver* turns a sensor into a ``Meter``: wraps, samples and units end there. Drivers are entry
points (group ``mas_edge.meters``), ours through the same door as anyone's: a function from
``DriverOptions`` to a meter that raises ``MeterUnavailable`` with a reason and a remedy. Which of them
is used is decided in ``choice``. Energy between two moments is a window::

    mark = begin(meter)
    ...
    energy = end(mark).settle()

Errors::

    MeterError
    +- MeterUnavailable (OSError)      the sensor is not there, not readable, or stopped answering
    +- MeterOptionsRefused (ValueError)  a specification that says nothing to its driver
    +- UnknownMeter (LookupError)      no driver of that name is installed

What it does not do: attribute joules to anyone (``ledger``), or measure a host's idle power.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from mas_edge.profiling.samples import Sample, integrate
from mas_edge.wire.messages import Refusal, Sampling, Sensor

GROUP = "mas_edge.meters"
"""The entry point group in which drivers are found."""

AUTO = ("tegrastats", "ina3221", "rapl", "rpi_pmic", "nvml", "estimate")
"""What ``auto`` tries, best first, if installed: sensors of boards, counters, a GPU alone, a model."""

SHORT_S = 0.1
"""A window below this is flagged ``short_window``: counters move in steps of a millisecond."""


class MeterError(Exception):
    """Root of what can go wrong between a sensor and a joule."""


class MeterUnavailable(MeterError, OSError):
    """The sensor cannot be used: which, why, and what would help."""

    def __init__(self, sensor: str, reason: str, remedy: str | None = None) -> None:
        super().__init__(f"{sensor}: {reason}" + (f"; {remedy}" if remedy else ""))
        self.refusal = Refusal(sensor=sensor, reason=reason, remedy=remedy)


class MeterOptionsRefused(MeterError, ValueError):
    """A meter specification that its driver cannot read."""


class UnknownMeter(MeterError, LookupError):
    """No driver of this name is installed."""


@dataclass(frozen=True)
class Reading:
    """A meter at a moment.

    ``t_ns`` monotonic; ``energy_j`` since an arbitrary moment, never decreasing, as ``by_rail_j``
    (which may hold rails that are part of others); ``variance_j2`` and ``flags`` (how often each was
    raised) grow likewise, so that the difference of two readings is all there is to a window. So do
    ``samples``, None for a counter, and ``cpu_s``, the processor time of the driver's threads and processes.
    """

    t_ns: int
    energy_j: float
    variance_j2: float = 0.0
    by_rail_j: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    samples: int | None = None
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Idle:
    """Power of the host when nobody trains, its standard uncertainty, and how it is known.

    ``u_w`` counts what the sensor's own gain (``Sensor.gain_u``) does not already.
    """

    power_w: float
    u_w: float
    how: str


@dataclass(frozen=True)
class Energy:
    """What was used between two moments; ``variance_j2`` leaves out the sensor's common gain."""

    t0_ns: int
    t1_ns: int
    energy_j: float
    variance_j2: float
    by_rail_j: Mapping[str, float]
    flags: tuple[str, ...]
    sampling: Sampling = field(default_factory=Sampling)
    cpu_s: float = 0.0

    @property
    def wall_s(self) -> float:
        """Length of the window."""
        return (self.t1_ns - self.t0_ns) / 1e9

    def u_j(self, sensor: Sensor) -> float:
        """Standard uncertainty, the sensor's gain included."""
        return float((self.variance_j2 + (sensor.gain_u * self.energy_j) ** 2) ** 0.5)


class Meter(Protocol):
    """A source of joules. One thread reads at a time; the driver's own threads are its business."""

    @property
    def sensor(self) -> Sensor:
        """What is measured, where and how."""
        ...

    @property
    def idle(self) -> Idle | None:
        """The host's idle power, None if nobody knows it."""
        ...

    def read(self) -> Reading:
        """The counter now, or for a sampled sensor at its newest sample.

        Raises MeterUnavailable if the sensor does not answer; nothing is lost by that, the next
        reading holds what was used meanwhile.
        """
        ...

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:
        """Samples from the last at or before ``t0_ns`` to the first at or after ``t1_ns``.

        Waits for the latter, at most two sampling intervals. None for counters, whose readings
        need no interpolation.
        """
        ...

    def close(self) -> None:
        """Gives back descriptors, threads and processes; twice is once."""
        ...


@dataclass(frozen=True)
class Mark:
    """The beginning of a window."""

    meter: Meter
    reading: Reading
    t_ns: int
    clock_ns: Callable[[], int]


@dataclass(frozen=True)
class Pending:
    """A window that has ended, whose last sample may still be on its way."""

    mark: Mark
    reading: Reading
    t_ns: int

    def settle(self) -> Energy:
        """The window's energy; waits for a sampled sensor's first sample after the end."""
        counted = between(self.mark.reading, self.reading)
        samples = self.mark.meter.samples(self.mark.t_ns, self.t_ns)
        if samples is None:
            return counted
        try:
            whole = integrate(samples, self.mark.t_ns, self.t_ns)
        except ValueError as error:
            raise MeterUnavailable(self.mark.meter.sensor.name, str(error), "measure for longer") from error
        flags = tuple(sorted({*counted.flags, *whole.flags}))
        # Rails are known from sample to sample; between the window's edges they have the same shares.
        scale = whole.energy_j / counted.energy_j if counted.energy_j > 0 else 0.0
        return replace(
            counted,
            by_rail_j={rail: energy_j * scale for rail, energy_j in counted.by_rail_j.items() if scale},
            t0_ns=self.mark.t_ns,
            t1_ns=self.t_ns,
            energy_j=whole.energy_j,
            variance_j2=whole.variance_j2,
            flags=flags,
        )


def begin(meter: Meter, clock_ns: Callable[[], int] = time.monotonic_ns) -> Mark:
    """Opens a window on the meter, which must use the same clock."""
    reading = meter.read()
    return Mark(meter, reading, clock_ns(), clock_ns)


def end(mark: Mark) -> Pending:
    """Ends the window; it stays valid for further ends."""
    t_ns = mark.clock_ns()
    return Pending(mark, mark.meter.read(), t_ns)


def between(first: Reading, last: Reading) -> Energy:
    """What one meter counted between two of its readings, with the flags raised in between."""
    flags = {flag for flag, times in last.flags.items() if times > first.flags.get(flag, 0)}
    if last.t_ns - first.t_ns < SHORT_S * 1e9:
        flags.add("short_window")
    rails = first.by_rail_j.keys() & last.by_rail_j.keys()
    return Energy(
        t0_ns=first.t_ns,
        t1_ns=last.t_ns,
        energy_j=last.energy_j - first.energy_j,
        variance_j2=last.variance_j2 - first.variance_j2,
        by_rail_j={rail: last.by_rail_j[rail] - first.by_rail_j[rail] for rail in sorted(rails)},
        flags=tuple(sorted(flags)),
        sampling=Sampling(
            wall_s=(last.t_ns - first.t_ns) / 1e9,
            samples=None if first.samples is None or last.samples is None else last.samples - first.samples,
            gaps=last.flags.get("gap", 0) - first.flags.get("gap", 0),
            failed_reads=last.flags.get("failed_read", 0) - first.flags.get("failed_read", 0),
        ),
        cpu_s=last.cpu_s - first.cpu_s,
    )


@dataclass(frozen=True)
class DriverOptions:
    """What a driver is opened with: the file system's root, its argument, the clock it stamps with."""

    root: Path = Path("/")
    argument: str = ""
    clock_ns: Callable[[], int] = time.monotonic_ns

    def parse(self, driver: str, *keys: str) -> tuple[str, dict[str, float]]:
        """The argument ``[PLAIN][,KEY=NUMBER]...`` as (plain, numbers); raises MeterOptionsRefused."""
        plain, numbers = "", {}
        for position, item in enumerate(filter(None, self.argument.split(","))):
            key, equals, value = item.partition("=")
            if not equals and position == 0:
                plain = item
                continue
            try:
                numbers[{name: name for name in keys}[key]] = float(value)
            except (KeyError, ValueError) as error:
                known = ", ".join(f"{name}=NUMBER" for name in keys)
                raise MeterOptionsRefused(f"{driver}: cannot read {item!r}; it takes {known}") from error
        return plain, numbers

    def numbers(self, driver: str, *keys: str) -> dict[str, float]:
        """The argument of a driver that takes no plain word; raises MeterOptionsRefused."""
        plain, numbers = self.parse(driver, *keys)
        if plain:
            known = ", ".join(f"{name}=NUMBER" for name in keys) or "nothing"
            raise MeterOptionsRefused(f"{driver}: cannot read {plain!r}; it takes {known}")
        return numbers


def given_idle(numbers: Mapping[str, float]) -> Idle | None:
    """The idle power that ``idle_w`` and ``idle_u_w`` of a specification state, None without them."""
    if "idle_w" not in numbers:
        return None
    return Idle(numbers["idle_w"], numbers.get("idle_u_w", 0.0), "given by the user")


def sensor_host(root: Path, path: str) -> str:
    """Names one sensor of one boot of one host, equal in every process that reads it."""
    try:
        boot = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown-boot"
    return f"{boot}:{path}"


def drivers() -> tuple[str, ...]:
    """Names of the installed drivers, those of ``AUTO`` first."""
    names = sorted({entry.name for entry in entry_points(group=GROUP)})
    return tuple(sorted(names, key=lambda name: AUTO.index(name) if name in AUTO else len(AUTO)))


def open_one(spec: str, *, root: Path = Path("/"), clock_ns: Callable[[], int] = time.monotonic_ns) -> Meter:
    """The meter of a specification ``DRIVER[:ARGUMENT]``; raises any MeterError."""
    name, _, argument = spec.partition(":")
    for entry in entry_points(group=GROUP, name=name):
        try:
            driver = entry.load()
        except ImportError as error:
            raise MeterUnavailable(
                name, f"its driver cannot be loaded: {error}", "install it anew"
            ) from error
        meter: Meter = driver(DriverOptions(root, argument, clock_ns))
        return meter
    raise UnknownMeter(f"no meter {name!r}: there are auto, {', '.join(drivers())}")
