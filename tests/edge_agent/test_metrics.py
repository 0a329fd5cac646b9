"""What Prometheus sees of an agent: sums that never fall, labels that stay few, and nothing by default."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="needs prometheus-client (extra metrics)")

import prometheus_client as prometheus
from prometheus_client.parser import text_string_to_metric_families

from mas_edge.edge_agent.metrics import MOST_GROUPS, Totals, exposed
from mas_edge.profiling.ledger import Ledger, Slice, Use, charge
from mas_edge.wire import broker
from mas_edge.wire import messages as m
from mas_edge.wire.host import free_port
from mas_edge.wire.link import BrokerConfig, join

SENSOR = m.Sensor(name="replay", method="sampled", scope="module", sensor_host="h")
LIMIT_S = 20.0
LABELS = ("group", "phase", "part", "method", "sensor", "scope")


def charged(energy_j: float | None, group="a", phase="forward", wall_s=1.0, idle_w=2.0):
    use = Use(job="j", group=group, round=0, phase=phase, wall_s=wall_s, cpu_s=wall_s)
    piece = Slice(t0_ns=0, t1_ns=round(wall_s * 1e9), energy_j=energy_j, busy_s=wall_s, uses=(use,))
    return charge(Ledger(), piece, idle_w)


def samples(text: str):
    """{name: {labels: value}} of an exposition."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in LABELS if name in sample.labels)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def exposition(totals: Totals):
    registry = prometheus.CollectorRegistry()
    registry.register(totals)
    return samples(prometheus.generate_latest(registry).decode())


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_joules_and_seconds_are_counted_by_group_and_phase_with_their_method():
    totals = Totals(SENSOR)
    for slice_ in (charged(10.0), charged(6.0), charged(5.0, phase="load"), charged(4.0, group="b")):
        totals.add(slice_)
    found = exposition(totals)
    whence = ("sampled", "replay", "module")
    assert found["mas_edge_joules_total"] == {
        ("a", "forward", *whence): 12.0,
        ("a", "load", *whence): 3.0,
        ("b", "forward", *whence): 2.0,
    }
    assert found["mas_edge_seconds_total"]["a", "forward"] == 2.0
    assert found["mas_edge_cpu_seconds_total"]["b", "forward"] == 1.0
    device = found["mas_edge_device_joules_total"]
    assert device == {("total", *whence): 25.0, ("idle", *whence): 8.0}
    groups_j, idle_j = (
        sum(found["mas_edge_joules_total"].values()),
        device["idle", "sampled", "replay", "module"],
    )
    assert groups_j + idle_j == 25.0
    assert all(name.endswith("_total") for name in found)


def test_joules_that_nobody_measured_have_no_series_and_their_seconds_are_told():
    totals = Totals(SENSOR)
    totals.add(charged(None, wall_s=3.0))
    found = exposition(totals)
    assert "mas_edge_joules_total" not in found
    assert "mas_edge_device_joules_total" not in found
    assert found["mas_edge_unmetered_seconds_total"] == {("a", "forward"): 3.0}


@given(st.lists(st.floats(-5, 50), max_size=30))
def test_a_counter_never_falls_and_is_right_whenever_it_was_never_higher(energies):
    totals, before, sums = Totals(SENSOR), 0.0, [0.0]
    for energy_j in energies:
        totals.add(charged(energy_j, idle_w=0.0))
        sums.append(sums[-1] + energy_j)
        now = sum(exposition(totals)["mas_edge_joules_total"].values())
        assert now >= before
        assert now == pytest.approx(max(sums))
        before = now


def test_groups_without_end_share_a_label():
    totals = Totals(SENSOR)
    for number in range(3 * MOST_GROUPS):
        totals.add(charged(3.0, group=f"group-{number}"))
    joules = exposition(totals)["mas_edge_joules_total"]
    assert len(joules) == MOST_GROUPS + 1
    assert sum(joules.values()) == 3 * MOST_GROUPS


def test_metrics_are_served_while_they_are_wanted_and_the_port_is_free_again():
    port = free_port()
    for energy_j in (10.0, 20.0):
        with exposed(SENSOR, "127.0.0.1", port) as watch:
            watch(charged(energy_j))
            assert sum(samples(get(port))["mas_edge_joules_total"].values()) == energy_j - 2.0
    with pytest.raises(OSError, match="refused"):
        get(port)


def test_without_a_port_nothing_is_served():
    with exposed(SENSOR, "127.0.0.1", None) as watch:
        assert watch is None


# --- a real agent ---------------------------------------------------------------------------------


@contextlib.contextmanager
def a_broker():
    process, address = broker.start()
    try:
        yield f"mqtt://{address.host}:{address.port}"
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@contextlib.contextmanager
def agent(folder, url: str, more: str = ""):
    """The agent as a process of its own."""
    config = folder / "agent.toml"
    config.write_text(
        f'device = "edge-1"\nfleet = "home"\nstate = "{folder}/state"\n{more}\n'
        f'[broker]\nurl = "{url}"\n[energy]\nmeter = "estimate:idle_w=2,max_w=9"\n'
        '[data.watch]\nclients = ["1"]\n'
    )
    command = [sys.executable, "-m", "mas_edge.edge_agent.cli", "run", "--config", str(config)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)
        process.stderr.close()


def wait_for(what, of=lambda: None):
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError, KeyError):
            if found := what():
                return found
        time.sleep(0.05)
    raise TimeoutError(of())


def assign(bus):
    """Gives the agent weights to fetch that nobody has: it fetches until it is told to stop."""
    training = m.Training(workload="watch", network="micro", rounds=1, epochs=1, batch=8, lr=0.1, seed=1)
    key = m.Key(job="j", group="gravity", round=0, attempt=0, device="edge-1")
    weights = m.BlobRef(digest="ab" * 32, size_bytes=1000, chunk_bytes=1000)
    order = m.Assign(key=key, tasks=("gravity",), training=training, weights=weights, fingerprint="f")
    bus.publish(m.down_topic("home", "edge-1"), m.encode(order))


def test_a_real_agent_counts_what_it_does_and_stays_small(tmp_path):
    pytest.importorskip("amqtt", reason="the embedded broker needs amqtt (extra demo)")
    port = free_port()
    with a_broker() as url, agent(tmp_path, url, f"metrics_port = {port}") as process:
        bus = join(BrokerConfig(url=url), "orchestrator", random.Random(1))
        try:
            bus.subscribe(m.up_topic("home", "edge-1"))
            wait_for(lambda: bus.get(0.1))
            idle_bytes = psutil.Process(process.pid).memory_info().rss
            assert samples(get(port)) == {}
            assign(bus)
            first = wait_for(lambda: samples(get(port))["mas_edge_joules_total"])
            wait_for(lambda: samples(get(port))["mas_edge_seconds_total"]["gravity", "fetch"] > 0.5)
            later = samples(get(port))["mas_edge_joules_total"]
        finally:
            bus.close()
    assert set(first) == {("gravity", "fetch", "estimated", "estimate", "board")}
    assert all(later[labels] >= value for labels, value in first.items())
    assert idle_bytes < 45e6


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with agent(tmp_path, "mqtt://127.0.0.1:9", f"metrics_port = {port}") as process:
            _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert f"metrics_port {port} on 127.0.0.1: Address already in use; name another" in err
