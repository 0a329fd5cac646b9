"""What ``mas-profile`` says to people, line by line, and the CSV of runs.

Joules and watts stand with +-2 standard uncertainties and no more digits than these allow; what is not known
is a dash, and what a model made is marked ``est.``. It computes nothing.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mas_edge.profiling.report import UNKNOWN, joules, method
from mas_edge.profiling.runs import Measured, Run

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.profiling.calibrate import Calibration
    from mas_edge.profiling.choice import Candidate
    from mas_edge.profiling.record import Recorded
    from mas_edge.wire.messages import Baseline, Sensor


def candidate(found: Candidate) -> Iterable[str]:
    """A meter that is installed: what it would measure and how well, or why it cannot and what would help."""
    if (sensor := found.sensor) is not None:
        rate = "" if sensor.rate_hz is None else f", {sensor.rate_hz:g} Hz"
        sure = "" if found.expected_2u is None else f", \N{PLUS-MINUS SIGN}{found.expected_2u:.0%} over 10 s"
        how = method((sensor.method,))
        yield f"{found.name:12}usable   {sensor.scope}, {how}{rate}{sure}: {sensor.detail}"
    if (refusal := found.refusal) is not None:
        yield f"{found.name:12}refused  {refusal.reason}"
        if refusal.remedy:
            yield f"{'':12}remedy   {refusal.remedy}"


def run(made: Measured) -> Iterable[str]:
    """What a command cost."""
    label = method((made.method,))
    yield f"energy      {joules(made.energy_j, made.energy_u_j)} J  ({label}, {made.scope})"
    if len(made.repeats) > 1:
        sd = UNKNOWN if made.energy_sd_j is None else f"{made.energy_sd_j:.2g} J"
        yield f"runs        {len(made.repeats)}; the mean is shown, standard deviation {sd}"
    if made.baseline:
        yield f"dynamic     {joules(made.dynamic_energy_j, made.dynamic_u_j)} J above idle"
        yield f"attributed  {joules(made.attributed_energy_j, made.attributed_u_j)} J to the command"
    peak = UNKNOWN if made.peak_w is None else f"{made.peak_w:.3g} W"
    yield f"power       {joules(made.mean_w, made.mean_u_w)} W mean over {made.wall_s:.3f} s, peak {peak}"
    yield f"processor   {made.cpu_s:.2f} s of the command, {_seconds(made.busy_s)} of the host"
    yield f"sensor      {made.sensor}: {made.about.detail}"
    if made.baseline:
        yield from baseline(made.baseline, made.about)
    yield from (f"rail        {rail.name} {rail.energy_j:.4g} J" for rail in made.rails)
    yield from (f"flag        {flag}" for flag in made.flags)
    for refusal in made.refused:
        remedy = f"; {refusal.remedy}" if refusal.remedy else ""
        yield f"refused     {refusal.sensor}: {refusal.reason}{remedy}"


def baseline(found: Baseline, sensor: Sensor) -> Iterable[str]:
    """An idle power and what it rests on."""
    power = joules(found.power_w, (found.u_w**2 + (sensor.gain_u * found.power_w) ** 2) ** 0.5)
    drift = "" if found.drift_w is None else f", drift {round(found.drift_w, 2) + 0.0:+.2f} W"
    length = "" if found.wall_s is None else f" over {found.wall_s:.0f} s"
    yield f"idle        {power} W, {found.how}{length}{drift}"
    if found.machine is not None:
        here = found.machine
        words = (
            here.model,
            here.power_mode and f"power mode {here.power_mode}",
            here.governor,
            _clock(found),
        )
        yield f"state       {', '.join(filter(None, words)) or UNKNOWN}"


def csv_text(made: Measured) -> str:
    """A line per run, all its figures, units in the header's names."""
    fields = [name for name in Run.__struct_fields__ if name not in ("rails", "sampling", "flags")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", *fields, "method", "sensor", "scope", "flags"])
    for k, one in enumerate(made.repeats, 1):
        values = [getattr(one, name) for name in fields]
        flags = " ".join(sorted({*one.flags, *made.flags}))
        writer.writerow([k, *values, made.method, made.sensor, made.scope, flags])
    return out.getvalue()


def recorded(kept: Recorded, folder: Path) -> Iterable[str]:
    """What a recording of a board holds."""
    yield f"recorded    {len(kept.files)} files, {kept.changes} changes in {kept.wall_s:.1f} s, into {folder}"
    yield from (f"command     {name}" for name in kept.commands)
    if not kept.sensors:
        yield "sensors     none found: this folder is a board without any"
    yield from (f"sensor      {name}" for name in kept.sensors)


def calibrated(kept: Calibration, path: Path, estimate: Sensor) -> Iterable[str]:
    """What the estimate will use from now on."""
    for point in kept.points:
        day = time.strftime("%Y-%m-%d", time.gmtime(point.t_s))
        yield f"{point.kind:12}{point.watts:.2f} W at {point.load:.0%} load over {point.wall_s:.0f} s, {day}"
    yield f"estimate    {estimate.detail}"
    yield f"kept in     {path}, for {kept.board}"


def _clock(found: Baseline) -> str | None:
    here = found.machine
    if here is None or here.clock_min_hz is None or here.clock_max_hz is None:
        return None
    return f"{here.clock_min_hz / 1e6:.0f} to {here.clock_max_hz / 1e6:.0f} MHz"


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f} s"
