"""Boards that are folders and real programs: what kernel and tools show of their power, below a root."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent / "profiling"


@dataclass(frozen=True)
class Printed:
    """A line that a board's tegrastats printed, and what is known of it."""

    board: str
    line: str
    total: tuple[str, ...]
    power_w: float | None
    scope: str


def printed() -> dict[str, Printed]:
    """The lines of tegrastats_samples.txt by their names."""
    found, about = {}, {}
    for line in (HERE / "tegrastats_samples.txt").read_text().splitlines():
        if line.startswith("#@"):
            about = {key: value.strip('"') for key, value in re.findall(r'(\w+)=("[^"]*"|\S+)', line)}
        elif line and not line.startswith("#"):
            power_w = None if about["mW"] == "-" else int(about["mW"]) / 1000
            total = () if power_w is None else tuple(about["total"].split("+"))
            found[about["id"]] = Printed(about["board"], line, total, power_w, about["scope"])
    return found


LINES = printed()
ORIN_NX = LINES["orin-nx-16-jp5"].line


def program(root: Path, name: str, body: str) -> Path:
    """A shell script as a program of the board."""
    path = root / "usr/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def say(line: str) -> str:
    """The shell's words for printing a line."""
    return f"printf '%s\\n' {shlex.quote(line)}"


def tegrastats(root: Path, line: str = ORIN_NX, interval_s: float = 0.02, before: str = "") -> Path:
    """A tegrastats that repeats a line."""
    return program(root, "tegrastats", f"{before}\nwhile :; do {say(line)}; sleep {interval_s}; done")


def ina3221(root: Path, rails: dict[str, tuple[int, int]], shunt_uohm: int = 5000, hwmon: int = 3) -> Path:
    """JetPack 5: channels by label, in millivolts and milliamperes, as the mainline driver shows them."""
    folder = root / f"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon{hwmon}"
    texts = {"in7_label": "sum of shunt voltages", "curr4_input": "99999", "name": "ina3221"}
    for k, (rail, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        texts |= {
            f"in{k}_label": rail,
            f"in{k}_input": str(millivolts),
            f"curr{k}_input": str(milliamperes),
            f"shunt{k}_resistor": str(shunt_uohm),
            f"in{k + 3}_input": "1000",
        }
    return files(folder, texts)


def ina3221x(root: Path, rails: dict[str, int]) -> Path:
    """JetPack 4: rails in milliwatts, as NVIDIA's own driver shows them."""
    folder = root / "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0"
    texts = {"name": "ina3221x"}
    for k, (rail, milliwatts) in enumerate(rails.items()):
        texts |= {f"rail_name_{k}": rail, f"in_power{k}_input": str(milliwatts)}
    return files(folder, texts)


def ina238(root: Path, microwatts: int) -> Path:
    """AGX Thor's monitor of the whole board."""
    folder = root / "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
    return files(folder, {"name": "ina238", "power1_input": str(microwatts)})


def battery(root: Path, name: str = "BAT0", **texts: str) -> Path:
    """A supply of the kernel; a discharging battery of 12.5 W unless told otherwise."""
    usual = {"type": "Battery", "status": "Discharging", "power_now": "12500000"}
    return files(root / "sys/class/power_supply" / name, {**usual, **texts})


def files(folder: Path, texts: dict[str, str]) -> Path:
    """A folder with these files, each with the end of line that sysfs has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
    return folder


PI5_W = 5.921612
"""V x A over the twelve rails of the answer below, worked out apart from it."""

PI5 = """\
 3V7_WL_SW_A current(0)=0.05855580A
   3V3_SYS_A current(1)=0.06148359A
   1V8_SYS_A current(2)=0.13272650A
  DDR_VDD2_A current(3)=0.13955800A
  DDR_VDDQ_A current(4)=0.00980400A
   1V1_SYS_A current(5)=0.19811380A
    0V8_SW_A current(6)=0.34157550A
  VDD_CORE_A current(7)=5.03652000A
   3V3_DAC_A current(17)=0.00006105A
   3V3_ADC_A current(18)=0.00054945A
   0V8_AON_A current(16)=0.00531135A
      HDMI_A current(22)=0.02161170A
 3V7_WL_SW_V volt(8)=3.61069200V
   3V3_SYS_V volt(9)=3.29982600V
   1V8_SYS_V volt(10)=1.81684800V
  DDR_VDD2_V volt(11)=1.10109800V
  DDR_VDDQ_V volt(12)=0.60366240V
   1V1_SYS_V volt(13)=1.10292900V
    0V8_SW_V volt(14)=0.80292960V
  VDD_CORE_V volt(15)=0.89369880V
   3V3_DAC_V volt(20)=3.29944700V
   3V3_ADC_V volt(21)=3.30402600V
   0V8_AON_V volt(19)=0.79618980V
      HDMI_V volt(23)=4.92450000V
     EXT5V_V volt(24)=4.92450000V
      BATT_V volt(25)=0.00341880V
"""


def vcgencmd(root: Path, answer: str = PI5) -> Path:
    """A vcgencmd that gives a Raspberry Pi 5's answer."""
    return program(root, "vcgencmd", f"cat <<'END'\n{answer}END")
