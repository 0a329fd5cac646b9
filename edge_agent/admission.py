"""Whether a training may begin beside those of a device's other slots: by the sum of their peaks.

All workers are under one limit of memory. A worker counts with what it holds, and while it trains with the
peak that its dry step estimated (``fit``), if that is more; until it has said its estimate nobody else
begins. A training that has no room beside the others waits for one of them to end, rather than decline: the
group fits this device, only not now, and with one slot it would wait as well. A worker that rests, warm for
the next round, is ended when its memory is needed. Who trains alone may have everything; whether that is
enough is ``fit``'s question. Without a limit nothing is compared.

Pages of files that can be dropped count for nobody: they are shared, and the kernel takes them first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.edge_agent.findings import WORKER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value of admission's world."""


class Neighbour(_Value, frozen=True):
    """Another slot's worker: what it holds now, and if it trains, at the most (None: not known yet)."""

    held_bytes: int = 0
    training: bool = False
    expected_bytes: int | None = None

    @property
    def taken_bytes(self) -> int:
        """What is left to nobody else."""
        return max(self.held_bytes, self.expected_bytes or 0) if self.training else self.held_bytes


class Begin(_Value, frozen=True):
    """It may have what is free less this, which is the others'."""

    taken_bytes: int = 0


class EndIdle(_Value, frozen=True):
    """Workers that rest have to go first."""


class Wait(_Value, frozen=True):
    """Another training has to end, or to say what it will take."""


Verdict: TypeAlias = Begin | EndIdle | Wait


def admit(
    free_bytes: int | None, neighbours: Iterable[Neighbour], held_bytes: int | None, needed_bytes: int | None
) -> Verdict:
    """What to do about a training that would begin.

    ``free_bytes`` is the limit less the daemon's own, None without one; ``held_bytes`` what the slot's own
    worker holds, None if it has to be started; ``needed_bytes`` what an attempt has found that it needs.
    """
    others = tuple(neighbours)
    if free_bytes is None:
        return Begin()
    taken_bytes = sum(other.taken_bytes for other in others)
    resting_bytes = sum(other.held_bytes for other in others if not other.training)
    training = [other for other in others if other.training]
    if any(other.expected_bytes is None for other in training):
        return Wait()
    needed_bytes = max(needed_bytes or 0, WORKER_BYTES if held_bytes is None else held_bytes)
    left_bytes = free_bytes - taken_bytes
    if needed_bytes <= left_bytes:
        return Begin(taken_bytes=taken_bytes)
    if resting_bytes and (not training or needed_bytes <= left_bytes + resting_bytes):
        return EndIdle()
    return Wait() if training else Begin(taken_bytes=taken_bytes)
