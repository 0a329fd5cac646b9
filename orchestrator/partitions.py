"""Partitions of a small set: the k best into exactly x groups by what each group is worth, and one in words.

Sets are bit masks. A dynamic programme takes the group that holds a mask's first element out of it:
f(x, m) = max over the subsets s of m with m's lowest bit of worth(s) + f(x-1, m without s), keeping
the k best each time. For n elements that takes about x * 3**(n-1) / 2 additions, done by numpy for
all masks of one size at once.

Source: textbook subset dynamic programming. What a group is worth is decided in
``orchestrator.split``; nothing here is approximate, and nothing bounds n but time and memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Masks: TypeAlias = NDArray[np.int32]
    Worths: TypeAlias = NDArray[np.float64]


class PartitionRefused(ValueError):
    """A partition in words that does not hold every task exactly once."""


def members(n: int) -> NDArray[np.bool_]:
    """(2**n, n): which elements are in which mask; bit i of a mask is element i."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)


def k_best(worth: Worths, most: int, k: int) -> list[list[list[int]]]:
    """For 1, 2, ..., most groups the k partitions of greatest total worth, best first, as masks.

    ``worth`` has an entry for each of the 2**n masks, -inf where a group is forbidden. A partition's
    masks are in the order of their lowest bits. Lists are shorter where there are fewer partitions;
    among equals those with the smaller first mask come first.
    """
    table = _table(worth, most, k)
    return [[masks for rank in range(k) if (masks := table.masks(x, rank))] for x in range(1, most + 1)]


@dataclass(frozen=True, eq=False)
class _Table:
    """The k best ways to cut a mask into x groups, at [x, mask, rank].

    ``total`` is -inf where there is no such way; ``first`` is the group that holds the mask's first
    element, ``rank`` says which of the ways to cut the others goes with it.
    """

    total: Worths
    first: Masks
    rank: Masks

    def masks(self, x: int, rank: int) -> list[int]:
        """The masks of the full set's partition of this rank into x groups; empty if there is none."""
        mask = self.total.shape[1] - 1
        if self.total[x, mask, rank] == -np.inf:
            return []
        masks = []
        for left in range(x, 0, -1):
            masks.append(int(self.first[left, mask, rank]))
            mask, rank = mask ^ masks[-1], int(self.rank[left, mask, rank])
        return masks


def _table(worth: Worths, most: int, k: int) -> _Table:
    """The dynamic programme, for all masks of one size at a time, the small ones first.

    What is left when the first element's group is taken out never holds the first element, so only
    such masks, and the full one, are needed.
    """
    shape = (most + 1, len(worth), k)
    table = _Table(np.full(shape, -np.inf), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    table.total[0, 0, 0] = 0.0
    masks = np.arange(len(worth), dtype=np.int32)
    sizes = members(len(worth).bit_length() - 1).sum(axis=1)
    wanted = (masks % 2 == 0) | (masks == masks[-1])
    for size in range(1, int(sizes[-1]) + 1):
        layer = masks[wanted & (sizes == size)]
        if len(layer):
            _fill(table, worth, layer, size)
    return table


def _fill(table: _Table, worth: Worths, layer: Masks, size: int) -> None:
    firsts = _firsts(layer, size)
    rests = layer[:, None] ^ firsts
    k = table.total.shape[2]
    row = np.arange(len(layer))
    for x in range(1, min(len(table.total) - 1, size) + 1):
        options = (worth[firsts][:, :, None] + table.total[x - 1][rests]).reshape(len(layer), -1)
        for rank in range(k):
            pick = options.argmax(axis=1)
            table.total[x, layer, rank] = options[row, pick]
            table.first[x, layer, rank] = firsts[row, pick // k]
            table.rank[x, layer, rank] = pick % k
            options[row, pick] = -np.inf


def _firsts(layer: Masks, size: int) -> Masks:
    """(len(layer), 2**(size-1)): the subsets of each mask that hold its lowest bit, ascending."""
    lowest = layer & -layer
    subsets, rest = lowest[:, None], layer ^ lowest
    for _ in range(size - 1):
        lowest = rest & -rest
        subsets, rest = np.hstack([subsets, subsets | lowest[:, None]]), rest ^ lowest
    return subsets


# --- partitions in words --------------------------------------------------------------------------


def partition_from_text(text: str, tasks: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The groups that a text names, in task order: ``exercise+gravity,jerk`` or, for tasks of one
    letter, ``sdn,ka``. Raises PartitionRefused naming tasks that are unknown, missing or repeated.
    """
    letters = all(len(task) == 1 for task in tasks)
    parts = [part.replace("+", " ").split() for part in text.split(",")]
    if letters:
        parts = [[letter for word in part for letter in word] for part in parts]
    count = Counter(task for part in parts for task in part)
    faults = {
        "unknown": [task for task in count if task not in tasks],
        "missing": [task for task in tasks if task not in count],
        "more than once": [task for task in tasks if count[task] > 1],
    }
    if any(faults.values()) or not all(parts):
        wrong = "; ".join(f"{what}: {', '.join(map(repr, names))}" for what, names in faults.items() if names)
        example = "sdn,ka" if letters else f"{'+'.join(tasks[:2])},{','.join(tasks[2:3])}"
        raise PartitionRefused(f"partition {text!r}: {wrong or 'a group is empty'}; write it like {example}")
    ordered = [tuple(sorted(part, key=tasks.index)) for part in parts]
    return tuple(sorted(ordered, key=lambda group: tasks.index(group[0])))
