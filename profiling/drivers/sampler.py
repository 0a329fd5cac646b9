"""A stream of power samples -> a meter: what tegrastats, ina3221, rpi_pmic and battery have in common.

A driver brings a *feed*: a generator of looks at its sensor that runs in the meter's one thread, waits by
``Stop.wait`` and so ends at once when told. Each look is counted on by ``profiling.running``; the newest
samples are kept for windows whose edges are interpolated, and a window longer than that is the difference
of two readings, each of a sample's moment. A feed that raises MeterUnavailable before its second sample
refuses the sensor; later, or when it has brought nothing for some seconds, readings are refused until
there is a sample again: what stands still is never taken for a power of zero.

The thread and all that the feed holds (descriptors, a child) are given back by ``close``, when the meter is
forgotten, and when the feed breaks. What a killed process leaves behind is ``child``'s concern.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeAlias

from mas_edge.profiling.drivers.counters import SLEPT_NS, slept_ns
from mas_edge.profiling.meters import Idle, MeterOptionsRefused, MeterUnavailable, Reading
from mas_edge.profiling.running import Look, Running, advance
from mas_edge.profiling.samples import Sample
from mas_edge.wire.messages import Sensor

KEPT = 6000
"""Samples kept for windows: ten minutes at 10 Hz."""
STALE_S, STALE_INTERVALS = 5.0, 10
"""How old the newest sample may be to be read: the longer of the two."""
OPENING_S, TRIES = 10.0, 20
"""How long a feed may take to its second sample, and how many looks may fail before its first."""
EDGE_S = 0.5
"""The least that a window waits for the sample after its end; two intervals if they are longer."""
COST_S = 1.0
"""How often the cost of the feed is asked for."""


class Stop:
    """A signal to end that also wakes who waits for a descriptor."""

    def __init__(self) -> None:
        self._event = os.eventfd(0)
        self._release = weakref.finalize(self, os.close, self._event)

    def set(self) -> None:
        """Ends all waiting, now and from now on."""
        os.eventfd_write(self._event, 1)

    def wait(self, seconds: float, descriptor: int | None = None) -> bool:
        """True once it is set; False after the time, or when the descriptor can be read."""
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        return self._event in dict(poll.poll(max(seconds, 0.0) * 1000))

    def close(self) -> None:
        """Closes the descriptor; nobody may wait any more."""
        self._release()


Feed: TypeAlias = Callable[[Stop], Generator[Look, None, None]]


def seconds(name: str, interval_ms: float) -> float:
    """The interval that a specification asks for; raises MeterOptionsRefused if it is of no use."""
    if not 10 <= interval_ms <= 10_000:
        raise MeterOptionsRefused(f"{name}: interval_ms={interval_ms:g}: it takes 10 to 10000")
    return interval_ms / 1000


def polled(look: Callable[[], Look], interval_s: float, close: Callable[[], object] = bool) -> Feed:
    """The feed of a sensor that is asked: one look an interval, however long a look takes; then ``close``."""

    def feed(stop: Stop) -> Generator[Look, None, None]:
        due_s = time.monotonic()
        try:
            while not stop.wait(due_s - time.monotonic()):
                yield look()
                due_s = max(due_s + interval_s, time.monotonic())
        finally:
            close()

    return feed


class Sampler:
    """A meter over a feed."""

    def __init__(
        self,
        feed: Feed,
        describe: Callable[[], Sensor],
        *,
        name: str,
        interval_s: float,
        idle: Idle | None,
        clock_ns: Callable[[], int],
        slept_ns: Callable[[], int] = slept_ns,
        cost_s: Callable[[], float] = float,
    ) -> None:
        """Returns at the second sample, then knows its sensor by ``describe``; raises MeterUnavailable.

        ``cost_s`` is the processor time of what the feed has others do, the thread's own left out.
        """
        self._stream = _Stream(name, Running(interval_s), clock_ns, slept_ns, cost_s)
        self._release = weakref.finalize(self, self._stream.close)
        self.idle, opened = idle, False
        try:
            self._stream.start(feed)
            self.sensor, opened = describe(), True
        finally:
            if not opened:
                self.close()

    def read(self) -> Reading:
        """The totals at the newest sample; raises MeterUnavailable if that is stale or the feed over."""
        return self._stream.read()

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:
        """The samples around a window, two or more; None for a window longer than what is kept."""
        return self._stream.samples(t0_ns, t1_ns)

    def close(self) -> None:
        """Ends the feed and its thread."""
        self._release()


class _Stream:
    """What a meter and its thread share, so that a meter that is forgotten leaves no thread behind."""

    def __init__(
        self,
        name: str,
        running: Running,
        clock_ns: Callable[[], int],
        slept_ns: Callable[[], int],
        cost_s: Callable[[], float],
    ) -> None:
        self._name, self._running = name, running
        self._stale_s = max(STALE_S, STALE_INTERVALS * running.interval_s)
        self._clock_ns, self._slept_ns, self._cost_s = clock_ns, slept_ns, cost_s
        self._kept: deque[Sample] = deque(maxlen=KEPT)
        self._news, self._stop = threading.Condition(), Stop()
        self._asleep_ns, self._cpu_s = slept_ns(), 0.0
        self._ended: MeterUnavailable | None = None
        self._thread: threading.Thread | None = None

    def start(self, feed: Feed) -> None:
        self._thread = threading.Thread(target=self._fill, args=(feed,), name=self._name, daemon=True)
        self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._ended or self._hopeless() or len(self._kept) > 1, OPENING_S)
            if self._ended and len(self._kept) < 2:
                raise self._refused()
            remedy = "see what the sensor says by itself, and that its rails are connected"
            if self._hopeless():
                raise MeterUnavailable(self._name, f"none of its first {TRIES} looks is a power", remedy)
            if len(self._kept) < 2:
                raise MeterUnavailable(self._name, f"no two samples within {OPENING_S:g} s", remedy)
            if not any(sample.power_w for sample in self._kept):
                raise MeterUnavailable(self._name, "it says 0 W", remedy)

    def read(self) -> Reading:
        with self._news:
            if self._ended:
                raise self._refused()
            running, cpu_s = self._running, self._cpu_s
        newest = running.recent[-1]
        age_s = (self._clock_ns() - newest.t_ns) / 1e9
        if age_s > self._stale_s:
            failed = running.flags.get("failed_read", 0)
            reason = f"no sample for {age_s:.0f} s ({failed} looks have failed so far)"
            raise MeterUnavailable(self._name, reason, "see whether the sensor still answers")
        return Reading(
            t_ns=newest.t_ns,
            energy_j=running.energy_j,
            variance_j2=running.variance_j2,
            by_rail_j=running.by_rail_j,
            flags=running.flags,
            samples=running.count,
            cpu_s=cpu_s,
        )

    def samples(self, t0_ns: int, t1_ns: int) -> tuple[Sample, ...] | None:
        wait_s = max(2 * self._running.interval_s, EDGE_S)
        with self._news:
            self._news.wait_for(lambda: self._ended or self._kept[-1].t_ns >= t1_ns, wait_s)
            kept, missing = list(self._kept), self._running.count > len(self._kept)
        if missing and kept[0].t_ns > t0_ns:
            return None
        times = [sample.t_ns for sample in kept]
        first = min(bisect_right(times, t0_ns) - 1, len(kept) - 2)
        return tuple(kept[max(first, 0) : max(bisect_left(times, t1_ns) + 1, 2)])

    def close(self) -> None:
        with self._news:
            self._ended = MeterUnavailable(self._name, "it is closed")
        self._stop.set()
        if self._thread is threading.current_thread():  # the meter was forgotten just while that ran
            return
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()
        self._stop.close()

    def _fill(self, feed: Feed) -> None:
        ended = MeterUnavailable(self._name, "it has ended")
        try:
            with closing(feed(self._stop)) as looks:
                self._take(looks)
        except MeterUnavailable as error:
            ended = error
        except OSError as error:
            ended = MeterUnavailable(self._name, f"it broke: {error}")
        with self._news:
            self._ended = self._ended or ended
            self._news.notify_all()

    def _take(self, looks: Iterator[Look]) -> None:
        cost_due_ns = 0
        for look in looks:
            asleep_ns = self._slept_ns()
            running = advance(self._running, look, slept=asleep_ns - self._asleep_ns > SLEPT_NS)
            self._asleep_ns = max(asleep_ns, self._asleep_ns)
            if look.t_ns >= cost_due_ns:
                self._cpu_s = max(self._cpu_s, time.thread_time() + self._cost_s())
                cost_due_ns = look.t_ns + round(COST_S * 1e9)
            with self._news:
                if running.count > self._running.count:
                    self._kept.append(running.recent[-1])
                self._running = running
                self._news.notify_all()

    def _hopeless(self) -> bool:
        return not self._running.count and self._running.flags.get("failed_read", 0) >= TRIES

    def _refused(self) -> MeterUnavailable:
        """The reason anew: an exception that is raised twice would gather the tracebacks of both."""
        refusal = (self._ended or MeterUnavailable(self._name, "it is closed")).refusal
        return MeterUnavailable(refusal.sensor, refusal.reason, refusal.remedy)
