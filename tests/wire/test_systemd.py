"""What a service tells systemd, heard on a real notification socket."""

from __future__ import annotations

import os
import socket

import pytest

from mas_edge.wire.systemd import STATUS_S, Supervisor, watchdog_s


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """What was said since the last call."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def said() -> list[str]:
            found = []
            while True:
                try:
                    found.append(channel.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield said


def test_a_service_is_ready_reloads_and_stops(heard):
    life = Supervisor({})
    life.ready()
    life.reloading(12.5)
    life.stopping()
    assert heard() == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=12500000", "STOPPING=1"]


def test_signs_of_life_come_a_few_times_in_the_interval_and_only_while_it_is_well(heard):
    life = Supervisor({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())})
    for tenths in range(80):
        life.turn("", tenths / 10, well=True)
    assert heard() == ["WATCHDOG=1"] * 4
    for tenths in range(80, 160):
        life.turn("", tenths / 10, well=False)
    assert heard() == []
    life.turn("", 16.0, well=True)
    assert heard() == ["WATCHDOG=1"]


def test_a_status_is_said_when_it_changes_and_not_too_often(heard):
    life = Supervisor({})
    for tenths in range(30):
        life.turn(f"step {tenths}", tenths / 10, well=True)
    said = heard()
    assert said[0] == "STATUS=step 0"
    assert len(said) == round(3 / STATUS_S)
    for tenths in range(100, 130):
        life.turn("idle", tenths / 10, well=True)
    assert heard() == ["STATUS=idle"]


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
    ],
)
def test_the_watchdog_is_the_one_that_this_process_is_asked_for(environment, interval_s):
    assert watchdog_s(environment) == interval_s


def test_nothing_is_said_where_nobody_listens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    life = Supervisor({"WATCHDOG_USEC": "8000000"})
    life.ready()
    life.turn("idle", 0.0, well=True)
