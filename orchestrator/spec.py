"""What a job is asked to do, and whether that can be done at all.

Checked before anything starts, so that a typing error costs a line and not a night. It knows nothing
of devices that exist or of data: names are resolved by ``models.tasks`` and by the fleet.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mas_edge.wire.messages import Training, check_name

Policy: TypeAlias = Literal["mas", "all-in-one", "one-by-one", "fixed"]
ORCHESTRATOR = "orchestrator"
"""The group under which the orchestrator's own work is billed: first weights, unseen clients."""

POLICIES: tuple[Policy, ...] = ("mas", "all-in-one", "one-by-one", "fixed")


class SpecRefused(ValueError):
    """A job that cannot be run as it is written; the text says what to change."""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job is asked to do. ``groups`` counts for policy mas, ``partition`` for fixed.

    ``devices`` train; ``unseen`` are clients of the workload whose data the orchestrator itself
    judges the final weights on.
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


def check(spec: JobSpec) -> JobSpec:
    """The spec, if it can be run; raises SpecRefused (and NameRefused) with what to change."""
    check_name(spec.name, "job")
    for device in spec.devices:
        check_name(device)
    rounds_, merged = spec.training.rounds, spec.merge_rounds
    if not spec.tasks or len(set(spec.tasks)) < len(spec.tasks):
        raise SpecRefused(f"job {spec.name}: needs tasks, each once; got {', '.join(spec.tasks) or 'none'}")
    if not spec.devices:
        raise SpecRefused(f"job {spec.name}: needs at least one device")
    if rounds_ < 1:
        raise SpecRefused(f"job {spec.name}: rounds must be at least 1, not {rounds_}")
    least = 1 if spec.policy == "mas" else 0
    if spec.policy in {"mas", "fixed"} and not least <= merged < rounds_:
        raise SpecRefused(
            f"job {spec.name}: merge rounds must be {least} to {rounds_ - 1}, less than all {rounds_},"
            f" not {merged}"
        )
    if spec.policy == "mas" and spec.groups != "auto" and not 1 <= spec.groups <= len(spec.tasks):
        raise SpecRefused(
            f"job {spec.name}: groups must be auto or 1 to {len(spec.tasks)}, the number of tasks,"
            f" not {spec.groups}"
        )
    if spec.policy == "fixed" and sorted(t for g in spec.partition for t in g) != sorted(spec.tasks):
        raise SpecRefused(f"job {spec.name}: the partition must name each of {', '.join(spec.tasks)} once")
    return spec
