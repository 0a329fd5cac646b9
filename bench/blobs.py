"""How fast weights reach their readers: in chunks on demand, beside one plain MQTT payload of that size.

``PYTHONSAFEPATH=1 .venv/bin/python bench/blobs.py`` prints a markdown table. Each reader is a process of
its own with its own folder. Chunks are timed from the first ``want``, with the gathering of needs, until
the last reader has the whole blob, verified and synced to disk; the plain payload from its publication
until the last reader has it in memory, without disk or digest. The rate is what all readers got together
over that time: the median of the repetitions, the slowest, the fastest. 1 MB is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from mas_edge.wire import broker
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore, Fetcher, Publisher
from mas_edge.wire.bus import Address, Bus, connect
from mas_edge.wire.host import free_port

FLEET, PLAIN, DEADLINE_S = "bench", "plain", 120.0
CHUNKS_KIB = (128, 256, 512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=16, help="size of the blob (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each (default: %(default)s)")
    options = parser.parse_args()
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    command = (
        f"PYTHONSAFEPATH=1 .venv/bin/python bench/blobs.py --mib {options.mib} --repeat {options.repeat}"
    )
    print(f"{machine}; blob {options.mib} MiB\n`{command}`\n")
    print("| broker | readers | sent as | MB/s delivered | slowest | fastest | broker peak, MB |")
    print("|---|---|---|---|---|---|---|")
    for name, start in {"amqtt": start_amqtt, "mosquitto": start_mosquitto}.items():
        for readers in (1, 4):
            for chunk_kib in (*CHUNKS_KIB, None):
                rates, peak_mb = measure(start, readers, chunk_kib, options.mib << 20, options.repeat)
                sent_as = f"{chunk_kib} KiB chunks" if chunk_kib else "one payload"
                figures = (statistics.median(rates), min(rates), max(rates), peak_mb)
                cells = [name, str(readers), sent_as, *(f"{figure:.0f}" for figure in figures)]
                print("|", " | ".join(cells), "|", flush=True)


def measure(
    start: Callable[[], tuple[subprocess.Popen[str], Address]],
    count: int,
    chunk_kib: int | None,
    size_bytes: int,
    repeat: int,
) -> tuple[list[float], float]:
    """Delivered MB/s of each repetition, and the broker's highest resident memory seen, in MB."""
    process, address = start()
    rates, peaks = [], [0.0]
    try:
        with readers_at(address, count) as pipes:
            for number in range(repeat):
                data = random.Random(number).randbytes(size_bytes)  # noqa: S311  bytes to move, no secret
                took_s = send(address, pipes, data, chunk_kib, lambda: peaks.append(rss_mb(process)))
                rates.append(count * size_bytes / took_s / 1e6)
    finally:
        process.kill()
        process.wait()
    return rates, max(peaks)


def send(
    address: Address, pipes: list[Connection], data: bytes, chunk_kib: int | None, watch: Callable[[], None]
) -> float:
    """Seconds until all readers have it."""
    bus = connect(address, client_id="owner", rng=random.Random(0))  # noqa: S311
    with tempfile.TemporaryDirectory() as root:
        store = BlobStore(Path(root), chunk_bytes=(chunk_kib or 1024) << 10)
        ref = store.add(data)
        publisher = Publisher(
            bus, store, lambda digest, index: m.blob_topic(FLEET, m.EVERYONE, digest, index)
        )
        publisher.expect(ref.digest, frozenset(str(number) for number in range(len(pipes))))
        bus.subscribe(m.up_topic(FLEET))
        settle(bus)
        began_s = time.perf_counter()
        for pipe in pipes:
            pipe.send(ref if chunk_kib else None)
        if chunk_kib is None:
            bus.publish(PLAIN, data)
        until(lambda: serve(bus, publisher, watch) and all(pipe.poll() for pipe in pipes))
        last_s = max(pipe.recv() for pipe in pipes)
    bus.close()
    return float(last_s - began_s)


def serve(bus: Bus, publisher: Publisher, watch: Callable[[], None]) -> bool:
    """One turn of the owner's loop; True, so that a condition can follow."""
    wait_s = publisher.pump(time.monotonic())
    delivery = bus.get(0.02 if wait_s is None else min(wait_s, 0.02))
    if delivery is not None:
        place, need = m.parse_topic(FLEET, delivery.topic), m.decode_up(delivery.payload)
        assert place is not None  # noqa: S101
        assert isinstance(need, m.Need)  # noqa: S101
        publisher.asked(need, place.device, time.monotonic())
    watch()
    return True


@contextmanager
def readers_at(address: Address, count: int) -> Iterator[list[Connection]]:
    """Pipes to readers: a reference (None: the plain payload) goes in, the time of arrival comes out."""
    context = mp.get_context("spawn")
    ends, processes = [], []
    for number in range(count):
        mine, theirs = context.Pipe()
        process = context.Process(target=read, args=(str(number), address, theirs), daemon=True)
        process.start()
        ends.append(mine)
        processes.append(process)
    for end in ends:
        end.recv()
    yield ends
    for process in processes:
        process.kill()
        process.join()


def read(name: str, address: Address, pipe: Connection) -> None:
    """A reader: fetches what it is told to, and says when it had it (perf_counter is the host's)."""
    rng = random.Random(name)  # noqa: S311
    bus = connect(address, client_id=f"reader-{name}", rng=rng)
    bus.subscribe(PLAIN)
    settle(bus)
    pipe.send("ready")
    while True:
        ref = pipe.recv()
        if ref is None:
            until(lambda: bus.get(1.0) is not None)
        else:
            with tempfile.TemporaryDirectory() as root:
                fetch(name, bus, ref, BlobStore(Path(root)), rng)
        pipe.send(time.perf_counter())


def fetch(name: str, bus: Bus, ref: m.BlobRef, store: BlobStore, rng: random.Random) -> None:
    """Get one blob, as an agent does."""
    fetcher = Fetcher(
        bus,
        store,
        lambda source, digest: m.blob_topic(FLEET, source, digest),
        lambda _source, need: bus.publish(m.up_topic(FLEET, name), m.encode(need)),
        rng=rng,
    )
    fetcher.want(ref, m.EVERYONE, time.monotonic())

    def turn() -> bool:
        fetcher.pump(time.monotonic())
        delivery = bus.get(0.05)
        place = m.parse_topic(FLEET, delivery.topic) if delivery else None
        if delivery is None or place is None:
            return False
        return fetcher.receive(place.digest, place.index, delivery.payload, time.monotonic()) is not None

    until(turn)


def settle(bus: Bus) -> None:
    """Return when the broker has handled what this bus asked of it so far."""
    bus.subscribe("settled")
    bus.publish("settled", b"")
    until(lambda: bus.get(0.2) is not None)
    bus.unsubscribe("settled")


def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; end the benchmark if it does not for two minutes."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end_s:
            raise SystemExit(f"nothing for {DEADLINE_S} s: the figures would mean nothing")


def start_amqtt() -> tuple[subprocess.Popen[str], Address]:
    """The embedded broker."""
    return broker.start()


def start_mosquitto() -> tuple[subprocess.Popen[str], Address]:
    """Mosquitto as it comes, for anyone on loopback."""
    port = free_port()
    process = subprocess.Popen(["mosquitto", "-p", str(port)], stderr=subprocess.DEVNULL, text=True)
    return process, Address("127.0.0.1", port)


def rss_mb(process: subprocess.Popen[str]) -> float:
    """Resident memory of a process now."""
    return float(psutil.Process(process.pid).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
