"""How a group is made to fit, from numbers alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent import fit
from mas_edge.edge_agent.fit import TooLarge, choose, micro_batches, peak_bytes
from mas_edge.models.footprint import Footprint, Part
from mas_edge.wire.messages import Fit, Shortage, Training

TRAINING = Training(workload="w", network="n", rounds=2, epochs=1, batch=48, lr=0.1, seed=1)
MB = 10**6


def part(weights=MB, example=MB, kept=MB // 2, again=MB // 4):
    return Part(weights_bytes=weights, example_bytes=example, kept_bytes=kept, again_bytes=again)


def footprint(**parts):
    return Footprint(200 * MB, 1000, part(), parts or {"a": part(), "b": part()})


SIZES = st.integers(0, 10**9)
PARTS = st.builds(
    lambda weights, kept, inside: part(weights, kept + inside, kept, inside // 2), SIZES, SIZES, SIZES
)
FOOTPRINTS = st.builds(
    Footprint,
    resident_bytes=st.integers(10**8, 10**9),
    examples=st.integers(1, 500),
    encoder=PARTS,
    decoders=st.dictionaries(st.sampled_from("abcd"), PARTS, min_size=1),
)
BATCHES = st.builds(
    lambda batch, micro: msgspec.structs.replace(TRAINING, batch=batch, micro_batch=micro),
    st.integers(1, 256),
    st.none() | st.integers(1, 256),
)


def test_micro_batches_are_halves_and_the_smallest_is_one_example():
    assert micro_batches(TRAINING, cut=True) == (48, 24, 12, 6, 3, 2, 1)
    assert micro_batches(msgspec.structs.replace(TRAINING, micro_batch=5), cut=True) == (5, 3, 2, 1)


def test_what_the_job_or_the_network_forbids_is_not_cut():
    assert micro_batches(TRAINING, cut=False) == (48,)
    fixed = msgspec.structs.replace(TRAINING, reproducible=True, micro_batch=16)
    assert micro_batches(fixed, cut=True) == (16,)


@given(BATCHES)
def test_every_micro_batch_is_within_what_the_job_allows_and_they_only_shrink(training):
    sizes = micro_batches(training, cut=True)
    assert sizes[0] == min(training.batch, training.micro_batch or training.batch)
    assert sizes[-1] == 1
    assert list(sizes) == sorted(set(sizes), reverse=True)


def test_the_estimate_is_what_the_docstring_says():
    held = 48 * 3 * MB
    expected = 200 * MB + 3 * 3 * MB + fit.START_BYTES + round(fit.FACTOR * held)
    assert peak_bytes(footprint(), Fit(micro_batch=48), measure=False) == expected
    small = Footprint(200 * MB, 10, part(), {"a": part(), "b": part()})  # no batch has more than all examples
    ten = peak_bytes(footprint(), Fit(micro_batch=10), measure=False)
    assert peak_bytes(small, Fit(micro_batch=48), measure=False) == ten


def test_the_batch_is_cut_a_little_before_activations_are_computed_twice_and_that_before_it_is_cut_to_bits():
    ways = [(way.micro_batch, way.checkpointing) for way in fit.ways((32, 16, 8, 4))]
    assert ways[:4] == [(32, False), (16, False), (8, False), (32, True)]
    assert ways.index((16, True)) < ways.index((4, False))
    assert set(ways) == {(size, twice) for size in (32, 16, 8, 4) for twice in (False, True)}


@given(FOOTPRINTS, BATCHES, st.integers(0, 10**12), st.booleans(), st.booleans())
def test_what_is_chosen_fits_and_nothing_that_is_preferred_would(footprint_, training, allowed, cut, measure):
    sizes = micro_batches(training, cut=cut)
    peaks = [peak_bytes(footprint_, way, measure=measure) for way in fit.ways(sizes)]
    if min(peaks) > allowed:
        with pytest.raises(TooLarge) as caught:
            choose(footprint_, sizes, allowed, measure=measure)
        assert caught.value.shortage.needed_bytes == min(peaks)
        return
    found = choose(footprint_, sizes, allowed, measure=measure)
    assert found.estimated_bytes <= allowed
    way = Fit(micro_batch=found.micro_batch, checkpointing=found.checkpointing)
    assert all(peak > allowed for peak in peaks[: fit.ways(sizes).index(way)])


@given(FOOTPRINTS, BATCHES, st.booleans())
def test_a_refusals_parts_add_up_and_a_smaller_group_needs_no_more(footprint_, training, measure):
    with pytest.raises(TooLarge) as caught:
        choose(footprint_, micro_batches(training, cut=True), 0, measure=measure)
    short = caught.value.shortage
    assert short.needed_bytes == short.encoder_bytes + sum(each.bytes for each in short.decoders)
    task = short.decoders[0]
    decoders = {task.task: footprint_.decoders[task.task]}
    others = sum(p.weights_bytes for name, p in footprint_.decoders.items() if name != task.task)
    alone = Footprint(footprint_.resident_bytes - others, footprint_.examples, footprint_.encoder, decoders)
    way = Fit(micro_batch=short.micro_batch, checkpointing=short.checkpointing)
    assert peak_bytes(alone, way, measure=measure) <= short.encoder_bytes + task.bytes + 1  # rounding


@given(FOOTPRINTS, BATCHES, st.integers(0, 10**12), st.integers(0, 20))
def test_after_a_kill_only_what_needs_less_is_tried_and_that_ends(footprint_, training, allowed, start):
    sizes = micro_batches(training, cut=True)
    ways = fit.ways(sizes)
    killed = ways[start % len(ways)]
    for _ in range(len(ways) + 1):
        try:
            found = choose(footprint_, sizes, allowed, measure=False, killed=killed)
        except TooLarge:
            return
        assert found.estimated_bytes < peak_bytes(footprint_, killed, measure=False)
        assert found.micro_batch <= -(-killed.micro_batch // 2) or found.checkpointing > killed.checkpointing
        killed = found
    pytest.fail("it goes on for ever")


def test_a_first_kill_is_tried_once_more_and_a_second_is_declined_with_the_peak():
    tried = Fit(micro_batch=12, estimated_bytes=5), Shortage(micro_batch=12, needed_bytes=5, allowed_bytes=9)
    again = fit.after_kill(TRAINING, tried, None, 7)
    assert again == Fit(micro_batch=12, estimated_bytes=5, killed_bytes=7)
    assert fit.after_kill(TRAINING, tried, again, 6) == msgspec.structs.replace(tried[1], peak_bytes=6)


def test_a_kill_without_a_limit_says_what_the_limit_must_be():
    again = fit.after_kill(TRAINING, None, None, 300 * MB)
    assert again == Fit(micro_batch=48, killed_bytes=300 * MB)
    assert fit.allowed_bytes(None, 30 * MB, again) == 300 * MB
    assert fit.allowed_bytes(320 * MB, 30 * MB, again) == 290 * MB
    assert fit.allowed_bytes(320 * MB, 30 * MB, None) == 290 * MB
    assert fit.allowed_bytes(None, 30 * MB, None) is None
    assert fit.after_kill(TRAINING, None, again, 280 * MB) == Shortage(micro_batch=48, peak_bytes=280 * MB)


def test_pages_that_the_kernel_can_drop_come_on_top_of_what_is_allowed_but_never_of_what_was_deadly():
    assert fit.resident_limit(300 * MB, 110 * MB, None) == 410 * MB - fit.FILE_BYTES
    assert fit.resident_limit(300 * MB, 10 * MB, None) == 300 * MB
    assert fit.resident_limit(300 * MB, 110 * MB, Fit(micro_batch=1, killed_bytes=350 * MB)) == 350 * MB
    assert fit.resident_limit(300 * MB, 10 * MB, Fit(micro_batch=1)) == 300 * MB


def test_a_way_that_was_measured_to_fit_is_kept_until_it_does_not_or_much_more_is_allowed():
    trained = Fit(micro_batch=8, estimated_bytes=310, allowed_bytes=300)
    assert fit.still_fits(trained, 280, 290) == Fit(micro_batch=8, estimated_bytes=280, allowed_bytes=290)
    assert fit.still_fits(trained, 295, 290) is None
    assert fit.still_fits(trained, 280, 400) is None


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_for_want_of_memory_are_told_from_others(error, memory):
    assert fit.memory_ran_out(error) is memory


def test_a_refusal_in_words_has_every_number():
    short = Shortage(
        micro_batch=2, checkpointing=True, needed_bytes=306 * MB, allowed_bytes=300 * MB, peak_bytes=301 * MB
    )
    said = fit.in_words(short)
    for words in ("306 MB", "2 at a time", "computed twice", "allowed 300 MB", "killed for memory at 301 MB"):
        assert words in said
    assert fit.in_words(Shortage(micro_batch=1)) == "needs an unknown amount (1 at a time), allowed unknown"
