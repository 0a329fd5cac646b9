"""What an order to deploy comes to: which models go to which devices, or why it cannot be carried out.

Taken are the groups that the job has weights of now, finished or not, but for those whose tasks were all
stopped; of groups that overlap, the tasks that each serves, so that a device has each task once. While
partitions are on trial there is nothing to take: most of them are to be thrown away. Where no devices are
named, a group goes to those that have data of its tasks, to judge it by. A rollback is for the devices that
say that they infer with this job's models. Pure; what follows from an order is ``orchestrator.deployment``'s.
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
    if not hellos:
        raise DeployRefused("no device has ever said hello: mas-agent run --config agent.toml on one")
    targets = _back(order, job, hellos) if order.rollback else _forth(order, job, hellos, has)
    return Ordered(
        request=request,
        workload=job.spec.training.workload,
        targets=targets,
        precision=order.precision,
        margin=order.margin,
        rollback=order.rollback,
    )


def _forth(
    order: DeployThese, job: Job, hellos: Mapping[str, Hello], has: Callable[[str], bool]
) -> tuple[Target, ...]:
    name, workload = job.spec.name, job.spec.training.workload
    if "trial" in {job.phase, job.resumes}:
        raise DeployRefused(f"job {name}: which of the groups on trial are used is not decided yet")
    left = (run for run in job.runs if not set(run.results) <= set(job.stopped))
    trained = [(run, run.weights) for run in left if run.round > 0]
    found = tuple(
        Target(
            group=run.group,
            tasks=run.results,
            round=min(run.round, run.past),
            weights=weights,
            devices=order.devices or _judges(workload, run.results, hellos),
        )
        for run, weights in trained
        if weights is not None
    )
    if not found:
        raise DeployRefused(f"job {name} is {phase_words(job.phase)}: nothing of it is trained yet")
    judged = tuple(target for target in found if target.devices)
    if not judged:
        raise DeployRefused(f"job {name}: no device has data of its tasks, to judge its models by")
    if gone := [each.group for each in judged if each.weights and not has(each.weights.digest)]:
        why = "above [storage] quota_bytes those of old jobs are thrown away"
        raise DeployRefused(f"job {name}: the weights of {', '.join(gone)} are not here any more: {why}")
    return judged


def _judges(workload: str, tasks: tuple[str, ...], hellos: Mapping[str, Hello]) -> tuple[str, ...]:
    """The devices that have data of one of these tasks, as they last said."""
    wanted = {(workload, task) for task in tasks}
    return tuple(
        name
        for name, hello in sorted(hellos.items())
        if wanted & {(offer.workload, task) for offer in hello.workloads for task in offer.tasks}
    )


def _back(order: DeployThese, job: Job, hellos: Mapping[str, Hello]) -> tuple[Target, ...]:
    devices = order.devices or tuple(sorted(hellos))
    using = {device: {each.model.group: each for each in _own(job, hellos[device])} for device in devices}
    groups = {group: each for own in using.values() for group, each in own.items()}
    without = [device for device in devices if not using[device]] if order.devices or not groups else []
    if without:
        raise DeployRefused(f"{', '.join(without)}: no model of job {job.spec.name} is in use there")
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
