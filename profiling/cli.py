"""``mas-profile``: which meters a host has, and what a command costs in joules.

One function per subcommand, whose docstring is its help. The report goes to stderr, so that the
command's own output stays clean; with ``--json`` it is one line at the end of stdout. Exit codes: 0
fine, 1 no joules to be had, 2 wrong usage; ``run`` hands on the command's own.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mas_edge.profiling.meters import (
    AUTO,
    Energy,
    Meter,
    MeterError,
    MeterOptionsRefused,
    MeterUnavailable,
    UnknownMeter,
    begin,
    drivers,
    end,
    open_meter,
    open_one,
)
from mas_edge.profiling.report import joules, method
from mas_edge.wire.messages import Refusal, Sensor


class CommandRefused(MeterError, ValueError):
    """There is no command to measure, or it cannot be started."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An installed driver on this host: what it would measure, or why it cannot."""

    name: str
    automatic: bool
    sensor: Sensor | None = None
    refusal: Refusal | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a command cost; energies with one standard uncertainty."""

    command: tuple[str, ...]
    exit_code: int
    energy_j: float
    energy_u_j: float
    mean_w: float
    wall_s: float
    idle_w: float | None
    sensor: Sensor
    by_rail_j: dict[str, float]
    flags: tuple[str, ...]
    refused: tuple[Refusal, ...]


def list_meters(arguments: argparse.Namespace) -> int:
    """Every meter that is installed: usable here or not, and then why and what would help."""
    found = survey(arguments.root)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
        return 0
    print("\n".join(line for candidate in found for line in _described(candidate)))
    print(f"auto tries {', then '.join(AUTO)}")
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Run a command and say what the host used meanwhile: energy, mean power, time, and how sure it is.

    The energy is all of the sensor's, not only the command's. Example: mas-profile run -- make -j4
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise CommandRefused("no command: write it after --, as in: mas-profile run -- sleep 1")
    meter, refused = open_meter(arguments.meter or "auto", root=arguments.root)
    if meter is None:
        for refusal in refused:
            _complain(str(MeterUnavailable(refusal.sensor, refusal.reason, refusal.remedy)))
        return 1
    try:
        mark = begin(meter)
        code = _call(command)
        energy = end(mark).settle()
    finally:
        meter.close()
    measured = _measured(meter, energy, tuple(command), code, refused)
    if arguments.json:
        print(msgspec.json.encode(measured).decode(), flush=True)
    else:
        print(_summary(measured, energy), file=sys.stderr)
    return code


def survey(root: Path) -> tuple[Candidate, ...]:
    """Every installed driver, opened once without an argument."""
    return tuple(_candidate(name, root) for name in drivers())


def parser() -> argparse.ArgumentParser:
    """The command line of ``mas-profile``."""
    top = argparse.ArgumentParser(
        prog="mas-profile", description="Joules of this host, by whatever can count them."
    )
    top.add_argument(
        "--root", type=Path, default=Path("/"), help="root of the file system to look in (default: /)"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    listing = _command(commands, "list", list_meters)
    listing.add_argument("--json", action="store_true", help="as JSON")
    running = _command(commands, "run", run_command)
    running.add_argument(
        "--meter",
        action="append",
        help="DRIVER[:ARGUMENT]: rapl, replay:FILE or estimate:idle_w=3,max_w=9; again for the next choice",
    )
    running.add_argument("--json", action="store_true", help="as one line of JSON on stdout")
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="what to run")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.function(arguments)
    except (UnknownMeter, MeterOptionsRefused, CommandRefused) as error:
        return _complain(str(error), code=2)
    except MeterError as error:
        return _complain(str(error), code=1)
    return code


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    text = function.__doc__ or ""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text.partition("\n")[0], description=text
    )
    command.set_defaults(function=function)
    return command


def _candidate(name: str, root: Path) -> Candidate:
    automatic = name in AUTO
    try:
        meter = open_one(name, root=root)
    except MeterUnavailable as error:
        return Candidate(name=name, automatic=automatic, refusal=error.refusal)
    meter.close()
    return Candidate(name=name, automatic=automatic, sensor=meter.sensor)


def _described(candidate: Candidate) -> list[str]:
    lines = []
    if (sensor := candidate.sensor) is not None:
        how = method((sensor.method,))
        lines.append(f"{candidate.name:10}usable   {sensor.scope}, {how}: {sensor.detail}")
    if (refusal := candidate.refusal) is not None:
        lines.append(f"{candidate.name:10}refused  {refusal.reason}")
        lines += [f"{'':10}remedy   {refusal.remedy}"] if refusal.remedy else []
    return lines


def _call(command: Sequence[str]) -> int:
    """The command's exit code, 128 + signal if one ended it; an interrupt ends it, not us."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler, so that the command starts without
    try:
        code = subprocess.call(command)
    except OSError as error:
        raise CommandRefused(f"cannot run {command[0]!r}: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _measured(
    meter: Meter, energy: Energy, command: tuple[str, ...], code: int, refused: tuple[Refusal, ...]
) -> Measured:
    return Measured(
        command=command,
        exit_code=code,
        energy_j=energy.energy_j,
        energy_u_j=energy.u_j(meter.sensor),
        mean_w=energy.energy_j / energy.wall_s,
        wall_s=energy.wall_s,
        idle_w=meter.idle.power_w if meter.idle else None,
        sensor=meter.sensor,
        by_rail_j=dict(energy.by_rail_j),
        flags=energy.flags,
        refused=refused,
    )


def _summary(measured: Measured, energy: Energy) -> str:
    sensor, label = measured.sensor, method((measured.sensor.method,))
    u_w = measured.energy_u_j / energy.wall_s
    lines = [
        f"energy  {joules(measured.energy_j, measured.energy_u_j)} J  ({label}, {sensor.scope})",
        f"power   {joules(measured.mean_w, u_w)} W mean over {measured.wall_s:.3f} s",
        f"sensor  {sensor.name}: {sensor.detail}",
    ]
    lines += [f"rail    {rail} {value_j:.4g} J" for rail, value_j in measured.by_rail_j.items()]
    lines += [f"flag    {flag}" for flag in measured.flags]
    lines += [f"refused {refusal.sensor}: {refusal.reason}" for refusal in measured.refused]
    return "\n".join(lines)


def _complain(text: str, code: int = 1) -> int:
    print(f"mas-profile: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
