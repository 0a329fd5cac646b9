"""When a job is planned and what the plan goes by: its events, its devices, what was measured before it.

``planned`` puts together the ``Situation`` of a job and takes the decision; ``exhausted`` says when a job
has used up its budget. Both depend on clocks, sensors and on who is there, so the shell asks them once and
stores what they return. Costs are also learnt from the other jobs of the store that trained in the same
way. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.orchestrator.affinity import restricted
from mas_edge.orchestrator.cost_model import figure
from mas_edge.orchestrator.decision import Situation
from mas_edge.orchestrator.job_state import TRAINING, Exhausted, Job, Planned
from mas_edge.orchestrator.observed import Observed, evaluated, learnt, observed, pooled
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.stopping import OVER, remaining

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.job_state import Event
    from mas_edge.orchestrator.roster import DeviceFacts
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import Training

RECALLED = 3
"""Jobs whose costs a plan learns from, the last ones: all of a long life's events are slow to read."""


def planned(given: Situation) -> Planned:
    """The plan of a job that owes one."""
    return Planned(decision=decide(given), stage=given.stage)


def situation(
    job: Job,
    stored: Iterable[tuple[float, Event]] = (),
    facts: tuple[DeviceFacts, ...] = (),
    *,
    others: Iterable[Observed] = (),
    used_j: float = 0.0,
    today_j: Mapping[str, float] | None = None,
    time_s: float = 0.0,
) -> Situation:
    """What the decision of a job depends on, at its present stage.

    ``stored`` are its events (job time, event), ``others`` what jobs ``alike`` observed, ``used_j`` the
    joules that the job has used, ``today_j`` those of each device's day.
    """
    spec, events = remaining(job.spec, job.stopped), list(stored)
    return Situation(
        spec=spec,
        stage=job.stage,
        parameters=job.parameters,
        flops=job.flops,
        rounds=spec.training.rounds - (job.merged_rounds if job.runs else 0),
        affinities=tuple(restricted(measured.sums, spec.tasks) for measured in job.measured),
        evaluated=evaluated(events),
        learnt=learnt(events),
        decided=job.plans,
        seen=pooled(observed(events), others),
        facts=facts,
        spent_j=used_j,
        spent_s=time_s,
        used_j=tuple((today_j or {}).items()),
    )


def alike(one: Training, other: Training) -> bool:
    """Whether a round of one costs a device what a round of the other does."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("workload", "network", "epochs", "batch", "micro_batch", "held_out_share")
    )


def jobs_alike(spec: JobSpec, jobs: Iterable[Job]) -> list[Job]:
    """The last few other jobs whose costs tell something of this one's; none for a reproducible job."""
    if spec.training.reproducible:
        return []
    others = (job for job in jobs if job.spec.name != spec.name)
    return [job for job in others if alike(spec.training, job.spec.training)][-RECALLED:]


def preview(
    spec: JobSpec, others: Iterable[tuple[Job, Observed]], facts: tuple[DeviceFacts, ...]
) -> Decision:
    """How a job would begin if it were launched now; ``others`` are jobs ``alike`` and what they observed."""
    known = list(others)
    parameters = {name: count for job, _ in known for name, count in job.parameters.items()}
    flops = {name: count for job, _ in known for name, count in job.flops.items()}
    job = Job(spec=spec, parameters=parameters, flops=flops)
    return decide(situation(job, (), facts, others=[seen for _, seen in known]))


def exhausted(job: Job, used_j: float, time_s: float) -> Exhausted | None:
    """That a training job has used up its joules or its time, and by how much; None if it has not."""
    budget = job.spec.budget
    going = [run.round for run in job.runs if run.trains and run.phase not in OVER]
    if job.phase not in TRAINING or not going:
        return None
    done = min(going)
    after = f"in round {done + 1} of {job.spec.training.rounds}"
    if budget.energy_j is not None and used_j >= budget.energy_j:
        return _ended(job, f"{figure(used_j)} J of {figure(budget.energy_j)} J used {after}")
    if budget.time_s is not None and time_s >= budget.time_s:
        return _ended(job, f"{figure(time_s)} s of {figure(budget.time_s)} s passed {after}")
    return None


def _ended(job: Job, words: str) -> Exhausted | None:
    return None if job.exhausted else Exhausted(reason=f"the budget is used up: {words}")
