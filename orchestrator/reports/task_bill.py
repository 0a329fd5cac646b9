"""What each task cost: every joule and second of a job, divided among the tasks that were trained together.

Of what a group cost a task pays its own decoder's share, and an equal part of what all its tasks have in
common: the encoder, transport, the start of the process. The shares are those of the cost model
(``orchestrator.cost_model``): *fitted* where groups of different tasks were trained, *static*, from numbers
of parameters, where not; a task that trained alone pays everything. What the orchestrator itself did for a
job is divided equally. A task that was stopped pays for as long as it was trained. The parts sum to the
whole. Where groups overlap (policies tag and hoa), those whom a group serves also pay for the decoders that
help them, and what was only trained to choose is paid by all of its tasks. Pure; the joules and their
uncertainties are those of ``profiling.bill``.
"""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator import cost_model
from mas_edge.orchestrator.spec import ORCHESTRATOR
from mas_edge.profiling.bill import sum_spend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mas_edge.orchestrator.cost_model import Shares
    from mas_edge.orchestrator.observed import Observed
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.profiling.bill import Billed, Cost


How: TypeAlias = Literal["alone", "equal", "static", "fitted"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A task's part of what a group cost; ``decoder`` is the share that is its own, ``common`` that of all.

    ``how`` the shares are known: ``alone`` paid everything, ``equal`` is the orchestrator's own work, and
    what a device billed to a group that cannot be.
    """

    group: str
    decoder: float
    common: float
    how: How
    energy_j: float | None
    energy_u_j: float | None
    wall_s: float

    @property
    def share(self) -> float:
        """Of the group's cost."""
        return self.decoder + self.common


class TaskBill(msgspec.Struct, frozen=True, kw_only=True):
    """What a task cost: attributed joules with their standard uncertainty (None: unknown), device-seconds.

    ``methods`` say what the joules rest on, as in ``profiling.bill.Cost``.
    """

    task: str
    name: str
    owner: str
    energy_j: float | None
    energy_u_j: float | None
    wall_s: float
    methods: tuple[str, ...]
    parts: tuple[Part, ...]


def task_bills(
    spec: JobSpec,
    billed: Iterable[Billed],
    shares: Callable[[Sequence[str]], Shares],
    serves: Mapping[str, tuple[str, ...]],
) -> tuple[TaskBill, ...]:
    """A bill for each task of a job, in its order; together they are what all rows of the job cost.

    ``serves``: who pays for a group, by its name; for one that is not there, all of its tasks.
    """
    groups: dict[str, list[Billed]] = {}
    for row in billed:
        if row.spend.job == spec.name:  # an agent's bill also holds what it has just done for another job
            groups.setdefault(row.spend.group, []).append(row)
    costs = {group: sum_spend(rows) for group, rows in groups.items()}
    divided = {
        group: _divided(group, spec.tasks, cost, shares, serves.get(group, ()))
        for group, cost in costs.items()
    }
    return tuple(_bill(spec, task, divided, costs) for task in spec.tasks)


def shares_of(
    spec: JobSpec, parameters: Mapping[str, int], seen: Observed
) -> Callable[[Sequence[str]], Shares]:
    """How groups of a job divide, by the seconds of its trainings; a reproducible job goes by parameters."""
    trainings = () if spec.training.reproducible else seen.trainings
    warm = [each for each in trainings if not each.first] or list(trainings)
    found = cost_model.cells((each.group, each.device, each.wall_s) for each in warm)
    return cost_model.fit(spec.tasks, spec.devices, parameters, found).shares


def static_shares(spec: JobSpec, parameters: Mapping[str, int]) -> Callable[[Sequence[str]], Shares]:
    """The same by numbers of parameters alone, for who cannot wait for a fit."""
    return cost_model.fit(spec.tasks, (), parameters, ()).shares


def portion(
    task: str, group: Sequence[str], shares: Callable[[Sequence[str]], Shares], serves: Sequence[str] = ()
) -> float:
    """Of what a group cost, the share that one of its tasks pays, if it serves these (none named: all)."""
    if task not in (serves or group):
        return 0.0
    found = shares(group)
    return found.of[task] + _common(found, serves or group) if len(group) > 1 else 1.0


def _common(found: Shares, payers: Sequence[str]) -> float:
    """What each of those who pay for a group bears of what they have in common: helpers' decoders, too."""
    helpers = fsum(share for task, share in found.of.items() if task not in payers)
    return (found.common + helpers) / len(payers)


def _divided(
    group: str,
    tasks: Sequence[str],
    cost: Cost,
    shares: Callable[[Sequence[str]], Shares],
    serves: Sequence[str],
) -> dict[str, Part]:
    """Each task's part of a group's cost."""
    own = tuple(group.split("+"))
    if group == ORCHESTRATOR or not set(own) <= set(tasks):  # devices say whom a row is for
        return {task: _part(group, 0.0, 1.0 / len(tasks), "equal", cost) for task in tasks}
    if len(own) == 1:
        return {task: _part(group, 0.0, 1.0, "alone", cost) for task in own}
    found, payers = shares(own), serves or own
    how: How = "static" if found.how == "static" else "fitted"
    return {task: _part(group, found.of[task], _common(found, payers), how, cost) for task in payers}


def _part(group: str, decoder: float, common: float, how: How, cost: Cost) -> Part:
    share = decoder + common
    return Part(
        group=group,
        decoder=decoder,
        common=common,
        how=how,
        energy_j=_times(cost.attributed_energy_j, share),
        energy_u_j=_times(cost.attributed_u_j, share),
        wall_s=cost.wall_s * share,
    )


def _times(value: float | None, share: float) -> float | None:
    return None if value is None else value * share


def _bill(
    spec: JobSpec, task: str, divided: Mapping[str, Mapping[str, Part]], costs: Mapping[str, Cost]
) -> TaskBill:
    parts = tuple(of[task] for of in divided.values() if task in of)
    launched = next((each for each in spec.launched if each.task == task), None)
    return TaskBill(
        task=task,
        name=launched.name if launched else task,
        owner=launched.owner if launched else "",
        energy_j=_sum(part.energy_j for part in parts),
        energy_u_j=_sum(part.energy_u_j for part in parts),
        wall_s=fsum(part.wall_s for part in parts),
        methods=tuple(sorted({name for part in parts for name in costs[part.group].methods})),
        parts=parts,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return fsum(known) if known and len(known) == len(found) else None
