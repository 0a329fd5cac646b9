"""Losses over rounds: what more rounds are foretold to bring, and how much of what is learnt carries over.

A learning curve falls roughly like a power of the work put into it (Hestness et al., Deep Learning Scaling is
Predictable, Empirically, 2017, arXiv 1712.00409). The power is fitted to the later half of the merged rounds,
so that the first ones, which fall fastest, have no say. It knows no floor and no schedule: it is a number to
weigh a split by, not a promise (docs/decisions/0015 compares it with what was measured).

Nor does it see that tasks which are trained together begin to memorise. That shows in how fast the loss on
held-out examples falls beside the loss on those that devices train on (docs/decisions/0020). Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEAST_ROUNDS = 4
"""Merged rounds from which on something is foretold; the weights of the last one are evaluated only later."""

LATE = 3
LEAST_LATE = 6
"""The last one of so many parts of the rounds says how much carries over now, and at least so many rounds."""

MEMORISING = 0.8
"""If surely less carries over, all tasks together are about to stop improving, and a split pays
(docs/decisions/0020 has the regimes on either side).
"""


KNOWN = 0.2
"""A share of 1 or less whose error is larger is not known. It is larger where few rounds are done, and where
each round asks only some of the devices: others are evaluated in the next one.
"""


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out loss of a task under the weights that a group had after so many rounds of the job.

    Pooled over its devices, by ``count`` valid examples.
    """

    group: tuple[str, ...]
    round: int
    task: str
    loss: float
    count: float


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """Of what lowers the loss on the examples that devices train on, the share that lowers the held-out loss
    as well: 1 where they learn what holds for other examples, 0 or less where they only memorise. ``se`` is
    its standard error over rounds.
    """

    share: float
    se: float

    @property
    def memorising(self) -> bool:
        """Whether surely too little carries over."""
        known = self.se < KNOWN * max(1.0, abs(self.share))
        return known and self.share + self.se < MEMORISING


def last_losses(evaluated: Iterable[Evaluated], group: tuple[str, ...]) -> dict[str, float]:
    """The newest known held-out loss of each task of a group."""
    found = sorted((each for each in evaluated if each.group == group), key=lambda each: each.round)
    return {each.task: each.loss for each in found if math.isfinite(each.loss)}


def of_all(evaluated: Iterable[Evaluated], tasks: tuple[str, ...]) -> tuple[Evaluated, ...]:
    """The losses of these tasks wherever all of them were trained together, as those of a group of their own.

    So a task that was stopped and has left the merged group does not end the curves of the others.
    """
    return tuple(
        msgspec.structs.replace(each, group=tasks)
        for each in evaluated
        if each.task in tasks and set(tasks) <= set(each.group)
    )


def totals(
    evaluated: Iterable[Evaluated], group: tuple[str, ...], tasks: Iterable[str] | None = None
) -> dict[int, float]:
    """By round the sum of the losses of a group's tasks (or of these of them), where all are known."""
    wanted = set(group if tasks is None else tasks)
    by_round: dict[int, dict[str, float]] = {}
    for each in evaluated:
        if each.group == group and each.task in wanted and math.isfinite(each.loss):
            by_round.setdefault(each.round, {})[each.task] = each.loss
    whole = ((when, known) for when, known in sorted(by_round.items()) if set(known) == wanted)
    return {when: math.fsum(known.values()) for when, known in whole}


def foretold(curve: Mapping[int, float], factor: float) -> float | None:
    """By which share the loss would be lower after ``factor`` times as many rounds: 1 - factor ** -power.

    ``curve`` is the loss by the number of rounds trained. The power is that of least squares through the
    logarithms of both over the later half of the rounds; 0 if the loss did not fall, None if that half is not
    known.
    """
    last = max(curve, default=0)
    points = [
        (math.log(when), math.log(loss)) for when, loss in curve.items() if when >= last / 2 and loss > 0
    ]
    if last < LEAST_ROUNDS - 1 or len(points) < 2:
        return None
    slope, _ = _slope(*zip(*points, strict=True))
    return 1.0 - math.pow(factor, min(slope, 0.0))


def carried_over(trained: Mapping[int, float], held_out: Mapping[int, float]) -> Carried | None:
    """How much of what was learnt in the last third of the rounds carries over; both are losses by round.

    The ratio of the slopes of least squares through both; its error is that of the slopes, to first order.
    None if too few rounds are known, or if it is not sure, by two standard errors, that anything was learnt.
    """
    known = sorted(set(trained) & set(held_out))
    done = max(known, default=0) + 1
    rounds = [when for when in known if when >= done - max(LEAST_LATE, done // LATE)]
    if len(rounds) < LEAST_LATE:
        return None
    learnt, learnt_se = _slope(rounds, [trained[when] for when in rounds])
    held, held_se = _slope(rounds, [held_out[when] for when in rounds])
    if not learnt + 2 * learnt_se < 0:
        return None
    share = held / learnt
    se = math.hypot(held_se, share * learnt_se) / -learnt
    return Carried(share=share, se=se) if math.isfinite(share) and math.isfinite(se) else None


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Of least squares, with its standard error."""
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    square = math.fsum((each - x_mean) ** 2 for each in x)
    slope = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / square
    off = [b - y_mean - slope * (a - x_mean) for a, b in zip(x, y, strict=True)]
    return slope, math.hypot(*off) / math.sqrt(max(len(x) - 2, 1) * square)
