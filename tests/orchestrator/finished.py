"""A finished job as its store would hold it: two devices, a merged round, a split, a round of each group."""

from __future__ import annotations

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.job import Initialised, Judged, Planned
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.reports.runs import compose
from mas_edge.orchestrator.rounds import Carved, Heard, Merged
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire import messages as m

TASKS = ("a", "b")
TRAINING = m.Training(
    workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.1, seed=1, reproducible=True
)
SPEC = JobSpec(
    name="j",
    tasks=TASKS,
    training=TRAINING,
    policy="fixed",
    partition=(("a",), ("b",)),
    merge_rounds=1,
    devices=("d1", "d2"),
    unseen=("9",),
)
RAPL = m.Sensor(
    name="rapl", method="counter", scope="package", sensor_host="boot:/rapl", detail="2 zones", gain_u=0.05
)
MODEL = m.Sensor(
    name="estimate", method="estimated", scope="board", sensor_host="boot:/proc/stat", detail="", gain_u=0.3
)
SECOND = 10**9


def ref(name: str) -> m.BlobRef:
    return m.BlobRef(digest=name * 32, size_bytes=1, chunk_bytes=1)


def spend(
    group: str, round_: int, phase: str, t0_s: float, t1_s: float, joules: float | None, job="j", **more
):
    known = (
        {}
        if joules is None
        else {
            "window_energy_j": 4 * joules,
            "window_u_j": 0.2 * joules,
            "dynamic_energy_j": 2 * joules,
            "dynamic_u_j": 0.1 * joules,
            "attributed_energy_j": joules,
            "attributed_u_j": 0.06 * joules,
            "peak_w": 17.3,
        }
    )
    return m.Spend(
        job=job,
        group=group,
        round=round_,
        phase=phase,
        wall_s=t1_s - t0_s,
        cpu_s=0.75 * (t1_s - t0_s),
        t0_ns=round(t0_s * SECOND),
        t1_ns=round(t1_s * SECOND),
        **known,
        **more,
    )


def profile(
    group: str, round_: int, start_s: float, joules: float | None, sensor: m.Sensor | None, job: str = "j"
):
    rows = (
        spend(
            group,
            round_,
            "fetch",
            start_s,
            start_s + 0.5,
            joules and joules / 10,
            received_bytes=1_000_000,
            job=job,
        ),
        spend(group, round_, "forward", start_s + 0.5, start_s + 2.0, joules and joules * 0.3, job=job),
        spend(
            group,
            round_,
            "backward",
            start_s + 0.5,
            start_s + 2.5,
            joules and joules * 0.6,
            job=job,
            examples=40,
            sent_bytes=250_000,
            peak_rss_bytes=280_000_000,
        ),
    )
    steps = [start_s + 0.25 * k for k in range(11)]
    trace = m.Trace(
        t_ns=tuple(round(t * SECOND) for t in steps),
        energy_j=tuple(9.0 * (t - start_s) for t in steps),
        variance_j2=(0.0,) * len(steps),
    )
    if sensor is None or joules is None:
        return m.Profile(rows=rows, sensor=sensor)
    return m.Profile(rows=rows, sensor=sensor, idle_w=2.0, idle_u_w=0.1, trace=trace, shared_gpu_j=0.0)


def heard(device: str, group: str, round_: int, start_s: float, joules, sensor, *, train: bool = True):
    tasks = group.split("+")
    scores = tuple(
        m.Score(task=task, count=10.0, loss_sum=9.0 - round_, constant_loss_sum=12.0) for task in tasks
    )
    return Heard(
        update=m.Update(
            key=m.Key(job="j", group=group, round=round_, attempt=0, device=device),
            weights=ref("u") if train else None,
            examples=40 if train else 0,
            trained=tuple(m.Score(task=task, count=40.0, loss_sum=30.0) for task in tasks) if train else (),
            scores=scores if round_ else (),
            profile=profile(group, round_, start_s, joules, sensor),
        )
    )


def events(joules: float | None = 3.0, sensors=(RAPL, RAPL), spread: float = 0.0):
    """What the store holds; clocks are 100 s ahead of job time, the devices' joules apart by a share."""
    own = dict(zip(("d1", "d2"), sensors, strict=True))
    times = {
        device: None if joules is None else joules * (1 + (spread if device == "d1" else -spread))
        for device in own
    }
    happened: list[tuple[float, object]] = [
        (1.0, Initialised(weights=ref("i"), fingerprint="f", parameters={"encoder": 5})),
        (1.0, Planned(decision=Decision(groups=(TASKS,)))),
    ]

    def round_of(groups, round_, start_s, *, train=True):
        for place, group in enumerate(groups):
            at_s = start_s + 3 * place
            for device, sensor in own.items():
                answer = heard(device, group, round_, 100 + at_s, times[device], sensor, train=train)
                happened.append((at_s + 2.6, answer))
            if train:
                happened.append((at_s + 2.7, Merged(group=group, round=round_, weights=ref("w"))))

    round_of(["a+b"], 0, 1.0)
    split = Decision(groups=(("a",), ("b",)), why="the partition was given")
    happened.append((4.0, Planned(decision=split, stage="split")))
    happened.extend((4.0, Carved(group=group, weights=ref("c"))) for group in TASKS)
    round_of(TASKS, 1, 4.5)
    round_of(TASKS, 2, 11.0, train=False)
    for group in TASKS:
        score = m.Score(task=group, count=5.0, loss_sum=6.0, constant_loss_sum=7.0)
        happened.append((18.0, Judged(group=group, scores=(score,))))
    return happened


def a_run(**how):
    """The report of such a job."""
    plan = DemoPlan(spec=SPEC, clients={"d1": ("1",), "d2": ("2",)})
    return compose(SPEC, events(**how), manifest(plan, {}, ("mas", "demo", "--seed", "1")), wall_s=18.0)
