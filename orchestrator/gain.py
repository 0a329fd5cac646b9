"""How fast a partition lowers the losses, and whether it does so for less energy than another one.

Affinity Z[i, j] is the share by which a step of task i lowers task j's loss, over the learning rate; the
diagonal is a task's effect on itself. To first order the effects of a group's tasks on the shared encoder add
up, so a step of the partition P lowers the sum of the losses at the rate

    rate(P) = sum over j of L[j] * sum over i in P(j) of Z[i, j]

with P(j) the group of task j and L[j] its loss now. It takes energy(P), the sum over the groups of what a
step of each takes; both are given for the energy of a step of all tasks together, which is 1. As the rate is
linear in the entries, so is its standard error known, entries being taken as independent of each other
(they are not quite: see ``orchestrator.split``).

Source: first-order Taylor expansion of the lookahead (TAG, Fifty et al. 2021, equation 1), as
``models.affinity`` measures it; the comparison is our own (docs/decisions/0015). What a decoder's step does
to its own loss is the same in every partition and left out, which favours splitting. It holds for the next
step: that later ones would be worth as much is not said. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.orchestrator.cost_model import mask_of
from mas_edge.orchestrator.decision import Progress
from mas_edge.orchestrator.learning_curve import last_losses, of_all
from mas_edge.orchestrator.split import standard_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mas_edge.orchestrator.affinity import Affinity
    from mas_edge.orchestrator.decision import Groups
    from mas_edge.orchestrator.learning_curve import Evaluated
    from mas_edge.orchestrator.split import Matrix


@dataclass(frozen=True, eq=False)
class Gains:
    """What the rate of any partition is told by.

    ``loss`` (n,) is each task's now, ``energy`` (2**n,) that of a step of each group, by mask.
    """

    affinity: Affinity
    loss: Matrix
    energy: Matrix

    def of(self, groups: Groups) -> Progress:
        """The rate of a partition for the energy of a step of all tasks; entries not measured count as 0."""
        share = self._share(groups)
        rate = float((share * np.nan_to_num(self.affinity.mean)).sum())
        return Progress(rate=rate, energy=self._energy(groups), se=standard_error(self.affinity, share))

    def lead(self, a: Groups, b: Groups) -> tuple[float, float | None]:
        """By how much a's rate is greater than b's, and the standard error of that; shared terms cancel."""
        share = self._share(a) - self._share(b)
        gap = float((share * np.nan_to_num(self.affinity.mean)).sum())
        return gap, standard_error(self.affinity, share)

    def _energy(self, groups: Groups) -> float:
        return float(sum(self.energy[mask_of(group, self.affinity.tasks)] for group in groups))

    def _share(self, groups: Groups) -> Matrix:
        """(n, n): the derivative of the rate with respect to each entry."""
        share: Matrix = np.zeros((len(self.loss), len(self.loss)))
        for group in groups:
            at = [self.affinity.tasks.index(task) for task in group]
            share[np.ix_(at, at)] = self.loss[at]
        return share / self._energy(groups)


def losses(tasks: tuple[str, ...], evaluated: Iterable[Evaluated]) -> Matrix:
    """(n,): the last held-out loss of each task where all are trained together; 1 each if one is not known.

    With 1 each, what is compared is the sum of the shares by which losses fall.
    """
    known = last_losses(of_all(evaluated, tasks), tasks)
    return np.array([known[task] for task in tasks]) if len(known) == len(tasks) else np.ones(len(tasks))
