"""A host's power when nobody trains: measured, stored with the state it was measured in, given up with it.

``measure`` takes the mean power of a meter over some seconds, second by second; ``summary`` makes of these a
mean and its standard uncertainty, by sd / sqrt(n_eff) with the effective number of seconds that follows
from how alike neighbours are. A second measurement after the work (``drifted``) tells how far the idle power
moved meanwhile: the mean of both counts, and half their distance is the least uncertainty. ``load``
gives a stored baseline back only on the machine, with the sensor and in the settings that it was made with
(``machine.same_settings``), and says what changed otherwise: an idle power is right in its own state only.

Method: GUM (JCGM 100:2008, 4.2) and for correlated readings n_eff = n (1 - r) / (1 + r), r the lag-1
autocorrelation. It cannot know that the host was idle: whoever measures sees to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import fsum
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import msgspec

from mas_edge.profiling import machine
from mas_edge.profiling.figures import gpu_energy_j
from mas_edge.profiling.meters import MeterError, MeterUnavailable, between
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import Baseline, Machine, Sensor

if TYPE_CHECKING:
    from mas_edge.profiling.meters import Energy, Idle, Meter, Reading

LEAST_S = 3.0
"""Fewer seconds than this have no spread to speak of."""
BLOCK_S = 1.0
ENOUGH_S = 30.0
"""What a baseline should have; a shorter one is flagged ``short_baseline``."""

Told = Callable[[float, float, float], None]
"""Is told how many seconds of how many are over, and the mean power so far."""


class BaselineRefused(MeterError, ValueError):
    """A baseline that is too short, or a file that holds none."""


def summary(powers_w: Sequence[float]) -> tuple[float, float, float]:
    """Mean, standard deviation, and standard uncertainty of the mean, of two or more seconds' powers."""
    mean_w, sd_w, n = fmean(powers_w), stdev(powers_w), len(powers_w)
    squares = fsum((power_w - mean_w) ** 2 for power_w in powers_w)
    steps = fsum((a - mean_w) * (b - mean_w) for a, b in pairwise(powers_w))
    alike = steps / squares if squares else 0.0
    alike = min(max(alike, 0.0), (n - 1) / (n + 1))  # never fewer than one effective second
    return mean_w, sd_w, sd_w / (n * (1 - alike) / (1 + alike)) ** 0.5


def measure(
    meter: Meter,
    seconds: float,
    told: Told = lambda _passed_s, _seconds, _mean_w: None,
    *,
    root: Path = Path("/"),
    wait: Callable[[float], None] = time.sleep,
    wall_clock_s: Callable[[], float] = time.time,
) -> Baseline:
    """The host's mean power from now on, for so many seconds by the meter's own clock.

    Raises BaselineRefused below ``LEAST_S`` or if too little could be metered, and MeterUnavailable.
    """
    if seconds < LEAST_S:
        raise BaselineRefused(
            f"a baseline of {seconds:g} s says nothing: take {LEAST_S:g} or more, better {ENOUGH_S:g}"
        )
    last = meter.read()
    blocks: list[Energy] = []
    waited_s = 0.0
    while waited_s < seconds:
        step_s = min(BLOCK_S, seconds - waited_s)
        wait(step_s)
        waited_s += step_s
        last = _block(meter, last, blocks)
        told(waited_s, seconds, _mean_w(blocks))
    sound = [block for block in blocks if "gap" not in block.flags]
    if len(sound) < LEAST_S:
        raise BaselineRefused(f"only {len(sound)} of {seconds:g} s could be metered: measure again")
    if _mean_w(sound) <= 0:  # no host that is on uses nothing
        raise BaselineRefused(
            f"{meter.sensor.name} counted nothing in {seconds:g} s: see whether it is stuck"
        )
    return _baseline(meter.sensor, sound, machine.look(root), wall_clock_s())


def stated(idle: Idle | None) -> Baseline | None:
    """What a driver or its user says of the idle power."""
    return None if idle is None else Baseline(power_w=idle.power_w, u_w=idle.u_w, how=idle.how)


def drifted(before: Baseline, after: Baseline) -> Baseline:
    """Both together: their mean, uncertain by at least half of what lies between them."""
    drift_w = after.power_w - before.power_w
    gpus_w = [b.gpu_w for b in (before, after) if b.gpu_w is not None]
    return msgspec.structs.replace(
        after,
        power_w=(before.power_w + after.power_w) / 2,
        u_w=max(before.u_w, after.u_w, abs(drift_w) / 2),
        sd_w=max(filter(None, (before.sd_w, after.sd_w)), default=None),
        n=(before.n or 0) + (after.n or 0),
        wall_s=(before.wall_s or 0.0) + (after.wall_s or 0.0),
        drift_w=drift_w,
        gpu_w=fmean(gpus_w) if gpus_w else None,
    )


def after(earlier: Baseline, later: Baseline) -> Baseline:
    """The later one, knowing how far the idle power has moved since the earlier."""
    drift_w = later.power_w - earlier.power_w
    return msgspec.structs.replace(later, drift_w=drift_w, u_w=max(later.u_w, abs(drift_w) / 2))


def mismatch(baseline: Baseline, sensor: Sensor, now: Machine) -> str | None:
    """Why a baseline does not hold for this sensor and this state of the machine; None if it does."""
    made = baseline.sensor
    if made is not None and _kind(made) != _kind(sensor):
        return f"it was measured with {made.name} ({made.detail}), not {sensor.name} ({sensor.detail})"
    changed = machine.settings_that_differ(baseline.machine, now) if baseline.machine else ()
    return "; ".join(changed) or None


def load(path: Path) -> Baseline | None:
    """The baseline in a file, None if there is no such file; raises BaselineRefused for anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Baseline)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise BaselineRefused(f"{path} holds no baseline: {error}; measure one anew") from error


def store(path: Path, baseline: Baseline) -> None:
    """Put it into a file; raises BaselineRefused if that cannot be written."""
    try:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(baseline)))
    except OSError as error:
        raise BaselineRefused(f"cannot write {path}: {error.strerror}") from error


def _block(meter: Meter, last: Reading, blocks: list[Energy]) -> Reading:
    """The next reading, its energy since the last one added; the last one if the meter does not answer."""
    try:
        reading = meter.read()
    except MeterUnavailable:
        return last  # the next block is longer
    if reading.t_ns > last.t_ns:
        blocks.append(between(last, reading))
    return reading


def _mean_w(blocks: Sequence[Energy]) -> float:
    wall_s = fsum(block.wall_s for block in blocks)
    return fsum(block.energy_j for block in blocks) / wall_s if wall_s else 0.0


def _baseline(sensor: Sensor, blocks: Sequence[Energy], now: Machine, t_s: float) -> Baseline:
    _, sd_w, u_w = summary([block.energy_j / block.wall_s for block in blocks])
    wall_s = fsum(block.wall_s for block in blocks)
    gpu_j = [gpu_energy_j(block.by_rail_j) for block in blocks]
    return Baseline(
        power_w=_mean_w(blocks),
        u_w=u_w,
        how="measured",
        sd_w=sd_w,
        n=len(blocks),
        wall_s=wall_s,
        t_s=t_s,
        gpu_w=None if None in gpu_j else fsum(joules for joules in gpu_j if joules is not None) / wall_s,
        sensor=sensor,
        machine=now,
    )


def _kind(sensor: Sensor) -> tuple[str, ...]:
    """What stays of a sensor over a reboot."""
    return (sensor.name, sensor.method, sensor.scope, sensor.detail)
