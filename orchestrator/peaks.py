"""What training took of devices' memory, by group and device, from what their updates tell. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import Heard
from mas_edge.profiling.ledger import LOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mas_edge.orchestrator.job_state import Event
    from mas_edge.wire.messages import Update


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What training a group took of a device's memory, over its rounds; None is unknown.

    ``peak_bytes`` is the most that the worker had resident, measured; ``estimated_bytes`` what was expected,
    ``allowed_bytes`` what it was to keep to. ``micro_batch`` is the smallest that was used.
    ``cut_statistics``: a network that normalises over the batch was trained on parts of batches.
    ``killed_bytes`` is the peak of an attempt that was killed for memory.
    """

    group: str
    device: str
    micro_batch: int
    checkpointing: bool
    peak_bytes: int | None
    estimated_bytes: int | None
    allowed_bytes: int | None
    cut_statistics: bool
    killed_bytes: int | None


def memory(events: Iterable[Event]) -> tuple[Memory, ...]:
    """A row per group and device that trained it, in the order in which they were heard of."""
    found: dict[tuple[str, str], list[Update]] = defaultdict(list)
    for event in events:
        if isinstance(event, Heard) and event.update.fit and event.update.examples:
            found[event.update.key.group, event.update.key.device].append(event.update)
    return tuple(_row(group, device, updates) for (group, device), updates in found.items())


def _row(group: str, device: str, updates: Sequence[Update]) -> Memory:
    fits = [update.fit for update in updates if update.fit]
    peaks = [
        row.peak_rss_bytes
        for update in updates
        for row in update.profile.rows
        if row.group == group and row.phase != LOST
    ]
    return Memory(
        group=group,
        device=device,
        micro_batch=min(fit.micro_batch for fit in fits),
        checkpointing=any(fit.checkpointing for fit in fits),
        peak_bytes=_most(peaks),
        estimated_bytes=_most(fit.estimated_bytes for fit in fits),
        allowed_bytes=_most(fit.allowed_bytes for fit in fits),
        cut_statistics=any(fit.cut_statistics for fit in fits),
        killed_bytes=_most(fit.killed_bytes for fit in fits),
    )


def _most(sizes: Iterable[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)
