"""A decision about a job's task groups, as it is stored, and everything that it goes by.

At the *start* nothing was measured. At the *trial*, which policy mas-verified alone has, the merged rounds
are done and some partitions are to be tried beside each other. At the *split* it is decided how the tasks go
on; where that is together, it may be for some rounds only, and is decided *again* after them.
``orchestrator.policies`` takes a decision, ``orchestrator.explain`` puts it into words; nothing is decided
here. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.orchestrator.budget import GroupCost, LeftOut
from mas_edge.orchestrator.cost_model import Estimate
from mas_edge.orchestrator.learning_curve import Carried
from mas_edge.orchestrator.observed import Observed

if TYPE_CHECKING:
    from mas_edge.orchestrator.learning_curve import Evaluated
    from mas_edge.orchestrator.roster import DeviceFacts
    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import AffinitySums

Groups: TypeAlias = tuple[tuple[str, ...], ...]
Stage: TypeAlias = Literal["start", "trial", "split"]

NOTHING = Observed()


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a decision."""


class Progress(_Value, frozen=True):
    """How fast a partition lowers the sum of the losses, to first order, for the same energy as others.

    ``rate`` is by how much the energy of a step of all tasks together does, over the learning rate;
    ``energy`` is what a step of each of its groups takes, that of all tasks taking 1. ``se`` None is unknown.
    """

    rate: float
    energy: float
    se: float | None = None


class MoreRounds(_Value, frozen=True):
    """What the energy that ``groups`` take beyond not splitting would do as more rounds of all tasks.

    ``rounds`` could be trained instead of ``planned``; ``lower_by`` is the share of the held-out loss that
    they are foretold to take off (``orchestrator.learning_curve``).
    """

    groups: tuple[tuple[str, ...], ...]
    planned: int
    rounds: int
    lower_by: float


class Trial(_Value, frozen=True):
    """Partitions that are trained beside each other from the merged weights, for the same energy each.

    ``groups`` are those of all ``partitions``, each once, and ``rounds`` how long each is trained.
    """

    partitions: tuple[tuple[tuple[str, ...], ...], ...]
    groups: tuple[tuple[str, ...], ...]
    rounds: tuple[int, ...]

    def lasted(self, group: tuple[str, ...]) -> int:
        """For how many rounds a group was tried."""
        return self.rounds[self.groups.index(group)]


class Alternative(_Value, frozen=True):
    """A partition that was turned down, and why. Joules and seconds are of all rounds that were left."""

    groups: tuple[tuple[str, ...], ...]
    why: str
    score: float | None = None
    se: float | None = None
    energy_j: Estimate | None = None
    time_s: Estimate | None = None
    progress: Progress | None = None
    loss: float | None = None


class Decision(_Value, frozen=True):
    """How the tasks go on, who trains them, and by how much the choice won over the runner-up.

    ``serves`` is parallel to ``groups``: the tasks for whose sake each is trained, where groups overlap; none
    means all of its tasks. ``score`` None: affinity had no say in it. ``devices`` and ``costs`` (of a round)
    are parallel to ``groups``; no devices means all of the job's. ``energy_j`` and ``time_s`` are expected
    for the ``rounds`` that are left, of which the budget leaves ``energy_left_j`` and ``time_left_s``.
    ``trial``: the groups are tried only, and another decision follows. ``again``: so it does when so many
    rounds are trained. ``carried`` is how much of what all tasks learn together carries over. ``loss`` is the
    sum of the tasks' held-out losses by which a trial was judged. ``refused``, in words: the job cannot be
    done.
    """

    groups: tuple[tuple[str, ...], ...]
    serves: tuple[tuple[str, ...], ...] = ()
    score: float | None = None
    runner_up: tuple[tuple[str, ...], ...] = ()
    runner_up_score: float | None = None
    lead_se: float | None = None
    why: str = ""
    se: float | None = None
    devices: tuple[tuple[str, ...], ...] = ()
    costs: tuple[GroupCost, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    rounds: int = 0
    energy_j: Estimate | None = None
    time_s: Estimate | None = None
    energy_left_j: float | None = None
    time_left_s: float | None = None
    rejected: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    progress: Progress | None = None
    more_rounds: MoreRounds | None = None
    carried: Carried | None = None
    trial: Trial | None = None
    again: int = 0
    loss: float | None = None
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that a decision depends on; ``spec`` has the tasks that are left.

    ``rounds`` are to be trained still. ``parameters`` and ``flops`` (of an example, forward) are by part.
    ``evaluated`` are held-out losses of all groups so far, ``learnt`` those on what was trained on.
    ``spent_j`` and ``spent_s`` are what the job has used of its budget, ``used_j`` what each device has used
    of its day.
    """

    spec: JobSpec
    stage: Stage
    parameters: dict[str, int]
    rounds: int
    flops: dict[str, int] = field(default_factory=dict)
    affinities: tuple[AffinitySums, ...] = ()
    evaluated: tuple[Evaluated, ...] = ()
    learnt: tuple[Evaluated, ...] = ()
    decided: tuple[Decision, ...] = ()
    seen: Observed = NOTHING
    facts: tuple[DeviceFacts, ...] = ()
    spent_j: float = 0.0
    spent_s: float = 0.0
    used_j: tuple[tuple[str, float], ...] = ()
