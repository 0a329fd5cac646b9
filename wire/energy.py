"""What stands inside messages of joules: a sensor, what it counted, a training's bill and what it rests on.

Frozen structs as in ``wire.values``, exported by ``mas_edge.wire.messages``; import them from there. What the
figures mean and how they come about is ``profiling``'s.
"""

from __future__ import annotations

from typing import Literal

from mas_edge.wire.values import Record


class Refusal(Record, frozen=True):
    """A sensor that was tried and not used: which, why, and what would help."""

    sensor: str
    reason: str
    remedy: str | None = None


class Sensor(Record, frozen=True):
    """Where joules come from. ``sensor_host`` is equal for agents that read one and the same sensor.

    ``gain_u`` is the relative standard uncertainty that all its joules share (calibration, model);
    ``rate_hz`` how often it is renewed, nominally.
    """

    name: str
    method: Literal["counter", "sampled", "estimated"]
    scope: Literal["package", "gpu", "module", "board"]
    sensor_host: str
    detail: str = ""
    gain_u: float = 0.0
    rate_hz: float | None = None


class Rail(Record, frozen=True):
    """Energy of one supply rail or counter zone; it may be part of another one's."""

    name: str
    energy_j: float


class Spend(Record, frozen=True):
    """What one phase of one group's round cost on one device.

    The four figures are those of the ledger: window (all energy while the phase ran), dynamic
    (window less idle power x time), attributed (dynamic, shared by CPU time), each with its standard
    uncertainty u; None is unknown, never zero. ``exclusive_fraction`` is the share of the time in
    which no other group trained on the sensor's host. ``peak_w`` is the greatest mean power of a slice
    (about a quarter of a second) in which the phase ran, ``rails`` are the window's energy by rail, and
    ``t0_ns`` and ``t1_ns`` on the trace's clock enclose the slices.
    """

    job: str
    group: str
    round: int
    phase: str
    wall_s: float
    cpu_s: float
    examples: int = 0
    window_energy_j: float | None = None
    window_u_j: float | None = None
    dynamic_energy_j: float | None = None
    dynamic_u_j: float | None = None
    attributed_energy_j: float | None = None
    attributed_u_j: float | None = None
    exclusive_fraction: float | None = None
    peak_w: float | None = None
    rails: tuple[Rail, ...] = ()
    t0_ns: int | None = None
    t1_ns: int | None = None
    peak_rss_bytes: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    flags: tuple[str, ...] = ()


class Trace(Record, frozen=True):
    """The sensor's cumulated energy at moments of the host's monotonic clock, in order.

    Agents on one host share the clock, so that their traces can be united without counting a
    joule twice. A step over which the energy does not grow was not metered: no host that is on
    uses nothing.
    """

    t_ns: tuple[int, ...] = ()
    energy_j: tuple[float, ...] = ()
    variance_j2: tuple[float, ...] = ()


class Machine(Record, frozen=True):
    """How a host is set, which decides its idle power, and how warm it is; None: it does not say.

    ``power_mode`` is nvpmodel's. Clocks are the least and the greatest that the governor may choose
    for any core (equal under jetson_clocks). ``throttled`` says that heat or current slows it now, and
    ``throttle_count`` how often that happened since boot, where the kernel counts.
    """

    model: str | None = None
    kernel: str | None = None
    power_mode: str | None = None
    governor: str | None = None
    cores: int | None = None
    clock_min_hz: int | None = None
    clock_max_hz: int | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    throttle_count: int | None = None


class Baseline(Record, frozen=True):
    """Power of a host on which nobody trains, and what is known of that number.

    ``how`` is "measured", or who says so. ``u_w`` is the standard uncertainty that the sensor's gain does
    not count already; of a measured one it is at least half the drift. ``sd_w`` is of ``n`` mean powers of
    one second, ``t_s`` the Unix time of the end, ``drift_w`` how far a second measurement was from the
    first, ``gpu_w`` what the rails that feed a GPU had of it.
    """

    power_w: float
    u_w: float
    how: str
    sd_w: float | None = None
    n: int | None = None
    wall_s: float | None = None
    t_s: float | None = None
    drift_w: float | None = None
    gpu_w: float | None = None
    sensor: Sensor | None = None
    machine: Machine | None = None


class Sampling(Record, frozen=True):
    """How well a meter answered in ``wall_s`` seconds: its samples (None: a counter has none),
    intervals that were gaps, and reads that failed.
    """

    wall_s: float = 0.0
    samples: int | None = None
    gaps: int = 0
    failed_reads: int = 0

    @property
    def rate_hz(self) -> float | None:
        """Samples a second as achieved; None for a counter, or without time."""
        return None if self.samples is None or self.wall_s <= 0 else self.samples / self.wall_s


class Profile(Record, frozen=True):
    """The bill of one training: rows per phase, and the device's own energy over the same time.

    ``idle_w`` is what the rows were computed with, ``baseline`` where that number comes from.
    ``shared_gpu_j`` is energy of the GPU's rail while more than one group used it, which no row holds;
    None is unknown. ``refused`` are the sensors that were tried before this one, ``profiler_cpu_s`` is
    the processor time that reading and accounting took.
    """

    rows: tuple[Spend, ...] = ()
    sensor: Sensor | None = None
    idle_w: float | None = None
    idle_u_w: float | None = None
    trace: Trace = Trace()
    train_device: str = "cpu"
    shared_gpu_j: float | None = None
    shared_gpu_u_j: float | None = None
    baseline: Baseline | None = None
    machine: Machine | None = None
    sampling: Sampling | None = None
    profiler_cpu_s: float | None = None
    refused: tuple[Refusal, ...] = ()
