"""Answers to questions about the jobs of a state directory, from a reader of its store; nothing is changed.

Whoever asks, in whatever thread or process, has a ``Looker`` of its own, which remembers what it has read, so
that asking again costs only what is new. What is shown of a status is the business of
``orchestrator.views.status``, of a report of ``orchestrator.report``, of events of
``orchestrator.views.journal``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import rollout
from mas_edge.orchestrator.deployment import outcomes
from mas_edge.orchestrator.job import Event, replay
from mas_edge.orchestrator.launching import gather, orders
from mas_edge.orchestrator.launching.launch import nearest
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.reports import runs as reports
from mas_edge.orchestrator.reports.in_use import served
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.rollout import in_words, stored
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.orchestrator.store import Store, StoreError
from mas_edge.orchestrator.views.follow import Follower
from mas_edge.orchestrator.views.journal import Journal, beginning
from mas_edge.orchestrator.views.status import recent
from mas_edge.wire.messages import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from mas_edge.orchestrator.deployment import Deployment
    from mas_edge.orchestrator.launching.launch import Launch


class JobUnknown(LookupError):
    """No such job; the text names what is near."""


class Looker:
    """Answers questions about the jobs whose store is in a directory; a context, for one thread.

    ``full`` says why nothing can be written there now, None if it can.
    """

    def __init__(self, state: Path, full: Callable[[], str | None] = lambda: None) -> None:
        self._state, self._full = state, full
        self._store: Store[Event] | None = None
        self._follower: Follower | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def __call__(self, question: orders.Question) -> orders.Answer:
        """The answer; what cannot be answered is ``Refused``."""
        try:
            return self._answer(question)
        except (LookupError, ValueError) as error:
            return orders.Refused(text=str(error))
        except (OSError, StoreError) as error:
            return orders.Refused(text=str(error), code=1)

    def _answer(self, question: orders.Question) -> orders.Answer:
        if self._store is None:
            self._store = Store[Event].reader(self._state / "store.db", Event)
        match question:
            case orders.Look():
                return self._seen(self._store, question, time.time())
            case orders.Tell():
                return _told(self._store, question)
            case orders.Account(job=job):
                return _accounted(self._store, job)
            case orders.Fetch():
                return _piece(self._state / "blobs", question)
            case orders.Follow(request=request):
                return deploying(stored(self._store), request)

    def _seen(self, store: Store[Event], question: orders.Look, wall_s: float) -> orders.Answer:
        self._follower = self._follower or Follower(store)
        status = msgspec.structs.replace(self._follower.status(wall_s), full=self._full() or "")
        if not question.every:
            status = recent(status, () if question.job is None else (question.job,))
        return orders.Seen(status=status, waiting=tuple(_waiting(store, wall_s)))


def job_of(store: Store[Event], name: str) -> JobSpec:
    """What a job was asked to do; raises JobUnknown."""
    specs = dict(store.jobs())
    if name not in specs:
        raise JobUnknown(f"no job {name!r}{nearest(name, specs)}")
    return msgspec.json.decode(specs[name], type=JobSpec)


def deploying(deployments: tuple[Deployment, ...], request: str) -> orders.Deploying:
    """What has become of a deployment so far; raises JobUnknown."""
    one = next((each for each in deployments if each.ordered.request == request), None)
    if one is None:
        raise JobUnknown(f"no deployment {request!r}")
    return orders.Deploying(
        request=request,
        job=one.job,
        precision=one.ordered.precision,
        rollback=one.ordered.rollback,
        outcomes=outcomes(deployments, one),
    )


def _waiting(store: Store[Event], wall_s: float) -> Iterator[orders.Going]:
    """What was launched and has not begun, by jobs."""
    waiting: dict[str, list[Launch]] = {}
    for each in gather.waiting(store.launches(), dict(store.jobs())):
        waiting.setdefault(each.job, []).append(each.launch)
    for job, members in waiting.items():
        yield orders.Going(
            job=job,
            tasks=tuple(task.name for launch in members for task in launch.tasks),
            beside=(),
            starts_in_s=max(min(launch.start_s for launch in members) - wall_s, 0.0),
        )


def _told(store: Store[Event], question: orders.Tell) -> orders.Answer:
    spec = job_of(store, question.job)
    journal, lines, seq = Journal(spec), [], 0
    for seq, time_s, wall_s, event in store.history(question.job):
        said = journal.read(event, time_s)
        if seq > question.after:
            lines += [orders.Line(seq=seq, wall_s=wall_s, text=text) for text in said]
    facts = [fact for fact in rollout.facts(store, question.after_deployment) if fact.job == question.job]
    lines += [orders.Line(seq=each.number, wall_s=each.wall_s, text=in_words(each.event)) for each in facts]
    return orders.Told(
        job=question.job,
        about=beginning(spec),
        lines=tuple(sorted(lines, key=lambda line: line.wall_s)),
        last=seq,
        over=journal.job.over,
        last_deployment=facts[-1].number if facts else question.after_deployment,
    )


def _accounted(store: Store[Event], name: str) -> orders.Answer:
    spec, devices = job_of(store, name), store.devices()
    happened = [(time_s, event) for _, time_s, event in store.events(name)]
    others = (other for other, _ in store.jobs() if other != name)
    clients = {
        device: tuple(client for offer in hello.workloads for client in offer.clients)
        for device, hello in devices.items()
        if device in spec.devices
    }
    in_use = {device: hello.in_use for device, hello in devices.items()}
    made = reports.compose(
        spec,
        happened,
        manifest(DemoPlan(spec=spec, clients=clients), devices),
        wall_s=happened[-1][0] if happened else 0.0,
        elsewhere=((time_s, event) for other in others for _, time_s, event in store.events(other)),
        in_use=served(stored(store), name, in_use),
    )
    weights = {run.group: run.weights for run in replay(spec, happened).runs if run.weights}
    return orders.Accounted(run=made, weights=weights)


def _piece(blobs: Path, question: orders.Fetch) -> orders.Answer:
    if not is_digest(question.digest) or question.offset < 0:
        raise JobUnknown(f"{question.digest!r} names no weights")
    try:
        with (blobs / question.digest).open("rb") as file:
            file.seek(question.offset)
            return orders.Piece(data=file.read(orders.CHUNK_BYTES))
    except FileNotFoundError:
        gone = "are not here any more: above [storage] quota_bytes those of old jobs are thrown away"
        raise JobUnknown(f"the weights {question.digest[:12]} {gone}") from None
