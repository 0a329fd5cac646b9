"""Which task groups a job trains: at its start, on trial, at last, and when a group fits no device.

A stage is a tuple of runs (``orchestrator.rounds``), one per task group, as ``orchestrator.decision`` says.
The first is made from the first weights. What comes after goes on from what was trained before: a group that
there is already is *taken over*, whatever it was trained for; another one begins with the weights of the
smallest group that has its tasks, or, under policies tag and hoa, from scratch. A group that no device has
the memory for gives way to parts that do (``orchestrator.replan``). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import replan
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.rounds import Run, begun
from mas_edge.orchestrator.spec import FROM_SCRATCH, MEASURES, MERGES, first_groups
from mas_edge.orchestrator.stopping import OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.orchestrator.split import Group
    from mas_edge.wire.messages import BlobRef


LATE = 3
"""Affinity is measured in the last one of so many parts of the merged rounds. What tasks do to each other at
first says little of later: on no table of docs/results/affinity.md did all merged rounds choose better by
more than seeds differ, and they take three times as long to measure.
"""


class Divided(msgspec.Struct, frozen=True, kw_only=True):
    """What takes the place of a group that fits no device; without ``parts`` nothing can, says ``why``.

    ``decision`` stands if this is how the job is split.
    """

    parts: tuple[Run, ...]
    why: str
    decision: Decision | None = None


def group_name(tasks: tuple[str, ...]) -> str:
    """A group is named by its tasks, in the job's order."""
    return "+".join(tasks)


def first(spec: JobSpec, left: JobSpec, weights: BlobRef, decision: Decision) -> Divided:
    """The runs that start from the first weights, as was decided; ``left`` has the tasks that are left.

    If the policy's own groups do not fit, the ones that were decided on are what the job is split into; of
    those that policy hoa compares, only the ones that fit are trained.
    """
    planned = spec.policy == "hoa" or decision.groups == first_groups(left)
    merged = planned and spec.policy in MERGES and spec.merge_rounds > 0
    closing = not (merged or (planned and spec.policy == "tag"))
    runs = tuple(
        _run(
            spec,
            group,
            weights,
            0,
            spec.merge_rounds if merged else spec.training.rounds,
            whole=group == spec.tasks,
            measure_from=_measure_from(spec) if spec.policy in MEASURES and not closing else None,
            closing=closing,
            devices=devices,
        )
        for group, devices in _with_devices(decision)
    )
    return Divided(parts=runs, why=decision.why, decision=None if planned else decision)


def _measure_from(spec: JobSpec) -> int:
    """The round from which affinity is measured: tag does so throughout, as published."""
    return spec.merge_rounds - max(1, spec.merge_rounds // LATE) if spec.policy in MERGES else 0


def _with_devices(decision: Decision) -> Iterable[tuple[Group, tuple[str, ...]]]:
    return zip(decision.groups, decision.devices or ((),) * len(decision.groups), strict=True)


def between(spec: JobSpec, merged: Run, decision: Decision) -> tuple[Run, ...]:
    """The runs that go on from a finished merged run until it is decided again: itself, or those on trial."""
    if decision.trial is None:
        devices = (decision.devices[0] if decision.devices else ()) or spec.devices
        on = msgspec.structs.replace(merged, past=decision.again, measure=False, devices=devices)
        return (begun(on),)
    rounds = decision.trial.rounds
    return tuple(
        msgspec.structs.replace(
            _on_from(spec, merged, group, devices), past=merged.round + rounds_, closing=False
        )
        for (group, devices), rounds_ in zip(_with_devices(decision), rounds, strict=True)
    )


def second(spec: JobSpec, runs: Sequence[Run], initial: BlobRef, decision: Decision) -> tuple[Run, ...]:
    """The runs that a job ends with, as was decided, after these ones."""
    none = ((),) * len(decision.groups)
    serves = decision.serves or (decision.groups if spec.policy in FROM_SCRATCH else none)
    made = []
    for (group, devices), served in zip(_with_devices(decision), serves, strict=True):
        before = _before(spec, runs, group)
        if before is None:
            run = _run(spec, group, initial, 0, spec.training.rounds, whole=False, devices=devices)
        else:
            run = _on_from(spec, before, group, devices)
        made.append(msgspec.structs.replace(run, serves=served))
    return tuple(made)


def _before(spec: JobSpec, runs: Sequence[Run], group: Group) -> Run | None:
    """What a group goes on from: itself, else the smallest one with its tasks; None if it has to begin."""
    if spec.policy in FROM_SCRATCH:
        return next((run for run in runs if run.tasks == group), None)
    return min((run for run in runs if set(group) <= set(run.tasks)), key=lambda run: len(run.tasks))


def _on_from(spec: JobSpec, before: Run, group: Group, devices: tuple[str, ...]) -> Run:
    """The rest of a job's rounds for a group after another one, or the same, is finished."""
    if before.tasks == group and before.closing and before.phase == "finished":
        return before
    whole = before.tasks == group and before.weights is not None
    weights, past = before.weights or before.source, spec.training.rounds
    run = _run(spec, group, weights, before.round, past, whole=whole, devices=devices)
    return msgspec.structs.replace(run, records=before.records)


def alone(spec: JobSpec, runs: Sequence[Run]) -> tuple[Run, ...]:
    """Of the runs that policy hoa compared, those of single tasks that were trained to their end."""
    found = (run for run in runs if spec.policy == "hoa" and len(run.tasks) == 1)
    return tuple(run for run in found if run.phase == "finished" and run.round >= run.past)


def salvaged(spec: JobSpec, runs: Sequence[Run]) -> tuple[Run, ...]:
    """Of the runs on trial those that a job ends with if it cannot go on: the single tasks, or no split."""
    least = 1 if spec.policy == "hoa" else max(len(run.tasks) for run in runs)
    kept = (run for run in runs if len(run.tasks) == least)
    return tuple(_on_from(spec, run, run.tasks, run.devices) if run.phase in OVER else run for run in kept)


def divided(spec: JobSpec, stuck: Run, alone: Sequence[Run], tried_until: Callable[[Group], int]) -> Divided:
    """What takes the place of a run that has no device left for want of memory.

    A group that overlaps with others goes on as the tasks that it serves; ``alone`` are finished runs of
    single tasks, which then stand. A part of a name that was on trial leaves out the rounds that it had
    then (``Job.tried_until``).
    """
    if taken := tuple(run for run in alone if set(run.tasks) <= set(stuck.results)):
        names = tuple(run.tasks for run in taken)
        return Divided(parts=taken, why=replan.divided_because(stuck.group, names, measuring=False))
    merged = not stuck.closing
    given = spec.partition if merged and stuck.tasks not in spec.partition else ()
    parts = given or _parts(stuck)
    if not parts:
        return Divided(parts=(), why=replan.nowhere(stuck.group, stuck.unfit))
    why = replan.divided_because(stuck.group, parts, measuring=stuck.measure)
    past = spec.training.rounds if merged else stuck.past
    weights = stuck.weights or stuck.source
    begins = {part: min(max(stuck.round, tried_until(part)), past) for part in parts}
    made = (_run(spec, part, weights, begins[part], past, whole=False) for part in parts)
    runs = tuple(msgspec.structs.replace(run, records=stuck.records) for run in made)
    return Divided(parts=runs, why=why, decision=Decision(groups=parts, why=why) if merged else None)


def _parts(stuck: Run) -> tuple[Group, ...]:
    """The tasks that a group serves, without their helpers; if that is no less, in the coarsest parts."""
    helped = stuck.results != stuck.tasks
    return (stuck.results,) if helped else replan.divided(stuck.tasks, stuck.unfit)


def _run(  # noqa: PLR0913 - what a run is made of
    spec: JobSpec,
    tasks: tuple[str, ...],
    source: BlobRef,
    first_round: int,
    past: int,
    *,
    whole: bool,
    measure_from: int | None = None,
    closing: bool = True,
    devices: tuple[str, ...] = (),
) -> Run:
    """A run from this round on, on these devices (none named: all); ``whole``: its source holds its tasks
    and no others, nothing is carved.
    """
    run = Run(
        job=spec.name,
        group=group_name(tasks),
        tasks=tasks,
        devices=devices or spec.devices,
        round=first_round,
        past=past,
        source=source,
        weights=source if whole else None,
        measure=measure_from is not None,
        measure_from=measure_from or 0,
        closing=closing,
        all_contribute=spec.training.reproducible,
        tries=spec.tries,
    )
    return begun(run) if whole else run
