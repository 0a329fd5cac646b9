"""What a host's joules rest on, as text: sensor, baseline, machine, heat, sampling, and what was refused.

``facts`` makes label and value of everything that a ``HostBill`` tells; what nobody knows is a dash, so that
one sees that it is missing. Units are those that people use (MHz, degrees Celsius). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from mas_edge.profiling.hosts import HostBill
from mas_edge.profiling.report import UNKNOWN, joules, method
from mas_edge.wire.messages import Baseline, Machine, Sampling, Sensor

Fact = tuple[str, str]


def facts(host: HostBill) -> tuple[Fact, ...]:
    """Label and value of what is known of a host and its sensor, in the order in which one asks."""
    return (
        ("devices", ", ".join(host.devices) + (" (virtual: one host)" if len(host.devices) > 1 else "")),
        *_sensor(host.sensor),
        ("metered", f"{host.metered_s:.1f} s"),
        ("sampling", _sampling(host.sampling, host.sensor)),
        ("idle baseline", _baseline(host.baseline, host.sensor)),
        *_machine(host.machine or Machine()),
        ("temperature", _heat(host)),
        ("profiler's own processor time", _known(host.profiler_cpu_s, "{:.2f} s")),
        *_refused(host),
    )


def _sensor(sensor: Sensor | None) -> Iterable[Fact]:
    if sensor is None:
        return [("sensor", "none: no energy is known")]
    return [
        ("sensor", f"{sensor.name}, {method([sensor.method])}, scope {sensor.scope}"),
        ("sensor's detail", sensor.detail or UNKNOWN),
        ("read from", sensor.sensor_host.partition(":")[2] or sensor.sensor_host),
        ("common relative error, 2u", f"{2 * sensor.gain_u:.2g}" if sensor.gain_u else UNKNOWN),
    ]


def _sampling(sampling: Sampling | None, sensor: Sensor | None) -> str:
    if sampling is None:
        return UNKNOWN
    nominal = f" (nominal {sensor.rate_hz:g})" if sensor and sensor.rate_hz else ""
    rate = "read when asked" if sampling.rate_hz is None else f"{sampling.rate_hz:.1f} a second{nominal}"
    samples = "" if sampling.samples is None else f"{sampling.samples} samples, "
    return f"{samples}{rate}, {sampling.gaps} gaps, {sampling.failed_reads} failed reads"


def _baseline(baseline: Baseline | None, sensor: Sensor | None) -> str:
    if baseline is None:
        return "none: dynamic and attributed energy are not known"
    u_w = ((sensor.gain_u * baseline.power_w if sensor else 0.0) ** 2 + baseline.u_w**2) ** 0.5
    parts = [f"{joules(baseline.power_w, u_w)} W, {baseline.how}"]
    if baseline.n is not None and baseline.wall_s is not None:
        parts.append(f"{baseline.n} means over {baseline.wall_s:.0f} s")
    if baseline.t_s is not None:
        parts.append(f"{datetime.fromtimestamp(baseline.t_s, timezone.utc):%Y-%m-%d %H:%M} UTC")
    if baseline.drift_w is not None:
        parts.append(f"drift {baseline.drift_w:.2g} W")
    return ", ".join(parts)


def _machine(machine: Machine) -> Iterable[Fact]:
    clocks = [
        UNKNOWN if hz is None else f"{hz / 1e6:.0f}" for hz in (machine.clock_min_hz, machine.clock_max_hz)
    ]
    return [
        ("model", machine.model or UNKNOWN),
        ("kernel", machine.kernel or UNKNOWN),
        ("power mode, governor", f"{machine.power_mode or UNKNOWN}, {machine.governor or UNKNOWN}"),
        ("cores, clocks", f"{_known(machine.cores, '{}')}, {clocks[0]} to {clocks[1]} MHz"),
    ]


def _heat(host: HostBill) -> str:
    slowed = {None: "throttling unknown", True: "throttled", False: "not throttled"}[host.throttled]
    return f"{_known(host.temperature_max_c, 'at most {:.0f} °C')}, {slowed}"


def _refused(host: HostBill) -> Iterable[Fact]:
    for refusal in host.refused:
        remedy = f" ({refusal.remedy})" if refusal.remedy else ""
        yield f"refused: {refusal.sensor}", f"{refusal.reason}{remedy}"


def _known(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else form.format(value)
