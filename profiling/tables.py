"""What costs look like: every figure of a row as text, and the tables that a report consists of.

Task groups side by side with every figure (``costs``), rows below each other at any level (``listing``), and
where the fleet's joules went (``totals``). The heading of each column of joules says by which method they
came about, so that no estimate stands under a bare heading. It computes nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mas_edge.profiling.bill import Cost, FleetBill
from mas_edge.profiling.costs import KEYS, Level, Row, attributed, co2e_g, number, of_level
from mas_edge.profiling.hosts import HostBill
from mas_edge.profiling.report import UNKNOWN, Table, joules, method, uncertain

ALL = "all"
"""What stands for a key over which a row is a sum."""


def _peak(cost: Cost) -> str:
    """The peak to the digit that the window energy's relative uncertainty allows."""
    if cost.peak_w is None or not cost.wall_s:  # what has no time of its own has no power
        return UNKNOWN
    if not cost.window_energy_j or not cost.window_u_j:
        return joules(cost.peak_w, None)
    return joules(cost.peak_w, abs(cost.peak_w * cost.window_u_j / cost.window_energy_j)).partition(" ")[0]


def _mega(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 1e6:.2f}"


def _known(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def _flags(row: Row) -> str:
    dynamic_j = row.cost.dynamic_energy_j
    below = ("below_noise",) if dynamic_j is not None and dynamic_j < 0 else ()
    return ", ".join((*row.cost.flags, *below))


@dataclass(frozen=True)
class Column:
    """A figure by its heading; ``energetic`` if it rests on joules, whose method the heading then names."""

    title: str
    cell: Callable[[Row], str]
    energetic: bool = False


_WALL = Column("wall s", lambda row: f"{row.cost.wall_s:.1f}")
_CPU = Column("CPU s", lambda row: f"{row.cost.cpu_s:.1f}")
_ATTRIBUTED = Column("attributed J", lambda row: uncertain(attributed(row.cost)), energetic=True)
_DYNAMIC = Column(
    "dynamic J", lambda row: joules(row.cost.dynamic_energy_j, row.cost.dynamic_u_j), energetic=True
)
_WINDOW = Column(
    "window J", lambda row: joules(row.cost.window_energy_j, row.cost.window_u_j), energetic=True
)
_MEAN = Column("mean W", lambda row: uncertain(row.mean_w), energetic=True)
_PEAK = Column("peak W", lambda row: _peak(row.cost), energetic=True)
_PER_SAMPLE = Column(
    "mJ/sample", lambda row: uncertain(row.j_per_example and row.j_per_example.times(1e3)), energetic=True
)
_METHOD = Column("method", lambda row: method(row.cost.methods))
_FLAGS = Column("flags", lambda row: _flags(row) or UNKNOWN)

NARROW = (_WALL, _CPU, _ATTRIBUTED, _WINDOW, _MEAN, _PER_SAMPLE, _METHOD)
"""What a terminal has room for."""

BROAD = (_WALL, _CPU, _ATTRIBUTED, _DYNAMIC, _WINDOW, _MEAN, _PEAK, _PER_SAMPLE, _METHOD)
"""What a page has room for."""

WIDE = (
    *BROAD[:-1],
    Column("J/round", lambda row: uncertain(row.j_per_round), energetic=True),
    Column("J\N{MIDDLE DOT}s", lambda row: uncertain(row.edp_js), energetic=True),
    Column("exclusive", lambda row: _known(row.cost.exclusive_fraction, ".0%")),
    Column("samples", lambda row: str(row.cost.examples or UNKNOWN)),
    Column("samples/s", lambda row: _known(row.examples_per_s, ".4g")),
    Column("rounds", lambda row: str(row.rounds)),
    Column("s/round", lambda row: f"{row.s_per_round:.2f}"),
    Column("devices", lambda row: str(row.devices)),
    Column("peak MB", lambda row: _mega(row.cost.peak_rss_bytes)),
    Column("MB sent", lambda row: _mega(row.cost.sent_bytes)),
    Column("MB received", lambda row: _mega(row.cost.received_bytes)),
    _METHOD,
    Column("sensor", lambda row: "+".join(row.sensors) or UNKNOWN),
    Column("scope", lambda row: "+".join(row.scopes) or UNKNOWN),
    _FLAGS,
)
"""Everything that is said of a row."""

_CO2E = Column("CO2e g", lambda row: uncertain(row.co2e_g), energetic=True)

_TITLES: dict[Level, str] = {
    "group": "By task group",
    "group-phase": "By phase",
    "group-round": "By round",
    "device": "By device",
    "row": "Every phase of every round on every device",
    "all": "All together",
}


def costs(rows: Sequence[Row], names: Mapping[str, str]) -> Table:
    """Every figure of each task group, groups side by side, and of all together last.

    ``names`` replace groups' names; they are too long for a heading.
    """
    shown = (*of_level(rows, "group"), *of_level(rows, "all"))
    columns = (*WIDE, _CO2E) if any(row.co2e_g for row in shown) else WIDE
    return Table(
        title="What each task group cost, \N{PLUS-MINUS SIGN}2u",
        headers=("", *(_name(row.group or ALL, names) for row in shown)),
        rows=tuple((_heading(column, shown), *map(column.cell, shown)) for column in columns),
    )


def listing(
    rows: Sequence[Row], level: Level, names: Mapping[str, str], columns: Sequence[Column] = NARROW
) -> Table:
    """The rows of a level below each other, under the phases of a group their sum."""
    shown = _with_sums(rows) if level == "group-phase" else of_level(rows, level)
    keys = [key for key in ("device", "group", "round", "phase") if key in KEYS[level]]
    return Table(
        title=f"{_TITLES[level]}, \N{PLUS-MINUS SIGN}2u",
        headers=(*keys, *(_heading(column, shown) for column in columns)),
        rows=tuple(
            (*(_key(row, key, names) for key in keys), *(column.cell(row) for column in columns))
            for row in shown
        ),
        keys=len(keys),
        strong=frozenset(k for k, row in enumerate(shown) if row.level == "group" != level),
    )


def totals(bill: FleetBill, g_per_kwh: float | None = None) -> Table:
    """Where the fleet's joules went, and what finding that out took."""
    total = number(bill.total_j, bill.total_u_j)

    def share(value_j: float | None) -> str:
        return joules(value_j, bill.total_u_j).partition(" ")[0]

    rows = [
        (f"fleet total J ({method(bill.methods)})", uncertain(total)),
        ("= attributed to task groups", share(bill.attributed_j)),
        ("+ idle", share(bill.idle_j)),
        *([("+ GPU shared by groups", share(bill.shared_gpu_j))] if bill.shared_gpu_j else []),
        ("+ background", share(bill.background_j)),
        ("closing error", UNKNOWN if bill.closing_error_j is None else f"{bill.closing_error_j:.1g} J"),
        ("processor time of the profiler, s", joules(bill.profiler_cpu_s, None)),
    ]
    if g_per_kwh is not None:
        emitted = None if total is None else co2e_g(total, g_per_kwh)
        rows.append((f"CO2e of the total, g (at {g_per_kwh:g} g/kWh, as given)", uncertain(emitted)))
    return Table(title="Where the joules went", headers=("", ""), rows=tuple(rows), notes=tuple(_notes(bill)))


def _notes(bill: FleetBill) -> Iterable[str]:
    for host in bill.hosts:
        yield whose(host)
    if "overlapping" in bill.flags:
        yield "window J of devices that share a host hold the same joules more than once: do not add them"
    if others := [flag for flag in bill.flags if flag != "overlapping"]:
        yield "flags: " + ", ".join(others)


def whose(host: HostBill) -> str:
    """A host's devices, its sensor, and for how long it was metered, in a line."""
    name = "no sensor" if host.sensor is None else f"{host.sensor.name}, {host.sensor.detail}"
    virtual = " (virtual devices: one host)" if len(host.devices) > 1 else ""
    return f"{', '.join(host.devices)}{virtual}: {name}, metered {host.metered_s:.1f} s"


def _with_sums(rows: Sequence[Row]) -> tuple[Row, ...]:
    phases = of_level(rows, "group-phase")
    return tuple(
        row
        for group in of_level(rows, "group")
        for row in (*(p for p in phases if (p.job, p.group) == (group.job, group.group)), group)
    )


def _heading(column: Column, rows: Sequence[Row]) -> str:
    """A column of joules says how they came about: no estimate stands under a bare heading."""
    methods = sorted({name for row in rows for name in row.cost.methods})
    return f"{column.title} ({method(methods)})" if column.energetic else column.title


def _key(row: Row, key: str, names: Mapping[str, str]) -> str:
    value = getattr(row, key)
    if value is None:
        return ALL
    return _name(value, names) if key == "group" else str(value)


def _name(group: str, names: Mapping[str, str]) -> str:
    return names.get(group, group)
