"""What every bus promises, whichever broker is behind it."""

from __future__ import annotations

import random
import socket
import subprocess
import time

import pytest
from sites import Hasty, launch_mosquitto, receive, settle, until

from mas_edge.wire import broker as embedded
from mas_edge.wire.address import InsecureRefused
from mas_edge.wire.bus import INBOX_BYTES, Address, BrokerRefused, BrokerUnreachable, connect
from mas_edge.wire.host import free_port
from mas_edge.wire.retry import Outbox


def test_a_message_reaches_everyone_who_wants_it_and_nobody_else(site):
    pi, nano, server = (site.connect(name) for name in ("pi", "nano", "server"))
    pi.subscribe("mas/1/f/pi/down")
    nano.subscribe("mas/1/f/nano/#")
    server.subscribe("mas/1/f/+/up")
    for bus in (pi, nano, server):
        settle(bus)
    server.publish("mas/1/f/pi/down", b"to pi")
    server.publish("mas/1/f/nano/down", b"to nano")
    pi.publish("mas/1/f/pi/up", b"from pi")
    assert receive(pi, 1) == [("mas/1/f/pi/down", b"to pi")]
    assert receive(nano, 1) == [("mas/1/f/nano/down", b"to nano")]
    assert receive(server, 1) == [("mas/1/f/pi/up", b"from pi")]
    assert all(bus.get(0.05) is None for bus in (pi, nano, server))


def test_messages_of_one_sender_stay_in_order(site):
    bus = site.connect("pi")
    bus.subscribe("t/#")
    settle(bus)
    for number in range(100):
        bus.publish(f"t/{number % 3}", b"%d" % number)
    assert [delivery.payload for delivery in receive(bus, 100)] == [b"%d" % number for number in range(100)]


def test_a_subscription_comes_before_a_request_that_follows_it(site):
    server, device = site.connect("server"), site.connect("pi")
    server.subscribe("up")
    settle(server)
    for number in range(20):
        device.subscribe(f"answer/{number}")
        device.publish("up", b"%d" % number)
        request = receive(server, 1)[0]
        server.publish(f"answer/{request.payload.decode()}", b"yes")
        assert receive(device, 1) == [(f"answer/{number}", b"yes")]


def test_what_is_no_longer_wanted_does_not_come(site):
    bus = site.connect("pi")
    bus.subscribe("a")
    bus.subscribe("b")
    settle(bus)
    bus.unsubscribe("a")
    bus.publish("a", b"1")
    bus.publish("b", b"2")
    assert receive(bus, 1) == [("b", b"2")]


def test_a_chunk_of_a_mebibyte_arrives_unchanged_and_is_counted(site):
    payload = random.Random(1).randbytes(1 << 20)
    sender, reader = site.connect("server"), site.connect("pi")
    reader.subscribe("chunk")
    settle(reader)
    before_bytes = reader.received_bytes, sender.sent_bytes
    sender.publish("chunk", payload)
    assert receive(reader, 1) == [("chunk", payload)]
    size_bytes = len("chunk") + len(payload)
    assert (reader.received_bytes - before_bytes[0], sender.sent_bytes - before_bytes[1]) == (size_bytes,) * 2
    until(lambda: sender.inflight == 0, "acknowledged")


def test_who_vanishes_leaves_its_last_will_for_all_times(site):
    watcher = site.connect("server")
    watcher.subscribe("alive/+")
    settle(watcher)
    device = site.connect("pi", will=("alive/pi", b"gone"))
    device.publish("alive/pi", b"here", retain=True)
    assert receive(watcher, 1) == [("alive/pi", b"here")]
    site.vanish("pi")
    assert receive(watcher, 1) == [("alive/pi", b"gone")]
    late = site.connect("late")
    late.subscribe("alive/+")
    assert receive(late, 1) == [("alive/pi", b"gone")]


def test_who_leaves_politely_leaves_no_will(site):
    watcher = site.connect("server")
    watcher.subscribe("alive/+")
    settle(watcher)
    device = site.connect("pi", will=("alive/pi", b"gone"))
    device.publish("alive/pi", b"off", retain=True)
    device.close()
    assert receive(watcher, 1) == [("alive/pi", b"off")]
    assert watcher.get(0.1) is None


def test_the_last_words_before_leaving_are_delivered(site):
    watcher, device = site.connect("server"), site.connect("pi")
    watcher.subscribe("up")
    settle(watcher)
    for number in range(50):
        device.publish("up", b"%d" % number)
    device.close()
    assert receive(watcher, 50)[-1].payload == b"49"


def test_nobody_gets_what_is_retained_unless_it_asked(site):
    device = site.connect("pi")
    device.publish("alive/pi", b"here", retain=True)
    settle(device)
    watcher = site.connect("server")
    watcher.subscribe("alive/+")
    assert receive(watcher, 1) == [("alive/pi", b"here")]
    stranger = site.connect("stranger")
    stranger.subscribe("elsewhere")
    settle(stranger)
    assert stranger.get(0.1) is None


def test_a_broker_that_forgot_everything_is_noticed_and_asked_for_everything_again(site):
    device, watcher = site.connect("pi"), site.connect("server")
    watcher.subscribe("t/#")
    device.publish("t/alive", b"here", retain=True)
    assert receive(watcher, 1) == [("t/alive", b"here")]
    assert (device.connections, watcher.connections) == (1, 1)
    site.restart()
    until(lambda: device.connections == watcher.connections == 2, "both are back")
    assert device.connected
    assert device.last_error is None
    settle(watcher)
    device.publish("t/1", b"again")
    assert receive(watcher, 1) == [("t/1", b"again")]
    late = site.connect("late")
    late.subscribe("t/#")
    settle(late)
    assert late.get(0.05) is None


def test_waiting_for_a_message_ends_when_the_connection_changes(site):
    bus = site.connect("pi")
    settle(bus)
    site.restart()
    began_s = time.monotonic()
    assert bus.get(60.0) is None
    while bus.connections < 2:
        assert bus.get(60.0) is None
    assert time.monotonic() - began_s < 30.0


def test_what_is_said_without_a_connection_is_lost_and_never_comes_late(far_site):
    device = far_site.connect("pi")
    far_site.stop()
    until(lambda: not device.connected, "noticed")
    assert isinstance(device.last_error, ConnectionError)
    device.publish("t", b"stale", retain=True)
    far_site.restart()
    until(lambda: device.connected and not device.inflight, "back, and all is said")
    watcher = far_site.connect("server")
    watcher.subscribe("t")
    watcher.publish("t", b"fresh")
    assert receive(watcher, 1) == [("t", b"fresh")]


def test_a_message_whose_acknowledgement_was_lost_comes_twice_rather_than_never(far_site):
    device, watcher = far_site.connect("pi"), far_site.connect("server")
    watcher.subscribe("up")
    settle(watcher)
    settle(device)
    until(lambda: device.inflight == 0)
    relay = far_site.relays["pi"]
    relay.muted = True
    device.publish("up", b"update")
    assert receive(watcher, 1) == [("up", b"update")]
    until(lambda: relay.swallowed_bytes, "the acknowledgement is lost")
    assert device.inflight == 1
    relay.cut()
    relay.muted = False
    assert receive(watcher, 1) == [("up", b"update")]
    until(lambda: device.inflight == 0, "acknowledged at last")


def test_a_request_is_answered_though_the_answer_was_swallowed_and_the_broker_killed(far_site):
    device, server = far_site.connect("pi"), far_site.connect("server")
    server.subscribe("up")
    device.subscribe("down")
    settle(server)
    settle(device)
    until(lambda: device.inflight == 0)
    outbox, heard, relay = Outbox(Hasty()), [], far_site.relays["pi"]
    outbox.put("hello", "up", b"hello", time.monotonic())
    relay.muted = True

    def turn():
        for topic, payload in outbox.due(time.monotonic()):
            device.publish(topic, payload)
        if server.get(0.02):
            heard.append(time.monotonic())
            server.publish("down", b"welcome")
        if device.get(0.02):
            outbox.answered("hello")
        return heard

    until(turn, "the request is heard")
    # 4 bytes of PUBACK and 17 of PUBLISH are lost, and the server has no reason to say it again by itself
    until(lambda: relay.swallowed_bytes >= 21 and not server.inflight, "the answer is lost")
    assert "hello" in outbox
    relay.cut()
    relay.muted = False
    far_site.restart()
    until(lambda: turn() and not outbox, "the request is answered")
    assert len(heard) >= 2


def test_a_reader_that_lags_stops_the_wire_and_loses_nothing(far_site):
    sender, reader = far_site.connect("server"), far_site.connect("pi")
    reader.subscribe("t")
    settle(reader)
    payload = bytes(4 << 20)
    for number in range(24):
        until(lambda: sender.inflight < 4)
        sender.publish("t", b"%02d" % number + payload)
    until(lambda: reader.received_bytes > INBOX_BYTES, "the inbox is full")
    time.sleep(0.1)  # a wire that did not stop would bring the rest, half of the inbox again
    assert reader.received_bytes < INBOX_BYTES + 2 * len(payload)
    assert [delivery.payload[:2] for delivery in receive(reader, 24)] == [b"%02d" % n for n in range(24)]


def test_nobody_there_is_said_in_one_line_with_address_and_remedy():
    port = free_port()
    with pytest.raises(
        BrokerUnreachable, match=rf"mqtt://127.0.0.1:{port}: Connection refused; check"
    ) as caught:
        connect(Address("127.0.0.1", port), client_id="pi", rng=Hasty(), timeout_s=0.2)
    assert isinstance(caught.value, ConnectionError)
    assert "\n" not in str(caught.value)


def test_a_host_that_has_no_address_is_said_so():
    with pytest.raises(BrokerUnreachable, match=r"mqtt://no\.invalid:1883: .*(known|resolution)"):
        connect(Address("no.invalid", 1883), client_id="pi", rng=Hasty(), insecure=True, timeout_s=0.5)


def test_something_else_that_listens_there_is_not_mistaken_for_a_broker():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = Address("127.0.0.1", mute.getsockname()[1])
        with pytest.raises(BrokerUnreachable, match="does not answer as an MQTT broker"):
            connect(address, client_id="pi", rng=Hasty(), timeout_s=0.2)


def test_plain_mqtt_to_another_machine_is_refused_before_anything_is_sent():
    with pytest.raises(InsecureRefused, match="mqtts://"):
        connect(Address("192.0.2.1", 1883), client_id="pi", rng=Hasty())


def test_who_does_not_wait_gets_a_broker_that_comes_later():
    port = free_port()
    bus = connect(Address("127.0.0.1", port), client_id="pi", rng=Hasty(), wait=False)
    until(lambda: bus.last_error is not None, "first attempt failed")
    assert (bus.connected, bus.connections) == (False, 0)
    process, _ = embedded.start(port)
    until(lambda: bus.connected, "connected")
    assert bus.last_error is None
    bus.close()
    process.terminate()
    process.wait()


@pytest.fixture
def guarded(tmp_path):
    """mosquitto that knows one user, pi, whose password is right."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    process, port = launch_mosquitto(0, f"password_file {make_passwords(passwords)}", "allow_anonymous false")
    yield Address("127.0.0.1", port)
    process.kill()
    process.wait()


def make_passwords(path):
    subprocess.run(["mosquitto_passwd", "-b", path, "pi", "right"], check=True, capture_output=True)
    return path


def test_a_wrong_password_is_refused_with_the_reason(guarded):
    with pytest.raises(
        BrokerRefused, match=r"mqtt://127.0.0.1:\d+ refused .*: .*; check its user name"
    ) as caught:
        connect(guarded, client_id="pi", username="pi", password="wrong", rng=Hasty())
    assert isinstance(caught.value, PermissionError)
    connect(guarded, client_id="pi", username="pi", password="right", rng=Hasty()).close()


def test_who_does_not_wait_can_read_that_the_password_is_wrong(guarded):
    bus = connect(guarded, client_id="pi", username="pi", password="wrong", rng=Hasty(), wait=False)
    until(lambda: bus.last_error is not None)
    assert isinstance(bus.last_error, BrokerRefused)
    bus.close()


@pytest.fixture
def tls(tmp_path):
    """A mosquitto with a certificate for 127.0.0.1; its port and the folder of ca.pem and other.pem."""
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem",
        )  # fmt: skip
    (tmp_path / "ca.key").chmod(0o644)
    tmp_path.chmod(0o755)
    process, port = launch_mosquitto(
        0,
        "allow_anonymous true",
        f"certfile {tmp_path / 'ca.pem'}",
        f"keyfile {tmp_path / 'ca.key'}",
    )
    yield port, tmp_path
    process.kill()
    process.wait()


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_tls_accepts_the_broker_whose_authority_is_known(tls):
    port, folder = tls
    bus = connect(Address("127.0.0.1", port, tls=True, ca=folder / "ca.pem"), client_id="pi", rng=Hasty())
    bus.subscribe("t")
    bus.publish("t", b"x" * (1 << 20))
    assert len(receive(bus, 1)[0].payload) == 1 << 20
    bus.close()


def test_tls_refuses_a_broker_whose_authority_is_unknown(tls):
    port, folder = tls
    address = Address("127.0.0.1", port, tls=True, ca=folder / "other.pem")
    with pytest.raises(BrokerUnreachable, match="certificate verify failed"):
        connect(address, client_id="pi", rng=Hasty(), timeout_s=0.5)


def test_the_embedded_broker_listens_on_loopback_only():
    with pytest.raises(InsecureRefused, match="loopback only"):
        embedded.listen("0.0.0.0", 0)


def test_a_port_that_is_taken_is_said_so(capfd):
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(OSError, match="ended with code 2"):
        embedded.start(taken.getsockname()[1])
    assert "Address already in use" in capfd.readouterr().err
