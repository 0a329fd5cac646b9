"""What somebody who waits for a job sees: a bar with losses, joules and the time that is left.

On a terminal the bar moves a few times a second; elsewhere a line is printed for every round, so that a
log can be read. Everything is drawn from events and the devices' latest words; nothing is measured here.
The time left is the time so far by the share of device-rounds that are done; before a split is decided
the second stage counts as two groups, so the estimate moves when it is.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from mas_edge.orchestrator.job import Initialised, Judged
from mas_edge.orchestrator.rounds import GaveUp, Heard, Merged

if TYPE_CHECKING:
    from rich.console import Console
    from typing_extensions import Self

    from mas_edge.orchestrator.job import Event, Job
    from mas_edge.orchestrator.rounds import Run
    from mas_edge.wire.messages import Profile, Progress

GUESSED_GROUPS = 2


class Display:
    """Shows one job on a console; use it as a context."""

    def __init__(self, console: Console, title: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - an extra

        self._console, self._title = console, title
        self._started_s = time.monotonic()
        self._billed_j = 0.0
        self._losses: dict[tuple[str, int], dict[str, list[float]]] = {}
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[what]}"),
            console=console,
        )
        self._task = self._bar.add_task(title, total=1.0, what="starting")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def event(self, job: Job, event: Event, time_s: float) -> None:
        """Something happened."""
        if isinstance(event, GaveUp) and event.shortage and job.replans:
            self._line(time_s, job.replans[-1])
        match event:
            case Initialised():
                self._billed(event.profile)
                count = sum(event.parameters.values())
                self._line(time_s, f"first weights: {count:,} parameters for {len(job.spec.tasks)} tasks")
            case Heard(update=update):
                self._billed(update.profile)
                losses = self._losses.setdefault((update.key.group, update.key.round), {})
                for score in update.trained:
                    sums = losses.setdefault(score.task, [0.0, 0.0])
                    sums[0] += score.loss_sum
                    sums[1] += score.count
            case Merged():
                self._merged(job, event, time_s)
            case Judged():
                self._billed(event.profile)
                self._line(time_s, f"{event.group}: evaluated on unseen clients")

    def look(self, job: Job, live: tuple[Progress, ...]) -> None:
        """The bar as it is now."""
        if not self._console.is_terminal:
            return
        done = share_done(job)
        joules = self._billed_j + sum(p.energy_j or 0.0 for p in live if _waited_for(job, p))
        passed_s = time.monotonic() - self._started_s
        left = f"about {passed_s * (1 - done) / done:.0f} s left" if done > 0.02 else "…"
        what = f"{_where(job)}   {joules:.0f} J attributed   {passed_s:.0f} s, {left}"
        self._bar.update(self._task, completed=done, what=what)

    def _merged(self, job: Job, event: Merged, time_s: float) -> None:
        losses = self._losses.pop((event.group, event.round), {})
        total = math.fsum(loss / count for loss, count in losses.values() if count)
        text = f"round {event.round + 1}/{job.spec.training.rounds}  {event.group}  training loss {total:.3f}"
        self._line(time_s, f"{text}  {self._billed_j:.0f} J")
        if job.decision and job.phase == "second" and event.round + 1 == job.spec.merge_rounds:
            self._line(time_s, "split into " + " | ".join("+".join(group) for group in job.decision.groups))

    def _billed(self, profile: Profile) -> None:
        self._billed_j += sum(row.attributed_energy_j or 0.0 for row in profile.rows)

    def _line(self, time_s: float, text: str) -> None:
        self._console.print(f"{time_s:6.1f} s  {text}", highlight=False, soft_wrap=True)


def share_done(job: Job) -> float:
    """The share of the job's device-rounds that are done, from 0 to 1; stages to come are guessed."""
    spec = job.spec
    first, rounds = spec.merge_rounds, spec.training.rounds
    if job.over or job.phase == "judging":
        return 1.0
    if job.phase == "initialising" or not job.runs:
        return 0.0
    groups = len(job.runs)
    if not first:
        return sum(_done(run) for run in job.runs) / (groups * rounds)
    if job.phase == "first":
        guess = len(spec.partition) or (GUESSED_GROUPS if spec.groups == "auto" else spec.groups)
        return _done(job.runs[0]) / (first + guess * (rounds - first))
    whole = first + groups * (rounds - first)
    return (first + sum(max(_done(run) - first, 0) for run in job.runs)) / whole


def _done(run: Run) -> float:
    return min(run.round + len(run.heard) / max(len(run.devices), 1), run.past)


def _where(job: Job) -> str:
    if job.phase in {"first", "second"} and job.runs:
        slowest = min(job.runs, key=lambda run: run.round)
        return f"round {min(slowest.round + 1, job.spec.training.rounds)}/{job.spec.training.rounds}"
    return job.phase


def _waited_for(job: Job, progress: Progress) -> bool:
    key = progress.key
    return any(
        run.group == key.group and run.round == key.round and key.device in run.missing for run in job.runs
    )
