"""What a job is asked to do, and whether that can be done at all.

Checked before anything starts, so that a typing error costs a line and not a night. It knows nothing
of devices that exist or of data: names are resolved by ``models.tasks`` and by the fleet.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.wire.messages import Training, check_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Policy: TypeAlias = Literal["mas", "mas-verified", "tag", "hoa", "all-in-one", "one-by-one", "fixed"]
ORCHESTRATOR = "orchestrator"
"""The group under which the orchestrator's own work is billed: first weights, unseen clients."""

POLICIES: tuple[Policy, ...] = ("mas", "mas-verified", "tag", "hoa", "all-in-one", "one-by-one", "fixed")
MERGES: frozenset[Policy] = frozenset({"mas", "mas-verified", "fixed"})
"""Policies whose first rounds train all tasks together, and whose groups go on from there."""
MEASURES: frozenset[Policy] = frozenset({"mas", "mas-verified", "tag"})
"""Policies that measure affinity while all tasks are trained together."""
FROM_SCRATCH: frozenset[Policy] = frozenset({"tag", "hoa"})
"""Policies whose chosen groups are trained from the first weights, and may overlap."""
CHOOSES: frozenset[Policy] = MEASURES | FROM_SCRATCH
"""Policies that choose the groups."""
BELONGS: dict[str, frozenset[Policy]] = {
    "partition": frozenset({"fixed"}),
    "merge_rounds": MERGES,
    "groups": CHOOSES,
}
"""What is said to some policies only."""

MOST_OVER = 4.0
"""Five times as many as wanted: more would be a mistake in the unit."""


class SpecRefused(ValueError):
    """A job that cannot be run as it is written; the text says what to change."""


class Participation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who takes part in a round, and when it ends without the rest (``orchestrator.selection``).

    ``clients`` is how many answers a round wants, None all devices of the group; ``over_selection`` is the
    share that is asked on top, and the round ends when so many as wanted have answered. ``quorum`` is the
    least share of the wanted that lets a round end at its deadline; ``deadline_s`` is a number of seconds,
    ``auto`` from the devices' measured speeds, or None for ever.
    """

    clients: int | None = None
    select: Literal["random", "resourceful"] = "random"
    over_selection: float = 0.0
    quorum: float = 0.5
    deadline_s: float | Literal["auto"] | None = "auto"


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job may use; None has no limit. ``device_energy_j_per_day`` holds for each device."""

    energy_j: float | None = None
    time_s: float | None = None
    device_energy_j_per_day: float | None = None


class Launched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task as somebody launched it: their name for it, who pays, and at which held-out loss it may stop."""

    task: str
    name: str
    owner: str = ""
    target_loss: float | None = None


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job is asked to do. ``groups`` counts for policies that choose them, ``partition`` for fixed.

    ``devices`` train; ``unseen`` are clients of the workload whose data the orchestrator itself
    judges the final weights on. Jobs share devices by ``priority``, a greater one first.
    """

    name: str
    tasks: tuple[str, ...]
    training: Training
    policy: Policy
    devices: tuple[str, ...]
    merge_rounds: int = 0
    groups: int | Literal["auto"] = "auto"
    partition: tuple[tuple[str, ...], ...] = ()
    unseen: tuple[str, ...] = ()
    tries: int = 3
    participation: Participation = Participation()
    budget: Budget = Budget()
    priority: int = 0
    launched: tuple[Launched, ...] = ()


def misplaced(said: Iterable[str], policies: Collection[Policy]) -> tuple[str, tuple[Policy, ...]] | None:
    """The first of what is ``said`` that is for none of these policies, with those that it is for."""
    for name in said:
        if not BELONGS[name] & set(policies):
            return name, tuple(policy for policy in POLICIES if policy in BELONGS[name])
    return None


def first_groups(spec: JobSpec) -> tuple[tuple[str, ...], ...]:
    """The groups that a policy begins with: all tasks in one, all that it compares, or those it ends with."""
    if spec.policy in {"one-by-one", "hoa"}:
        pairs = combinations(spec.tasks, 2) if spec.policy == "hoa" else ()
        return (*((task,) for task in spec.tasks), *pairs)
    return spec.partition if spec.policy == "fixed" and not spec.merge_rounds else (spec.tasks,)


def check(spec: JobSpec) -> JobSpec:
    """The spec, if it can be run; raises SpecRefused (and NameRefused) with what to change."""
    check_name(spec.name, "job")
    for device in spec.devices:
        check_name(device)
    _check_participation(spec)
    rounds_, merged = spec.training.rounds, spec.merge_rounds
    if not spec.tasks or len(set(spec.tasks)) < len(spec.tasks):
        raise SpecRefused(f"job {spec.name}: needs tasks, each once; got {', '.join(spec.tasks) or 'none'}")
    if not spec.devices:
        raise SpecRefused(f"job {spec.name}: needs at least one device")
    if rounds_ < 1:
        raise SpecRefused(f"job {spec.name}: rounds must be at least 1, not {rounds_}")
    least = 0 if spec.policy == "fixed" else 1
    if spec.policy in MERGES and not least <= merged < rounds_:
        raise SpecRefused(
            f"job {spec.name}: merge rounds must be {least} to {rounds_ - 1}, less than all {rounds_},"
            f" not {merged}"
        )
    if spec.policy in CHOOSES and spec.groups != "auto" and not 1 <= spec.groups <= len(spec.tasks):
        raise SpecRefused(
            f"job {spec.name}: groups must be auto or 1 to {len(spec.tasks)}, the number of tasks,"
            f" not {spec.groups}"
        )
    if spec.policy == "fixed" and sorted(t for g in spec.partition for t in g) != sorted(spec.tasks):
        raise SpecRefused(f"job {spec.name}: the partition must name each of {', '.join(spec.tasks)} once")
    _check_budget(spec)
    _check_launched(spec)
    return spec


def _check_launched(spec: JobSpec) -> None:
    """Raises SpecRefused for what was launched as a task that the job has not, or has twice."""
    tasks = [each.task for each in spec.launched]
    strange = [task for task in tasks if task not in spec.tasks or tasks.count(task) > 1]
    if strange:
        raise SpecRefused(f"job {spec.name}: {strange[0]} was launched, but is not one task of it")


def _check_participation(spec: JobSpec) -> None:
    """Raises SpecRefused for a round that could not be asked, or could never end."""
    part, who = spec.participation, f"job {spec.name}: participation"
    if part.clients is not None and not 1 <= part.clients <= len(spec.devices):
        raise SpecRefused(f"{who}: clients must be 1 to {len(spec.devices)}, its devices, not {part.clients}")
    if not 0 <= part.over_selection <= MOST_OVER:
        raise SpecRefused(f"{who}: over_selection must be 0 to {MOST_OVER:g}, not {part.over_selection:g}")
    if not 0 < part.quorum <= 1:
        raise SpecRefused(f"{who}: quorum must be more than 0 and at most 1, not {part.quorum:g}")
    if isinstance(part.deadline_s, float) and not part.deadline_s > 0:
        raise SpecRefused(f'{who}: deadline_s must be more than 0 or "auto", not {part.deadline_s:g}')
    if spec.training.reproducible and part != Participation():
        raise SpecRefused(f"{who}: a reproducible job asks every device and waits for it; leave this out")
    if not 0 <= spec.training.prox_mu < float("inf"):
        raise SpecRefused(f"job {spec.name}: prox_mu must be 0 or more, not {spec.training.prox_mu:g}")


def _check_budget(spec: JobSpec) -> None:
    limits = msgspec.structs.asdict(spec.budget)
    for key, limit in limits.items():
        if limit is not None and not 0 < limit < math.inf:
            raise SpecRefused(f"job {spec.name}: budget {key} must be more than 0, not {limit:g}")
    if spec.training.reproducible and any(limit is not None for limit in limits.values()):
        raise SpecRefused(
            f"job {spec.name}: a reproducible job can have no budget: clocks and sensors, which no seed"
            " repeats, would decide when it ends"
        )
