"""The kernel's powercap tree: which RAPL counters a host has, and what each of them stands for.

/sys/class/powercap lists all zones flat, whatever their nesting (``intel-rapl:0``, ``intel-rapl:0:1``;
AMD's are called so too), in an order that differs between hosts. So the *name* of a zone says what it is,
and its number only whose child it is:

* ``package-N`` or ``package-N-die-M`` and ``dram`` make the total. Memory is outside of the package.
* ``core`` and ``uncore`` are inside a package: a rail of their own, never added.
* ``psys`` (further ones: ``psys-N``) holds all of these and more, by vendor: the rail ``platform``.
* Whatever else there is becomes a rail, and is never added either.

Sources: kernel Documentation/power/powercap/powercap.rst and drivers/powercap/intel_rapl_common.c (names).
It reads names; the counters are ``rapl``'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

POWERCAP = "sys/class/powercap"
PREFERRED = "intel-rapl"
"""The controller that counts where another one (intel-rapl-mmio) shows the same zones again."""

Kind: TypeAlias = Literal["package", "dram", "psys", "other"]

_ENTRY = re.compile(r"(intel-rapl|intel-rapl-mmio)(:\d+){1,2}")
_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"package-\d+(-die-\d+)?"), "package"),
    (re.compile(r"dram"), "dram"),
    (re.compile(r"psys(-\d+)?"), "psys"),
)
_DIE = re.compile(r"(package-\d+)-die-\d+(.*)")


@dataclass(frozen=True)
class Zone:
    """One counter: its entry in the listing, what it is, and its rail (``package-0/dram``)."""

    entry: str
    kind: Kind
    rail: str


def names(root: Path) -> dict[str, str]:
    """The name of each zone by its entry; raises OSError if the tree cannot be listed or read."""
    found = {}
    for path in (root / POWERCAP).iterdir():
        if _ENTRY.fullmatch(path.name):
            found[path.name] = (path / "name").read_text(errors="replace").strip()
    return found


def zones(named: Mapping[str, str]) -> tuple[Zone, ...]:
    """What the entries stand for, those of the preferred controller first.

    A rail that appears again is the same zone, shown by another controller; within one controller two
    zones never share a rail.
    """
    found: dict[tuple[str, str], Zone] = {}
    for entry in sorted(named, key=_order):
        kind: Kind = next((kind for pattern, kind in _KINDS if pattern.fullmatch(named[entry])), "other")
        parent = named.get(entry.rpartition(":")[0])
        rail = f"{parent}/{named[entry]}" if parent else named[entry]
        if kind == "psys":
            rail = named[entry].replace("psys", "platform")
        if (entry.partition(":")[0], rail) in found:
            rail = f"{rail} ({entry})"
        found[entry.partition(":")[0], rail] = Zone(entry, kind, rail)
    return tuple(found.values())


def twin_group(rail: str) -> str | None:
    """What the rails of a package's dies have in common; None of a package in one piece."""
    die = _DIE.fullmatch(rail)
    return f"{die[1]}{die[2]}" if die else None


def _order(entry: str) -> tuple[bool, list[int]]:
    controller, *numbers = entry.split(":")
    return controller != PREFERRED, [int(number) for number in numbers]
