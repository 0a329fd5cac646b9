"""``mas-profile``: which meters a host has, what a command costs in joules, and how to know a board better.

One function per subcommand, whose docstring is its help. What is said goes to stderr, so that the
command's own output stays clean; JSON and CSV come at the end of stdout. Exit codes: 0 fine, 1 no joules
to be had, 2 wrong usage; ``run`` hands on the command's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mas_edge.profiling import baseline as baselines
from mas_edge.profiling import calibrate, console, machine, record
from mas_edge.profiling.choice import EnergyConfig, choose, survey
from mas_edge.profiling.command import CommandRefused, follow
from mas_edge.profiling.meters import (
    AUTO,
    Meter,
    MeterError,
    MeterOptionsRefused,
    UnknownMeter,
    drivers,
    open_one,
)
from mas_edge.profiling.runs import Measured, bill, measured
from mas_edge.wire.command_line import Parser
from mas_edge.wire.messages import Baseline, Machine, Refusal, Sensor

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
_WRONG = (
    UnknownMeter,
    MeterOptionsRefused,
    CommandRefused,
    baselines.BaselineRefused,
    calibrate.CalibrationRefused,
    record.RecordRefused,
)


def list_meters(arguments: argparse.Namespace) -> int:
    """Every meter that is installed: usable here or not, and then why and what would help."""
    found = survey(arguments.root)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(line for candidate in found for line in console.candidate(candidate)))
        print(f"auto tries {', then '.join(name for name in AUTO if name in drivers())}")
    if arguments.require == "measured" and not any(c.automatic and c.measured for c in found):
        return _complain("no sensor that auto would use can be read here, and measured is required")
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Run a command and say what the host used meanwhile: energy, mean power, time, and how sure it is.

    The energy is all of the sensor's, not only the command's; with --baseline S the host's idle power is
    measured for S seconds before and after (leave the host alone), and the command's share is said too.
    Example: mas-profile run --baseline 30 --repeat 5 -- make -j4
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise CommandRefused("no command: write it after --, as in: mas-profile run -- sleep 1")
    if arguments.repeat < 1:
        raise CommandRefused(f"--repeat {arguments.repeat}: take 1 or more")
    meter, refused = choose(_energy(arguments), root=arguments.root)
    try:
        made = _measure(meter, refused, tuple(command), arguments)
    finally:
        meter.close()
    if arguments.json:
        print(msgspec.json.encode(made).decode(), flush=True)
    elif arguments.csv:
        print(console.csv_text(made), end="", flush=True)
    else:
        print("\n".join(console.run(made)), file=sys.stderr)
    return made.exit_code


def measure_baseline(arguments: argparse.Namespace) -> int:
    """Measure the host's idle power and keep it, with the state of the machine that it holds for.

    Leave the host alone meanwhile, warmed up as when it works. An agent takes STATE/baseline.json, as long
    as power mode, governor, clocks and sensor stay what they were. Measured again into the same file, it
    tells the drift since. Example: mas-profile baseline --seconds 60 --out /var/lib/mas-edge/baseline.json
    """
    meter, _ = choose(_energy(arguments), root=arguments.root)
    try:
        found = baselines.measure(meter, arguments.seconds, _progress, root=arguments.root)
        if arguments.out:
            found = _kept(arguments.out, found, meter.sensor)
    finally:
        meter.close()
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(console.baseline(found, meter.sensor)), file=sys.stderr)
    return 0


def record_board(arguments: argparse.Namespace) -> int:
    """Copy this board's sensors into a folder, as a fixture on which the meters' tests can run.

    Its files are read for some seconds, so that counters move: powercap, hwmon, INA3221, power supplies,
    what tegrastats and vcgencmd print, and the state of the machine. No names, addresses or serial numbers.
    """
    kept = record.record(arguments.root, arguments.folder, arguments.seconds)
    print("\n".join(console.recorded(kept, arguments.folder)), file=sys.stderr)
    return 0


def calibrate_estimate(arguments: argparse.Namespace) -> int:
    """Fit the estimate to a plug meter: say what the meter showed while this ran.

    With --load idle leave the host alone, with --load busy all its cores are kept at work. Run it once to
    read the meter, then again with what it showed; best once idle and once busy, which together fix the
    line between the two. Example: mas-profile calibrate --load busy --seconds 60 --watts 7.4
    """
    path = arguments.out or arguments.root / calibrate.KEPT
    busy = arguments.load == "busy"
    kept = calibrate.calibrate(arguments.root, path, arguments.watts, arguments.seconds, busy=busy)
    meter = open_one(f"estimate:{path}", root=arguments.root)
    meter.close()
    print("\n".join(console.calibrated(kept, path, meter.sensor)), file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of ``mas-profile``."""
    top = Parser(prog="mas-profile", description="Joules of this host, by whatever can count them.")
    top.add_argument(
        "--root", type=Path, default=Path("/"), help="root of the file system to look in (default: /)"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    listing = _command(commands, "list", list_meters)
    listing.add_argument("--json", action="store_true", help="as JSON")
    _require(listing)
    running = _command(commands, "run", run_command)
    _meter(running)
    running.add_argument(
        "--baseline", type=float, default=0.0, metavar="S", help="measure the idle power for S seconds"
    )
    running.add_argument("--repeat", type=int, default=1, metavar="N", help="run it N times")
    shown = running.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="as one line of JSON on stdout")
    shown.add_argument("--csv", action="store_true", help="as CSV on stdout, a line per run")
    running.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="what to run")
    idle = _command(commands, "baseline", measure_baseline)
    _meter(idle)
    idle.add_argument("--seconds", type=float, default=baselines.ENOUGH_S, help="default: %(default)g")
    idle.add_argument("--out", type=Path, help="where to keep it")
    idle.add_argument("--json", action="store_true", help="as JSON on stdout")
    recording = _command(commands, "record", record_board)
    recording.add_argument("folder", type=Path, metavar="DIR", help="a folder that is not there yet")
    recording.add_argument("--seconds", type=float, default=5.0, help="default: %(default)g")
    fitting = _command(commands, "calibrate", calibrate_estimate)
    fitting.add_argument("--watts", type=float, required=True, help="what the plug meter showed")
    fitting.add_argument("--seconds", type=float, default=60.0, help="default: %(default)g")
    fitting.add_argument("--load", choices=("idle", "busy"), default="busy", help="default: %(default)s")
    fitting.add_argument("--out", type=Path, default=None, help=f"default: /{calibrate.KEPT}")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.function(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough; Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _WRONG as error:
        return _complain(str(error), code=2)
    except MeterError as error:
        return _complain(str(error), code=1)
    except KeyboardInterrupt:
        return _complain("interrupted", code=INTERRUPTED)
    return code


# --- inside ---------------------------------------------------------------------------------------


def _measure(
    meter: Meter, refused: tuple[Refusal, ...], command: tuple[str, ...], arguments: argparse.Namespace
) -> Measured:
    """The command, as often as asked, between two measurements of the idle power if one was asked for."""
    before, flags = machine.look(arguments.root), set[str]()
    # The idle power of a model is a part of the model, and nothing that was found out about this host.
    idle = None if meter.sensor.method == "estimated" else baselines.stated(meter.idle)
    if arguments.baseline:
        idle = baselines.measure(meter, arguments.baseline, _progress, root=arguments.root)
    courses = [follow(meter, command)]
    while len(courses) < arguments.repeat and not courses[-1].interrupted:
        courses.append(follow(meter, command))
    for lost in filter(None, dict.fromkeys(course.lost for course in courses)):
        _complain(f"{lost}: what came after is not known")
    if arguments.baseline and idle and not courses[-1].interrupted:
        idle = _again(meter, idle, arguments)
    now = machine.since(before, machine.look(arguments.root))
    if idle and (changed := baselines.mismatch(idle, meter.sensor, now)):
        _complain(f"the baseline does not hold any more: {changed}")
        idle, flags = None, {"baseline_invalid"}
    elif idle and idle.wall_s and idle.wall_s < baselines.ENOUGH_S:
        flags.add("short_baseline")
    if now.throttled:
        flags.add("throttled")
    return measured(
        [bill(course, meter.sensor, idle) for course in courses],
        command=command,
        sensor=meter.sensor,
        baseline=idle,
        machine=now,
        refused=refused,
        flags=flags,
    )


def _again(meter: Meter, idle: Baseline, arguments: argparse.Namespace) -> Baseline:
    """The baseline with what a second measurement says of its drift, if that can be had."""
    try:
        after = baselines.measure(meter, arguments.baseline, _progress, root=arguments.root)
    except (MeterError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        _complain(f"the idle power was not measured again, so that its drift is not known: {why}")
        return idle
    return baselines.drifted(idle, after)


def _kept(path: Path, found: Baseline, sensor: Sensor) -> Baseline:
    """Puts it into the file; if one of the same state was there, it tells the drift since."""
    earlier = baselines.load(path)
    if earlier and not baselines.mismatch(earlier, sensor, found.machine or Machine()):
        found = baselines.after(earlier, found)
    baselines.store(path, found)
    return found


def _progress(passed_s: float, seconds: float, mean_w: float) -> None:
    if sys.stderr.isatty():
        end = "\n" if passed_s >= seconds else "\r"
        print(f"idle power: {mean_w:.2f} W, {passed_s:.0f} of {seconds:.0f} s ", end=end, file=sys.stderr)
    elif passed_s >= seconds:
        print(f"idle power: {mean_w:.2f} W over {seconds:.0f} s", file=sys.stderr)


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    text = function.__doc__ or ""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text.partition("\n")[0], description=text
    )
    command.set_defaults(function=function)
    return command


def _meter(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--meter",
        action="append",
        help="DRIVER[:ARGUMENT]: rapl, replay:FILE or estimate:idle_w=3,max_w=9; again for the next choice",
    )
    _require(command)


def _require(command: argparse.ArgumentParser) -> None:
    command.add_argument("--require", choices=("measured",), help="no estimate: without a sensor, exit 1")


def _energy(arguments: argparse.Namespace) -> EnergyConfig:
    return EnergyConfig(meter=tuple(arguments.meter or ("auto",)), require=arguments.require)


def _complain(text: str, code: int = 1) -> int:
    print(f"mas-profile: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
