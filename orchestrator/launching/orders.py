"""What `mas` and the orchestrator say to each other: one JSON object a line, each way, over a Unix socket.

A request is answered by one line: what the request's own answer is, or ``Refused`` with a line for people.
An ``Order`` is carried out by the orchestrator's deciding loop; the other requests only look, and are
answered from a reader of the store. Who may connect is decided by the socket's mode alone.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

import msgspec

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.deployment import MARGIN, Outcome
from mas_edge.orchestrator.launching.launch_tables import Wish
from mas_edge.orchestrator.reports.runs import RunReport
from mas_edge.orchestrator.views.status_values import Status
from mas_edge.wire.messages import BlobRef, Precision

LONGEST_BYTES = 1 << 20
"""A request that is longer is refused unread."""

CHUNK_BYTES = 1 << 20
"""Of weights in one answer."""


class _Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """A request or an answer; its class name in lower case is its ``kind``."""


# --- requests that change something ---------------------------------------------------------------


class LaunchThese(_Said, frozen=True):
    """Launch what these files ask for; others may join for ``wait_s`` seconds."""

    wishes: tuple[Wish, ...]
    owner: str
    wait_s: float


class Stop(_Said, frozen=True):
    """Stop a job, a task of one, or a launch that waits, by its name."""

    name: str


class Resume(_Said, frozen=True):
    """Let a stopped or failed job go on."""

    job: str


class Preview(_Said, frozen=True):
    """Say what these files would become, on the devices that are known, and launch nothing."""

    wishes: tuple[Wish, ...]


class Plan(_Said, frozen=True):
    """Explain how a job is planned; ``dry_run``: as it would be planned now, with what is known by now."""

    job: str
    dry_run: bool = False


class DeployThese(_Said, frozen=True):
    """Have devices infer with a job's models, or with those that were before; none named: all that can."""

    job: str
    devices: tuple[str, ...] = ()
    precision: Precision = "fp32"
    rollback: bool = False
    margin: Annotated[float, msgspec.Meta(ge=0)] = MARGIN


# --- requests that look ----------------------------------------------------------------------------


class Look(_Said, frozen=True):
    """What goes on; ``job`` names one that has to be in the answer however old it is, ``every`` wants all."""

    job: str | None = None
    every: bool = False


class Tell(_Said, frozen=True):
    """What happened to a job and its deployments, after what has these numbers."""

    job: str
    after: int = 0
    after_deployment: int = 0


class Account(_Said, frozen=True):
    """The report of a job, finished or not."""

    job: str


class Fetch(_Said, frozen=True):
    """A piece of weights from this byte on."""

    digest: str
    offset: int


class Follow(_Said, frozen=True):
    """What has become of a deployment."""

    request: str


Order: TypeAlias = LaunchThese | Stop | Resume | Preview | Plan | DeployThese
Question: TypeAlias = Look | Tell | Account | Fetch | Follow
Request: TypeAlias = Order | Question


# --- answers ---------------------------------------------------------------------------------------


class Refused(_Said, frozen=True):
    """It was not done, and nothing was changed; ``code`` is the exit code of `mas`."""

    text: str
    code: int = 2


class Going(_Said, frozen=True):
    """A job that tasks were launched into: theirs and the others' names, and when it starts.

    ``apart`` says in words why it is not one job with another of the same launch.
    """

    job: str
    tasks: tuple[str, ...]
    beside: tuple[str, ...]
    starts_in_s: float
    apart: str = ""


class Launched(_Said, frozen=True):
    """What became of a launch."""

    jobs: tuple[Going, ...]


class Done(_Said, frozen=True):
    """An order was carried out; ``text`` says what that means."""

    job: str
    text: str


class Explained(_Said, frozen=True):
    """A plan in words, a line each; ``decision`` is the same in numbers, once there is one."""

    job: str
    lines: tuple[str, ...]
    decision: Decision | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, by Unix time; ``seq`` numbers a job's events, or those of deployments."""

    seq: int
    wall_s: float
    text: str


class Told(_Said, frozen=True):
    """What a job is, and what happened to it up to event ``last``; ``over``: its training is."""

    job: str
    about: str
    lines: tuple[Line, ...]
    last: int
    over: bool
    last_deployment: int = 0


class Seen(_Said, frozen=True):
    """What goes on, and the jobs that wait for others to join."""

    status: Status
    waiting: tuple[Going, ...] = ()


class Accounted(_Said, frozen=True):
    """A report, and the weights that each group has now."""

    run: RunReport
    weights: dict[str, BlobRef]


class Piece(_Said, frozen=True):
    """Bytes of weights; empty past their end."""

    data: bytes


class Deploying(_Said, frozen=True):
    """What has become of a deployment so far, a line per group and device."""

    request: str
    job: str
    precision: Precision
    rollback: bool
    outcomes: tuple[Outcome, ...]


Answer: TypeAlias = Refused | Launched | Done | Explained | Told | Seen | Accounted | Piece | Deploying
A = TypeVar("A", bound=_Said)
