"""What a round of any task group costs on any device, in seconds or joules, and how sure that is.

A group's round costs a common part (transport, start, encoder) and a part per task; how these compare is
known before anything was measured, roughly, from their FLOPs or numbers of parameters (the *static* model).
What a unit of such work costs is different on each device. Costs err by factors rather than by amounts, so
the model is linear in logarithms, about the static model:

    log cost(group, device) = log work(group) + level + device + sum over parts share(part, group) x part
                              + group on this device + noise

``work`` is the group's share of all FLOPs, ``share`` each part's share of that. Everything unknown has
a normal prior of mean 0 and a stated standard deviation, so the posterior is that of Bayesian linear
regression (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 2.1; Gelman et al.,
Bayesian Data Analysis, 3rd ed., section 15.2, for effects by group). As the noise is stated and not
estimated, an observation never widens an interval. Rounds of one group alone cannot tell its parts from
each other: the parts then stay as uncertain as they were, and so does a group that nobody has trained.

It measures nothing and knows no budget. A cost that is not positive (joules near zero may come out so) has no
logarithm and is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Vector: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["static", "fitted", "measured"]

LEVEL_SD = 10.0
"""Of the level: as good as unknown, anything from a microsecond to an hour."""

DEVICE_SD = 1.0
"""Devices of a fleet differ by a factor of about 2.7, as a Raspberry Pi 4 and an Orin's processors do."""

PART_SD = 0.5
"""FLOPs and parameters tell a part's cost to a factor of about 1.6: what is small is bound by memory."""

CELL_SD = 0.1
"""What is peculiar to a group on a device: smaller micro-batches, caches, and that logarithms are not
linear.
"""

NOISE_SD = 0.25
"""From round to round on one device: 0.15 to 0.25 in the runs of docs/results/demo.md without first rounds.
"""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A cost that is expected, its standard uncertainty upwards, and where the numbers are from.

    ``measured``: this very group was trained on this very device. ``fitted``: from other groups or devices.
    ``static``: from FLOPs or numbers of parameters alone.
    """

    value: float
    u: float
    how: Method

    @property
    def upper(self) -> float:
        """What it costs if it comes out higher by its standard uncertainty."""
        return self.value + self.u

    def words(self, unit: str) -> str:
        """With its standard uncertainty and its unit."""
        return f"{figure(self.value)} \N{PLUS-MINUS SIGN}{figure(self.u, 2)} {unit}"


def figure(value: float, digits: int = 3) -> str:
    """A number for people: so many digits that count, none of them an exponent's."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """How a group's cost divides: ``common`` to all its tasks, and what each adds. They sum to 1."""

    common: float
    of: dict[str, float]
    how: Method


@dataclass(frozen=True)
class Cell:
    """Rounds of a group on a device: how many, and the mean of the logarithms of what they cost."""

    group: tuple[str, ...]
    device: str
    mean_log: float
    rounds: int


@dataclass(frozen=True, eq=False)
class CostModel:
    """Posterior of the level, of each device and of each part, jointly normal; see the module.

    ``tasks`` are those of the job; groups are given as bit masks over them. Without any observation
    ``known`` is false: costs are then relative to an unknown unit.
    """

    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    parts: Vector
    mean: Vector
    covariance: NDArray[np.float64]
    cells: Mapping[tuple[int, int], tuple[float, int]]
    """(mask, number of the device) -> mean logarithm, rounds."""

    @property
    def known(self) -> bool:
        """Whether costs have a unit: something was observed."""
        return bool(self.cells)

    def factors(self, masks: NDArray[np.int64]) -> tuple[Vector, Vector]:
        """Costs as products (masks,) x (devices,), without what is peculiar to groups on devices."""
        work, share = _shares(self.parts, masks)
        at = 1 + len(self.devices)
        by_group = np.exp(np.log(work) + share @ self.mean[at:])
        return by_group, np.exp(self.mean[0] + self.mean[1:at])

    def logs(self, masks: NDArray[np.int64]) -> tuple[Vector, Vector]:
        """(masks, devices): mean and variance of the logarithm of each cost."""
        work, share = _shares(self.parts, masks)
        d = len(self.devices)
        at, devices = 1 + d, np.arange(1, 1 + d)
        c = self.covariance
        mean = (np.log(work) + share @ self.mean[at:])[:, None] + (self.mean[0] + self.mean[1:at])[None, :]
        own = np.einsum("gp,pq,gq->g", share, c[at:, at:], share)
        each = c[0, 0] + 2 * c[0, devices] + c[devices, devices]
        mixed = share @ (c[at:, :1] + c[at:, devices])
        variance = own[:, None] + each[None, :] + 2 * mixed
        spread = np.full_like(variance, CELL_SD**2)
        for row, column, (found, rounds) in self._seen(masks):
            noise = NOISE_SD**2 / rounds
            trust = CELL_SD**2 / (CELL_SD**2 + noise)
            mean[row, column] += trust * (found - mean[row, column])
            variance[row, column] *= (1 - trust) ** 2
            spread[row, column] = trust * noise
        return mean, np.maximum(variance, 0.0) + spread

    def seen(self, masks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(masks, devices): which costs were observed themselves."""
        found = np.zeros((len(masks), len(self.devices)), bool)
        for row, column, _ in self._seen(masks):
            found[row, column] = True
        return found

    def _seen(self, masks: NDArray[np.int64]) -> list[tuple[int, int, tuple[float, int]]]:
        rows = {mask: row for row, mask in enumerate(masks.tolist())}
        return [(rows[mask], device, cell) for (mask, device), cell in self.cells.items() if mask in rows]

    def cost(self, group: Sequence[str], device: str) -> Estimate | None:
        """Of a group's round on a device, in the observations' unit; None if nothing was observed."""
        if not self.known:
            return None
        mask, column = mask_of(group, self.tasks), self.devices.index(device)
        mean, variance = self.logs(np.array([mask]))
        value = math.exp(mean[0, column])
        how: Method = "measured" if (mask, column) in self.cells else "fitted"
        return Estimate(value=value, u=value * math.expm1(math.sqrt(variance[0, column])), how=how)

    def shares(self, group: Sequence[str]) -> Shares:
        """How what a group costs divides into what its tasks have in common and what each adds."""
        at = 1 + len(self.devices)
        weights = self.parts * np.exp(self.mean[at:])
        places = [self.tasks.index(task) for task in group]
        total = float(weights[0] + weights[[1 + place for place in places]].sum())
        of = {task: float(weights[1 + place]) / total for task, place in zip(group, places, strict=True)}
        how: Method = "fitted" if len({mask for mask, _ in self.cells}) > 1 else "static"
        return Shares(common=float(weights[0]) / total, of=of, how=how)


def mask_of(group: Iterable[str], tasks: Sequence[str]) -> int:
    """The bit mask of a group over a job's tasks."""
    return sum(1 << tasks.index(task) for task in group)


def cells(costs: Iterable[tuple[tuple[str, ...], str, float]]) -> tuple[Cell, ...]:
    """Rounds (group, device, cost) put together by group and device."""
    logs: dict[tuple[tuple[str, ...], str], list[float]] = defaultdict(list)
    for group, device, cost in costs:
        if cost > 0 and math.isfinite(cost):
            logs[group, device].append(math.log(cost))
    return tuple(Cell(g, d, math.fsum(found) / len(found), len(found)) for (g, d), found in logs.items())


def fit(
    tasks: tuple[str, ...], devices: tuple[str, ...], amounts: Mapping[str, int], seen: Iterable[Cell]
) -> CostModel:
    """The model after what was seen; ``amounts`` are of each part's work (encoder, decoder.TASK) in any unit:
    FLOPs of an example, or where they are not known numbers of parameters, of ``Initialised``.

    Cells of devices and tasks that are none of these are left out.
    """
    parts = _static(tasks, amounts)
    kept = {
        (mask_of(cell.group, tasks), devices.index(cell.device)): (cell.mean_log, cell.rounds)
        for cell in seen
        if cell.device in devices and set(cell.group) <= set(tasks)
    }
    d, size = len(devices), 1 + len(devices) + len(parts)
    sd = np.concatenate([[LEVEL_SD], np.full(d, DEVICE_SD), np.full(len(parts), PART_SD)])
    if not kept:
        return CostModel(tasks, devices, parts, np.zeros(size), np.diag(sd**2), kept)
    masks = np.array([mask for mask, _ in kept], np.int64)
    work, share = _shares(parts, masks)
    design = np.zeros((len(kept), size))
    design[:, 0] = 1.0
    design[np.arange(len(kept)), [1 + device for _, device in kept]] = 1.0
    design[:, 1 + d :] = share
    found = np.array([mean_log for mean_log, _ in kept.values()]) - np.log(work)
    weight = 1.0 / (CELL_SD**2 + NOISE_SD**2 / np.array([rounds for _, rounds in kept.values()]))
    precision = np.diag(sd**-2.0) + (design.T * weight) @ design
    covariance = np.linalg.inv(precision).astype(np.float64)
    mean = covariance @ (design.T @ (weight * found))
    return CostModel(tasks, devices, parts, mean, covariance, kept)


def _static(tasks: Sequence[str], work: Mapping[str, int]) -> Vector:
    """Each part's share of all work, the common one first; equal parts where it is not known."""
    names = ["encoder", *(f"decoder.{task}" for task in tasks)]
    counts = np.array([max(work.get(name, 0), 0) for name in names], np.float64)
    if not counts[0]:
        counts[:] = 1.0
    counts = np.maximum(counts, 1e-3 * counts.sum())  # no part is free, and zero has no logarithm
    parts: Vector = counts / counts.sum()
    return parts


def _shares(parts: Vector, masks: NDArray[np.int64]) -> tuple[Vector, Vector]:
    """(masks,): each group's work; (masks, parts): each part's share of it."""
    inside = np.ones((len(masks), len(parts)))
    inside[:, 1:] = masks[:, None] >> np.arange(len(parts) - 1) & 1
    used = inside * parts
    work = used.sum(axis=1)
    return work, used / work[:, None]
