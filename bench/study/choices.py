"""Every method's picks on every table, judged by any criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from study import judge
from study.table import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from study.judge import Standing
    from study.table import Criterion, Table


class Choices:
    """``tables``, ``scores`` and ``picks`` are parallel, a table for each task set and seed."""

    def __init__(self, found: dict[str, list[Table]]) -> None:
        self.sets = list(found)
        self.tables = [(name, one) for name, seeds in found.items() for one in seeds]
        self.scores = [
            judge.scores(one, [other for other in found[name] if other is not one])
            for name, one in self.tables
        ]
        self.picks = [
            judge.picks(one, scored) for (_, one), scored in zip(self.tables, self.scores, strict=True)
        ]
        self.names = list(dict.fromkeys(name for chosen in self.picks for name in chosen))

    def standings(self, method: str, by: Criterion = HELD_OUT) -> Iterator[tuple[str, int, Standing]]:
        """(task set, number of groups, standing) of each pick."""
        for (name, one), chosen in zip(self.tables, self.picks, strict=True):
            for groups, choice in chosen.get(method, {}).items():
                yield name, groups, judge.standing(one, choice.partition, by)

    def share(self, method: str, by: Criterion = HELD_OUT) -> list[float]:
        """Mean regret over random's for each task set and seed; NaN where the method has no say."""
        found = []
        for (_, one), chosen in zip(self.tables, self.picks, strict=True):
            standings = [judge.standing(one, c.partition, by) for c in chosen.get(method, {}).values()]
            random = sum(s.random_regret for s in standings)
            found.append(sum(s.regret for s in standings) / random if standings else float("nan"))
        return found

    def correlations(self, method: str) -> list[float]:
        """Rank correlation of scores and qualities over all partitions, on each table; NaN without scores."""
        return [
            judge.correlation(one, scored[method]) if method in scored else float("nan")
            for (_, one), scored in zip(self.tables, self.scores, strict=True)
        ]

    def of(self, name: str, values: Sequence[float]) -> list[float]:
        """Of one value for each table those of a task set."""
        return [value for (one, _), value in zip(self.tables, values, strict=True) if one == name]

    def by_set(self, values: Sequence[float]) -> list[list[float]]:
        """The values of each task set that has any."""
        found = [self.of(name, values) for name in self.sets]
        return [some for some in found if not np.isnan(some).all()]
