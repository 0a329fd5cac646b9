"""The orchestrator's own broker: the embedded one as a child, started again if it dies.

``[broker] embedded = true`` asks for it: a fleet on one machine, or a first try, needs nothing else. It
listens on loopback at the address in ``url``, always the same one, so that the agents find it again. What it
is, and what it is not for, says ``wire.broker``.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
from typing import TYPE_CHECKING

from mas_edge.wire import broker
from mas_edge.wire.host import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

    from mas_edge.wire.address import Address

PAUSE_S = 1.0
"""Between two starts."""
STOP_S = 5.0

log = logging.getLogger(__name__)


class OwnBroker:
    """A broker at this address, from entering to leaving; raises ConfigError if it cannot listen there."""

    def __init__(self, address: Address) -> None:
        if importlib.util.find_spec("amqtt") is None:
            raise ConfigError("[broker] embedded = true needs amqtt: pip install 'mas-edge[demo]'")
        if address.tls:
            raise ConfigError("[broker] embedded = true speaks no TLS: give a url like mqtt://127.0.0.1:1883")
        self._host, self._port = address.host, address.port
        self._process: subprocess.Popen[str] | None = None
        self._again_s = 0.0

    def __enter__(self) -> Self:
        try:
            broker.listen(self._host, self._port).close()
            self._process, _ = broker.start(self._port, self._host)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"[broker] embedded = true cannot listen on {self._host} port {self._port}: {why};"
                " choose another url, or use the broker that is there with embedded = false"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def tend(self, time_s: float) -> None:
        """Start it again if it has died; ``time_s`` is of a monotonic clock."""
        if (self._process and self._process.poll() is None) or time_s < self._again_s:
            return
        self._again_s = time_s + PAUSE_S
        if self._process is not None:
            log.warning(
                "the embedded broker ended with code %s: it is started again", self._process.returncode
            )
        try:
            self._process, _ = broker.start(self._port, self._host)
        except OSError as error:
            self._process = None
            log.warning("%s", error)
