"""Raspberry Pi 5's power as its power management chip measures it, by ``vcgencmd pmic_read_adc``.

``rpi_pmic[:COMMAND][,idle_w=W][,idle_u_w=U]``. The answer has a line a channel, NAME_A with a current and
NAME_V with a voltage; the total is the sum of V x A over the twelve rails that have both. EXT5V and BATT
have a voltage alone and are never multiplied. What the regulators lose, USB, HATs, fan and NVMe are not in
it, hence scope ``module``: one board's users found 1.1451 x total + 0.5879 W at the plug, a fit that this
driver does not apply. A call takes 24 ms, most of it in the firmware, and starts a process: four
a second, stamped in the middle. A Raspberry Pi 4 and older have no such sensor.

Source: Raspberry Pi documentation, "vcgencmd", and one printed answer of a Pi 5. The converter's accuracy is
published nowhere that we know: 2 % is assumed.
"""

from __future__ import annotations

import math
import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mas_edge.profiling.drivers.child import find_program
from mas_edge.profiling.drivers.sampler import Sampler, polled
from mas_edge.profiling.meters import DriverOptions, Meter, MeterUnavailable, given_idle, sensor_host
from mas_edge.profiling.running import Look
from mas_edge.wire.messages import Sensor

NAME, PROGRAM = "rpi_pmic", "vcgencmd"
INTERVAL_S = 0.25
CALL_S = 2.0
"""How long the firmware may take to answer."""
GAIN_U = 0.02
PLACES = ("usr/bin", "opt/vc/bin")
REMEDY = "it takes a Raspberry Pi 5 with current firmware, and a user of the group video"

_CHANNEL = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(\S+?)[AV]\s*$", re.MULTILINE)


def rails_w(answer: str) -> dict[str, float]:
    """Power of every rail whose voltage and current are both in the answer, and both numbers."""
    values = {(name, kind): _number(text) for name, kind, text in _CHANNEL.findall(answer)}
    powers = {
        name: volts * values[name, "A"]
        for (name, kind), volts in values.items()
        if kind == "V" and (name, "A") in values
    }
    return {name: power for name, power in powers.items() if math.isfinite(power)}


def open_meter(options: DriverOptions) -> Meter:
    """The meter of this board; raises MeterUnavailable with what the firmware says."""
    command, given = options.parse(NAME, "idle_w", "idle_u_w")
    program = find_program(command or PROGRAM, options.root, PLACES)
    if program is None:
        reason = f"no program {command or PROGRAM} on PATH or in {options.root / PLACES[0]}"
        raise MeterUnavailable(NAME, reason, REMEDY)
    asked = _Asked(program, options.clock_ns)
    rails = asked.learn()
    sensor = Sensor(
        name=NAME,
        method="sampled",
        scope="module",
        sensor_host=sensor_host(options.root, f"/dev/vcio:{PROGRAM}"),
        detail=f"{len(rails)} rails of the power management chip (no regulator losses, USB, HAT, fan)",
        gain_u=GAIN_U,
        rate_hz=1 / INTERVAL_S,
    )
    return Sampler(
        polled(asked.look, INTERVAL_S),
        lambda: sensor,
        name=NAME,
        interval_s=INTERVAL_S,
        idle=given_idle(given),
        clock_ns=options.clock_ns,
        cost_s=lambda: asked.cost_s,
    )


@dataclass
class _Asked:
    """The program that is asked again and again; ``cost_s`` is the processor time of all its calls."""

    program: Path
    clock_ns: Callable[[], int]
    timeout_s: float = CALL_S
    rails: frozenset[str] = frozenset()
    cost_s: float = 0.0

    def learn(self) -> frozenset[str]:
        """The rails that there are; raises MeterUnavailable if there are none."""
        answer = self._ask()
        self.rails = frozenset(rails_w(answer))
        if not self.rails:
            said = f"answers {answer.strip()[:80]!r}" if answer.strip() else "does not answer"
            raise MeterUnavailable(NAME, f"{self.program} {said}", REMEDY)
        return self.rails

    def look(self) -> Look:
        """All rails now; none if one of those that were there is missing."""
        before_ns = self.clock_ns()
        by_rail_w = rails_w(self._ask())
        t_ns = (before_ns + self.clock_ns()) // 2
        if self.rails - by_rail_w.keys():
            return Look(t_ns, None)
        return Look(t_ns, sum(by_rail_w[rail] for rail in sorted(self.rails)), by_rail_w)

    def _ask(self) -> str:
        """What it prints, on both of its outputs; what came so far if it takes too long."""
        try:
            process = subprocess.Popen(
                [self.program, "pmic_read_adc"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return error.strerror or str(error)
        with process:
            answer = _read_all(process, time.monotonic() + self.timeout_s)
            _, status, usage = os.wait4(process.pid, 0)  # Popen.wait would not tell what it cost
            process.returncode = os.waitstatus_to_exitcode(status)
        self.cost_s += usage.ru_utime + usage.ru_stime
        return answer.decode("ascii", "replace")


def _read_all(process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
    """All that the process prints until it closes its output; it is killed at the deadline."""
    answer, poll = b"", select.poll()
    output = process.stdout.fileno() if process.stdout else -1
    poll.register(output, select.POLLIN)
    while poll.poll(max(deadline_s - time.monotonic(), 0.0) * 1000):
        read = os.read(output, 1 << 16)
        if not read:
            return answer
        answer += read
    process.kill()
    return answer


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
