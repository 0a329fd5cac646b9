"""What somebody launches, made into tasks that can be trained.

``resolve`` fills in what a file (``orchestrator.launching.launch_tables``) leaves out: whatever is not in
``[training]`` is taken from a preset of the workload. ``admit`` says why it cannot be run here. What merges
with what is said in ``orchestrator.launching.gather``. Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

import msgspec

from mas_edge.orchestrator.spec import (
    MERGES,
    Budget,
    Launched,
    Participation,
    Policy,
    SpecRefused,
    misplaced,
)
from mas_edge.wire.messages import Training, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mas_edge.models.tasks import Workload
    from mas_edge.orchestrator.launching.launch_tables import TaskTable, Wish
    from mas_edge.wire.messages import Hello

LONGEST_OWNER = 48


class LaunchRefused(SpecRefused):
    """A launch that cannot be run as it is written, or not by this fleet; the text says what to change."""


class Launch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tasks that somebody launched, ready to be a job or a part of one.

    ``start_s`` (Unix time) is when its job begins at the latest; others may join until then unless ``alone``.
    """

    source: str
    tasks: tuple[Launched, ...]
    training: Training
    merge_rounds: int
    policy: Policy = "mas"
    groups: int | Literal["auto"] = "auto"
    partition: tuple[tuple[str, ...], ...] = ()
    priority: int = 0
    devices: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    budget: Budget = Budget()
    participation: Participation = Participation()
    stem: str = ""
    alone: bool = False
    start_s: float = 0.0


def resolve(asked: Wish, workload: Workload, owner: str, start_s: float) -> Launch:
    """The wish with everything filled in that its file left out.

    Raises LaunchRefused, NameRefused, and a WorkloadError (``models.tasks``), with what to change.
    """
    job, where = asked.job, asked.source
    if not asked.tasks:
        raise LaunchRefused(f"{where}: names no task; [[task]] begins one")
    if len(owner) > LONGEST_OWNER or not owner.isprintable():  # a terminal would obey control characters
        shown = owner[:LONGEST_OWNER]
        raise LaunchRefused(f"owner {shown!r}: use at most {LONGEST_OWNER} printable characters")
    names = [_launched(table, workload, owner, where) for table in asked.tasks]
    for what in ("task", "name"):
        found = [getattr(each, what) for each in names]
        if twice := [one for one in found if found.count(one) > 1]:
            raise LaunchRefused(f"{where}: two tasks have the {what} {twice[0]!r}; leave one out")
    if strange := [client for client in job.unseen if client not in workload.clients]:
        known = ", ".join(workload.clients)
        raise LaunchRefused(
            f"{where}: unseen: no client {strange[0]!r} in {workload.name}; there are {known}"
        )
    if job.name is not None:
        check_name(job.name, f"{where}: job")
    _check_belongs(asked)
    training, merge_rounds = _training(asked, workload)
    return Launch(
        source=where,
        tasks=tuple(names),
        training=training,
        merge_rounds=merge_rounds if job.policy in MERGES else 0,
        policy=job.policy,
        groups=job.groups,
        partition=job.partition,
        priority=job.priority,
        devices=job.devices,
        unseen=job.unseen,
        budget=asked.budget,
        participation=asked.participation,
        stem=job.name or "",
        alone=asked.alone,
        start_s=start_s,
    )


def _check_belongs(asked: Wish) -> None:
    """Raises LaunchRefused for what the policy would pass over in silence; one task is all in one."""
    policy = "all-in-one" if asked.alone and len(asked.tasks) == 1 else asked.job.policy
    said = {
        "partition": asked.job.partition != (),
        "groups": asked.job.groups != "auto",
        "merge_rounds": asked.training.merge_rounds is not None,
    }
    if found := misplaced([name for name, given in said.items() if given], (policy,)):
        name, those = found
        what = policy if policy == asked.job.policy else "a job of one task"
        raise LaunchRefused(
            f"{asked.source}: {name} belongs to policy {', '.join(those)}, not to {what}: leave it out"
        )


def _launched(table: TaskTable, workload: Workload, owner: str, where: str) -> Launched:
    task = workload.task(table.task).name
    name = table.name or task.lower().replace("_", "-")
    check_name(name, f"{where}: task")
    return Launched(task=task, name=name, owner=owner, target_loss=table.target_loss)


def _training(asked: Wish, workload: Workload) -> tuple[Training, int]:
    """How to train, and the merged rounds: the file's own over the preset's over the defaults."""
    own = {key: value for key, value in msgspec.structs.asdict(asked.training).items() if value is not None}
    preset = workload.preset(own.pop("preset", "demo"))
    merge_rounds = own.pop("merge_rounds", None)
    base = {"workload": workload.name, "seed": 1}
    for key in ("network", "rounds", "epochs", "batch", "lr", "affinity_every", "held_out_share"):
        base[key] = getattr(preset, key)
    if merge_rounds is None:  # the preset's, or as large a share of fewer rounds
        rounds = own.get("rounds", preset.rounds)
        merge_rounds = min(preset.merge_rounds, max(1, rounds * preset.merge_rounds // preset.rounds))
    training = Training(**{**base, **own})
    if training.network not in workload.networks:
        known = ", ".join(workload.networks)
        raise LaunchRefused(
            f"{asked.source}: no network {training.network!r} in {workload.name}; it has {known}"
        )
    return training, merge_rounds


def admit(launches: Sequence[Launch], taken: Mapping[str, str], hellos: Mapping[str, Hello]) -> None:
    """Nothing, if this fleet can run them; raises LaunchRefused with the first reason why not.

    ``taken`` are the names of tasks that run or wait, with their jobs; ``hellos`` what known devices said.
    """
    if not hellos:
        raise LaunchRefused(
            "no device has said hello to this orchestrator yet; start mas-agent on one"
            " (mas enroll gives it a configuration)"
        )
    seen = dict(taken)
    for launch in launches:
        for each in launch.tasks:
            if each.name in seen:
                raise LaunchRefused(
                    f"{launch.source}: there is a task named {each.name!r} already ({seen[each.name]});"
                    " wait for it, stop it, or give this one another name"
                )
            seen[each.name] = launch.source
        _on_devices(launch, hellos)
        _can_try(launch, hellos)


def _on_devices(launch: Launch, hellos: Mapping[str, Hello]) -> None:
    """Raises LaunchRefused for a device that is not known, and for a task that none of them has."""
    for device in launch.devices:
        if device not in hellos:
            raise LaunchRefused(f"{launch.source}: no device {device!r} is known{nearest(device, hellos)}")
    workload = launch.training.workload
    for each in launch.tasks:
        if not willing(launch, hellos, (each.task,)):
            offers = {o.workload for hello in hellos.values() for o in hello.workloads}
            raise LaunchRefused(
                f"{launch.source}: no known device has data for task {each.task!r} of {workload};"
                f" {len(hellos)} known, with {', '.join(sorted(offers)) or 'no workload'}"
            )


def _can_try(launch: Launch, hellos: Mapping[str, Hello]) -> None:
    """Raises LaunchRefused for trials that nobody could judge, in rounds that ask other devices each time."""
    clients = launch.participation.clients
    devices = willing(launch, hellos, (each.task for each in launch.tasks))
    several = len(launch.tasks) > 1
    if several and launch.policy == "mas-verified" and clients is not None and clients < len(devices):
        raise LaunchRefused(
            f"{launch.source}: mas-verified would try nothing: a round asks {clients} of {len(devices)}"
            " devices, and others would judge what is tried; choose policy mas, or leave clients out"
        )


def willing(launch: Launch, hellos: Mapping[str, Hello], tasks: Iterable[str]) -> tuple[str, ...]:
    """The devices that a launch may use and that offer any of these tasks, sorted."""
    wanted = set(tasks)
    return tuple(
        sorted(
            device
            for device, hello in hellos.items()
            if device in (launch.devices or hellos)
            for offer in hello.workloads
            if offer.workload == launch.training.workload and wanted & set(offer.tasks)
        )
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """What to add to "there is no NAME": what was meant, or what there is."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(known)}" if known else "; there are none"
