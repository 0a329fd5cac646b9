"""The embedded broker ends when it is told to, and with whoever started it, whatever its clients do."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from mas_edge.wire import broker
from mas_edge.wire.bus import connect

SOON_S = 10.0
STARTED = """
import time
from mas_edge.wire import broker
process, address = broker.start()
print(process.pid, address.port, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_word_to_its_clients(number):
    process, address = broker.start()
    silent = socket.create_connection((address.host, address.port))
    bus = connect(address, client_id="one", rng=random.Random(1))
    assert os.getsid(process.pid) == process.pid  # an interrupt from our terminal does not reach it
    process.send_signal(number)
    assert process.wait(SOON_S) == -number
    silent.close()
    bus.close()


def test_it_ends_with_the_process_that_started_it_and_keeps_no_client():
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTED], stdout=subprocess.PIPE, text=True, env=environment
    )
    pid, port = map(int, parent.stdout.readline().split())
    process = psutil.Process(pid)
    bus = connect(broker.Address("127.0.0.1", port), client_id="one", rng=random.Random(1))
    parent.kill()
    parent.wait(SOON_S)
    parent.stdout.close()
    process.wait(SOON_S)
    end_s = time.monotonic() + SOON_S
    while bus.connected:
        assert time.monotonic() < end_s
        bus.get(0.1)
    bus.close()
