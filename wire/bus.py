"""The bus: topics in, messages out, over a connection that heals itself; MQTT by way of paho.

``connect`` opens an MQTT 3.1.1 connection (QoS 1, clean session) and keeps it open: a thread of its
own runs paho's loop, reconnects with full-jitter backoff and renews the subscriptions. The caller sees
a queue: ``get`` returns the next message, or None when the time is up *or the connection changed*, so
that one loop in one thread can do everything. ``connections`` counts how often a broker accepted us;
when it rises, that broker may have forgotten everything, and it is time to say Hello.

What is published without a connection is lost, like all that a broker may lose: whoever needs an answer
repeats itself (``mas_edge.wire.retry``), and nobody finds a queue of stale requests after a long
absence. A reader that does not keep up makes the connection stop reading, so memory stays bounded.

Source: OASIS MQTT 3.1.1 (section 4.7 for topic filters). This file orders nothing, removes no duplicates
and stores nothing; the same bus in memory is ``mas_edge.wire.memory``.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from mas_edge.wire import causes
from mas_edge.wire.address import Address, parse_address
from mas_edge.wire.causes import BrokerRefused, BrokerUnreachable
from mas_edge.wire.inbox import Delivery, Inbox, matches
from mas_edge.wire.messages import WireError
from mas_edge.wire.retry import full_jitter_s

if TYPE_CHECKING:
    from random import Random

    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["Address", "BrokerRefused", "BrokerUnreachable", "Bus", "Delivery", "connect", "parse_address"]

KEEPALIVE_S = 20
INBOX_BYTES = 64 << 20
"""A connection stops reading while more than this waits for ``get``."""
_LOOP_S = KEEPALIVE_S / 4
_SETTLED_S = 10.0  # what broke sooner does not reset the backoff: two agents of one name must not fight
_DRAIN_S = 2.0
_QUEUED_MESSAGES = 1000
_QUEUE_FULL = 15  # paho: MQTT_ERR_QUEUE_SIZE


class Bus(Protocol):
    """A connection to a broker. Everything may be called from any thread, ``get`` from one."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the connection and return at once; it may never arrive."""

    def subscribe(self, topic_filter: str) -> None:
        """Want what matches from now on, over reconnections too."""

    def unsubscribe(self, topic_filter: str) -> None:
        """Want it no longer."""

    def get(self, timeout_s: float) -> Delivery | None:
        """The next message; None after ``timeout_s``, or at once when the connection changed."""

    @property
    def connections(self) -> int:
        """How many times a broker has accepted us."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    def last_error(self) -> WireError | None:
        """Why there is no connection; None while there is one, or before the first attempt ended."""

    @property
    def inflight(self) -> int:
        """Messages that were published and that the broker has not acknowledged."""

    @property
    def sent_bytes(self) -> int:
        """Topics and payloads that were published."""

    @property
    def received_bytes(self) -> int:
        """Topics and payloads that were delivered."""

    def close(self) -> None:
        """Disconnect cleanly: the last will is not published."""


def connect(  # noqa: PLR0913  what a connection is made of
    address: Address,
    *,
    client_id: str,
    rng: Random,
    will: tuple[str, bytes] | None = None,
    username: str | None = None,
    password: str | None = None,
    insecure: bool = False,
    wait: bool = True,
    timeout_s: float = 10.0,
) -> Bus:
    """A bus to this broker; the will (topic, payload; retained) is published if we vanish.

    With ``wait`` it returns once the broker has accepted us, and raises BrokerUnreachable if none did
    within ``timeout_s`` and BrokerRefused if it said no. Without, it returns at once and keeps trying.
    Raises InsecureRefused for plain MQTT to another machine unless ``insecure``, and AddressRefused for
    certificates that cannot be used.
    """
    address.check_private(insecure=insecure)
    from paho.mqtt.client import Client, MQTTv311  # noqa: PLC0415  a process that only says --help does without
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

    client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=True, protocol=MQTTv311)
    client.max_queued_messages_set(_QUEUED_MESSAGES)
    if username is not None:
        client.username_pw_set(username, password)
    if will is not None:
        client.will_set(will[0], will[1], qos=1, retain=True)
    if address.tls:
        client.tls_set_context(address.tls_context())
    client.connect_async(address.host, address.port, KEEPALIVE_S)
    bus = _Paho(client, address, rng)
    if wait:
        bus.wait_accepted(timeout_s)
    return bus


class _Paho:
    """A ``Bus`` over one paho client, whose loop runs in a thread of ours."""

    def __init__(self, client: Client, address: Address, rng: Random) -> None:
        self._client, self._address, self._rng = client, address, rng
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._filters: set[str] = set()
        self._published = self._acknowledged = self._sent_bytes = self._connections = 0
        self._connected = self._answered = False
        self._connection: object = None
        self._error: WireError | None = None
        self._decided = threading.Event()  # accepted or refused for the first time
        self._closing = threading.Event()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = self._on_socket_open
        # With this callback in place paho leaves all writing to the thread that runs its loop.
        client.on_socket_register_write = lambda *_: None
        self._thread = threading.Thread(target=self._run, name=f"mqtt {address}", daemon=True)
        self._thread.start()

    # --- the caller's side ---

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if not self._connected:
            return
        with self._lock:
            self._published += 1
            self._sent_bytes += len(topic) + len(payload)
        if self._client.publish(topic, payload, qos=1, retain=retain).rc == _QUEUE_FULL:
            self._on_publish()

    def subscribe(self, topic_filter: str) -> None:
        with self._lock:
            self._filters.add(topic_filter)
        if self._connected:
            self._client.subscribe(topic_filter, qos=1)

    def unsubscribe(self, topic_filter: str) -> None:
        with self._lock:
            self._filters.discard(topic_filter)
        if self._connected:
            self._client.unsubscribe(topic_filter)

    def get(self, timeout_s: float) -> Delivery | None:
        return self._inbox.get(timeout_s)

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def last_error(self) -> WireError | None:
        return self._error

    @property
    def inflight(self) -> int:
        return self._published - self._acknowledged

    @property
    def sent_bytes(self) -> int:
        return self._sent_bytes

    @property
    def received_bytes(self) -> int:
        return self._inbox.received_bytes

    def wait_accepted(self, timeout_s: float) -> None:
        """Return once connected; otherwise close and raise BrokerRefused or BrokerUnreachable."""
        self._decided.wait(timeout_s)
        if self._connections == 0:
            self.close()
            raise self._error or BrokerUnreachable(f"{self._address} does not answer as an MQTT broker would")

    def close(self) -> None:
        until_s = time.monotonic() + _DRAIN_S
        while self._connected and self.inflight and time.monotonic() < until_s:
            self._closing.wait(0.005)
        self._closing.set()
        self._inbox.wake()
        self._client.disconnect()
        self._thread.join(_DRAIN_S)
        # Without the way back to us the client goes when we go, and closes what it still has open.
        client = self._client
        client.on_connect = client.on_disconnect = client.on_message = client.on_publish = None
        client.on_socket_open = None

    # --- the connection's side: everything below runs in its thread, and an exception would end it ---

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            began_s = time.monotonic()
            self._hold()
            attempt = 0 if time.monotonic() - began_s > _SETTLED_S else attempt
            self._closing.wait(full_jitter_s(attempt, self._rng))
            attempt += 1

    def _hold(self) -> None:
        self._answered = False
        try:
            self._client.reconnect()
            while not self._client.loop(_LOOP_S):
                pass
        except OSError as error:
            self._error = causes.failed(self._address, error)
        else:
            if not (self._answered or self._closing.is_set()):
                self._lost(causes.hung_up(self._address, self._connection))

    def _lost(self, cause: WireError) -> None:
        """There is no connection, for this cause; nobody needs to wait for one that is refused."""
        self._error = cause
        if isinstance(cause, BrokerRefused):
            self._decided.set()

    def _on_socket_open(self, _client: Any, _data: Any, connection: Any) -> None:
        # A subscription and the request behind it are two small packets: do not hold the second back 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        self._answered = True
        if self._closing.is_set():
            client.disconnect()
        elif reason.is_failure:
            self._lost(causes.refused(self._address, reason))
        else:
            with self._lock:
                self._connected, self._error = True, None
                self._connections += 1
                filters = [(topic_filter, 1) for topic_filter in sorted(self._filters)]
            if filters:
                client.subscribe(filters)
            self._inbox.wake()
            self._decided.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        if self._connected:
            self._connected = False
            self._error = BrokerUnreachable(f"lost the broker at {self._address}: {str(reason).lower()}")
            self._inbox.wake()

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        with self._lock:
            wanted = any(matches(topic_filter, topic) for topic_filter in self._filters)
        if wanted:  # amqtt sends retained messages to clients that never asked for them
            self._inbox.put(Delivery(topic, bytes(message.payload)))
            self._inbox.wait_for_room(INBOX_BYTES, self._closing.is_set)

    def _on_publish(self, *_: Any) -> None:
        with self._lock:
            self._acknowledged += 1
