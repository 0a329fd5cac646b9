"""Which task groups a device can train at all: its labels, its memory, its limits; each "no" with its reason.

What a device said itself is a fact: it declined this group, or by the numbers of its refusal the sum of a
group's parts is more than it may have. A group that it trained fits, and so does every part of it. Of a
device that has said nothing, only what is certain is held against it: weights, gradients and momentum
alone, twelve bytes a parameter, are more than its limit. Between the two, another device's numbers tell
what a group needs; they are estimates (docs/results/memory.md: within 9 % of what is measured), so there
has to be a tenth more than the limit.

Everything else is allowed: a device that is asked too much says so after one dry step. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.orchestrator.cost_model import mask_of
from mas_edge.orchestrator.partitions import members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from mas_edge.orchestrator.observed import Observed
    from mas_edge.orchestrator.roster import DeviceFacts

PARAMETER_BYTES = 12
"""A parameter as float32 with its gradient and its momentum, all of which a step holds at once."""

MARGIN = 1.1
"""How much more than a limit the numbers of another device have to say before they count against this one."""


@dataclass(frozen=True, eq=False)
class Needs:
    """What groups need of a memory, in bytes, by mask; ``estimate`` None where no device has said numbers."""

    least: NDArray[np.float64]
    estimate: NDArray[np.float64] | None

    def size(self, mask: int) -> float:
        """Bytes to compare groups by: as estimated, else by numbers of parameters, else one a task."""
        said = np.nan if self.estimate is None else self.estimate[mask]
        return float(self.least[mask] if np.isnan(said) else said) or float(mask.bit_count())


@dataclass
class _Known:
    """What one device is known by."""

    refused: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    own: NDArray[np.float64] | None = None  # bytes that its own refusal says, by mask
    limit_bytes: float | None = None  # what it may have, as it said itself


@dataclass(frozen=True, eq=False)
class Capacity:
    """Whether each device can train each group, by mask, and why not."""

    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    able: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    """(devices, tasks): who has labels for what; true where that is not known."""
    needs: Needs
    _known: Mapping[str, _Known]
    _facts: Mapping[str, DeviceFacts]
    workload: str

    def trainers(self, group: Iterable[str]) -> tuple[str, ...]:
        """The devices that can train a group, in the job's order."""
        row = self.able[mask_of(group, self.tasks)]
        return tuple(device for device, can in zip(self.devices, row, strict=True) if can)

    def covered(self, group: Sequence[str]) -> bool:
        """Whether some device that can train the group has labels for each of its tasks."""
        places = [self.tasks.index(task) for task in group]
        return bool(self.labelled[self.able[mask_of(group, self.tasks)]][:, places].any(axis=0).all())

    def why_not(self, group: Sequence[str], device: str) -> str:
        """Why a device cannot train a group, in words; empty if it can."""
        mask, number = mask_of(group, self.tasks), self.devices.index(device)
        if self.able[mask, number]:
            return ""
        if not self.labelled[number][[self.tasks.index(task) for task in group]].any():
            some = self.labelled[number].any()
            return f"has no labels for {', '.join(group)}" if some else f"has no data of {self.workload}"
        return self._no_room(mask, device)

    def _no_room(self, mask: int, device: str) -> str:
        known, facts = self._known.get(device, _Known()), self._facts.get(device)
        if known.own is not None and known.limit_bytes is not None and known.own[mask] > known.limit_bytes:
            return f"needs {_mb(known.own[mask])}, may have {_mb(known.limit_bytes)}"
        if any(mask & refused == refused for refused in known.refused):
            return "declined it for want of memory"
        limit = (facts.limit_bytes if facts else None) or 0
        if self.needs.least[mask] > limit:
            return f"needs {_mb(self.needs.least[mask])} for weights and gradients alone, has {_mb(limit)}"
        return f"needs {_mb(self.needs.size(mask))} as other devices say, has {_mb(limit)}"


def capacity(
    tasks: tuple[str, ...],
    devices: tuple[str, ...],
    workload: str,
    parameters: Mapping[str, int],
    facts: Iterable[DeviceFacts],
    seen: Observed,
) -> Capacity:
    """What each device can train, from what devices said of themselves and what was observed."""
    about = {each.name: each for each in facts if each.name in devices}
    known, needs = _known(tasks, seen), _needs(tasks, parameters, seen)
    labelled = np.ones((len(devices), len(tasks)), bool)
    able = np.ones((1 << len(tasks), len(devices)), bool)
    masks = np.arange(1 << len(tasks))
    for number, device in enumerate(devices):
        if device in about:
            labels = about[device].labels(workload)
            labelled[number] = [task in labels for task in tasks]
        mine = known.get(device, _Known())
        limit = about[device].limit_bytes if device in about else None
        able[:, number] = _fits(masks, mine, needs, limit)
        able[:, number] &= (members(len(tasks)) & labelled[number]).any(axis=1)
    able[0] = False
    return Capacity(tasks, devices, able, labelled, needs, known, about, workload)


def _fits(
    masks: NDArray[np.int64], mine: _Known, needs: Needs, limit_bytes: float | None
) -> NDArray[np.bool_]:
    """(2**n,): which groups a device's memory may hold."""
    fits = np.ones(len(masks), bool)
    if mine.own is not None and mine.limit_bytes is not None:
        fits &= mine.own <= mine.limit_bytes
    elif limit_bytes is not None:
        fits &= needs.least <= limit_bytes
        if needs.estimate is not None:
            fits &= ~(needs.estimate > MARGIN * limit_bytes)  # NaN, an unknown need, is no objection
    for refused in mine.refused:
        fits &= masks & refused != refused
    for trained in mine.trained:
        fits |= masks & ~trained == 0
    return fits


def _known(tasks: Sequence[str], seen: Observed) -> dict[str, _Known]:
    """By device, what it trained and what it declined in this job."""
    known: dict[str, _Known] = {}
    for training in seen.trainings:
        if set(training.group) <= set(tasks):
            known.setdefault(training.device, _Known()).trained.append(mask_of(training.group, tasks))
    for each in seen.refused:
        mine, short = known.setdefault(each.device, _Known()), each.shortage
        if set(each.group) <= set(
            tasks
        ):  # of one with a task that was stopped only the numbers tell something
            mask = mask_of(each.group, tasks)
            mine.refused.append(mask)
            mine.trained = [trained for trained in mine.trained if trained & mask != mask]  # it fits no more
        limits = [b for b in (short.allowed_bytes, short.peak_bytes) if b is not None]
        if limits and short.encoder_bytes is not None:
            mine.limit_bytes = float(min(limits))
            of = {part.task: float(part.bytes) for part in short.decoders}
            sums = _sums(tasks, float(short.encoder_bytes), of)
            mine.own = np.where(np.isnan(sums), 0.0, sums)  # of a task without a number nothing is known
    for mine in known.values():
        mine.trained = sorted(set(mine.trained))
    return known


def _needs(tasks: Sequence[str], parameters: Mapping[str, int], seen: Observed) -> Needs:
    """What is certain by numbers of parameters, and what the least of all refusals say."""
    bytes_of = {task: float(PARAMETER_BYTES * parameters.get(f"decoder.{task}", 0)) for task in tasks}
    least = _sums(tasks, float(PARAMETER_BYTES * parameters.get("encoder", 0)), bytes_of)
    shorts = [each.shortage for each in seen.refused if each.shortage.encoder_bytes is not None]
    if not shorts:
        return Needs(least, None)
    said: dict[str, float] = {}
    for part in (part for short in shorts for part in short.decoders):
        said[part.task] = min(said.get(part.task, float(part.bytes)), float(part.bytes))
    encoder = min(float(short.encoder_bytes or 0) for short in shorts)
    return Needs(least, _sums(tasks, encoder, said))


def _sums(tasks: Sequence[str], encoder: float, of: Mapping[str, float]) -> NDArray[np.float64]:
    """(2**n,): the encoder's bytes and those of each mask's tasks; NaN where one is not known."""
    each = np.array([of.get(task, np.nan) for task in tasks])
    total: NDArray[np.float64] = encoder + np.where(members(len(tasks)), each, 0.0).sum(axis=1)
    return total


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
