"""Joules and seconds per task group and phase for Prometheus, if ``metrics_port`` is configured.

The account hands over every slice that it charges; this module adds them up since the start of the agent and
shows the sums on ``http://metrics_host:metrics_port/metrics``, loopback unless configured, by the library
prometheus_client (extra ``metrics``), which is imported only then. A counter may not fall: slices below
the noise can be negative, so a sum that falls is shown again when it has passed its highest value. What is
not known has no series. Groups beyond ``MOST_GROUPS`` share the label ``other``, so that a long life does
not fill a database. Names: https://prometheus.io/docs/practices/naming/. What an attempt used stays under
its phase, also when the bill calls it ``lost``; time between two trainings is nobody's.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mas_edge.profiling import ledger as books

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.metrics_core import Metric

    from mas_edge.profiling.ledger import Ledger
    from mas_edge.wire.messages import Sensor

MOST_GROUPS = 20
"""Task groups with a label of their own; an agent seldom sees more in its life."""

OTHER = "other"

_OF = ("group", "phase")
_WHENCE = ("method", "sensor", "scope")

_Labels: TypeAlias = tuple[str, ...]


class MetricsRefused(ValueError):
    """Metrics that cannot be shown as configured; the text says what to change."""


@dataclass
class _Sum:
    """A sum, and the highest that it ever was."""

    value: float = 0.0
    shown: float = 0.0

    def add(self, part: float) -> None:
        self.value += part
        self.shown = max(self.shown, self.value)


class Totals:
    """What was charged since the start; ``add`` and ``collect`` may be called from different threads."""

    def __init__(self, sensor: Sensor) -> None:
        self._whence = (sensor.method, sensor.name, sensor.scope)
        self._joules, self._seconds, self._cpu, self._unmetered, self._device = (
            defaultdict[_Labels, _Sum](_Sum) for _ in range(5)
        )
        self._groups: set[str] = set()
        self._lock = threading.Lock()

    def add(self, charged: Ledger) -> None:
        """One more slice of the agent's time, in a ledger of its own."""
        with self._lock:
            for row in books.rows(charged):
                labels = (self._group(row.group), row.phase)
                self._seconds[labels].add(row.wall_s)
                self._cpu[labels].add(row.cpu_s)
                if row.attributed_energy_j is None:
                    self._unmetered[labels].add(row.wall_s)
                else:
                    self._joules[labels].add(row.attributed_energy_j)
            for part, figure in (("total", charged.total), ("idle", charged.idle)):
                if figure.value_j is not None:
                    self._device[part,].add(figure.value_j)

    def collect(self) -> list[Metric]:
        """The counters as prometheus_client wants them."""
        from prometheus_client.metrics_core import CounterMetricFamily  # noqa: PLC0415 - an extra

        told = (
            ("joules", "Energy attributed to a task group's phase.", _OF, self._joules, True),
            ("seconds", "Wall time of a task group's phase.", _OF, self._seconds, False),
            ("cpu_seconds", "Processor time of a task group's phase.", _OF, self._cpu, False),
            ("unmetered_seconds", "Wall time whose energy is not known.", _OF, self._unmetered, False),
            ("device_joules", "Energy of the whole sensor while it worked.", ("part",), self._device, True),
        )
        families: list[Metric] = []
        with self._lock:
            for name, about, labels, sums, energetic in told:
                names = (*labels, *_WHENCE) if energetic else labels
                family = CounterMetricFamily(f"mas_edge_{name}", about, labels=names)
                for values, total in sums.items():
                    family.add_metric((*values, *self._whence) if energetic else values, total.shown)
                families.append(family)
        return families

    def _group(self, name: str) -> str:
        if name not in self._groups and len(self._groups) >= MOST_GROUPS:
            return OTHER
        self._groups.add(name)
        return name


@contextmanager
def exposed(sensor: Sensor, host: str, port: int | None) -> Iterator[Callable[[Ledger], None] | None]:
    """What wants to hear of every slice while metrics are shown; None where no port is given.

    Raises MetricsRefused if prometheus_client is missing or the address cannot be had.
    """
    if port is None:
        yield None
        return
    totals = Totals(sensor)
    server, thread = _serve(totals, host, port)
    try:
        yield totals.add
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _serve(totals: Totals, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MetricsRefused(
            "metrics_port needs prometheus_client: pip install 'mas-edge[metrics]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(totals)
    try:
        return start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        why = error.strerror or str(error)
        raise MetricsRefused(
            f"metrics_port {port} on {host}: {why}; name another, or stop what has it"
        ) from error
