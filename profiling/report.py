"""Tables and CSV for people and programs, and how a number with an uncertainty is written.

A ``Table`` is text in columns: ``render`` shows it on a terminal (with rich, where it is installed), a page
shows the same cells; ``profiling.tables`` makes them of costs. ``csv_text`` writes
the rows of ``costs`` with all their fields and the unit in each column's name. Text gives joules with +-2
standard uncertainties and no more digits than these allow, an estimate is marked ``est.``, and what is
unknown is a dash. CSV and JSON hold the numbers as they were computed, with u beside each.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mas_edge.profiling.bill import Cost
from mas_edge.profiling.costs import Number, Row
from mas_edge.wire.messages import Rail

if TYPE_CHECKING:
    from rich.console import Console, Group

UNKNOWN = "\N{EN DASH}"
"""What stands in a table where nothing is known."""

ROUNDING = 1e-9
"""Less than this is what sums of floating-point numbers leave over: no sensor counts nanojoules."""


@dataclass(frozen=True)
class Table:
    """Text in columns, the first ``keys`` of them aligned left; ``notes`` go below it.

    ``strong`` are the numbers of the rows that sum up those above them. Where it is narrow, numbers are
    folded; in a table that is ``whole`` the keys are instead.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    notes: tuple[str, ...] = ()
    strong: frozenset[int] = frozenset()
    whole: bool = False


def joules(value_j: float | None, u_j: float | None) -> str:
    """``12.3 +-0.8``: value and twice its standard uncertainty, both to the digit that this allows.

    An uncertainty that is not known, or none at all, leaves four significant digits.

    >>> joules(123.456, 2.13), joules(1234.5, 260.0), joules(0.0123456, 0.0), joules(3e-17, 5e-16)
    ('123.5 ±4.3', '1230 ±520', '0.01235', '0')
    """
    if value_j is None:
        return UNKNOWN
    if not u_j or u_j < ROUNDING or not math.isfinite(u_j):
        return _rounded(value_j, _place(value_j, 4)) if abs(value_j) >= ROUNDING else "0"
    place = _place(2 * u_j, 2)
    return f"{_rounded(value_j, place)} ±{_rounded(2 * u_j, place)}"


def uncertain(figure: Number | None) -> str:
    """A number with +-2u, as ``joules`` writes it."""
    return UNKNOWN if figure is None else joules(figure.value, figure.u)


def method(methods: Iterable[str]) -> str:
    """How joules came about, in a word: an estimate is marked, also among measured ones."""
    named = tuple(methods)
    words = ["est." if name == "estimated" else name for name in named]
    return ("mixed: " if len(words) > 1 else "") + ("+".join(words) or UNKNOWN)


def _place(value: float, digits: int) -> int:
    """The decimal place of the last of so many significant digits; negative left of the point."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1


def _rounded(value: float, place: int) -> str:
    return f"{round(value, place):.{max(place, 0)}f}"


def render(shown: Table, console: Console) -> None:
    """The table on a rich console."""
    console.print(drawn(shown))


def drawn(shown: Table) -> Group:
    """The table as rich draws it, notes and all."""
    from rich import box  # noqa: PLC0415 - an agent's installation has no rich
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = RichTable(
        title=shown.title, box=box.SIMPLE_HEAD, title_justify="left", show_header=any(shown.headers)
    )
    for k, header in enumerate(shown.headers):
        key = k < shown.keys
        grid.add_column(
            header, justify="left" if key else "right", no_wrap=key is not shown.whole, overflow="fold"
        )
    for k, row in enumerate(shown.rows):
        grid.add_row(*map(Text, row), style="bold" if k in shown.strong else None)
    return Group(grid, *map(Text, shown.notes))


def csv_text(rows: Iterable[Row]) -> str:
    """One line per row, its level first; all fields, units in the header's names, empty if unknown.

    Rows of one level add up to what the level ``all`` says; those of several hold it several times.
    """
    out = io.StringIO()
    lines = [_flat(row) for row in rows]
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["level"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(row: Row) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name in Row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, Cost):
            flat |= {_SINGULAR.get(key, key): _joined(getattr(value, key)) for key in Cost.__struct_fields__}
        elif name in _NUMBERS:
            flat |= {name: value and value.value, f"{name}_u": value and value.u}
        else:
            flat[_SINGULAR.get(name, name)] = _joined(value)
    return flat


_SINGULAR = {"methods": "method", "sensors": "sensor", "scopes": "scope"}
_NUMBERS = ("mean_w", "j_per_example", "j_per_round", "edp_js", "co2e_g")


def _joined(value: object) -> object:
    if not isinstance(value, tuple):
        return value
    return " ".join(f"{one.name}={one.energy_j}" if isinstance(one, Rail) else str(one) for one in value)
