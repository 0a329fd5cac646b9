"""Backoff, and requests that end only with their answer."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.wire.memory import Broker, Faults
from mas_edge.wire.retry import LONGEST_S, Outbox, equal_jitter_s, full_jitter_s, interval_s


def test_intervals_double_from_one_second_to_thirty():
    assert [interval_s(attempt) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]


@given(attempt=st.integers(0, 10**6), seed=st.integers())
def test_a_repetition_waits_half_its_interval_at_least_and_all_of_it_at_most(attempt, seed):
    assert interval_s(attempt) / 2 <= equal_jitter_s(attempt, random.Random(seed)) <= interval_s(attempt)
    assert 0 <= full_jitter_s(attempt, random.Random(seed)) <= interval_s(attempt) <= LONGEST_S


def test_a_request_is_due_at_once_and_then_later_and_later():
    outbox = Outbox(random.Random(1))
    outbox.put("hello", "up", b"h", 100.0)
    times = []
    while len(times) < 8:
        times.append(outbox.next_s())
        assert outbox.due(times[-1] - 1e-6) == []
        assert outbox.due(times[-1]) == [("up", b"h")]
    waits = [b - a for a, b in pairwise(times)]
    assert times[0] == 100.0
    assert all(interval_s(i) / 2 <= wait <= interval_s(i) for i, wait in enumerate(waits))


def test_how_often_a_request_was_said_counts_from_each_connection_on():
    outbox = Outbox(random.Random(1))
    outbox.put("hello", "up", b"h", 0.0)
    for said in range(1, 4):
        outbox.due(100.0 * said)
        assert outbox.times("hello") == said
    outbox.again(400.0)
    assert (outbox.times("hello"), outbox.times("another")) == (0, 0)


def test_an_answer_ends_the_request_and_only_the_first_answer_counts():
    outbox = Outbox(random.Random(1))
    outbox.put("hello", "up", b"h", 0.0)
    assert outbox.answered("hello")
    assert not outbox.answered("hello")
    assert outbox.due(1e9) == []
    assert outbox.next_s() is None


def test_a_newer_request_of_the_same_name_replaces_the_old():
    outbox = Outbox(random.Random(1))
    outbox.put("hello", "up", b"old", 0.0)
    outbox.due(0.0)
    outbox.put("hello", "up", b"new", 0.1)
    assert outbox.due(0.1) == [("up", b"new")]
    assert len(outbox) == 1


def test_after_a_reconnection_everything_is_said_at_once():
    outbox = Outbox(random.Random(1))
    for name in "ab":
        outbox.put(name, "up", name.encode(), 0.0)
    for time_s in range(100):
        outbox.due(float(time_s))
    outbox.again(100.0)
    assert outbox.due(100.0) == [("up", b"a"), ("up", b"b")]
    assert outbox.next_s() <= 101.0


@given(lose=st.floats(0, 0.7), repeat=st.floats(0, 0.7), delay=st.floats(0, 0.7), seed=st.integers(0, 2**32))
def test_every_request_is_answered_in_the_end_whatever_the_broker_does(lose, repeat, delay, seed):
    rng = random.Random(seed)
    broker = Broker(Faults(lose=lose, repeat=repeat, delay=delay), rng)
    device, server = broker.connect("device"), broker.connect("server")
    device.subscribe("down")
    server.subscribe("up")
    outbox, done = Outbox(rng), set()
    for number in range(5):
        outbox.put(b"%d" % number, "up", b"%d" % number, 0.0)
    time_s = 0.0
    while outbox:
        time_s = max(time_s, outbox.next_s())
        assert time_s < 86_400
        for topic, payload in outbox.due(time_s):
            device.publish(topic, payload)
        for request in drain(server):
            done.add(request.payload)
            server.publish("down", request.payload)
        for answer in drain(device):
            outbox.answered(answer.payload)
    assert done == {b"0", b"1", b"2", b"3", b"4"}


def drain(bus):
    """What waits in a bus, past the None of a changed connection."""
    for _ in range(2):
        while delivery := bus.get(0):
            yield delivery


def test_faults_are_the_same_for_the_same_seed():
    def heard(seed):
        broker = Broker(Faults(lose=0.3, repeat=0.3, delay=0.3), random.Random(seed))
        bus = broker.connect("a")
        bus.subscribe("t")
        for number in range(50):
            bus.publish("t", b"%d" % number)
        return [delivery.payload for delivery in drain(bus)]

    assert heard(5) == heard(5)
    assert heard(5) != heard(6)
    assert heard(5) != sorted(heard(5), key=int)


@pytest.mark.parametrize("fault", ["lose", "repeat", "delay"])
def test_each_fault_does_what_it_says(fault):
    broker = Broker(Faults(**{fault: 1.0}))
    bus = broker.connect("a")
    bus.subscribe("t")
    bus.publish("t", b"1")
    broker.faults = Faults()
    bus.publish("t", b"2")
    expected = {"lose": [b"2"], "repeat": [b"1", b"1", b"2"], "delay": [b"2", b"1"]}
    assert [delivery.payload for delivery in drain(bus)] == expected[fault]
