"""How a job's tasks are split after the merged rounds, and by how much the choice won.

What was measured is pooled and handed to ``orchestrator.split``; a partition that was given needs neither. A
group that has to be divided because it fits no device is ``orchestrator.replan``'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import split
from mas_edge.orchestrator.affinity import Affinity, pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.spec import JobSpec
    from mas_edge.wire.messages import AffinitySums


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the tasks were split and by how much the choice won over the runner-up.

    ``score`` None: affinity had no say in it.
    """

    groups: tuple[tuple[str, ...], ...]
    score: float | None = None
    runner_up: tuple[tuple[str, ...], ...] = ()
    runner_up_score: float | None = None
    lead_se: float | None = None
    why: str = ""


def decide(spec: JobSpec, measured: Iterable[AffinitySums]) -> Decision:
    """The split of a job under its policy, mas or fixed; raises what ``split`` and ``pool`` raise."""
    if spec.policy == "fixed":
        return Decision(groups=spec.partition, why="the partition was given")
    affinity = pool(measured)
    if spec.groups == "auto":
        choice = split.auto(affinity)
        why = "the fewest groups within one standard error of the best"
        return _decision(affinity, choice.partition, choice.runner_up, why)
    found = split.best(affinity, spec.groups, k=2)
    other = found[1] if len(found) > 1 else None
    return _decision(affinity, found[0], other, f"the best partition into {spec.groups} groups")


def _decision(
    affinity: Affinity, chosen: split.Partition, other: split.Partition | None, why: str
) -> Decision:
    return Decision(
        groups=chosen.groups,
        score=chosen.score,
        runner_up=other.groups if other else (),
        runner_up_score=other.score if other else None,
        lead_se=split.lead(affinity, chosen, other)[1] if other else None,
        why=why,
    )
