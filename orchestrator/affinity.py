"""What all devices together measured of how each task's training step changes the others' losses.

Devices send sums over their measured batches; ``pool`` adds them up to one matrix of weighted means
with a standard error per entry, so that a device's weight is that of the examples it measured.

Source: TAG's lookahead affinity as MAS (ICCV 2023) uses it; there a device's mean counts the same
whether it stands for one batch or for twenty. How affinity is measured is not decided here, nor
what follows from it (``orchestrator.split``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from mas_edge.wire.messages import AffinitySums

SUMS = ("batches", "w", "ww", "wz", "wzz")
"""The matrices of a message, as its fields are named."""

LARGEST = 1e100
"""No honest sum comes near; its square is still a finite number."""


class AffinityRefused(ValueError):
    """Sums that cannot be pooled: of other tasks, of the wrong length, or impossible."""


@dataclass(frozen=True, eq=False)
class Affinity:
    """Effect of task i's step on task j's loss at [i, j]; positive helps. All matrices are (n, n).

    ``mean`` is NaN where nothing was measured, ``se`` where fewer than two batches count.
    """

    tasks: tuple[str, ...]
    mean: NDArray[np.float64]
    se: NDArray[np.float64]
    batches: NDArray[np.int64]

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """Pairs (i, j) of different tasks that were never measured; the score takes them as 0."""
        holes = np.argwhere(np.isnan(self.mean))
        return tuple((self.tasks[i], self.tasks[j]) for i, j in holes if i != j)


def pool(sums: Iterable[AffinitySums]) -> Affinity:
    """The weighted means of all measured batches; the order in which sums come does not matter.

    mean = sum(wz) / sum(w); se = sqrt(var / (n_eff - 1)) with the weighted variance and
    n_eff = sum(w)**2 / sum(w**2). Raises AffinityRefused if there are none, or one is of other tasks,
    of a wrong length, or holds a number that cannot be.
    """
    parts = list(sums)
    if not parts:
        raise AffinityRefused("no affinities were measured")
    tasks = parts[0].tasks
    for part in parts:
        _check(part, tasks)
    batches, w, ww, wz, wzz = (_total([getattr(p, name) for p in parts], len(tasks)) for name in SUMS)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = wz / w
        variance = np.maximum(wzz / w - mean**2, 0.0)
        free = w**2 / ww - 1.0
        # two equal batches count as 2 only up to rounding, hence the margin
        se = np.where(free >= 1.0 - 1e-9, np.sqrt(variance / free), np.nan)
    return Affinity(tasks, mean, se, batches.astype(np.int64))


def to_choose_by(sums: Iterable[AffinitySums]) -> Affinity:
    """``pool``; raises AffinityRefused also where no effect of a task on another one was measured."""
    affinity = pool(sums)
    n = len(affinity.tasks)
    if n > 1 and len(affinity.missing) == n * (n - 1):
        raise AffinityRefused("no effect of a task on another one was measured")
    return affinity


def restricted(sums: AffinitySums, tasks: Sequence[str]) -> AffinitySums:
    """The sums between these tasks alone, in this order; all of them were measured."""
    n, places = len(sums.tasks), [sums.tasks.index(task) for task in tasks]
    kept = {name: tuple(getattr(sums, name)[i * n + j] for i in places for j in places) for name in SUMS}
    return msgspec.structs.replace(sums, tasks=tuple(tasks), **kept)


def _check(part: AffinitySums, tasks: tuple[str, ...]) -> None:
    if part.tasks != tasks:
        raise AffinityRefused(
            f"affinities of {', '.join(part.tasks)} do not pool with those of {', '.join(tasks)}"
        )
    for name in SUMS:
        values = getattr(part, name)
        if len(values) != len(tasks) ** 2:
            raise AffinityRefused(
                f"affinity sums {name}: {len(values)} entries for {len(tasks)} tasks, not n * n"
            )
        least, most = (-LARGEST if name == "wz" else 0.0), (2**53 if name == "batches" else LARGEST)
        if not all(least <= value <= most for value in values):
            raise AffinityRefused(f"affinity sums {name}: an entry is not a number from {least} to {most}")


def _total(rows: Sequence[tuple[float, ...]], n: int) -> NDArray[np.float64]:
    """Entry by entry the exactly rounded sum, which no order of the rows can change."""
    return np.array([math.fsum(column) for column in zip(*rows, strict=True)]).reshape(n, n)


def normalise(affinity: Affinity, how: Literal["raw", "self"] = "raw") -> Affinity:
    """The affinities as published, or each column divided by its task's effect on itself.

    ``self`` takes out that the loss of some tasks falls faster than that of others. Values are
    clipped to [-1, 1]; a column whose self-effect is not positive is unknown (NaN).
    """
    if how == "raw":
        return affinity
    own, own_se = np.diag(affinity.mean), np.diag(affinity.se)
    own = np.where(own > 0, own, np.nan)
    ratio = affinity.mean / own
    se = np.hypot(affinity.se, ratio * own_se) / own  # of a quotient, to first order
    np.fill_diagonal(se, np.where(np.isnan(own), np.nan, 0.0))
    return replace(affinity, mean=np.clip(ratio, -1.0, 1.0), se=se)
