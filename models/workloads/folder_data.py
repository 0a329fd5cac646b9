"""Views of a folder in Taskonomy's layout, as a data set: memory-mapped, normalised per batch.

A batch is a copy out of the page cache, less a mean and over a deviation; files are read and checked once,
by ``folder_files``. Held out are the last points of each building, never single views: two views of one point
show the same spot. A building without the folder of a task has no labels of it: its views are not valid for
that task, and if no building has any, the data set has no such task.

It opens no picture and knows no network.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import Array, Batch, DataRefused
from mas_edge.models.workloads.folder_files import Building, prepared, stored_channels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from mas_edge.models.tasks import View
    from mas_edge.models.workloads.description import Description, Label

    Rows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
    """Which buildings, and which of their views."""


class Views:
    """Some views of some buildings: a ``Dataset`` of all tasks that at least one of them has labels of."""

    def __init__(self, described: Description, parts: Sequence[tuple[Building, NDArray[np.int64]]]) -> None:
        buildings = [building for building, _ in parts]
        self._described = described
        self._row = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in parts)])
        sizes = np.array([len(rows) for _, rows in parts], np.int64)
        self._building = np.repeat(np.arange(len(parts)), sizes)
        there = {name for building in buildings for name in building.stored}
        self._stored = {
            name: _Stored(described, name, buildings) for name in described.domains if name in there
        }
        self._tasks = [(name, label) for name, label in described.tasks.items() if name in there]
        self.labels = frozenset(name for name, _ in self._tasks)
        self._to_input = described.input.normaliser()
        self._to_target = {name: label.normaliser() for name, label in self._tasks}

    def __len__(self) -> int:
        return len(self._row)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The views at these positions: pictures and regressions (B, C, S, S), classes (B, S, S).

        Tasks with the same mask share one array of it, and a task that is valid everywhere has none.
        """
        rows, given = (self._building[index], self._row[index]), self._described
        stored = {name: files.of(rows) for name, files in self._stored.items()}
        mask = None
        if given.mask and given.mask.domain in stored:
            mask = given.mask.valid(stored[given.mask.domain][:, :1])
        inputs = self._to_input(stored[given.input.domain])
        targets, valid = {}, {}
        for name, label in self._tasks:
            values, classes = stored[name], label.kind == "classes"
            where = _valid(label, values, mask, self._stored[name].has(rows))
            if where is not None:
                valid[name] = where[:, 0] if classes else where
            targets[name] = values[:, 0] if classes else self._to_target[name](values)
        return Batch(inputs, targets, valid)


def _valid(label: Label, values_BCHW: Array, mask: Array | None, has: Array | None) -> Array | None:
    """Where labels are valid, broadcastable to (B, 1, H, W); None is everywhere."""
    terms = [mask] if label.masked and mask is not None else []
    terms += [(values_BCHW != ignored).all(1, keepdims=True) for ignored in label.ignore]
    terms += [] if has is None else [has]
    return reduce(np.logical_and, terms) if terms else None


class _Stored:
    """What some buildings store of a domain; one of them has such files."""

    def __init__(self, described: Description, domain: str, buildings: Sequence[Building]) -> None:
        nothing = np.zeros((1, 1, 1, 1), np.uint8)
        shape = (stored_channels(described, domain), described.pixels, described.pixels)
        self._planes = [
            np.broadcast_to(each.stored.get(domain, nothing).transpose(0, 3, 1, 2), (len(each), *shape))
            for each in buildings
        ]
        self._kind = np.result_type(*self._planes)
        has = np.array([domain in each.stored for each in buildings])
        self._has = None if has.all() else has

    def of(self, rows: Rows) -> Array:
        """A copy of what is stored of these views, (B, C, S, S); 0 where nothing is."""
        (first, *others), (building, row) = self._planes, rows
        if not others:
            chosen: Array = first[row]
            return chosen
        values = np.empty_like(first, self._kind, shape=(len(row), *first.shape[1:]))
        for at, (number, position) in enumerate(zip(building.tolist(), row.tolist(), strict=True)):
            values[at] = self._planes[number][position]
        return values

    def has(self, rows: Rows) -> Array | None:
        """Which of these views are stored, (B, 1, 1, 1); None is all."""
        return None if self._has is None else self._has[rows[0]].reshape(-1, 1, 1, 1)


def dataset(
    described: Description, root: Path, cache: Path, clients: Sequence[str], view: View, held_out_share: float
) -> Views:
    """The buildings' views; raises DataRefused naming a bad file, UnknownChoice for no such building."""
    if not 0 <= held_out_share < 1:
        raise DataRefused(f"held-out share {held_out_share}: use a number from 0 up to, not including, 1")
    opened = [prepared(described, root, building, cache) for building in clients]
    return Views(described, [(building, in_view(building, view, held_out_share)) for building in opened])


def in_view(building: Building, view: View, held_out_share: float) -> NDArray[np.int64]:
    """Positions of the building's views in this view: the last points are held out."""
    points = sorted({point for point, _ in building.views})
    count = max(1, round(len(points) * held_out_share)) if held_out_share else 0
    held_out = set(points[len(points) - count :])
    wanted = {"all": (True, False), "held-out": (True,), "train": (False,)}[view]
    chosen = [row for row, (point, _) in enumerate(building.views) if (point in held_out) in wanted]
    return np.array(chosen, np.int64)
