"""Which launches become one job, what it is called, and when it begins.

Launches merge if nothing that both must obey differs: workload, network and all of the training, merged
rounds, participation, priority, devices, and the limits of time and of joules a day, so that nobody's task is
held to a limit that its owner did not set; and if their tasks differ. ``energy_j`` adds up: either all bring
some, or none. A job file stands alone: its author has said what belongs together. A job is named when its
first task is launched, by the date and by the tasks of that command; it begins when the window of the first
of its members closes, and nobody joins after that. Times are Unix times: launches outlive the process. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.launching.launch import Launch, LaunchRefused, willing
from mas_edge.orchestrator.spec import MERGES, Budget, JobSpec, check

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mas_edge.wire.messages import Hello

LONGEST_STEM = 40


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A launch that waits for its job to begin. ``wall_s`` (Unix time) is when it came."""

    number: int
    job: str
    launch: Launch
    wall_s: float


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A launch and the job that it is a part of."""

    job: str
    launch: Launch


def waiting(stored: Iterable[tuple[int, str, bytes, float]], begun: Collection[str]) -> tuple[Waiting, ...]:
    """Of all launches as they are stored (``Store.launches``), those whose job has not begun."""
    return tuple(
        Waiting(number=number, job=job, launch=msgspec.json.decode(body, type=Launch), wall_s=wall_s)
        for number, job, body, wall_s in stored
        if job not in begun
    )


def place(
    launches: Sequence[Launch], waiting: Sequence[Waiting], taken: Collection[str], day: str
) -> tuple[Placed, ...]:
    """The job of each launch, in their order; ``taken`` are all names that jobs ever had, ``day`` is MMDD."""
    members: dict[str, list[Launch]] = {}  # of jobs that wait, then of new ones under numbers
    for each in waiting:
        members.setdefault(each.job, []).append(each.launch)
    homes: list[str] = []
    for launch in launches:
        home = next((job for job, those in members.items() if joins(launch, those)), f"#{len(members)}")
        members.setdefault(home, []).append(launch)
        homes.append(home)
    names: dict[str, str] = {}
    for home in dict.fromkeys(homes):
        new = home.startswith("#")
        names[home] = _name(members[home], {*taken, *members, *names.values()}, day) if new else home
    return tuple(Placed(job=names[home], launch=launch) for home, launch in zip(homes, launches, strict=True))


def joins(launch: Launch, members: Sequence[Launch]) -> bool:
    """Whether a launch may become a part of the job of these."""
    held = {each.task for member in members for each in member.tasks}
    return (
        not launch.alone
        and not any(member.alone for member in members)
        and not held & {each.task for each in launch.tasks}
        and not apart(launch, members[0])
    )


def apart(one: Launch, other: Launch) -> tuple[str, ...]:
    """What keeps two launches from being one job, a phrase each; empty if nothing does."""
    own = {"source", "tasks", "stem", "start_s", "training", "budget"}
    fields = [name for name in Launch.__struct_fields__ if name not in own]
    pairs = [
        (name, getattr(one.training, name), getattr(other.training, name))
        for name in one.training.__struct_fields__
    ]
    pairs += [(name, getattr(one, name), getattr(other, name)) for name in fields]
    pairs += [
        (f"budget {name}", getattr(one.budget, name), getattr(other.budget, name))
        for name in ("time_s", "device_energy_j_per_day")
    ]
    some, others = ("none" if each.budget.energy_j is None else "given" for each in (one, other))
    pairs.append(("budget energy_j", some, others))
    return tuple(f"{name} is {_short(a)} and {_short(b)}" for name, a, b in pairs if a != b)


def _short(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        given = msgspec.structs.asdict(value)
        return ", ".join(f"{key} {each}" for key, each in given.items() if each is not None)
    return ", ".join(map(str, value)) or "all" if isinstance(value, tuple) else str(value)


def _name(members: Sequence[Launch], taken: Collection[str], day: str) -> str:
    """A name that no job of this store ever had."""
    tasks = [each.name for member in members for each in member.tasks]
    stem = members[0].stem or "-".join([day, *tasks])
    stem = stem[:LONGEST_STEM].rstrip("-")
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def due(waiting: Iterable[Waiting], wall_s: float) -> tuple[str, ...]:
    """The jobs that begin now, in the order in which their first launch came.

    A clock that was set back to before a launch does not hold it up.
    """
    now = [
        each.job
        for each in sorted(waiting, key=lambda each: each.number)
        if each.launch.start_s <= wall_s or wall_s < each.wall_s
    ]
    return tuple(dict.fromkeys(now))


def job_spec(
    name: str, launches: Sequence[Launch], order: Sequence[str], hellos: Mapping[str, Hello]
) -> JobSpec:
    """The job of these launches on the devices that are known now; ``order`` is that of the workload's tasks.

    Raises SpecRefused, or LaunchRefused where no device has the tasks any more.
    """
    first = launches[0]
    launched = sorted((task for each in launches for task in each.tasks), key=lambda t: order.index(t.task))
    tasks = tuple(each.task for each in launched)
    devices = willing(first, hellos, tasks)
    if not devices:
        raise LaunchRefused(f"{first.source}: no known device has the tasks of {first.training.workload}")
    policy = first.policy if len(tasks) > 1 or first.policy == "fixed" else "all-in-one"
    return check(
        JobSpec(
            name=name,
            tasks=tasks,
            training=first.training,
            policy=policy,
            devices=devices,
            merge_rounds=first.merge_rounds if policy in MERGES else 0,
            groups=first.groups,
            partition=first.partition,
            unseen=first.unseen,
            participation=first.participation,
            budget=_together([each.budget for each in launches]),
            priority=first.priority,
            launched=tuple(launched),
        )
    )


def _together(budgets: Sequence[Budget]) -> Budget:
    """The budget of a job: what each brings in joules, and the limits that all have."""
    joules = [each.energy_j for each in budgets if each.energy_j is not None]
    return msgspec.structs.replace(budgets[0], energy_j=sum(joules) if joules else None)
