"""Bills for people and programs: a table, CSV and JSON of the same numbers.

``table`` turns a ``FleetBill`` into rows of text, ``plain`` and ``render`` show them (the latter with
rich, where it is installed), ``csv_text`` writes every row of every device with all its fields and the
unit in each column's name. JSON is the bill itself: ``msgspec.json.encode(bill)``. Joules stand with
+-2 standard uncertainties and no more digits than these allow; what is unknown is a dash (empty in CSV),
and joules that a model made and no sensor counted are marked ``est.``. It computes nothing new.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mas_edge.profiling.bill import Billed, FleetBill, Line
from mas_edge.wire.messages import Spend

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "\N{EN DASH}"
"""What stands in a table where nothing is known."""

_HEADERS = ("group", "phase", "wall s", "CPU s", "attributed J", "window J", "J/sample", "method")


@dataclass(frozen=True)
class Table:
    """Text in columns, the first two to be aligned left; ``notes`` go below it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def table(bill: FleetBill, names: Mapping[str, str] | None = None) -> Table:
    """Task group x phase, and the fleet's totals in the notes; ``names`` replace groups' names."""
    return Table(
        title="What each task group cost",
        headers=_HEADERS,
        rows=tuple(_row(line, names or {}) for line in bill.lines),
        notes=tuple(_notes(bill)),
    )


def plain(shown: Table) -> str:
    """The table as text in aligned columns, ending in a newline."""
    cells = (shown.headers, *shown.rows)
    widths = [max(len(row[k]) for row in cells) for k in range(len(shown.headers))]
    lines = [shown.title] + [
        "  ".join(
            cell.ljust(w) if k < 2 else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in (*lines, *shown.notes)) + "\n"


def render(shown: Table, console: Console) -> None:
    """The table on a rich console."""
    from rich import box  # noqa: PLC0415 - an agent's installation has no rich
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = RichTable(title=shown.title, box=box.SIMPLE_HEAD, title_justify="left")
    for k, header in enumerate(shown.headers):
        grid.add_column(header, justify="left" if k < 2 else "right")
    for row in shown.rows:
        grid.add_row(*map(Text, row), style="bold" if row[1] == "all" else None)
    console.print(grid)
    for note in shown.notes:
        console.print(Text(note))


def csv_text(rows: Iterable[Billed]) -> str:
    """One line per device x group x round x phase, all fields, units in the header's names."""
    fields = ("device", *Spend.__struct_fields__, "method", "scope", "sensor", "sensor_host")
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        spend = {name: getattr(row.spend, name) for name in Spend.__struct_fields__}
        spend["flags"] = " ".join(row.spend.flags)
        sensor = row.sensor and {
            "method": row.sensor.method,
            "scope": row.sensor.scope,
            "sensor": row.sensor.name,
            "sensor_host": row.sensor.sensor_host,
        }
        writer.writerow({"device": row.device, **spend, **(sensor or {})})
    return out.getvalue()


def joules(value_j: float | None, u_j: float | None) -> str:
    """``12.3 +-0.8``: value and twice its standard uncertainty, both to the digit that this allows.

    An uncertainty that is not known, or none at all, leaves four significant digits.

    >>> joules(123.456, 2.13), joules(1234.5, 260.0), joules(0.0123456, 0.0)
    ('123.5 ±4.3', '1230 ±520', '0.01235')
    """
    if value_j is None:
        return UNKNOWN
    if not u_j or not math.isfinite(u_j):
        return _rounded(value_j, _place(value_j, 4))
    place = _place(2 * u_j, 2)
    return f"{_rounded(value_j, place)} ±{_rounded(2 * u_j, place)}"


def _row(line: Line, names: Mapping[str, str]) -> tuple[str, ...]:
    cost = line.cost
    per_example_u = None
    if line.j_per_example is not None and cost.attributed_energy_j and cost.attributed_u_j is not None:
        per_example_u = cost.attributed_u_j * line.j_per_example / cost.attributed_energy_j
    return (
        names.get(line.group, line.group),
        line.phase or "all",
        f"{cost.wall_s:.1f}",
        f"{cost.cpu_s:.1f}",
        joules(cost.attributed_energy_j, cost.attributed_u_j),
        joules(cost.window_energy_j, cost.window_u_j),
        joules(line.j_per_example, per_example_u).partition(" ")[0],  # its relative error is the joules'
        method(cost.methods),
    )


def method(methods: Iterable[str]) -> str:
    """How joules came about, in a word: an estimate is marked, also among measured ones."""
    named = tuple(methods)
    words = ["est." if name == "estimated" else name for name in named]
    return ("mixed: " if len(words) > 1 else "") + ("+".join(words) or UNKNOWN)


def _notes(bill: FleetBill) -> Iterable[str]:
    attributed, idle, background = (
        _plain_j(value_j, bill.total_u_j) for value_j in (bill.attributed_j, bill.idle_j, bill.background_j)
    )
    total = f"fleet total {joules(bill.total_j, bill.total_u_j)} J ({method(bill.methods)})"
    yield f"{total} = attributed {attributed} + idle {idle} + background {background}"
    for host in bill.hosts:
        name = "no sensor" if host.sensor is None else f"{host.sensor.name}, {host.sensor.detail}"
        virtual = " (virtual devices: one host)" if len(host.devices) > 1 else ""
        yield f"{', '.join(host.devices)}{virtual}: {name}, metered {host.metered_s:.1f} s"
    if "overlapping" in bill.flags:
        yield "window J of devices that share a host hold the same joules more than once: do not add them"
    if others := [flag for flag in bill.flags if flag != "overlapping"]:
        yield "flags: " + ", ".join(others)


def _plain_j(value_j: float | None, u_j: float | None) -> str:
    return joules(value_j, u_j).partition(" ")[0] + ("" if value_j is None else " J")


def _place(value: float, digits: int) -> int:
    """The decimal place of the last of so many significant digits; negative left of the point."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1


def _rounded(value: float, place: int) -> str:
    return f"{round(value, place):.{max(place, 0)}f}"
