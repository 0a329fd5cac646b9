"""The jobs of a store: their present states, and the one way in which anything happens to them.

An event is stored, and only then folded into its job; what was stored is folded again at the start, and
gives the same states. Job time is the number of seconds that an orchestrator has been running the job: it
goes on from the last event at a restart, so that downtime does not count, nor the time in which a job is
stopped or has failed. Nothing is sent from here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import job as jobs
from mas_edge.orchestrator import planning, rounds
from mas_edge.orchestrator.events import Ask, Late
from mas_edge.orchestrator.job import Event, Job
from mas_edge.orchestrator.observed import observed
from mas_edge.orchestrator.rulings import Scene, news
from mas_edge.orchestrator.spec import JobSpec, check
from mas_edge.orchestrator.storage.usage import Usage
from mas_edge.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mas_edge.orchestrator.decision import Decision
    from mas_edge.orchestrator.job import Exhausted, Planned
    from mas_edge.orchestrator.roster import DeviceFacts
    from mas_edge.orchestrator.store import Store

log = logging.getLogger(__name__)

HALTED = frozenset({"stopped", "failed"})
"""Phases in which a job's time stands still."""


class Docket:
    """All jobs of a store, in the order in which they came."""

    def __init__(self, store: Store[Event], clock_s: Callable[[], float]) -> None:
        self._store, self._clock_s = store, clock_s
        self.jobs: dict[str, Job] = {}
        self.usage = Usage()
        self._since_s: dict[str, float] = {}  # our clock when the job's time was zero
        self._halted_s: dict[str, float] = {}  # the times of the jobs whose time stands still
        for name, body in store.jobs():
            self._resume(name, msgspec.json.decode(body, type=JobSpec))

    def add(self, spec: JobSpec) -> None:
        """Store a job and take it up; raises SpecRefused or JobExists, and then nothing has changed."""
        self._store.add_job(spec.name, msgspec.json.encode(check(spec)))
        self._resume(spec.name, spec)

    def happened(self, name: str, event: Event) -> bool:
        """Store an event of a job, and only then let it count; whether it meant anything to the job.

        Raises KeyError for a job that is not there, StoreFull if the disk is.
        """
        job, time_s = self.jobs[name], self.time_s(name)
        after = jobs.fold(job, event, time_s)
        if after == job and not isinstance(event, Late):  # a bill counts, though it moves nothing
            return False
        self._store.append(name, time_s, event)
        self._keep(name, after, time_s)
        self.usage.add(name, event, time_s)
        for note in (*after.replans[len(job.replans) :], *news(job.runs, after.runs)):
            log.warning("job %s: %s", name, note)
        if after.phase != job.phase:
            log.info("job %s: %s%s", name, after.phase, f" ({after.reason})" if after.reason else "")
        return True

    def plans(self, name: str, facts: Callable[[], tuple[DeviceFacts, ...]]) -> Planned | Exhausted | None:
        """What is to be stored of a job that owes a plan, or whose budget is used up; else None."""
        job, time_s, used_j = self.jobs[name], self.time_s(name), self.usage.used_j(name)
        if job.phase != "planning":
            return planning.exhausted(job, used_j, time_s)
        return self._planned(name, facts())

    def would_plan(self, name: str, facts: Callable[[], tuple[DeviceFacts, ...]]) -> Decision | None:
        """What would be decided now: of a job that owes a plan, or will when its merged rounds are over."""
        job = self.jobs[name]
        merging = job.phase == "first" and not job.runs[0].closing  # what is on trial has to be seen whole
        return self._planned(name, facts()).decision if merging or job.phase == "planning" else None

    def _planned(self, name: str, known: tuple[DeviceFacts, ...]) -> Planned:
        job, time_s = self.jobs[name], self.time_s(name)
        alike = planning.jobs_alike(job.spec, self.jobs.values())
        given = planning.situation(
            job,
            self._events(name),
            known,
            others=[observed(self._events(other.spec.name)) for other in alike],
            used_j=self.usage.used_j(name),
            today_j={each.name: self.usage.today_j(name, each.name, time_s) for each in known},
            time_s=time_s,
        )
        return planning.planned(given)

    def scene(
        self, name: str, facts: tuple[DeviceFacts, ...], at_work: frozenset[m.Key], *, settled: bool
    ) -> Scene:
        """What rulings about a job go by now, of devices of which this is known."""
        time_s = self.time_s(name)
        today_j = {each.name: self.usage.today_j(name, each.name, time_s) for each in facts}
        return Scene(time_s=time_s, facts=facts, at_work=at_work, settled=settled, today_j=today_j)

    def _events(self, name: str) -> Iterator[tuple[float, Event]]:
        return ((time_s, event) for _, time_s, event in self._store.events(name))

    def time_s(self, name: str) -> float:
        """Job time in seconds; raises KeyError."""
        halted_s = self._halted_s.get(name)
        return self._clock_s() - self._since_s[name] if halted_s is None else halted_s

    def asked(self, key: m.Key) -> Ask | None:
        """What an answer under this key would answer; it may have been sent before a restart."""
        job = self.jobs.get(key.job)
        if job is None or job.over:
            return None
        return next((ask for run in job.runs if (ask := rounds.expected(run, key))), None)

    def could_be(self, key: m.Key) -> bool:
        """Whether a training of this key can ever have been asked for."""
        if key.job not in self.jobs:
            return False
        spec, group = self.jobs[key.job].spec, key.group.split("+")
        rounds_ = 0 <= key.round <= spec.training.rounds and key.attempt >= 0
        return key.device in spec.devices and rounds_ and set(group) <= set(spec.tasks)

    def assign(self, ask: Ask) -> m.Assign:
        """The message that asks it of its device."""
        job = self.jobs[ask.key.job]
        left_s = None if ask.deadline_s is None else ask.deadline_s - self.time_s(ask.key.job)
        return m.Assign(
            key=ask.key,
            tasks=ask.tasks,
            training=job.spec.training,
            weights=ask.weights,
            fingerprint=job.fingerprint,
            train=ask.train,
            evaluate=ask.evaluate,
            measure=ask.measure,
            remaining_s=left_s,
        )

    def _resume(self, name: str, spec: JobSpec) -> None:
        job, time_s = Job(spec=spec), 0.0
        for _, time_s, event in self._store.events(name):
            job = jobs.fold(job, event, time_s)
            self.usage.add(name, event, time_s)
        self._keep(name, job, time_s)

    def _keep(self, name: str, job: Job, time_s: float) -> None:
        """The job is so from now, its time, on."""
        going = self.jobs.get(name)
        if going is None or going.phase in HALTED:
            self._since_s[name] = self._clock_s() - time_s
        self.jobs[name] = job
        if job.phase in HALTED:
            self._halted_s[name] = time_s
        else:
            self._halted_s.pop(name, None)
