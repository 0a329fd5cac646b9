"""Which supply rails of a board add up to its total, and what that total covers.

NVIDIA's modules measure their rails by INA3221 monitors, whose names tegrastats and sysfs show alike. A
rail may be inside another one (VDDQ_VDD2_1V8AO in VIN_SYS_5V0, VDD_CPU_GPU_CV in VDD_IN), so that adding all
of them is wrong on most boards; which ones to add follows from the *set* of names, since a device tree's
model says nothing of the carrier. NC is a channel that is not connected. All totals but Thor's VIN are of
the module: fan, carrier, USB and NVMe are not in them (2.18 W of 2.6 W at the plug on one board).

Sources: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance"; energymon's
JetsonPowerRails.md; forums.developer.nvidia.com 200883 (VDD_IN), 348662 (the carrier), 366461 (Thor's VIN);
INA3221 data sheet: a step is 40 uV over the shunt, 0.4 W at 20 V over AGX Orin's 2 mOhm. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scope: TypeAlias = Literal["package", "module", "board"]

NOT_CONNECTED = "NC"
PRINTED_W = 0.001
"""The last digit of every power: what is known of a monitor's steps where its shunts are not."""


@dataclass(frozen=True)
class Total:
    """Rails that add up to a board's or module's power.

    ``gain_u`` is the relative standard uncertainty of the sum at a usual load: the monitors' gain (0.25 %)
    and their offset (80 uV over the shunt at most, two steps). ``step_w`` is each rail's resolution if known.
    """

    rails: tuple[str, ...]
    scope: Scope
    gain_u: float = 0.02
    step_w: tuple[float, ...] = ()

    @property
    def path(self) -> str:
        """Names the monitors, equal for every driver that reads them."""
        return f"rails:{'+'.join(self.rails)}"

    @property
    def detail(self) -> str:
        """What is added up, and what is not in it."""
        return " + ".join(self.rails) + ("" if self.scope == "board" else " (no fan, carrier, USB, NVMe)")

    @property
    def u_w(self) -> float:
        """Standard uncertainty of one sum from the steps in which the monitors count, or are printed."""
        steps = self.step_w or (PRINTED_W,) * len(self.rails)
        return float((sum(step**2 for step in steps) / 12) ** 0.5)

    def of(self, values: Mapping[str, float]) -> float:
        """The sum; raises KeyError if a rail is missing."""
        return sum(values[rail] for rail in self.rails)


KNOWN: tuple[tuple[frozenset[str], Total], ...] = tuple(
    (frozenset(present.split("+")), total)
    for present, total in (
        ("VIN+VIN_SYS_5V0", Total(("VIN",), "board", 0.005)),
        (
            "VDD_GPU+VDD_CPU_SOC_MSS+VIN_SYS_5V0",
            Total(("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), "module", 0.04, (0.4, 0.4, 0.1)),
        ),
        (
            "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0",
            Total(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "module", 0.04, (0.4, 0.4, 0.1)),
        ),
        ("GPU+CPU+SOC+CV+VDDRQ+SYS5V", Total(("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), "module")),
        ("POM_5V_IN", Total(("POM_5V_IN",), "module", 0.01)),
        ("VDD_IN", Total(("VDD_IN",), "module", 0.01, (0.04,))),
    )
)
"""Rails that are there, and the total then; the first that fits counts. In this order: AGX Thor with VIN and
without, AGX Orin, AGX Xavier, Nano 4GB, and VDD_IN of TX1, TX2, Xavier NX, Orin Nano and Orin NX.

Offsets: 80 uV over 2 mOhm at 20 V is 0.8 W for each of Orin's and Thor's two rails (an idle Thor shows
-0.39 W for its GPU), together 0.6 W of standard uncertainty in some 15 W; over Orin Nano's 5 mOhm at 5 V
80 mW, 0.05 W in 7 W. INA238's is 5 uV. Where we do not know the shunts (Xavier, Nano, rails that the user
names) the figure is assumed."""


def total_of(names: Collection[str], wanted: Sequence[str] = ()) -> Total | None:
    """The total for rails of these names, or of those ``wanted``; None if nobody knows, or one is missing."""
    shown = frozenset(names)
    if wanted:
        scope: Scope = "board" if tuple(wanted) == ("VIN",) else "module"
        return Total(tuple(wanted), scope) if shown.issuperset(wanted) else None
    return next((total for present, total in KNOWN if present <= shown), None)


def no_total(driver: str, names: Collection[str], wanted: Sequence[str]) -> tuple[str, str]:
    """Why ``total_of`` found none, and what would help."""
    shown = ", ".join(sorted(names))
    if missing := [rail for rail in wanted if rail not in names]:
        return f"there is no rail {', '.join(missing)}, only {shown}", f"correct {driver}:rails=A+B"
    return f"no known total for its rails {shown}", f"say which add up: {driver}:rails=A+B"


def split_rails(argument: str) -> tuple[tuple[str, ...], str]:
    """The rails, each once, that ``rails=A+B`` in a driver's argument wants added up, and its rest."""
    words = argument.split(",")
    wanted = "+".join(word.removeprefix("rails=") for word in words if word.startswith("rails="))
    rest = ",".join(word for word in words if not word.startswith("rails="))
    return tuple(dict.fromkeys(filter(None, wanted.split("+")))), rest
