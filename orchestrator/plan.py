"""From the options of `mas demo` to jobs that can be run: everything is checked before anything starts.

A preset of the workload fixes the size of the job, options override it, and the clients that are seen in
training are dealt to the agents in turn, so that each agent plays several people (or buildings). The
same seed, data and agents serve every policy that is compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from mas_edge.models.tasks import UnknownChoice, Workload, find
from mas_edge.orchestrator.partitions import partition_from_text
from mas_edge.orchestrator.spec import (
    BELONGS,
    MERGES,
    POLICIES,
    JobSpec,
    Policy,
    SpecRefused,
    check,
    misplaced,
)
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mas_edge.models.tasks import Preset

JOB = "demo"
DEVICE = "edge-{}"


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may say; None takes the preset's value."""

    workload: str = "watch"
    preset: str = "demo"
    policy: str | None = None
    partition: str | None = None
    tasks: str | None = None
    groups: str | None = None
    rounds: int | None = None
    merge_rounds: int | None = None
    clients: int = 4
    affinity: Literal["gram", "gram-full", "lookahead", "lookahead-momentum"] = "gram"
    seed: int = 1


class DemoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A job, which clients of the workload each agent has, and the folder of their data (None: shipped)."""

    spec: JobSpec
    clients: dict[str, tuple[str, ...]]
    root: str | None = None


def demo_plan(options: DemoOptions) -> DemoPlan:
    """The checked plan; raises WorkloadError, SpecRefused or PartitionRefused with what to change."""
    workload = find(options.workload)
    preset = workload.preset(options.preset)
    tasks = _tasks(workload, options.tasks)
    policy = _policy(options.policy or "mas")
    if policy == "fixed" and options.partition is None:
        raise SpecRefused("--policy fixed needs --partition, such as 'a+b,c'")
    rounds = preset.rounds if options.rounds is None else options.rounds
    clients = _deal(workload, options.clients, preset.clients_per_agent)
    training = Training(
        workload=workload.name,
        network=preset.network,
        rounds=rounds,
        epochs=preset.epochs,
        batch=preset.batch,
        lr=preset.lr,
        seed=options.seed,
        held_out_share=preset.held_out_share,
        affinity=options.affinity,
        affinity_every=preset.affinity_every,
        reproducible=True,
    )
    spec = JobSpec(
        name=JOB,
        tasks=tasks,
        training=training,
        policy=policy,
        devices=tuple(clients),
        merge_rounds=_merge_rounds(options, policy, preset.merge_rounds),
        groups=_groups(options.groups, preset, len(tasks)),
        partition=_partition(options, policy, tasks),
        unseen=workload.unseen,
    )
    return DemoPlan(spec=check(spec), clients=clients)


def demo_plans(options: DemoOptions, compare: str | None) -> dict[Policy, DemoPlan]:
    """The plan of each policy that is compared, or of the one that was chosen; raises as ``demo_plan`` does.

    What is said counts for those policies that it is for, and has to be for one of them.
    """
    if compare is not None and options.policy is not None:
        raise SpecRefused("--compare names the policies: leave out --policy")
    policies = compared(compare) if compare is not None else (_policy(options.policy or "mas"),)
    if found := misplaced([name for name in BELONGS if getattr(options, name) is not None], policies):
        option = f"--{found[0].replace('_', '-')}"
        raise SpecRefused(f"{option} belongs to --policy {', '.join(found[1])}, not to {', '.join(policies)}")
    return {each: demo_plan(msgspec.structs.replace(options, policy=each)) for each in policies}


def _tasks(workload: Workload, text: str | None) -> tuple[str, ...]:
    names = None if text is None else [name.strip() for name in text.split(",")]
    return tuple(task.name for task in workload.choose(names))


def _policy(name: str) -> Policy:
    for policy in POLICIES:
        if policy == name:
            return policy
    raise SpecRefused(f"no policy {name!r}; there are {', '.join(POLICIES)}")


def _groups(text: str | None, preset: Preset, tasks: int) -> int | Literal["auto"]:
    if text is None:
        return "auto" if preset.groups == "auto" else min(preset.groups, tasks)
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise SpecRefused(f"--groups {text!r}: give a number of groups, or auto") from None


def _merge_rounds(options: DemoOptions, policy: Policy, preset: int) -> int:
    if policy not in MERGES:
        return 0
    return preset if options.merge_rounds is None else options.merge_rounds


def _partition(options: DemoOptions, policy: Policy, tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return partition_from_text(options.partition or "", tasks) if policy == "fixed" else ()


def _deal(workload: Workload, agents: int, each: int | None) -> dict[str, tuple[str, ...]]:
    seen = [client for client in workload.clients if client not in workload.unseen]
    if not 1 <= agents <= len(seen):
        raise UnknownChoice(f"--clients must be 1 to {len(seen)}, the clients that train, not {agents}")
    return {DEVICE.format(n + 1): tuple(seen[n::agents][:each]) for n in range(agents)}


def compared(text: str) -> Sequence[Policy]:
    """The policies of `--compare`, in order; raises SpecRefused."""
    return tuple(_policy(name.strip()) for name in text.split(","))
