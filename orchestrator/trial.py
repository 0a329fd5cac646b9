"""Partitions tried beside each other before one is committed to: how long, which, and which won.

Affinity foretells poorly, so policy mas-verified trains some partitions from the merged weights, "do not
split" always among them, and keeps the one of least held-out loss. All get the same *energy*: after equal
rounds a finer one would look better for having had more. What is dropped in the end may have cost ``SHARE``
of the job's energy at most; where that does not pay for ``LEAST`` rounds of the finest, nothing is tried: the
order after fewer says little about the final one (rank correlation 0.4 after four rounds, 0.6 to 0.8 after
eight, docs/results/affinity.md). More than two partitions are tried only if all get ``SURE`` rounds. Where a
round asks only some of the devices nothing is tried: clients differ by more than partitions do.

Source: Verification is our own; halving the field once at equal cost is the last step of successive halving
(Jamieson and Talwalkar, 2016). Here rounds are counted and losses compared; who trains what is
``orchestrator.policies``'. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mas_edge.orchestrator.cost_model import Estimate
from mas_edge.orchestrator.decision import Trial
from mas_edge.orchestrator.learning_curve import totals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from mas_edge.orchestrator.cost_model import Method
    from mas_edge.orchestrator.decision import Groups
    from mas_edge.orchestrator.learning_curve import Evaluated

SHARE = 0.1
"""Of a job's energy that may go into partitions that are dropped in the end."""

LEAST = 4
"""Rounds that each partition is trained in a trial, at least."""

SURE = 8
"""Rounds from which on another partition is worth a trial."""


def lengths(energies: Sequence[float], rounds: int, left: int) -> tuple[int, ...]:
    """How many rounds partitions with these energies a round are tried, for the same energy each.

    All but one of them are dropped. The dearest gets whole rounds within the share, the others as many as its
    energy gives, rounded. A round of all tasks costs 1 and a job of ``rounds`` that many; nothing is trained
    longer than the ``left`` rounds.
    """
    dearest = max(energies)
    each = SHARE * rounds / max(len(energies) - 1, 1)
    most = min(math.floor(each / dearest + 1e-9), math.floor(left * min(energies) / dearest + 1e-9))
    return tuple(round(most * dearest / energy) for energy in energies)


def field(
    ranked: Sequence[Groups], energy_of: Callable[[Groups], float], rounds: int, left: int
) -> Trial | None:
    """The trial of the first of these partitions, of which the first two have to be tried, or none at all.

    ``rounds`` are the job's and ``left`` those after the merge.
    """
    for number in range(len(ranked), 1, -1):
        tried = ranked[:number]
        whole = energy_of(tried[0])  # which no split is cheaper than, whatever a fitted model says
        given = lengths([max(whole, energy_of(groups)) for groups in tried], rounds, left)
        if min(given) >= (LEAST if number == 2 else SURE):
            longest: dict[tuple[str, ...], int] = {}
            for groups, so_long in zip(tried, given, strict=True):
                for group in groups:
                    longest[group] = max(longest.get(group, 0), so_long)
            return Trial(partitions=tuple(tried), groups=tuple(longest), rounds=tuple(longest.values()))
    return None


def judged(
    trial: Trial, evaluated: Iterable[Evaluated], begun: int, tasks: Collection[str]
) -> list[tuple[Groups, float | None]]:
    """Each partition with the sum of its tasks' held-out losses, the mean over the later half of its rounds.

    Only ``tasks``, those that are left, count. ``begun`` is the round at which the trial began; weights are
    evaluated at the start of a round, so the last one brings no loss. None: some group's end is not known.
    """
    known = list(evaluated)
    found: list[tuple[Groups, float | None]] = []
    for groups in trial.partitions:
        rounds = min(
            trial.lasted(group) for group in groups
        )  # one that is in two partitions may go on for longer
        later = range(begun + rounds // 2, begun + rounds)
        sums = [_mean(known, group, tasks, range(begun, begun + rounds), later) for group in groups]
        known_sums = [each for each in sums if each is not None]
        found.append((groups, math.fsum(known_sums) if len(known_sums) == len(sums) else None))
    return found


def _mean(
    evaluated: list[Evaluated], group: tuple[str, ...], tasks: Collection[str], tried: range, when: range
) -> float | None:
    """The mean over these rounds of a group's loss, None if the last is missing; 0 if no task is left.

    Rounds count in which no device was missed that was there in the trial: the others would be judged by
    fewer examples.
    """
    left = [task for task in group if task in tasks]
    if not left:
        return 0.0
    ours = [each for each in evaluated if each.group == group and each.round in tried]
    most = {task: max((each.count for each in ours if each.task == task), default=0.0) for task in left}
    whole = totals([each for each in ours if each.count >= most.get(each.task, 0.0)], group, left)
    known = [whole[each] for each in when if each in whole]
    return math.fsum(known) / len(known) if known and when[-1] in totals(ours, group, left) else None


def energy(of_a_round: Sequence[Estimate | None], rounds: Sequence[int]) -> Estimate | None:
    """What a trial will take, from a round of each group; None if one of them is not known."""
    known = [each for each in of_a_round if each is not None]
    if len(known) < len(of_a_round) or not known:
        return None
    value, u = (
        math.fsum(number * times for number, times in zip(numbers, rounds, strict=True))
        for numbers in ([each.value for each in known], [each.u for each in known])
    )
    how: Method = "measured" if all(each.how == "measured" for each in known) else "fitted"
    return Estimate(value=value, u=u, how=how)
