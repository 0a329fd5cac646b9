"""What becomes of a task group that does not fit the devices' memory.

A device that declines a group for want of memory leaves it, and the others go on without it. When the last
one has left, the group is divided into the coarsest partition of its tasks of which every part fits a device,
by the numbers that came with the refusals: what the encoder takes, and what each task adds. Among partitions
into equally many parts the most even one is taken (the least sum of squared needs). Where a refusal has no
numbers, any smaller group is worth a try. Every refusal takes a device from a group and every division makes
groups smaller, so it ends: with groups that fit, or with a task that fits nowhere, which fails the job.

Pure. Affinity has no say: a group is divided because it must be, often before anything was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mas_edge.orchestrator.partitions import k_best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.wire.messages import Shortage


class Unfit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A device that a group does not fit, by how much, and the same in its words."""

    device: str
    shortage: Shortage
    detail: str = ""


def divided(tasks: tuple[str, ...], unfit: Sequence[Unfit]) -> tuple[tuple[str, ...], ...]:
    """The groups that take the place of one that fits none of these devices; empty for a single task.

    Where not every task fits by the numbers, each stands alone: they are estimates, and the devices will say.
    Groups and the tasks in them are in the given order.
    """
    n = len(tasks)
    if n < 2:
        return ()
    groups = [tuple(task for i, task in enumerate(tasks) if mask >> i & 1) for mask in range(2**n)]
    worth = np.full(2**n, -np.inf)
    for mask, group in enumerate(groups[:-1]):  # the whole is what did not fit
        needs = [need for each in unfit if (need := _fitting(each.shortage, group)) is not None]
        if group and needs:
            worth[mask] = -(min(needs) ** 2)
    for partitions in k_best(worth, n, 1):
        if partitions:
            return tuple(groups[mask] for mask in partitions[0])
    return tuple((task,) for task in tasks)


def _fitting(short: Shortage, group: tuple[str, ...]) -> float | None:
    """What the group needs of a device that it fits, in bytes above the encoder's; None if it does not fit.

    Unknown needs are counted by the task.
    """
    limits = [limit for limit in (short.allowed_bytes, short.peak_bytes) if limit is not None]
    of = {each.task: each.bytes for each in short.decoders}
    if short.encoder_bytes is None or not limits or not set(group) <= of.keys():
        return float(len(group))
    need = sum(of[task] for task in group)
    return float(need) if short.encoder_bytes + need <= min(limits) else None


def moved(group: str, round_: int, unfit: Unfit, others: Sequence[str]) -> str:
    """Why a device left a group, in words."""
    left = f"it goes on without, on {', '.join(others)}" if others else "it has no device left"
    return f"{unfit.device} cannot train {group} from round {round_ + 1} on ({unfit.detail}): {left}"


def divided_because(group: str, parts: Sequence[Sequence[str]], *, measuring: bool) -> str:
    """Why a group was divided, in words; ``measuring`` says that affinity was to be measured on it."""
    names = " | ".join("+".join(part) for part in parts)
    unknown = "; affinity is not measured on it" if measuring else ""
    return f"{group} fits no device: it goes on as {names}{unknown}"


def nowhere(group: str, unfit: Sequence[Unfit]) -> str:
    """Why a job cannot go on, in words."""
    said = "; ".join(f"{each.device}: {each.detail}" for each in unfit)
    return f"{group} alone fits no device ({said}): raise the memory limit, or lower the batch or the network"
