"""Four sites that must behave alike: the broker in memory, amqtt, and a real mosquitto without and with TLS.

The clients of a process each go through a TCP relay of their own, so that a test can cut the wire or
swallow what the broker says without touching either end.
"""

from __future__ import annotations

import datetime as dt
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mas_edge.orchestrator.fleet.authority import enroll, open_authority
from mas_edge.orchestrator.fleet.enroll import BrokerHost, configure_broker
from mas_edge.wire import broker as embedded
from mas_edge.wire.bus import Address, connect
from mas_edge.wire.host import free_port
from mas_edge.wire.memory import Broker

PATIENCE_S = 10.0
NOW = dt.datetime.now(dt.timezone.utc)


class Hasty(random.Random):
    """Draws near the low end only, so that a reconnection does not make the suite wait."""

    def random(self):
        return 0.01


def until(condition, what=""):
    """Return as soon as the condition holds; fail if it does not in time."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"not in {PATIENCE_S} s: {what or condition}"
        time.sleep(0.002)


def receive(bus, count):
    """The next ``count`` deliveries."""
    got = []
    until(lambda: len(got) >= count or (got.extend(filter(None, [bus.get(0.05)])) or len(got) >= count))
    return got


def settle(bus):
    """Return when the broker has handled what this bus asked of it so far."""
    bus.subscribe("settle")
    bus.publish("settle", b"")
    until(lambda: (delivery := bus.get(0.05)) is not None and delivery.topic == "settle")
    bus.unsubscribe("settle")


class Relay:
    """A TCP relay to a local port: it can be cut, lose or hold what the broker says, and be closed."""

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.muted = False
        self.swallowed_bytes = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [near, far]
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source, sink, from_broker):
        with source:
            with suppress(OSError):
                while data := source.recv(1 << 16):
                    if from_broker:
                        self.flowing.wait()
                    if from_broker and self.muted:
                        self.swallowed_bytes += len(data)
                    else:
                        sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

    def cut(self):
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # whoever reads from it closes it
        self.flowing.set()

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class MemorySite:
    """The broker in memory."""

    def __init__(self):
        self._broker = Broker()

    def connect(self, client_id, will=None):
        return self._broker.connect(client_id, will)

    def restart(self):
        self._broker.restart()

    def vanish(self, client_id):
        self._broker.kill(client_id)

    def close(self):
        pass


class ProcessSite:
    """A broker in a process, on a port that it keeps over a kill -9."""

    def __init__(self, launch):
        self._launch = launch
        self._process, self._port = launch(0)
        self.relays = {}
        self._buses = []

    def connect(self, client_id, will=None):
        self.relays[client_id] = Relay(self._port)
        bus = connect(self.address(client_id), client_id=client_id, will=will, rng=Hasty())
        self._buses.append(bus)
        return bus

    def address(self, client_id):
        """Where this client finds the broker."""
        return self.relays[client_id].address

    def stop(self):
        self._process.kill()
        self._process.wait()

    def restart(self):
        self.stop()
        self._process, _ = self._launch(self._port)

    def vanish(self, client_id):
        self.relays[client_id].close()

    def close(self):
        for bus in self._buses:
            bus.close()
        for relay in self.relays.values():
            relay.close()
        self.stop()


class TlsSite(ProcessSite):
    """mosquitto as `mas broker-config` configures it, but for the topics: anyone may say anything."""

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp())
        broker = self._folder / "broker"
        with open_authority(self._folder / "ca", "f", NOW) as authority:
            configure_broker(authority, BrokerHost(("127.0.0.1",), 1, str(broker)), broker, NOW)
        (broker / "acl").write_text("pattern readwrite #\n")
        text = (broker / "mosquitto.conf").read_text().replace("\nlistener 1\n", "\n")
        super().__init__(lambda port: launch_mosquitto(port, text))

    def address(self, client_id):
        key, pem = (self._folder / f"{client_id}.{kind}" for kind in ("key", "pem"))
        with open_authority(self._folder / "ca", "f", NOW) as authority:
            identity = enroll(authority, client_id, NOW, renew=True)
        key.write_bytes(identity.key)
        pem.write_bytes(identity.certificate)
        ca = self._folder / "broker/ca.pem"
        return replace(super().address(client_id), tls=True, ca=ca, cert=pem, key=key)

    def close(self):
        super().close()
        shutil.rmtree(self._folder)


def launch_amqtt(port):
    """The embedded broker on this port, 0 for any, and its port."""
    process, address = embedded.start(port)
    return process, address.port


def launch_mosquitto(port, *lines):
    """mosquitto on this port, 0 for any, with no more than these lines of configuration; and its port."""
    port = port or free_port()
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    lines = lines or ("allow_anonymous true",)
    config = "\n".join([f"listener {port} 127.0.0.1", "user root", "set_tcp_nodelay true", *lines])
    process = subprocess.Popen(
        ["mosquitto", "-c", "/dev/stdin"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    process.stdin.write(config)
    process.stdin.close()
    until(lambda: listening(port), "mosquitto listens")
    return process, port


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


SITES = {
    "memory": MemorySite,
    "amqtt": lambda: ProcessSite(launch_amqtt),
    "mosquitto": lambda: ProcessSite(launch_mosquitto),
    "mosquitto over TLS": TlsSite,
}
