"""How a task group is made to fit the device's memory: micro-batch, checkpointing, or not at all.

From what a dry step counted (``models.footprint``) follows an estimate of the process' peak for every way to
train: the batch cut into 1, 2, 4, ... micro-batches, whose gradients add up to the same update, each of them
with activations kept or computed twice. Of those that are allowed and fit, the one that costs least time is
taken. A job that is to be reproducible, and a network that normalises over the batch, are not cut. A way in
which the worker was killed for memory, and all that need as much, are out.

    peak = resident + 3 x weights + a few MB + factor x micro-batch x (bytes held per example)

Three times the weights: gradient, momentum, step; FedProx also keeps those that came. The factor stands for
what a dry step cannot count; bench/memory.py measures it and docs/results/memory.md has the estimate's error.
It measures nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.wire.messages import Fit, Shortage, TaskBytes

if TYPE_CHECKING:
    from mas_edge.models.footprint import Footprint, Part
    from mas_edge.wire.messages import Training

START_BYTES = 8 << 20
"""What the first steps take whatever their size: workspaces, libraries' caches."""

FACTOR, MEASURING_FACTOR = 2.2, 2.8
"""Peak growth over counted bytes; measuring affinity keeps the graph through several backward passes."""


FILE_BYTES = 32 << 20
"""Pages of libraries' files that have to stay resident: twice what a round of training touches of torch's
110 MB (14 MB, measured by clearing the pages' referenced bits: proc(5), clear_refs). The kernel drops others
when memory is short, and kills nobody for them."""

AGAIN = 1.5
"""What a segment that is computed again holds meanwhile, over what was counted in its first run."""

PART_TIME, TWICE_TIME = 0.1, 1.3
"""What each further micro-batch adds to a batch's time, and what computing activations twice multiplies it
by: between what bench/memory.py finds for small and for larger networks."""


class TooLarge(MemoryError):
    """The group fits the memory that is allowed in no way; ``shortage`` says by how much."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(in_words(shortage))
        self.shortage = shortage


def memory_ran_out(error: Exception) -> bool:
    """Whether it says that memory could not be had: Python's own error, or one of torch's and oneDNN's."""
    said = ("can't allocate memory", "out of memory", "std::bad_alloc", "could not create a")
    text = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(words in text for words in said)


def micro_batches(training: Training, *, cut: bool) -> tuple[int, ...]:
    """The micro-batches that may be used, largest first: the job's, and its halves if it may be ``cut``."""
    size = min(training.micro_batch or training.batch, training.batch)
    sizes = [size]
    while cut and not training.reproducible and size > 1:
        size = -(-size // 2)
        sizes.append(size)
    return tuple(sizes)


def ways(sizes: tuple[int, ...]) -> list[Fit]:
    """Every way to train with these micro-batches, the one that takes least time first."""
    found = [Fit(micro_batch=size, checkpointing=twice) for twice in (False, True) for size in sizes]
    return sorted(found, key=lambda way: _time(way, sizes[0]))


def _time(way: Fit, whole: int) -> float:
    """How much longer a batch takes than whole and with activations kept, about."""
    return (1 + PART_TIME * (whole / way.micro_batch - 1)) * (TWICE_TIME if way.checkpointing else 1.0)


def choose(
    footprint: Footprint,
    sizes: tuple[int, ...],
    allowed_bytes: int,
    *,
    measure: bool,
    killed: Fit | None = None,
) -> Fit:
    """The fastest way whose estimate is allowed; raises TooLarge with what the least one would need.

    ``measure`` says that affinity is measured on the way; ``killed`` is the way in which a worker died:
    after it only smaller micro-batches or checkpointing are tried, and what is estimated to need less.
    """
    peaks = [(way, peak_bytes(footprint, way, measure=measure)) for way in ways(sizes)]
    ceiling = allowed_bytes
    if killed is not None:
        ceiling = min(allowed_bytes, peak_bytes(footprint, killed, measure=measure) - 1)
        peaks = [(way, peak) for way, peak in peaks if _spares(way, killed)]
    for way, peak in peaks:
        if peak <= ceiling:
            return msgspec.structs.replace(
                way,
                estimated_bytes=peak,
                allowed_bytes=allowed_bytes,
                killed_bytes=killed.killed_bytes if killed else None,
            )
    least = min(ways(sizes), key=lambda way: peak_bytes(footprint, way, measure=measure))
    short = shortage(footprint, least, allowed_bytes, measure=measure)
    raise TooLarge(msgspec.structs.replace(short, peak_bytes=killed.killed_bytes if killed else None))


def _spares(way: Fit, killed: Fit) -> bool:
    half = -(-killed.micro_batch // 2)
    return way.micro_batch <= half < killed.micro_batch or way.checkpointing > killed.checkpointing


def peak_bytes(footprint: Footprint, way: Fit, *, measure: bool) -> int:
    """The estimated peak of the worker's resident memory."""
    encoder, decoders = _parts(footprint, way, measure=measure)
    return encoder + sum(decoders.values())


def shortage(footprint: Footprint, way: Fit, allowed_bytes: int, *, measure: bool) -> Shortage:
    """What training in this way would need, by part, so that others can say which tasks would fit."""
    encoder, decoders = _parts(footprint, way, measure=measure)
    return Shortage(
        needed_bytes=encoder + sum(decoders.values()),
        allowed_bytes=allowed_bytes,
        micro_batch=way.micro_batch,
        checkpointing=way.checkpointing,
        encoder_bytes=encoder,
        decoders=tuple(TaskBytes(task=task, bytes=size) for task, size in decoders.items()),
    )


def _parts(footprint: Footprint, way: Fit, *, measure: bool) -> tuple[int, dict[str, int]]:
    """Bytes of the encoder with all that every group needs, and of each decoder."""
    scale = (MEASURING_FACTOR if measure else FACTOR) * min(way.micro_batch, footprint.examples)
    encoder, decoders = footprint.encoder, footprint.decoders
    held = _held_bytes(encoder, way)
    if way.checkpointing:
        held += AGAIN * max(encoder.again_bytes, *(part.again_bytes for part in decoders.values()))
    at_rest = footprint.resident_bytes - sum(part.weights_bytes for part in decoders.values())
    of_decoders = {
        task: round((1 + footprint.copies) * part.weights_bytes + scale * _held_bytes(part, way))
        for task, part in decoders.items()
    }
    return round(at_rest + footprint.copies * encoder.weights_bytes + START_BYTES + scale * held), of_decoders


def _held_bytes(part: Part, way: Fit) -> float:
    """Per example."""
    return part.kept_bytes if way.checkpointing else part.example_bytes


def allowed_bytes(cap_bytes: int | None, taken_bytes: int, killed: Fit | None) -> int | None:
    """What the worker may have resident: the cap less what is taken, and what it was killed at before.

    Taken is what the daemon has, and workers of other slots have or will have.
    """
    limits = [] if cap_bytes is None else [cap_bytes - taken_bytes]
    limits += [killed.killed_bytes] if killed and killed.killed_bytes is not None else []
    return min(limits, default=None)


def droppable(file_bytes: int) -> int:
    """Of the pages of files that a worker has resident, those that the kernel may drop."""
    return max(0, file_bytes - FILE_BYTES)


def resident_limit(memory_bytes: int, file_bytes: int, killed: Fit | None) -> int:
    """What may be resident: the memory that is allowed, and of ``file_bytes`` of files those not needed.

    Not more than an attempt before this one was killed at.
    """
    limit = memory_bytes + droppable(file_bytes)
    return limit if killed is None or killed.killed_bytes is None else min(limit, killed.killed_bytes)


def still_fits(fit: Fit, peak_bytes: int, allowed_bytes: int) -> Fit | None:
    """The way in which a group was trained with that peak, if it is within what is allowed now.

    A measured peak is worth more than an estimate that moves a little with each round; None if it does not
    fit, or if so much more is allowed than then that there may be a faster way.
    """
    if peak_bytes > allowed_bytes or allowed_bytes > 1.1 * (fit.allowed_bytes or 0):
        return None
    return msgspec.structs.replace(fit, estimated_bytes=peak_bytes, allowed_bytes=allowed_bytes)


def after_kill(
    training: Training, tried: tuple[Fit, Shortage] | None, killed: Fit | None, peak_bytes: int | None
) -> Fit | Shortage:
    """What follows from a worker that was killed for memory when it had ``peak_bytes``.

    The way in which it trained, for a smaller attempt to begin; or, if that was the second (``killed`` is how
    the first trained), the numbers to decline with. ``tried`` is how it was to train and what that was
    estimated to take, None if it had no limit to keep to or did not come so far.
    """
    if killed is None:
        whole = Fit(micro_batch=min(training.micro_batch or training.batch, training.batch))
        return msgspec.structs.replace(tried[0] if tried else whole, killed_bytes=peak_bytes)
    short = (
        tried[1] if tried else Shortage(micro_batch=killed.micro_batch, checkpointing=killed.checkpointing)
    )
    return msgspec.structs.replace(short, peak_bytes=peak_bytes)


def in_words(short: Shortage) -> str:
    """One line for people."""
    way = f"{short.micro_batch} at a time" + (", activations computed twice" if short.checkpointing else "")
    needs = "an unknown amount" if short.needed_bytes is None else f"{_mb(short.needed_bytes)} MB"
    allowed = "unknown" if short.allowed_bytes is None else f"{_mb(short.allowed_bytes)} MB"
    seen = "" if short.peak_bytes is None else f"; killed for memory at {_mb(short.peak_bytes)} MB"
    return f"needs {needs} ({way}), allowed {allowed}{seen}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}"
