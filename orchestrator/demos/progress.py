"""What somebody who waits for `mas demo` sees: a bar with joules and the time that is left.

On a terminal the bar moves a few times a second; elsewhere a line is printed for whatever is new, so that a
log can be read: the same lines as `mas watch` prints, of the same tally. Nothing is measured here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mas_edge.orchestrator.rounds import expected
from mas_edge.orchestrator.views import outlook
from mas_edge.orchestrator.views.status import job_status
from mas_edge.orchestrator.views.status_tables import news
from mas_edge.orchestrator.views.tally import Tally

if TYPE_CHECKING:
    from rich.console import Console
    from typing_extensions import Self

    from mas_edge.orchestrator.job import Event, Job
    from mas_edge.orchestrator.views.status_values import JobStatus
    from mas_edge.wire.messages import Progress


class Display:
    """Shows one job on a console; use it as a context."""

    def __init__(self, console: Console, title: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - an extra

        self._console = console
        self._started_s = time.monotonic()
        self._tally: Tally | None = None
        self._before: JobStatus | None = None
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
        if self._tally is None:
            self._tally = Tally(job.spec)
        self._tally.add(time_s, time.time(), event)
        now = job_status(self._tally, {}, self._tally.bills)
        for line in news(self._before, now):
            self._console.print(f"{time_s:6.1f} s  {line}", highlight=False, soft_wrap=True, markup=False)
        self._before = now

    def look(self, job: Job, live: tuple[Progress, ...]) -> None:
        """The bar as it is now."""
        if not self._console.is_terminal:
            return
        done, passed_s = outlook.share_done(job), time.monotonic() - self._started_s
        in_hand = [p.energy_j or 0.0 for p in live if any(expected(run, p.key) for run in job.runs)]
        billed_j = self._before.energy.attributed_j if self._before else None
        left_s = outlook.left_s(job, passed_s)
        left = "…" if left_s is None else f"about {left_s:.0f} s left"
        joules = f"{(billed_j or 0.0) + sum(in_hand):.0f} J attributed"
        what = f"{outlook.at(job)}   {joules}   {passed_s:.0f} s, {left}"
        self._bar.update(self._task, completed=done, what=what)
