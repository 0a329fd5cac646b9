"""Situations to decide in: a fleet whose merged rounds cost what is said, and affinities between tasks."""

from __future__ import annotations

import msgspec

from mas_edge.orchestrator.decision import Situation
from mas_edge.orchestrator.learning_curve import Evaluated
from mas_edge.orchestrator.observed import Observation, Observed, Refused
from mas_edge.orchestrator.roster import DeviceFacts
from mas_edge.orchestrator.spec import MEASURES, MERGES, Budget, JobSpec, Participation
from mas_edge.wire.messages import AffinitySums, Caps, Offer, Sensor, Shortage, TaskBytes, Training

TASKS = ("a", "b", "c")
FLEET = ("d1", "d2", "d3", "d4")
PARAMETERS = {"encoder": 600_000, "decoder.a": 100_000, "decoder.b": 100_000, "decoder.c": 200_000}
"""A task alone is 0.7 or 0.8 of the whole network."""

TRAINING = Training(workload="watch", network="micro", rounds=15, epochs=1, batch=8, lr=0.1, seed=1)
SENSOR = Sensor(name="rapl", method="counter", scope="package", sensor_host="h")
SECONDS = {"d1": 1.0, "d2": 1.0, "d3": 1.0, "d4": 1.0}
JOULES = 2.0
"""Of a second of training."""


def affinities(
    helps: dict[tuple[str, str], float], tasks=TASKS, spread: float = 0.05, own: float = 0.05
) -> AffinitySums:
    """Each pair's mean effect, both ways, over 100 batches that scatter by so much; ``own`` on themselves."""
    n = len(tasks) ** 2
    effects = [own if i == j else helps.get((i, j), helps.get((j, i), 0.0)) for i in tasks for j in tasks]
    return AffinitySums(
        tasks=tasks,
        batches=(100,) * n,
        w=(100.0,) * n,
        ww=(100.0,) * n,
        wz=tuple(100 * z for z in effects),
        wzz=tuple(100 * (z * z + spread**2) for z in effects),
    )


CONFLICT = {("a", "b"): 0.2, ("a", "c"): -0.1, ("b", "c"): -0.1}
AB_APART_FROM_C = affinities(CONFLICT)
SELFISH = affinities(CONFLICT, own=0.6)
"""Tasks help themselves more than they do anything to others: nothing pays for a second encoder."""


def curve(losses, group=TASKS, first: int = 1) -> tuple[Evaluated, ...]:
    """The held-out loss of each task of a group after so many rounds, the same for all of them."""
    return tuple(
        Evaluated(group=group, round=first + n, task=task, loss=loss, count=100.0)
        for n, loss in enumerate(losses)
        for task in group
    )


FALLING = curve((1.0, 0.8, 0.7, 0.64, 0.6))
"""Over five merged rounds."""

SLOWER = curve((1.0, 0.8, 0.7, 0.64, 0.6, 0.57))
FASTER = curve((1.0, 0.7, 0.5, 0.4, 0.35, 0.31))
"""Over six rounds."""


def rounds(seconds=None, group=TASKS, times: int = 6) -> tuple[Observation, ...]:
    """So many equal rounds of a group on each device; the devices' first ones are not among them."""
    return tuple(
        Observation(group=group, device=device, round=n, examples=40, wall_s=each_s, energy_j=JOULES * each_s)
        for device, each_s in (seconds or SECONDS).items()
        for n in range(times)
    )


def declined(device: str, allowed_mb: int, group=TASKS) -> Refused:
    """The device may have so much; the encoder takes 260 MB, and a, b, c 20, 20 and 40 MB."""
    short = Shortage(
        micro_batch=1,
        needed_bytes=340_000_000,
        allowed_bytes=allowed_mb * 1_000_000,
        encoder_bytes=260_000_000,
        decoders=tuple(
            TaskBytes(task=task, bytes=mb * 1_000_000) for task, mb in (("a", 20), ("b", 20), ("c", 40))
        ),
    )
    return Refused(group=group, device=device, shortage=short)


def facts(labels=None, sensor: Sensor | None = SENSOR, memory_mb: int = 4000) -> tuple[DeviceFacts, ...]:
    """Every device of the fleet, with labels for all tasks or for those given."""
    return tuple(
        DeviceFacts(
            name=device,
            online=True,
            offers=(Offer(workload="watch", tasks=(labels or {}).get(device, TASKS)),),
            caps=Caps(memory_bytes=memory_mb * 1_000_000),
            sensor=sensor,
        )
        for device in FLEET
    )


def situation(
    *,
    stage="split",
    seen=None,
    refused=(),
    known=None,
    affinity=AB_APART_FROM_C,
    evaluated=(),
    learnt=(),
    participation=None,
    training=TRAINING,
    budget=None,
    spent_j=0.0,
    spent_s=0.0,
    used_j=(),
    decided=(),
    left=10,
    **changes,
) -> Situation:
    """After five merged rounds of fifteen (or at the start), on four equal devices, unless said otherwise.

    ``left`` rounds are, where they are merged first.
    """
    base = JobSpec(name="j", tasks=TASKS, training=training, policy="mas", devices=FLEET, merge_rounds=5)
    spec = msgspec.structs.replace(
        base, budget=budget or Budget(), participation=participation or Participation(), **changes
    )
    trained = rounds() if seen is None and stage != "start" else seen or ()
    return Situation(
        spec=spec,
        stage=stage,
        parameters=PARAMETERS,
        rounds=spec.training.rounds - (15 - left if stage != "start" and spec.policy in MERGES else 0),
        affinities=(affinity,) if stage != "start" and spec.policy in MEASURES else (),
        evaluated=tuple(evaluated),
        learnt=tuple(learnt),
        decided=tuple(decided),
        seen=Observed(trainings=trained, refused=tuple(refused)),
        facts=facts() if known is None else known,
        spent_j=spent_j,
        spent_s=spent_s,
        used_j=used_j,
    )
