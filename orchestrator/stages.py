"""Which task groups a job trains: at its start, after the split, and when a group fits no device.

A stage is a tuple of runs (``orchestrator.rounds``), one per task group. The first is made from the first
weights; when its merged run is finished, ``orchestrator.decision`` says how the tasks go on; a group that
no device has the memory for gives way to parts that do (``orchestrator.replan``). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import replan
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.rounds import Run, begun
from mas_edge.orchestrator.spec import first_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import BlobRef


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

    If the policy's own groups do not fit, the ones that were decided on are what the job is split into.
    """
    merged = spec.policy in {"mas", "fixed"} and spec.merge_rounds > 0
    planned = decision.groups == first_groups(left)
    past = spec.merge_rounds if merged and planned else spec.training.rounds
    closing = not (merged and planned)
    runs = tuple(
        _run(
            spec,
            group,
            weights,
            0,
            past,
            whole=group == spec.tasks,
            measure=spec.policy == "mas" and not closing,
            closing=closing,
            devices=devices,
        )
        for group, devices in _with_devices(decision)
    )
    return Divided(parts=runs, why=decision.why, decision=None if planned else decision)


def _with_devices(decision: Decision) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    return zip(decision.groups, decision.devices or ((),) * len(decision.groups), strict=True)


def second(spec: JobSpec, merged: Run, decision: Decision) -> tuple[Run, ...]:
    """The runs that go on from a finished merged run, as was decided."""
    weights = merged.weights or merged.source
    rounds = spec.training.rounds
    runs = (
        _run(spec, group, weights, merged.past, rounds, whole=group == merged.tasks, devices=devices)
        for group, devices in _with_devices(decision)
    )
    return tuple(msgspec.structs.replace(run, records=merged.records) for run in runs)


def divided(spec: JobSpec, stuck: Run) -> Divided:
    """What takes the place of a run that has no device left for want of memory."""
    merged = not stuck.closing
    given = spec.partition if merged and stuck.tasks not in spec.partition else ()
    parts = given or replan.divided(stuck.tasks, stuck.unfit)
    if not parts:
        return Divided(parts=(), why=replan.nowhere(stuck.group, stuck.unfit))
    why = replan.divided_because(stuck.group, parts, measuring=stuck.measure)
    past = spec.training.rounds if merged else stuck.past
    weights = stuck.weights or stuck.source
    made = (_run(spec, part, weights, stuck.round, past, whole=False) for part in parts)
    runs = tuple(msgspec.structs.replace(run, records=stuck.records) for run in made)
    return Divided(parts=runs, why=why, decision=Decision(groups=parts, why=why) if merged else None)


def _run(  # noqa: PLR0913 - what a run is made of
    spec: JobSpec,
    tasks: tuple[str, ...],
    source: BlobRef,
    first_round: int,
    past: int,
    *,
    whole: bool,
    measure: bool = False,
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
        measure=measure,
        closing=closing,
        all_contribute=spec.training.reproducible,
        tries=spec.tries,
    )
    return begun(run) if whole else run
