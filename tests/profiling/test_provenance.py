"""What joules rest on, in words: everything that is known, and a dash where nothing is."""

from __future__ import annotations

import msgspec

from mas_edge.profiling.hosts import host
from mas_edge.profiling.provenance import facts
from mas_edge.wire.messages import Baseline, Machine, Profile, Refusal, Sampling, Sensor, Trace

SENSOR = Sensor(
    name="tegrastats",
    method="sampled",
    scope="module",
    sensor_host="boot:VDD_IN",
    gain_u=0.0025,
    rate_hz=10.0,
)
TRACE = Trace(t_ns=(0, 4 * 10**9), energy_j=(0.0, 20.0), variance_j2=(0.0, 0.0))
KNOWN = Profile(
    sensor=SENSOR,
    idle_w=4.76,
    trace=TRACE,
    baseline=Baseline(power_w=4.763, u_w=0.02, how="measured", n=30, wall_s=30.0, t_s=1.7e9, drift_w=0.04),
    machine=Machine(
        model="Jetson Orin Nano",
        power_mode="15W",
        governor="schedutil",
        cores=6,
        clock_min_hz=729_600_000,
        clock_max_hz=1_510_400_000,
        temperature_c=51.2,
        throttled=False,
    ),
    sampling=Sampling(wall_s=4.0, samples=38, gaps=1, failed_reads=2),
    profiler_cpu_s=0.031,
    refused=(Refusal(sensor="rapl", reason="no such tree", remedy="an x86 processor"),),
)


def told(profile):
    return dict(facts(host([("edge-1", profile)])))


def test_sensor_baseline_machine_heat_sampling_and_refusals_are_told():
    found = told(KNOWN)
    assert found["sensor"] == "tegrastats, sampled, scope module"
    assert found["idle baseline"].startswith(
        "4.763 ±0.047 W, measured, 30 means over 30 s, 2023-11-14 22:13 UTC"
    )
    assert found["sampling"] == "38 samples, 9.5 a second (nominal 10), 1 gaps, 2 failed reads"
    assert found["cores, clocks"] == "6, 730 to 1510 MHz"
    assert found["temperature"] == "at most 51 °C, not throttled"
    assert found["refused: rapl"] == "no such tree (an x86 processor)"
    assert found["profiler's own processor time"] == "0.03 s"


def test_what_nobody_knows_is_a_dash():
    found = told(Profile(sensor=msgspec.structs.replace(SENSOR, gain_u=0.0), trace=TRACE))
    assert found["idle baseline"] == "none: dynamic and attributed energy are not known"
    assert found["temperature"] == "–, throttling unknown"
    assert {found[name] for name in ("model", "kernel", "sampling", "common relative error, 2u")} == {"–"}


def test_a_host_without_a_sensor_says_so():
    assert told(Profile())["sensor"] == "none: no energy is known"
