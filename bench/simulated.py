"""Devices that speak the real protocol and train nothing, for the benchmarks of the orchestrator.

``python bench/simulated.py --port P --devices N --folder DIR`` plays ``sim-0001`` and so on until SIGTERM.
Each has a connection, a last will and a folder of its own, and is the agent's own state machine
(``edge_agent.session``), blob transfer and repetition (``wire``). Only the worker is missing: the received
weights, every number moved a little, are the update. One thread serves all the connections through epoll,
by paho's interface for foreign event loops; a thread each would measure the threads. The processes around
them are ``staged.py``'s.
"""

from __future__ import annotations

import argparse
import random
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from mas_edge.edge_agent import session as s
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore, Fetcher, Publisher
from mas_edge.wire.bus import KEEPALIVE_S, Delivery
from mas_edge.wire.causes import BrokerUnreachable
from mas_edge.wire.retry import Outbox

FLEET, TASK, WORKLOAD = "bench", "a", "watch"
HELLO = "hello"
EXAMPLES = 100


def device_name(number: int) -> str:
    """The name of a device, from 1 on."""
    return f"sim-{number:04}"


# --- one device -----------------------------------------------------------------------------------


class Connection:
    """A ``Bus`` over a paho client without a thread; whoever has the selector calls ``ready``."""

    last_error = None

    def __init__(self, name: str, port: int, will: tuple[str, bytes]) -> None:
        self.connections = self.inflight = self.sent_bytes = self.received_bytes = 0
        self.connected = False
        self._filters: set[str] = set()
        self._came: deque[Delivery] = deque()
        self._client = Client(CallbackAPIVersion.VERSION2, name, clean_session=True, protocol=MQTTv311)
        self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._client.on_connect = self._accepted
        self._client.on_message = self._received
        self._client.on_publish = self._acknowledged
        # with this callback in place paho leaves all writing to ``ready``
        self._client.on_socket_register_write = lambda *_: None
        self._client.connect("127.0.0.1", port, KEEPALIVE_S * 6)

    def socket(self) -> socket.socket:
        """What to wait for; raises BrokerUnreachable when the broker hung up."""
        if (found := self._client.socket()) is None:
            raise BrokerUnreachable("the broker hung up on a simulated device")
        return found

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        return self._client.want_write()

    def ready(self, events: int) -> None:
        """The socket can be read or written, or neither: then it is time for a sign of life."""
        if events & selectors.EVENT_READ:
            self._client.loop_read()
        if events & selectors.EVENT_WRITE:
            self._client.loop_write()
        if not events:
            self._client.loop_misc()

    # what a ``wire.bus.Bus`` has, and means there

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:  # noqa: D102
        self.inflight += 1
        self.sent_bytes += len(topic) + len(payload)
        self._client.publish(topic, payload, qos=1, retain=retain)

    def subscribe(self, topic_filter: str) -> None:  # noqa: D102
        self._client.subscribe(topic_filter, qos=1)

    def unsubscribe(self, topic_filter: str) -> None:  # noqa: D102
        self._client.unsubscribe(topic_filter)

    def get(self, timeout_s: float) -> Delivery | None:  # noqa: ARG002, D102
        return self._came.popleft() if self._came else None

    def close(self) -> None:  # noqa: D102
        self._client.disconnect()

    def _accepted(self, *_: object) -> None:
        self.connected, self.connections = True, self.connections + 1

    def _received(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.received_bytes += len(message.topic) + len(message.payload)
        self._came.append(Delivery(message.topic, bytes(message.payload)))

    def _acknowledged(self, *_: object) -> None:
        self.inflight -= 1


class Device:
    """An agent whose training takes no time."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        name, rng = device_name(number), random.Random(number)  # noqa: S311 - when to say a thing again
        self._name, self._number = name, number
        will = m.Alive(online=False, boot_id="b")
        self.bus = Connection(name, port, (m.alive_topic(FLEET, name), m.encode(will)))
        self._blobs, self._outbox = BlobStore(folder / name), Outbox(rng)
        self._publisher = Publisher(
            self.bus, self._blobs, lambda digest, i: m.blob_topic(FLEET, name, digest, i), gather_s=0.0
        )
        self._fetcher = Fetcher(
            self.bus,
            self._blobs,
            lambda _source, digest: m.blob_topic(FLEET, m.EVERYONE, digest),
            lambda _source, need: self._say(need),
            rng=rng,
        )
        self._session = s.Session(able=frozenset({(WORKLOAD, TASK)}))
        self._seen = 0

    def turn(self, now_s: float) -> float | None:
        """Act on what came; at which time there is more to do, None if a message has to come first."""
        if self.bus.connections != self._seen:
            self._seen = self.bus.connections
            self._connected()
        while delivery := self.bus.get(0.0):
            self._deliver(delivery, now_s)
        for topic, payload in self._outbox.due(now_s):
            self.bus.publish(topic, payload)
        waits = (self._publisher.pump(now_s), self._fetcher.pump(now_s))
        due = [now_s + wait_s for wait_s in waits if wait_s is not None]
        return min(
            [*due, *([again_s] if (again_s := self._outbox.next_s()) is not None else [])], default=None
        )

    def _connected(self) -> None:
        self.bus.subscribe(m.down_topic(FLEET, self._name))
        alive = m.encode(m.Alive(online=True, boot_id="b"))
        self.bus.publish(m.alive_topic(FLEET, self._name), alive, retain=True)
        self._hello()

    def _hello(self) -> None:
        offer = m.Offer(workload=WORKLOAD, tasks=(TASK,))
        versions = m.Versions(mas_edge="0", python="3")
        hello = m.Hello(device=self._name, boot_id="b", versions=versions, workloads=(offer,))
        self._ask(HELLO, hello)

    def _say(self, message: m.Up) -> None:
        self.bus.publish(m.up_topic(FLEET, self._name), m.encode(message))

    def _ask(self, about: str | m.Key, message: m.Up) -> None:
        self._outbox.put(about, m.up_topic(FLEET, self._name), m.encode(message), time.monotonic())

    def _deliver(self, delivery: Delivery, now_s: float) -> None:
        place = m.parse_topic(FLEET, delivery.topic)
        if place is None:
            return
        if place.leaf == "blob":
            if whole := self._fetcher.receive(place.digest, place.index, delivery.payload, now_s):
                self._step(s.Fetched(digest=whole.digest))
            return
        match m.decode_down(delivery.payload):
            case m.Welcome():
                self._outbox.answered(HELLO)
            case m.Greet():
                self._hello()
            case m.Need() as need:
                self._publisher.asked(need, "orchestrator", now_s)
            case message:
                self._step(s.Received(message=message))

    def _step(self, event: s.Event) -> None:
        self._session, actions = s.step(self._session, event)
        for action in actions:
            match action:
                case s.Accept(key=key):
                    self._say(m.Accepted(key=key))
                case s.Fetch(ref=ref):
                    self._fetcher.want(ref, m.EVERYONE, time.monotonic())
                case s.Train(assign=assign):
                    self._step(s.Finished(answer=self._trained(assign)))
                case s.Halt(assign=assign):
                    self._fetcher.drop(assign.weights.digest)
                case s.Spool(answer=answer):
                    self._ask(answer.key, answer)
                case s.Resend(key=key):
                    self._ask(key, next(answer for answer in self._session.spooled if answer.key == key))
                case s.Forget(key=key):
                    self._outbox.answered(key)
                    for digest in self._blobs.digests():
                        self._blobs.remove(digest)

    def _trained(self, assign: m.Assign) -> m.Update:
        score = m.Score(task=TASK, count=EXAMPLES, loss_sum=float(EXAMPLES), constant_loss_sum=2.0 * EXAMPLES)
        if not assign.train:
            return m.Update(key=assign.key, scores=(score,))
        data = bytearray(self._blobs.path(assign.weights.digest).read_bytes())
        numbers = np.frombuffer(data, np.float32, offset=8 + int.from_bytes(data[:8], "little"))
        numbers += np.float32(1e-3 * self._number)
        ref = self._blobs.add(bytes(data))
        return m.Update(key=assign.key, weights=ref, examples=EXAMPLES, trained=(score,))


def play(port: int, devices: int, folder: Path) -> None:
    """Serve the devices' connections until SIGTERM, or until the broker hangs up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * devices + 64)), hard))
    selector = selectors.DefaultSelector()
    due_s: dict[Device, float] = {}
    for number in range(1, devices + 1):
        device = Device(number, port, folder)
        selector.register(device.bus.socket(), selectors.EVENT_READ | selectors.EVENT_WRITE, device)
    beat_s = time.monotonic()
    while True:
        wait_s = min(due_s.values(), default=beat_s + 1.0) - time.monotonic()
        awake = {key.data: events for key, events in selector.select(min(max(wait_s, 0.0), 1.0))}
        now_s = time.monotonic()
        for device, events in awake.items():
            device.bus.ready(events)
        if now_s - beat_s >= 1.0:
            beat_s = now_s
            for key in selector.get_map().values():
                key.data.bus.ready(0)
        for device in awake.keys() | {late for late, at_s in due_s.items() if at_s <= now_s}:
            again_s = device.turn(now_s)
            due_s.pop(device, None)
            if again_s is not None:
                due_s[device] = again_s
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if device.bus.wants_write else 0)
            selector.modify(device.bus.socket(), wanted, device)


def main() -> None:
    """Play devices."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, required=True, help="of the broker on this machine")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for their weights")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    play(options.port, options.devices, options.folder)


if __name__ == "__main__":
    main()
