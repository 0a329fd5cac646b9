"""What `mas enroll` and `mas broker-config` keep apart, on a real mosquitto over TLS.

mosquitto is started as Debian starts it: a main configuration that includes ours. Devices are edge-1, edge-2
and edge-3 of the fleet "home"; what anybody gets to read is compared with all that was said.
"""

from __future__ import annotations

import datetime as dt
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from sites import NOW, Hasty, Relay, launch_mosquitto, listening, receive, until

from mas_edge.orchestrator.fleet import authority as a
from mas_edge.orchestrator.fleet.enroll import Board, BrokerHost, configure_broker, enroll
from mas_edge.wire import messages as m
from mas_edge.wire.bus import Address, BrokerRefused, BrokerUnreachable, connect
from mas_edge.wire.host import free_port

DIGEST = "0" * 64
DEVICES = ("edge-1", "edge-2", "edge-3")
OF_A_DEVICE = {
    m.up_topic("home", "NAME"),
    m.alive_topic("home", "NAME"),
    m.blob_topic("home", "NAME", DIGEST, 0),
}
TO_A_DEVICE = {m.down_topic("home", "NAME"), m.blob_topic("home", m.EVERYONE, DIGEST, 0)}


def named(topics, name):
    return {topic.replace("NAME", name) for topic in topics}


class Site:
    """A fleet's folder, and a mosquitto that serves it."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self._process, self._buses, self.identities = None, [], {}
        with self.authority() as authority:
            host = BrokerHost(("127.0.0.1",), self.port, str(folder / "broker"))
            configure_broker(authority, host, folder / "broker", NOW)
            for name in (*DEVICES, m.ORCHESTRATOR):
                self.enroll(authority, name)

    def authority(self, name="ca"):
        return a.open_authority(self.folder / name, "home", NOW)

    def enroll(self, authority, name, now=NOW, as_=None):
        out = self.folder / (as_ or name)
        board = Board(name, f"mqtts://127.0.0.1:{self.port}", {"watch": ("1",)}, str(out))
        enroll(authority, board, out, now, renew=True)
        self.identities[as_ or name] = (out / f"{name}.pem", out / f"{name}.key")

    def start(self):
        included = self.folder / "conf.d"
        included.mkdir(exist_ok=True)
        text = (self.folder / "broker/mosquitto.conf").read_text()
        loopback = text.replace(f"listener {self.port}", f"listener {self.port} 127.0.0.1")
        (included / "mas-edge.conf").write_text(loopback)
        main = self.folder / "main.conf"
        main.write_text(
            f"user root\npersistence true\npersistence_location {self.folder}/\n"
            f"log_dest file {self.folder}/log\ninclude_dir {included}\n"
        )
        self._process = subprocess.Popen(["mosquitto", "-c", main], stderr=subprocess.DEVNULL)
        until(lambda: listening(self.port), "mosquitto listens")

    def logged(self, words):
        """How often mosquitto has logged this."""
        return (self.folder / "log").read_text().count(words)

    def reload(self):
        shutil.copy(self.folder / "ca/crl.pem", self.folder / "broker/crl.pem")
        before = self.logged("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        until(lambda: self.logged("Reloading config") > before)

    def stop(self):
        self._process.terminate()
        self._process.wait()

    def address(self, identity):
        cert, key = self.identities[identity] if identity else (None, None)
        ca = self.folder / "broker/ca.pem"
        return Address("127.0.0.1", self.port, tls=True, ca=ca, cert=cert, key=key)

    def connect(self, identity, *, client_id=None, host="127.0.0.1", port=None, timeout_s=5.0, will=None):
        address = replace(self.address(identity), host=host, port=port or self.port)
        name = client_id or identity or "x"
        bus = connect(address, client_id=name, rng=Hasty(), timeout_s=timeout_s, will=will)
        self._buses.append(bus)
        return bus

    def reader(self, name, topic_filter):
        """A connection that the broker knows to want this: it answers what comes after a subscription."""
        bus = self.connect(name)
        bus.subscribe(topic_filter)
        bus.publish("nothing", b"")
        until(lambda: not bus.inflight)
        return bus

    def hang_up(self):
        for bus in self._buses:
            bus.close()
        self._buses.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    it = Site(tmp_path_factory.mktemp("fleet"))
    it.start()
    yield it
    it.stop()


@pytest.fixture
def site(running):
    """The fleet with nobody connected."""
    yield running
    running.hang_up()


def say_everything(bus, fleet="home"):
    """Publish on every topic that anybody may use, and some more; return when the broker is done with it."""
    topics = {
        topic for name in (*DEVICES, m.ORCHESTRATOR) for topic in named(OF_A_DEVICE | TO_A_DEVICE, name)
    }
    for topic in sorted(topics):
        bus.publish(topic.replace("home", fleet), b"x")
    for topic in ("mas", "mas/1/home/edge-1", "$SYS/broker/version", "$SYS/x"):
        bus.publish(topic, b"x")
    until(lambda: not bus.inflight, "acknowledged")


def heard(bus, teller, topic, retained=()):
    """The topics of all that came to this bus before the last word, which the teller may say to it here.

    What other tests left behind, with one of the ``retained`` payloads, does not count.
    """
    bus.subscribe(topic)
    deliveries = []

    def last():
        teller.publish(topic, b"last")
        deliveries.append(bus.get(0.05))
        return deliveries[-1] and deliveries[-1].payload == b"last"

    until(last, "the last word")
    return {each.topic for each in deliveries if each and each.payload not in {b"last", *retained}}


def test_a_device_is_heard_on_its_own_topics_by_the_orchestrator_and_by_nobody_else(site):
    server, other = (site.reader(name, "#") for name in (m.ORCHESTRATOR, "edge-2"))
    device = site.connect("edge-1")
    say_everything(device)
    got = heard(server, device, m.up_topic("home", "edge-1"), retained=(b"here", b"gone"))
    assert got == named(OF_A_DEVICE, "edge-1")
    assert heard(other, server, m.down_topic("home", "edge-2")) == set()


def test_the_orchestrator_is_heard_by_whom_it_speaks_to_and_by_all_with_weights(site):
    devices = {name: site.reader(name, "#") for name in DEVICES}
    server = site.connect(m.ORCHESTRATOR)
    say_everything(server)
    for name, bus in devices.items():
        assert heard(bus, server, m.down_topic("home", name)) == named(TO_A_DEVICE, name)


@pytest.mark.parametrize("wanted", ["#", "+/#", "mas/#", "mas/1/+/+/up", "mas/1/home/edge-2/#", "$SYS/#"])
def test_no_filter_lets_a_device_read_what_is_said_by_or_to_another(site, wanted):
    device, server = site.connect("edge-2"), site.connect(m.ORCHESTRATOR)
    device.publish(m.alive_topic("home", "edge-2"), b"here", retain=True)
    until(lambda: not device.inflight)
    spy = site.reader("edge-1", wanted)
    say_everything(device)
    server.publish(m.down_topic("home", "edge-2"), b"x")
    assert heard(spy, server, m.down_topic("home", "edge-1")) == set()


def test_another_fleet_on_the_same_broker_is_out_of_reach(site):
    server, device = (site.reader(name, "mas/1/away/#") for name in (m.ORCHESTRATOR, "edge-1"))
    for bus in (server, device):
        say_everything(bus, "away")
    assert heard(server, device, m.up_topic("home", "edge-1")) == set()
    assert heard(device, server, m.down_topic("home", "edge-1")) == set()


def test_a_device_cannot_throw_another_out_by_its_client_id(site):
    victim = site.connect("edge-2")
    site.connect("edge-1", client_id="edge-2")
    victim.subscribe(m.down_topic("home", "edge-2"))
    site.connect(m.ORCHESTRATOR).publish(m.down_topic("home", "edge-2"), b"hello")
    assert receive(victim, 1)[0].payload == b"hello"
    assert victim.connections == 1


@pytest.mark.parametrize(("speaks_for", "heard_of"), [("edge-1", "edge-1"), ("edge-2", None)])
def test_a_last_will_speaks_for_its_own_device_only(site, speaks_for, heard_of):
    server, other = site.reader(m.ORCHESTRATOR, m.alive_topic("home")), site.connect("edge-3")
    relay = Relay(site.port)
    will = (m.alive_topic("home", speaks_for), b"gone" if heard_of else b"forged")
    site.connect("edge-1", client_id=speaks_for, port=relay.address.port, will=will)
    before = site.logged("Client edge-1 ")
    relay.close()
    until(lambda: site.logged("Client edge-1 ") > before, "gone")
    expected = {m.alive_topic("home", heard_of)} if heard_of else set()
    old = (b"here",) if heard_of else (b"here", b"gone")
    assert heard(server, other, m.up_topic("home", "edge-3"), retained=old) == expected


def test_a_packet_that_no_message_of_ours_fills_ends_the_connection(site):
    device = site.connect("edge-1")
    device.publish(m.up_topic("home", "edge-1"), bytes(6 << 20))
    until(lambda: device.connections > 1 or device.last_error is not None, "disconnected")


# --- who does not get in --------------------------------------------------------------------------


def no_certificate(_site):
    return None


def another_authority(site):
    with site.authority("other") as authority:
        site.enroll(authority, "edge-1", as_="forged")
    return "forged"


def expired(site):
    with site.authority() as authority:
        site.enroll(authority, "edge-3", NOW - dt.timedelta(days=800), as_="expired")
    return "expired"


def revoked(site):
    with site.authority() as authority:
        site.enroll(authority, "edge-4")
        site.connect("edge-4").close()
        a.revoke(authority, "edge-4", NOW)
    site.reload()
    return "edge-4"


def the_brokers_own(site):
    site.identities["broker"] = (site.folder / "broker/broker.pem", site.folder / "broker/broker.key")
    return "broker"


@pytest.mark.parametrize(
    ("who", "why"),
    [
        (no_certificate, "certificate required"),
        (another_authority, "unknown ca"),
        (expired, "certificate expired"),
        (revoked, "certificate revoked"),
        (the_brokers_own, "unsupported certificate"),
    ],
)
def test_who_has_no_good_certificate_gets_nothing_and_is_told_why(site, who, why):
    with pytest.raises(BrokerRefused, match=rf"refused our certificate: .*{why}; check \[broker\] cert"):
        site.connect(who(site))


def test_without_tls_nobody_gets_in(site):
    with pytest.raises(BrokerUnreachable, match="hung up before it answered"):
        connect(Address("127.0.0.1", site.port), client_id="edge-1", rng=Hasty(), timeout_s=0.5)


def test_a_broker_that_is_found_under_another_name_is_not_trusted(site):
    why = r"not the broker that we trust: .*'localhost'.*the host in its url"
    with pytest.raises(BrokerUnreachable, match=why):
        site.connect("edge-1", host="localhost", timeout_s=0.5)


def test_a_device_that_plays_the_broker_is_not_trusted(site):
    cert, key = site.identities["edge-2"]
    process, port = launch_mosquitto(0, "allow_anonymous true", f"certfile {cert}", f"keyfile {key}")
    try:
        with pytest.raises(BrokerUnreachable, match=r"not the broker that we trust: .*purpose"):
            site.connect("edge-1", port=port, timeout_s=0.5)
    finally:
        process.kill()
        process.wait()


def test_after_a_restart_a_revoked_device_is_out_and_the_others_are_back_by_themselves(site):
    with site.authority() as authority:
        site.enroll(authority, "edge-5")
        stolen, device, server = (site.connect(name) for name in ("edge-5", "edge-1", m.ORCHESTRATOR))
        a.revoke(authority, "edge-5", NOW)
    site.reload()
    site.stop()
    began_s = time.monotonic()
    site.start()
    until(lambda: device.connections == server.connections == 2, "back")
    until(lambda: isinstance(stolen.last_error, BrokerRefused), "refused")
    assert (stolen.connected, stolen.connections) == (False, 1)
    assert time.monotonic() - began_s < 10
