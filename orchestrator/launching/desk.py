"""What orders come to: launches are taken, gathered into jobs and begun, jobs and tasks stopped and resumed.

The deciding loop hands each order to ``Desk.carry_out`` and calls ``turn`` in between, which begins the jobs
whose merge window has closed. What is launched waits in the store, so that a restart forgets nothing. An
order that cannot be carried out is refused in words before anything is changed. What merges is decided in
``orchestrator.launching.gather``, what may be launched in ``orchestrator.launching.launch``.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.models.tasks import WorkloadError, find
from mas_edge.orchestrator import planning
from mas_edge.orchestrator.explain import explain
from mas_edge.orchestrator.job import Resumed, Stopped
from mas_edge.orchestrator.launching import gather, orders
from mas_edge.orchestrator.launching.deploying import ordered
from mas_edge.orchestrator.launching.gather import Placed, Waiting
from mas_edge.orchestrator.launching.launch import Launch, LaunchRefused, admit, nearest, resolve
from mas_edge.orchestrator.launching.looks import deploying
from mas_edge.orchestrator.observed import observed
from mas_edge.orchestrator.spec import SpecRefused
from mas_edge.orchestrator.views.journal import beginning
from mas_edge.orchestrator.views.outlook import phase_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.job import Event, Job
    from mas_edge.orchestrator.launching.launch_tables import Wish
    from mas_edge.orchestrator.server import Server
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.orchestrator.store import Store

log = logging.getLogger(__name__)


NOT_NOW = {
    "initialising": "it is decided once they are there",
    "trial": "it is decided when all of them are trained",
    "stopped": "nothing is decided before it is resumed",
}
"""Why nothing can be said yet of what would be decided, in these phases of a job."""


class OrderRefused(LookupError):
    """What was ordered cannot be done to what there is; the text names what is near."""


class Desk:
    """Orders to one server, whose store keeps the launches."""

    def __init__(
        self, server: Server, store: Store[Event], *, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._server, self._store, self._wall_s = server, store, wall_s
        self._waiting = self._read()
        self._held: set[str] = set()

    def _read(self) -> tuple[Waiting, ...]:
        return gather.waiting(self._store.launches(), dict(self._store.jobs()))

    @property
    def waits(self) -> bool:
        """Whether a launch waits for its job to begin."""
        return bool(self._waiting)

    def carry_out(self, order: orders.Order) -> orders.Answer:
        """The answer to an order; what cannot be done is ``Refused`` and has changed nothing."""
        try:
            return self._carried_out(order)
        except (ValueError, LookupError, PermissionError) as error:
            return orders.Refused(text=str(error))
        except OSError as error:
            return orders.Refused(text=str(error), code=1)

    def _carried_out(self, order: orders.Order) -> orders.Answer:
        match order:
            case orders.LaunchThese():
                return self._launch(order)
            case orders.Stop():
                return self._stop(order.name)
            case orders.Resume():
                return self._resume(order.job)
            case orders.Preview():
                return self._preview(order.wishes)
            case orders.Plan():
                return self._plan(order)
            case orders.DeployThese():
                return self._deploy(order)

    def turn(self) -> None:
        """Begin the jobs whose window has closed; one for which there is no room waits for it."""
        for name in gather.due(self._waiting, self._wall_s()):
            members = [each for each in self._waiting if each.job == name]
            try:
                spec = self._spec(name, [each.launch for each in members])
                self._server.add(spec)
            except (ValueError, LookupError, OSError) as error:
                self._hold(name, members, error)
                continue
            self._waiting = tuple(each for each in self._waiting if each.job != name)
            log.info("job %s: %s", name, beginning(spec))

    def _hold(self, name: str, members: list[Waiting], error: Exception) -> None:
        """Tried again when there is room; a job that cannot be run any more is forgotten."""
        if name not in self._held:
            self._held.add(name)
            log.error("job %s cannot begin: %s", name, error)
        if not isinstance(error, OSError):
            self._withdraw(members)

    # --- launching -----------------------------------------------------------------------------

    def _launch(self, order: orders.LaunchThese) -> orders.Answer:
        self._server.shelf.admit()
        launches = self._resolved(order.wishes, order.owner, max(order.wait_s, 0.0))
        placed = self._placed(launches)
        for spec in self._specs(placed).values():
            self._plan_of(spec)
        for each in placed:
            self._store.add_launch(each.job, msgspec.json.encode(each.launch))
        self._waiting = self._read()
        going = tuple(self._going(placed))
        self.turn()
        return orders.Launched(jobs=going)

    def _preview(self, wishes: Iterable[Wish]) -> orders.Answer:
        """What would be: checked as a launch is, and nothing is kept."""
        placed = self._placed(self._resolved(wishes, "", 0.0))
        lines: list[str] = []
        for name, spec in self._specs(placed).items():
            lines += [f"{name}: {beginning(spec)}", *explain(self._plan_of(spec), spec.devices)]
        return orders.Explained(job="", lines=tuple(lines))

    def _plan_of(self, spec: JobSpec) -> Decision:
        """How the job would begin, by what jobs alike cost; raises LaunchRefused if it could not be done."""
        alike = planning.jobs_alike(spec, self._server.jobs)
        others = [(job, observed((t, e) for _, t, e in self._store.events(job.spec.name))) for job in alike]
        plan = planning.preview(spec, others, self._server.facts())
        if plan.refused:
            raise LaunchRefused(f"{spec.name}: {plan.refused}")
        return plan

    def _resolved(self, wishes: Iterable[Wish], owner: str, wait_s: float) -> list[Launch]:
        """The launches, if all of them can run here; raises LaunchRefused and the like."""
        now_s = self._wall_s()
        launches = []
        for wish in wishes:
            start_s = now_s if wish.alone else now_s + wait_s
            try:
                launches.append(resolve(wish, find(wish.job.workload), owner, start_s))
            except WorkloadError as error:
                raise LaunchRefused(f"{wish.source}: {error}") from error
        admit(launches, self._taken_tasks(), self._server.hellos)
        return launches

    def _placed(self, launches: list[Launch]) -> tuple[Placed, ...]:
        """Where they go, if the jobs that come of it can be run."""
        names = {name for name, _ in self._store.jobs()} | {each.job for each in self._waiting}
        day = time.strftime("%m%d", time.localtime(self._wall_s()))
        placed = gather.place(launches, self._waiting, names, day)
        self._specs(placed)
        return placed

    def _specs(self, placed: Iterable[Placed]) -> dict[str, JobSpec]:
        """The jobs of these launches and of those that wait with them; raises what ``job_spec`` raises."""
        members: dict[str, list[Launch]] = {}
        for each in placed:
            waiting = [one.launch for one in self._waiting if one.job == each.job]
            members.setdefault(each.job, waiting).append(each.launch)
        return {name: self._spec(name, those) for name, those in members.items()}

    def _spec(self, name: str, members: list[Launch]) -> JobSpec:
        order = [task.name for task in find(members[0].training.workload).tasks]
        try:
            return gather.job_spec(name, members, order, self._server.hellos)
        except SpecRefused as error:
            raise LaunchRefused(f"{members[-1].source}: {error}") from error

    def _taken_tasks(self) -> dict[str, str]:
        """Names of tasks that run, are stopped or wait, with their jobs."""
        taken = {task.name: each.job for each in self._waiting for task in each.launch.tasks}
        for job in self._server.jobs:
            if not job.over:
                own = (each for each in job.spec.launched if each.task not in job.stopped)
                taken |= {each.name: job.spec.name for each in own}
        return taken

    def _going(self, placed: tuple[Placed, ...]) -> Iterable[orders.Going]:
        now_s = self._wall_s()
        for name in dict.fromkeys(each.job for each in placed):
            own = [each.launch for each in placed if each.job == name]
            tasks = tuple(task.name for launch in own for task in launch.tasks)
            members = [each for each in self._waiting if each.job == name]
            others = tuple(task.name for each in members for task in each.launch.tasks)
            other = placed[0] if placed[0].job != name else None  # said of the later ones, once
            yield orders.Going(
                job=name,
                tasks=tasks,
                beside=tuple(task for task in others if task not in tasks),
                starts_in_s=max(min((each.launch.start_s for each in members), default=now_s) - now_s, 0.0),
                apart=_apart(own[0], other) if other else "",
            )

    # --- stopping, resuming, explaining --------------------------------------------------------

    def _stop(self, name: str) -> orders.Answer:
        jobs = {job.spec.name: job for job in self._server.jobs}
        if name in jobs:
            return self._stop_job(jobs[name])
        if waiting := [
            each for each in self._waiting if name in {each.job, *(t.name for t in each.launch.tasks)}
        ]:
            return self._withdraw(waiting)
        tasks = {
            each.name: (job, each.task) for job in jobs.values() if not job.over for each in job.spec.launched
        }
        if name not in tasks:
            known = [*(n for n, job in jobs.items() if not job.over), *tasks]
            raise OrderRefused(f"no job or task {name!r} runs{nearest(name, known)}")
        job, task = tasks[name]
        if task in job.stopped:
            raise OrderRefused(f"task {name!r} of job {job.spec.name} was stopped already")
        self._server.happened(job.spec.name, Stopped(tasks=(task,)))
        after = next(each for each in self._server.jobs if each.spec.name == job.spec.name)
        said = (
            f"job {job.spec.name} is stopped: {name} was its last task"
            if after.phase == "stopped"
            else f"{name} leaves job {job.spec.name} at the next round; what it used stays on its bill"
        )
        return orders.Done(job=job.spec.name, text=said)

    def _stop_job(self, job: Job) -> orders.Answer:
        name = job.spec.name
        if job.over:
            raise OrderRefused(f"job {name} is {job.phase} already")
        if job.phase == "stopped":
            raise OrderRefused(f"job {name} was stopped already; mas resume {name} lets it go on")
        self._server.happened(name, Stopped())
        return orders.Done(job=name, text=f"job {name} is stopped; mas resume {name} lets it go on")

    def _withdraw(self, waiting: list[Waiting]) -> orders.Answer:
        for each in waiting:
            self._store.withdraw(each.number)
        self._waiting = self._read()
        tasks = ", ".join(task.name for each in waiting for task in each.launch.tasks)
        return orders.Done(job=waiting[0].job, text=f"{tasks}: taken back before job {waiting[0].job} began")

    def _plan(self, order: orders.Plan) -> orders.Answer:
        jobs = {job.spec.name: job for job in self._server.jobs}
        if order.job not in jobs:
            raise OrderRefused(f"no job {order.job!r}{nearest(order.job, jobs)}")
        job = jobs[order.job]
        found = self._server.would_plan(order.job) if order.dry_run else (job.plans or (None,))[-1]
        if found is None:
            why = NOT_NOW.get(job.phase, "nothing is to be decided any more")
            why = why if order.dry_run else "nothing is decided yet"
            raise OrderRefused(f"job {order.job} is {phase_words(job.phase)}: {why}")
        return orders.Explained(job=order.job, lines=tuple(explain(found, job.spec.devices)), decision=found)

    def _deploy(self, order: orders.DeployThese) -> orders.Answer:
        server, jobs = self._server, {job.spec.name: job for job in self._server.jobs}
        if order.job not in jobs:
            raise OrderRefused(f"no job {order.job!r}{nearest(order.job, jobs)}")
        number, time_ms = len(server.rollout.deployments) + 1, int(self._wall_s() * 1e3)
        # devices remember what they answered: a store that was restored from a copy counts to a number twice
        request = f"{self._store.identity[:12]}-{number}-{time_ms:x}"
        server.happened(order.job, ordered(order, jobs[order.job], server.hellos, server.shelf.has, request))
        return deploying(server.rollout.deployments, request)

    def _resume(self, name: str) -> orders.Answer:
        jobs = {job.spec.name: job for job in self._server.jobs}
        if name not in jobs:
            raise OrderRefused(f"no job {name!r}{nearest(name, jobs)}")
        phase = jobs[name].phase
        if phase not in {"stopped", "failed"}:
            why = "only what was stopped or failed can be resumed"
            raise OrderRefused(f"job {name} is {phase_words(phase)}: {why}")
        self._server.happened(name, Resumed())
        after = next(job for job in self._server.jobs if job.spec.name == name)
        return orders.Done(job=name, text=f"job {name} goes on: it is {phase_words(after.phase)}")


def _apart(launch: Launch, other: Placed) -> str:
    """Why a launch is no part of another's job."""
    alone = [each.source for each in (launch, other.launch) if each.alone]
    reasons = [f"{alone[0]} is a job file"] if alone else gather.apart(launch, other.launch)
    return f"not one job with {other.job}: {', '.join(reasons) or 'they have the same task'}"
