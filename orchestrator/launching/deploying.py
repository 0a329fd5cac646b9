"""What an order to deploy comes to: which models go to which devices, or why it cannot be carried out.

Taken are the groups that the job has weights of now, finished or not, but for those whose tasks were all
stopped. A rollback is for the devices that say that they infer with this job's models. Pure; what follows
from an order is ``orchestrator.deployment``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.orchestrator.deployment import Ordered, Target
from mas_edge.orchestrator.launching.launch import nearest
from mas_edge.orchestrator.views.outlook import phase_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mas_edge.orchestrator.job import Job
    from mas_edge.orchestrator.launching.orders import DeployThese
    from mas_edge.wire.messages import Hello, InUse


class DeployRefused(LookupError):
    """Nothing can be deployed as it was ordered; the text names what is near."""


def ordered(
    order: DeployThese, job: Job, hellos: Mapping[str, Hello], has: Callable[[str], bool], request: str
) -> Ordered:
    """The order as it is stored, under this name; raises DeployRefused.

    ``hellos`` are what the known devices say of themselves, ``has`` whether weights of a digest are here.
    """
    strange = next((name for name in order.devices if name not in hellos), None)
    if strange is not None:
        raise DeployRefused(f"no device {strange!r} has ever said hello{nearest(strange, hellos)}")
    devices = order.devices or tuple(sorted(hellos))
    if not devices:
        raise DeployRefused("no device has ever said hello: mas-agent run --config agent.toml on one")
    targets = _back(job, devices, hellos) if order.rollback else _forth(job, devices, has)
    return Ordered(
        request=request,
        workload=job.spec.training.workload,
        targets=targets,
        precision=order.precision,
        margin=order.margin,
        rollback=order.rollback,
    )


def _forth(job: Job, devices: tuple[str, ...], has: Callable[[str], bool]) -> tuple[Target, ...]:
    name = job.spec.name
    left = (run for run in job.runs if not set(run.tasks) <= set(job.stopped))
    trained = [(run, run.weights) for run in left if run.round > 0]
    found = tuple(
        Target(
            group=run.group,
            tasks=run.tasks,
            round=min(run.round, run.past),
            weights=weights,
            devices=devices,
        )
        for run, weights in trained
        if weights is not None
    )
    if not found:
        raise DeployRefused(f"job {name} is {phase_words(job.phase)}: nothing of it is trained yet")
    if gone := [each.group for each in found if each.weights and not has(each.weights.digest)]:
        why = "above [storage] quota_bytes those of old jobs are thrown away"
        raise DeployRefused(f"job {name}: the weights of {', '.join(gone)} are not here any more: {why}")
    return found


def _back(job: Job, devices: tuple[str, ...], hellos: Mapping[str, Hello]) -> tuple[Target, ...]:
    using = {device: {each.model.group: each for each in _own(job, hellos[device])} for device in devices}
    groups = {group: each for own in using.values() for group, each in own.items()}
    if not groups:
        raise DeployRefused(f"{', '.join(devices)}: no model of job {job.spec.name} is in use there")
    return tuple(
        Target(
            group=group,
            tasks=each.model.tasks,
            round=each.model.round,
            weights=None,
            devices=tuple(device for device in devices if group in using[device]),
        )
        for group, each in sorted(groups.items())
    )


def _own(job: Job, hello: Hello) -> Iterator[InUse]:
    """What the device has in use of this job."""
    return (each for each in hello.in_use if each.model.job == job.spec.name)
