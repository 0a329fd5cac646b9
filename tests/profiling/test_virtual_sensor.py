"""A power that is known at every moment, sampled as a board's is: how often the truth is within 2 u."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest

from mas_edge.profiling.drivers.sampler import Sampler
from mas_edge.profiling.running import Look
from mas_edge.profiling.samples import integrate
from mas_edge.wire.messages import Sensor

RATE_HZ, JITTER_S = 9.5, 0.003
"""What tegrastats --interval 100 really gives, and how unevenly."""
SECONDS, WINDOWS = 400.0, 500


class Steps:
    """Constant powers one after the other, drawn until the time is full."""

    def __init__(self, rng, draw):
        self.edges, self.levels, self.energies = [0.0], [], [0.0]
        while self.edges[-1] < SECONDS:
            length_s, level_w = draw(rng, len(self.levels))
            self.levels.append(level_w)
            self.edges.append(self.edges[-1] + length_s)
            self.energies.append(self.energies[-1] + length_s * level_w)

    def power_w(self, t_s):
        return self.levels[bisect_right(self.edges, t_s) - 1]

    def energy_j(self, t_s):
        k = bisect_right(self.edges, t_s) - 1
        return self.energies[k] + self.levels[k] * (t_s - self.edges[k])


class Ramp:
    def __init__(self, _):
        pass

    def power_w(self, t_s):
        return 3 + 0.05 * t_s

    def energy_j(self, t_s):
        return 3 * t_s + 0.025 * t_s**2


def square_wave(phase_s):
    return lambda rng: Steps(rng, lambda _, k: (phase_s, 12.0 if k % 2 else 5.0))


def switching(rng):
    return Steps(rng, lambda rng, k: (rng.uniform(0.01, 0.6), 12.0 if k % 2 else 5.0))


def spikes(rng):
    return Steps(rng, lambda rng, k: (0.05, 25.0) if k % 2 else (rng.uniform(0.1, 0.9), 5.0))


def noise(rng):
    return Steps(rng, lambda rng, _: (rng.uniform(0.001, 0.003), rng.gauss(10.0, 1.0)))


LOADS = {
    "constant": lambda rng: Steps(rng, lambda *_: (SECONDS, 7.0)),
    "ramp": Ramp,
    "square wave": square_wave(0.85),
    "fast square wave": square_wave(0.185),
    "switching": switching,
    "spikes": spikes,
    "noise": noise,
}


def sampled(load, rng):
    """A meter that has seen the load, and now waits to be asked."""

    def looks(stop):
        t_s = 0.013
        while t_s < SECONDS:
            yield Look(round(t_s * 1e9), load.power_w(t_s))
            t_s += rng.gauss(1 / RATE_HZ, JITTER_S)
        stop.wait(60)

    sensor = Sensor(name="virtual", method="sampled", scope="board", sensor_host="virtual")
    return Sampler(
        looks, lambda: sensor, name="virtual", interval_s=1 / RATE_HZ, idle=None, clock_ns=lambda: 0
    )


@pytest.mark.parametrize("name", LOADS)
def test_the_truth_is_within_twice_the_uncertainty(name):
    rng = random.Random(name)
    load = LOADS[name](rng)
    meter, held = sampled(load, rng), 0
    for _ in range(WINDOWS):
        length_s = rng.uniform(2, 12)
        start_s = rng.uniform(1, SECONDS - 14)
        t0_ns, t1_ns = round(start_s * 1e9), round((start_s + length_s) * 1e9)
        found = integrate(meter.samples(t0_ns, t1_ns), t0_ns, t1_ns)
        true_j = load.energy_j(start_s + length_s) - load.energy_j(start_s)
        held += abs(found.energy_j - true_j) <= 2 * found.variance_j2**0.5 + 1e-9 * true_j
    meter.close()
    assert held / WINDOWS >= 0.85
