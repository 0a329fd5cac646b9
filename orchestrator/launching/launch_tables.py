"""What may stand in a task file and in a job file, and the one shape of both.

A *task file* is one task: ``[task]``, and how it is to be trained, ``[training]``. A *job file* has ``[job]``
and several ``[[task]]`` that its author wants planned together. Both may have ``[budget]`` and
``[participation]``. ``orchestrator.launching.launch_files`` reads them, and what they mean says
``orchestrator.launching.launch``. Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.spec import Budget, Participation, Policy

MOST = 2**31 - 1
"""Of anything that is counted: more is a typing error, or overflows where it is used."""
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Priority: TypeAlias = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=1)]
NotNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of a file."""


class TaskTable(_Table, frozen=True):
    """``[[task]]``: a task of the workload, what to call it, and the held-out loss that is good enough."""

    task: str
    name: str | None = None
    target_loss: Positive | None = None


class OneTask(TaskTable, frozen=True, kw_only=True):
    """``[task]`` of a task file: what stands in ``[job]`` of a job file stands here."""

    workload: str
    priority: Priority = 0
    devices: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


class JobTable(_Table, frozen=True):
    """``[job]``; without ``devices`` all that have the workload, ``unseen`` clients lie with us."""

    workload: str
    name: str | None = None
    policy: Policy = "mas"
    groups: Count | Literal["auto"] = "auto"
    partition: tuple[tuple[str, ...], ...] = ()
    priority: Priority = 0
    devices: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


class TrainingTable(_Table, frozen=True):
    """``[training]``: a preset, and what differs from it; the keys are those of ``wire.values.Training``."""

    preset: str | None = None
    merge_rounds: Natural | None = None
    network: str | None = None
    rounds: Count | None = None
    epochs: Count | None = None
    batch: Count | None = None
    lr: Positive | None = None
    seed: Natural | None = None
    micro_batch: Count | None = None
    momentum: Share | None = None
    weight_decay: NotNegative | None = None
    lr_power: NotNegative | None = None
    prox_mu: NotNegative | None = None
    encoder_gradient_scale: Literal["one", "rsqrt-tasks"] | None = None
    held_out_share: Share | None = None
    affinity: Literal["gram", "gram-full", "lookahead", "lookahead-momentum"] | None = None
    affinity_every: Count | None = None
    reproducible: bool | None = None
    cut_statistics: bool | None = None


class TaskFile(_Table, frozen=True):
    """A file with one task."""

    task: OneTask
    training: TrainingTable = TrainingTable()
    budget: Budget = Budget()
    participation: Participation = Participation()


class JobFile(_Table, frozen=True):
    """A file with several tasks that are planned together."""

    job: JobTable
    task: tuple[TaskTable, ...] = ()
    training: TrainingTable = TrainingTable()
    budget: Budget = Budget()
    participation: Participation = Participation()


class Wish(_Table, frozen=True):
    """What a file asks for. ``alone``: its author said what belongs together, and nobody joins."""

    source: str
    job: JobTable
    tasks: tuple[TaskTable, ...]
    training: TrainingTable
    budget: Budget
    participation: Participation
    alone: bool


def wish(source: str, file: TaskFile | JobFile) -> Wish:
    """What a file asks for, in the shape that both kinds share."""
    if isinstance(file, TaskFile):
        one = file.task
        tasks: tuple[TaskTable, ...] = (TaskTable(task=one.task, name=one.name, target_loss=one.target_loss),)
        job = JobTable(workload=one.workload, priority=one.priority, devices=one.devices, unseen=one.unseen)
    else:
        job, tasks = file.job, file.task
    return Wish(
        source=source,
        job=job,
        tasks=tasks,
        training=file.training,
        budget=file.budget,
        participation=file.participation,
        alone=isinstance(file, JobFile),
    )
