"""Markdown of the study's tables, and partitions in letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from letters import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from study.table import Partition


def short(partition: Partition) -> str:
    """A partition in letters."""
    return " ".join("".join(SHORT[task] for task in group) for group in partition)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation, the latter if there are several; – for nothing known."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "–"
    deviation = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{deviation}"


def slashed(columns: Sequence[Sequence[float]], digits: int) -> str:
    """The mean of each; – for none."""
    return " / ".join(f"{np.mean(values):.{digits}f}" if values else "–" for values in columns)
