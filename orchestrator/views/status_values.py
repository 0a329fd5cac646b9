"""Everything that goes on in a fleet, as values: jobs with their tasks and groups, devices with their work.

`mas ps`, `watch`, `devices` and the web page show these and nothing else; as JSON they are what `--json`
prints. They hold moments and no ages, so that they change only when something happens. Unknown is None, never
0. Rounds count from 0, as on the wire; ``_wall_s`` is Unix time. ``orchestrator.views.status`` makes them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.report import AffinityTable
from mas_edge.wire.messages import Alive, Caps, Hello, InUse, Progress, Reason, Sensor


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the status."""


class Energy(Value, frozen=True):
    """Joules attributed to training; ``complete`` is false if there were some that nobody knows."""

    attributed_j: float | None
    complete: bool
    methods: tuple[str, ...]


class Curve(Value, frozen=True):
    """A task's losses in one group: ``rounds`` and what was found in each, None where nothing was.

    ``held_out`` is of the weights that the round produced, ``relative`` the same over the constant
    predictor's, ``training`` was measured while the round trained.
    """

    group: str
    rounds: tuple[int, ...]
    held_out: tuple[float | None, ...]
    relative: tuple[float | None, ...]
    training: tuple[float | None, ...]


class TaskStatus(Value, frozen=True):
    """A task as it was launched, the group that trains it now, its latest losses, what it pays.

    ``energy`` and ``device_s`` are its shares, by numbers of parameters, of what its groups cost so far, and
    an equal part of the orchestrator's own work; a report may know better shares (``task_bill``).
    """

    task: str
    name: str
    owner: str
    group: str | None
    held_out: float | None
    relative: float | None
    training: float | None
    unseen_relative: float | None
    target_loss: float | None
    stopped: bool
    energy: Energy
    device_s: float
    curves: tuple[Curve, ...]


class GroupStatus(Value, frozen=True):
    """A node in the tree of groups; ``phase`` is its run's, "gone on" if others took its tasks over, or
    "dropped" if it was only trained to choose among groups. ``serves``: its tasks whose results come from it.

    ``round`` is where it is, ``rounds`` where it ends. ``answered`` of ``devices`` have in this round.
    ``device_s`` adds up what each device worked for it.
    """

    group: str
    parent: str | None
    tasks: tuple[str, ...]
    serves: tuple[str, ...]
    phase: str
    round: int
    rounds: int
    devices: tuple[str, ...]
    answered: tuple[str, ...]
    since_wall_s: float
    energy: Energy
    device_s: float


class BudgetStatus(Value, frozen=True):
    """A job's limits and what is left of them; None has no limit, or what was used is not known."""

    energy_j: float | None
    energy_left_j: float | None
    time_s: float | None
    time_left_s: float | None
    device_energy_j_per_day: float | None


class JobStatus(Value, frozen=True):
    """A job. ``time_s`` is job time at its last event, ``under_way_j`` what trainings in hand used so far.

    Of ``energy``, ``orchestrator`` is our own work: first weights, unseen clients. The rest is the groups',
    and what devices' bills hold of work that they had just done for another job.
    ``gave_up``, ``refused`` and ``late`` count answers that brought nothing to a round.
    """

    name: str
    phase: str
    reason: str
    policy: str
    workload: str
    priority: int
    tasks: tuple[TaskStatus, ...]
    groups: tuple[GroupStatus, ...]
    round: int | None
    rounds: int
    share_done: float
    time_s: float
    left_s: float | None
    since_wall_s: float | None
    at: str
    waits_for: str
    waits_since_wall_s: float | None
    energy: Energy
    orchestrator: Energy
    under_way_j: float | None
    budget: BudgetStatus
    affinity: AffinityTable | None
    decision: Decision | None
    parameters: int | None
    replans: tuple[str, ...]
    gave_up: int
    refused: int
    late: int


class Work(Value, frozen=True):
    """What a device was asked for; ``phase`` "asked" until it has told of its progress."""

    job: str
    group: str
    round: int
    phase: str
    step: int | None = None
    steps: int | None = None
    energy_j: float | None = None


class Bench(Value, frozen=True):
    """A job does not ask the device before this job time, because of what it did."""

    job: str
    group: str
    until_s: float
    reason: str


DeviceState = Literal["unseen", "away", "declining", "working", "asked", "idle", "unknown"]


class DeviceStatus(Value, frozen=True):
    """A device. ``online`` None: nobody heard; ``energy`` adds up what jobs were billed for its work.

    ``budget_left_j`` is what is left today of the tightest limit per device and day of jobs that go on,
    ``in_use`` the models that it infers with.
    """

    name: str
    online: bool | None
    state: DeviceState
    since_wall_s: float | None
    last_seen_wall_s: float | None
    work: Work | None
    reasons: tuple[Reason, ...]
    benched: tuple[Bench, ...]
    cpus: int | None
    memory_bytes: int | None
    caps: Caps
    sensor: Sensor | None
    workloads: dict[str, tuple[str, ...]]
    energy: Energy
    energy_today: Energy
    budget_left_j: float | None
    in_use: tuple[InUse, ...] = ()


class Status(Value, frozen=True):
    """Jobs in the order in which they came, devices by name; ``full``: why nothing can be written now."""

    jobs: tuple[JobStatus, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    full: str = ""


class Known(Value, frozen=True):
    """What is kept of a device, and when it was heard."""

    hello: Hello | None = None
    alive: Alive | None = None
    alive_wall_s: float | None = None
    progress: Progress | None = None
    last_seen_wall_s: float | None = None
