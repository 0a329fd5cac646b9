"""Which training may begin beside others, by what they take of the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.admission import Begin, EndIdle, Neighbour, Wait, admit
from mas_edge.edge_agent.findings import WORKER_BYTES

MB = 1 << 20


def trains(expected_mb: int | None, held_mb: int = 200) -> Neighbour:
    expected = None if expected_mb is None else expected_mb * MB
    return Neighbour(held_bytes=held_mb * MB, training=True, expected_bytes=expected)


def rests(held_mb: int) -> Neighbour:
    return Neighbour(held_bytes=held_mb * MB)


@pytest.mark.parametrize(
    ("free_mb", "others", "held_mb", "needed_mb", "verdict"),
    [
        (None, [trains(None)], None, None, Begin()),
        (100, [], None, None, Begin()),
        (1000, [trains(300)], None, None, Begin(taken_bytes=300 * MB)),
        (1000, [trains(300, held_mb=400)], None, None, Begin(taken_bytes=400 * MB)),
        (1000, [trains(None)], None, None, Wait()),
        (600, [trains(300)], None, None, Wait()),
        (600, [trains(300)], 250, None, Begin(taken_bytes=300 * MB)),
        (600, [trains(300)], 250, 400, Wait()),
        (600, [rests(300)], 250, 400, EndIdle()),
        (900, [trains(300), rests(250)], 250, 400, EndIdle()),
        (600, [trains(300), rests(250)], 250, 400, Wait()),
        (300, [], 250, 400, Begin()),
    ],
)
def test_a_training_begins_waits_or_lets_resting_workers_go(free_mb, others, held_mb, needed_mb, verdict):
    sizes = [None if mb is None else mb * MB for mb in (free_mb, held_mb, needed_mb)]
    assert admit(sizes[0], others, *sizes[1:]) == verdict


SIZES = st.integers(0, 2000).map(lambda mb: mb * MB)
NEIGHBOURS = st.lists(
    st.builds(
        Neighbour, held_bytes=SIZES, training=st.booleans(), expected_bytes=st.one_of(st.none(), SIZES)
    ),
    max_size=3,
)


@given(SIZES, NEIGHBOURS, st.one_of(st.none(), SIZES), st.one_of(st.none(), SIZES))
def test_all_that_train_at_a_time_are_expected_to_fit(free, others, held, needed):
    verdict = admit(free, others, held, needed)
    busy = any(other.training for other in others)
    if isinstance(verdict, Begin) and busy:
        assert all(other.expected_bytes is not None for other in others if other.training)
        own = max(needed or 0, WORKER_BYTES if held is None else held)
        assert own + sum(other.taken_bytes for other in others) <= free
    if not busy:
        assert not isinstance(verdict, Wait), "nobody waits for nothing"
    if isinstance(verdict, EndIdle):
        assert any(other.held_bytes for other in others if not other.training)


@given(SIZES, NEIGHBOURS, st.one_of(st.none(), SIZES))
def test_when_resting_workers_are_gone_it_is_not_asked_again_to_end_them(free, others, needed):
    left = [other for other in others if other.training]
    assert not isinstance(admit(free, left, None, needed), EndIdle)


def test_what_fits_to_the_last_byte_begins():
    other = Neighbour(training=True, expected_bytes=50)
    held = WORKER_BYTES
    assert admit(held + 50, [other], held, held) == Begin(taken_bytes=50)
    assert admit(held + 49, [other], held, held) == Wait()
