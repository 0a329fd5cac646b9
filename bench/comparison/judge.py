"""Policies judged at equal rounds and at equal energy, and by the energy that reaches a loss.

Policies are trained for several numbers of rounds, each with a schedule of its own. Between two of these
lengths loss is taken to be linear in the logarithm of energy; outside of them nothing is said. Where a longer
training ends worse, nobody has to train for so long: an energy brings the best of what less of it brings.
Each seed is compared with itself, and what is shown is the mean and deviation over seeds. Pure: it knows
neither files nor how energy was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Length = tuple[float, float]
    """Of a run: energy, and the loss at its end."""

    Criterion = Callable[["Outcome"], float]

ROUNDING = 0.03
"""So far outside the lengths that were trained, as a share, the nearest stands for an energy: rounds are
whole."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where an arm ended under one seed. ``energy`` in rounds of all tasks, losses are totals over tasks;
    ``relative``: mean over tasks of loss over the constant predictor's. After ``merged_rounds`` the share
    ``carried`` of what tasks learnt carried over to held-out examples, and it was decided how they go on.
    """

    energy: float
    loss: float
    relative: float
    unseen: float
    unseen_relative: float
    by_task: Mapping[str, float]
    groups: tuple[str, ...]
    merged_rounds: int = 0
    carried: float | None = None


Arms = dict[str, dict[int, Outcome]]
"""Outcomes by arm and seed."""


def loss_at(lengths: Iterable[Length], energy: float) -> float | None:
    """The least loss that at most so much energy brings; None outside of the lengths that were trained."""
    known = sorted(lengths)
    if not known or not known[0][0] * (1 - ROUNDING) <= energy <= known[-1][0] * (1 + ROUNDING):
        return None
    energy = min(max(energy, known[0][0]), known[-1][0])
    if energy == known[0][0]:
        return known[0][1]
    (e0, l0), (e1, l1) = next((a, b) for a, b in pairwise(known) if a[0] < energy <= b[0])
    between = l0 + (l1 - l0) * (math.log(energy / e0) / math.log(e1 / e0))
    return min(between, *(loss for least, loss in known if least <= energy))


def energy_to(lengths: Iterable[Length], loss: float) -> float | None:
    """The least energy that brings this loss; None if none that was trained does.

    If the shortest length brings it already, that one's energy: less might do.
    """
    known = sorted(lengths)
    if known and known[0][1] <= loss:
        return known[0][0]
    for (e0, l0), (e1, l1) in pairwise(known):
        if l1 <= loss:
            return float(e0 * (e1 / e0) ** ((l0 - loss) / (l0 - l1)))
    return None


def held_out(outcome: Outcome) -> float:
    """The total loss on the devices' own held-out examples."""
    return outcome.loss


def unseen(outcome: Outcome) -> float:
    """The total loss on clients that nobody trains on."""
    return outcome.unseen


def lengths(arms: Arms, names: Iterable[str], seed: int, by: Criterion = held_out) -> list[Length]:
    """Energy and loss of a policy's several lengths under a seed, as far as they are there."""
    runs = [arms[name][seed] for name in names if seed in arms.get(name, {})]
    return [(run.energy, by(run)) for run in runs]


def over(arms: Arms, name: str, of: Callable[[int, Outcome], float | None]) -> list[float]:
    """What a function says of an arm under each of its seeds, where it says something."""
    said = (of(seed, outcome) for seed, outcome in sorted(arms.get(name, {}).items()))
    return [value for value in said if value is not None]


def ahead(arms: Arms, name: str, other: str, by: Criterion = held_out) -> list[float]:
    """By how many percent an arm's loss is below (negative) or above another's, seed by seed."""

    def compared(seed: int, outcome: Outcome) -> float | None:
        rival = arms.get(other, {}).get(seed)
        return None if rival is None else 100 * (by(outcome) / by(rival) - 1)

    return over(arms, name, compared)


def ahead_at_equal_energy(
    arms: Arms, name: str, rivals: Sequence[str], by: Criterion = held_out
) -> list[float]:
    """The same against a policy that was trained for the arm's energy; ``rivals`` are its lengths."""

    def compared(seed: int, outcome: Outcome) -> float | None:
        loss = loss_at(lengths(arms, rivals, seed, by), outcome.energy)
        return None if loss is None else 100 * (by(outcome) / loss - 1)

    return over(arms, name, compared)


def share_to_reach(
    arms: Arms, goal: str, own: Sequence[str], names: Sequence[str], by: Criterion = held_out
) -> list[float]:
    """The energy with which a policy reaches the loss of the arm ``goal``, over what that arm's policy needs.

    ``names`` and ``own`` are the lengths of the two.
    """

    def compared(seed: int, outcome: Outcome) -> float | None:
        energy, needed = (
            energy_to(lengths(arms, trained, seed, by), by(outcome)) for trained in (names, own)
        )
        return None if energy is None or needed is None else energy / needed

    return over(arms, goal, compared)


def spread(values: Sequence[float], form: str = ".3f", seeds: int = 0, unit: str = "") -> str:
    """Mean ± deviation over seeds, and of how many of the ``seeds`` if not of all; a dash for nothing."""
    if not values:
        return "–"
    middle = format(mean(values), form)
    shown = f"{middle} ± {format(stdev(values), form.replace('+', ''))}" if len(values) > 1 else middle
    return shown + unit + (f" ({len(values)} of {seeds})" if len(values) < seeds else "")
