"""NVIDIA Jetson's power by the tegrastats that comes with it: no library, no rights, every release.

``tegrastats[:COMMAND][,rails=A+B][,interval_ms=100][,idle_w=W][,idle_u_w=U]``. It is run as long as the meter
is open and read line by line; a line is stamped when it arrives, since its own stamp has whole seconds and
its interval is kept to some per cent only. Which rails add up follows from their names (``rails``), or is
said by ``rails=A+B``, and is fixed by the first lines: a line that lacks one is no sample. It is started
anew, after 0.5 s and then ever longer, when it ends or is silent for three seconds or five intervals, also
if it only prints what cannot be read; the gap is flagged, and so is the restart. If it is silent on a pipe,
or hands over lines by the block, which would be stamped at the wrong moment, it gets a terminal instead.

It holds against tegrastats' own mean once a minute (``mean_differs``). What it does not do: fan, carrier, USB
and NVMe are in no module's total, and a rail that feeds the GPU is not divided among its users.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

from mas_edge.profiling.drivers.child import Child, find_program
from mas_edge.profiling.drivers.rails import split_rails
from mas_edge.profiling.drivers.sampler import Sampler, Stop, seconds
from mas_edge.profiling.drivers.tegrastats_lines import (
    Layout,
    Means,
    Rails,
    UnknownLayout,
    layout_of,
    parse,
)
from mas_edge.profiling.meters import (
    DriverOptions,
    Meter,
    MeterUnavailable,
    given_idle,
    sensor_host,
)
from mas_edge.profiling.running import Look
from mas_edge.wire.messages import Sensor

NAME = "tegrastats"
PLACES = ("usr/bin", "home/nvidia")
"""Where it lies if PATH does not say: in the latter up to L4T 28."""
INTERVAL_MS = 100
SILENT_S, SILENT_INTERVALS = 3.0, 5
"""How long it may bring no sample: the longer of the two."""
BLOCK = 3
"""So many lines at once were held back: only the last one's moment is known."""
EARLY = 0.25
"""What comes after less than this part of the interval may be a flood."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0


def open_meter(options: DriverOptions) -> Meter:
    """The meter over a tegrastats of its own; raises MeterUnavailable if there is none or no total in it."""
    wanted, rest = split_rails(options.argument)
    command, given = replace(options, argument=rest).parse(NAME, "interval_ms", "idle_w", "idle_u_w")
    interval_s = seconds(NAME, given.get("interval_ms", INTERVAL_MS))
    program = find_program(command or NAME, options.root, PLACES)
    if program is None:
        reason = f"no program {command or NAME} on PATH or in {options.root / PLACES[0]}"
        raise MeterUnavailable(NAME, reason, "it comes with JetPack on NVIDIA Jetson boards")
    reader = _Reader(program, wanted, interval_s, options.clock_ns)
    return Sampler(
        reader.looks,
        lambda: _sensor(reader, options.root),
        name=NAME,
        interval_s=interval_s,
        idle=given_idle(given),
        clock_ns=options.clock_ns,
        cost_s=reader.cost_s,
    )


def _sensor(reader: _Reader, root: Path) -> Sensor:
    total = reader.known.total
    return Sensor(
        name=NAME,
        method="sampled",
        scope=total.scope,
        sensor_host=sensor_host(root, total.path),
        detail=f"{total.detail} by {reader.program}",
        gain_u=total.gain_u,
        rate_hz=1 / reader.interval_s,
    )


@dataclass
class _Reader:
    """One tegrastats after the other; what was learnt of it, which only the thread that reads it changes."""

    program: Path
    wanted: tuple[str, ...]
    interval_s: float
    clock_ns: Callable[[], int]
    layout: Layout | None = None
    terminal: bool = False
    gone_s: float = 0.0
    child: Child | None = None

    @property
    def patience_s(self) -> float:
        return max(SILENT_S, SILENT_INTERVALS * self.interval_s)

    @property
    def known(self) -> Layout:
        """The layout; raises MeterUnavailable before lines have shown it."""
        if self.layout is None:
            raise MeterUnavailable(NAME, "it has shown no total", "run it by hand")
        return self.layout

    def cost_s(self) -> float:
        """Processor time of all tegrastats so far."""
        return self.gone_s + (self.child.cpu_s() if self.child else 0.0)

    def looks(self, stop: Stop) -> Generator[Look, None, None]:
        """A look at every line, run after run; raises MeterUnavailable if no total is to be had."""
        backoff_s = BACKOFF_S
        while True:
            brought = False
            command = [str(self.program), "--interval", f"{self.interval_s * 1000:.0f}"]
            with Child(command, terminal=self.terminal) as child:
                self.child = child
                if self.layout or self._learn(child, stop):
                    for look in self._follow(child, stop):
                        brought = brought or look.power_w is not None
                        yield look
                self.gone_s, self.child = self.cost_s(), None
            if self.layout:
                backoff_s = BACKOFF_S if brought else min(2 * backoff_s, LONGEST_BACKOFF_S)
                yield Look(self.clock_ns(), None, flags=("restarted",))
            if stop.wait(backoff_s if self.layout else 0.0):
                return

    def _learn(self, child: Child, stop: Stop) -> bool:
        """Whether this run has shown the layout; if not, one with a terminal may."""
        first: list[str] = []
        while self.layout is None:
            lines = child.lines(stop, self.patience_s)
            if lines is None:
                said = f", having said {first[-1].strip()[:80]!r}" if first else ""
                raise MeterUnavailable(NAME, f"{self.program} {child.end()}{said}", "run it by hand")
            if not self.terminal and (not lines or len(lines) >= BLOCK):
                self.terminal = True
                return False
            if not lines:
                reason = f"{self.program} prints nothing for {self.patience_s:g} s, also on a terminal"
                raise MeterUnavailable(NAME, reason, "run it by hand")
            first += lines
            try:
                self.layout = layout_of([parse(line) for line in first], self.wanted)
            except UnknownLayout as error:
                raise MeterUnavailable(NAME, error.reason, error.remedy) from error
        return True

    def _follow(self, child: Child, stop: Stop) -> Generator[Look, None, None]:
        """Looks until the child ends, falls silent or only babbles."""
        heard_ns, means = self.clock_ns(), None
        while lines := child.lines(stop, self.patience_s):
            t_ns, burst = self.clock_ns(), len(lines) >= BLOCK
            early = t_ns - heard_ns < self.interval_s * EARLY * 1e9
            rails = self.known.newest(lines)
            if rails:
                heard_ns, means = t_ns, self._means(means, t_ns, rails)
                yield self._look(t_ns, rails, burst=burst, differs=means.differs)
            else:
                yield Look(t_ns, None)
            if t_ns - heard_ns > self.patience_s * 1e9:
                return
            if burst or early:
                stop.wait(self.interval_s / 2)  # a flood is held back by the pipe meanwhile
        self.terminal = self.terminal or lines is not None

    def _look(self, t_ns: int, rails: Rails, *, burst: bool, differs: bool) -> Look:
        total, names = self.known.total, self.known.names
        flags = (("burst",) if burst else ()) + (("mean_differs",) if differs else ())
        by_rail_w = {name: rails.now_w[name] for name in names}
        return Look(t_ns, total.of(rails.now_w), by_rail_w, total.u_w, flags)

    def _means(self, means: Means | None, t_ns: int, rails: Rails) -> Means:
        power_w, stated_w = self.known.total.of(rails.now_w), self.known.mean_w(rails)
        if means is None:
            return Means(t_ns, t_ns, power_w, checked_ns=t_ns)
        return means.after(t_ns, power_w, stated_w)
