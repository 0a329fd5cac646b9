"""`mas watch`: jobs and devices as they are, again and again until somebody has seen enough.

On a terminal the picture renews itself; elsewhere a line is printed for every round, or with ``--json`` a
status whenever it has changed. Where the status comes from is the caller's business. It ends when the job
that was asked for is over; without one, at Ctrl-C.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mas_edge.orchestrator.launching.launch import nearest
from mas_edge.orchestrator.views import status_tables as tables
from mas_edge.orchestrator.views.outlook import OVER
from mas_edge.orchestrator.views.status import recent
from mas_edge.profiling.report import drawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, Group, RenderableType

    from mas_edge.orchestrator.views.status_values import JobStatus, Status

LOOK_S = 1.0
FAILED = 1
LAST = 5
"""Jobs that are over and still shown on a terminal, which has only so many lines."""


class WatchRefused(LookupError):
    """A job that is not there; the text names those that are near."""


View: TypeAlias = "Callable[[Status], None]"


def show(
    ask: Callable[[], Status],
    *,
    job: str | None = None,
    as_json: bool = False,
    console: Console | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Show what ``ask`` says until the job is over; the exit code, 1 if it failed. Raises WatchRefused."""
    from rich.console import Console  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415

    console = console or Console()
    try:
        if as_json or not console.is_terminal:
            return _look(ask, job, _as_json() if as_json else _lines(console), pause)
        with Live(console=console, auto_refresh=False) as live:
            return _look(
                ask,
                job,
                lambda now: live.update(picture(now, time.time(), console.width), refresh=True),
                pause,
            )
    except KeyboardInterrupt:
        return 0


def _look(ask: Callable[[], Status], job: str | None, view: View, pause: Callable[[float], object]) -> int:
    while True:
        shown = chosen(recent(ask(), () if job is None else (job,)), job)
        view(shown)
        if job is not None and shown.jobs[0].phase in OVER:
            return FAILED if shown.jobs[0].phase == "failed" else 0
        pause(LOOK_S)


def chosen(whole: Status, job: str | None) -> Status:
    """The status of one job, with all devices; raises WatchRefused if there is none of that name."""
    if job is None:
        return whole
    names = [each.name for each in whole.jobs]
    if job not in names:
        raise WatchRefused(f"no job {job!r}{nearest(job, names)}")
    return msgspec.structs.replace(whole, jobs=tuple(each for each in whole.jobs if each.name == job))


def picture(shown: Status, wall_s: float, width: int) -> Group:
    """Everything as rich draws it: a table per job that goes on, the devices, others in a line each."""
    from rich.console import Group  # noqa: PLC0415 - an extra
    from rich.padding import Padding  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415

    brief = width < tables.WIDE
    over = tuple(job for job in shown.jobs if job.phase in OVER)
    going = [job for job in shown.jobs if job.phase not in OVER]
    parts: list[RenderableType] = []
    for job in going:
        bar = ProgressBar(total=1.0, completed=job.share_done, width=60)
        parts += [drawn(tables.tasks(job, brief=brief)), Padding(bar, (0, 0, 1, 0))]
    parts.append(drawn(tables.devices(shown, wall_s)))
    if over or not going:
        last = msgspec.structs.replace(shown, jobs=over[-LAST:])
        parts.append(drawn(tables.jobs(last, brief=brief, tasks_too=False)))
    return Group(*parts)


def _lines(console: Console) -> View:
    """Prints where a job is when it is seen first, then a line for what is new, with its name and time."""
    before: dict[str, JobStatus] = {}

    def say(job: JobStatus, line: str) -> None:
        console.print(
            f"{job.name}  {job.time_s:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True
        )

    def view(shown: Status) -> None:
        for job in shown.jobs:
            old = before.get(job.name)
            for line in (tables.headline(job),) if old is None else tables.news(old, job):
                say(job, line)
            if old is not None and job.phase in OVER and old.phase != job.phase and not job.reason:
                say(job, tables.headline(job))
            before[job.name] = job

    return view


def _as_json() -> View:
    """Prints the status as one line of JSON when it has changed."""
    before = b""

    def view(shown: Status) -> None:
        nonlocal before
        text = msgspec.json.encode(shown)
        if text != before:
            before = text
            print(text.decode(), flush=True)

    return view
