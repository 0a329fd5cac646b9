"""`mas-agent`: the command of a device.

Only this module turns an error of the agent into a line of text and an exit code: 0 fine, 1 broke on the
way, 2 wrong usage or configuration. MAS_LOG=DEBUG says where in the code it arose.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.wire.command_line import WRONG, Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

BROKEN = 1
LONGEST_S = 3600.0
"""Nobody means to measure a baseline for longer."""


def parser() -> argparse.ArgumentParser:
    """The command line of `mas-agent`."""
    top = Parser(
        prog="mas-agent", description="Trains federated tasks on this device and accounts for every joule."
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(act: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            act.__name__,
            help=summary,
            description=act.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "--config", type=Path, default=Path("/etc/mas-edge/agent.toml"), help="default: %(default)s"
        )
        command.set_defaults(act=act)
        return command

    add(run, "serve the fleet until stopped")
    doctor_ = add(doctor, "whether this device can work, and what a round will cost")
    doctor_.add_argument(
        "--baseline", type=float, metavar="S", help="measure idle power for so many seconds, and keep it"
    )
    doctor_.add_argument("--json", action="store_true", help="one JSON array of findings")
    infer_ = add(infer, "what the models in use make of files")
    infer_.add_argument("--input", type=Path, required=True, metavar="FILE|DIR", help="npy, npz, png, jpg")
    infer_.add_argument("--task", metavar="T", help="this task alone (default: all)")
    infer_.add_argument(
        "--out", type=Path, default=Path("inferred"), metavar="DIR", help="default: %(default)s"
    )
    infer_.add_argument("--model", type=Path, metavar="FILE", help="this ONNX file; no configuration is read")
    infer_.add_argument("--workload", metavar="W", help="whose models, if several are in use")
    infer_.add_argument("--raw", action="store_true", help="arrays are not normalised yet")
    infer_.add_argument("--json", action="store_true", help="one JSON object per input file")
    return top


def run(options: argparse.Namespace) -> int:
    """Serve the fleet until stopped.

    A smallest agent.toml:

        device = "edge-1"
        fleet = "home"
        state = "/var/lib/mas-edge"

        [broker]
        url = "mqtt://127.0.0.1:1883"

        [data.watch]
        clients = ["1", "5"]

    SIGHUP reads it again: conditions, caps and log change at once, the rest with the next start. SIGTERM ends
    it; a training in hand is given up at its next step.
    """
    from mas_edge.edge_agent.service import serve  # noqa: PLC0415 - keeps --help fast
    from mas_edge.wire.host import HangUp, StopSignal, setup_logs  # noqa: PLC0415

    setup_logs()
    with StopSignal() as stop:
        serve(options.config, stop, HangUp())
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Look at everything that this device's agent needs, try a round for some seconds, and print a page: each
    line ok, warning or error, with what to do. Exit code 1 if there is an error.

    The agent should not run meanwhile; if it does, broker, idle power and rounds are left out. Joules are
    split among task groups above the host's idle power: leave the host alone and warm and say --baseline 60,
    which measures it and keeps it in the state directory for the agent.

        systemctl stop mas-agent
        runuser -u mas-agent -- mas-agent doctor --baseline 60
    """
    import msgspec  # noqa: PLC0415 - keeps --help fast

    from mas_edge.edge_agent import findings  # noqa: PLC0415
    from mas_edge.edge_agent.config import AgentConfig  # noqa: PLC0415
    from mas_edge.edge_agent.doctor import examine  # noqa: PLC0415
    from mas_edge.profiling.baseline import LEAST_S  # noqa: PLC0415
    from mas_edge.wire.host import ConfigError, load_config  # noqa: PLC0415

    if options.baseline is not None and not LEAST_S <= options.baseline <= LONGEST_S:
        raise ConfigError(f"--baseline {options.baseline:g}: give {LEAST_S:g} to {LONGEST_S:g} seconds")
    found = tuple(examine(load_config(options.config, AgentConfig), baseline_s=options.baseline))
    print(msgspec.json.encode(found).decode() if options.json else findings.page(found))
    return BROKEN if findings.worst(found) == "error" else 0


def infer(options: argparse.Namespace) -> int:
    """Run the models in use on files; write each task's output to DIR as FILE.TASK.npy, and a picture of them
    all beside their input as FILE.png.

    An array (.npy, or .npz with an array "input") is one input or several, normalised as in training, or
    with --raw as a sensor gives it; a picture (.png, .jpg) is cut and reduced to the network's size.
    Latency is the network's, for all tasks of its group at once and all inputs of the file.

        mas-agent infer --input photo.jpg --out seen
        mas-agent infer --model gravity+jerk.onnx --input windows.npy --task gravity
    """
    import msgspec  # noqa: PLC0415 - keeps --help fast

    from mas_edge.edge_agent import infer as inference  # noqa: PLC0415
    from mas_edge.edge_agent.config import AgentConfig  # noqa: PLC0415
    from mas_edge.wire.host import load_config  # noqa: PLC0415

    if options.model:
        serving = inference.one_file(options.model, options.task)
    else:
        state = Path(load_config(options.config, AgentConfig).state)
        serving = inference.in_use(state, options.workload, options.task)
    for outcome in inference.infer(serving, options.input, options.out, raw=options.raw):
        print(msgspec.json.encode(outcome).decode() if options.json else inference.in_words(outcome))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except (ValueError, LookupError, ConnectionError, PermissionError) as error:
        return _complain(error, WRONG)
    except OSError as error:
        return _complain(error, BROKEN)


def _complain(error: Exception, code: int) -> int:
    print(f"mas-agent: {error}", file=sys.stderr)
    log.debug("where that came from", exc_info=error)
    return code


if __name__ == "__main__":
    sys.exit(main())
