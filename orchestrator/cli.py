"""`mas`: the command of the fleet's orchestrator.

Only this module turns an error of the orchestrator into a line of text and an exit code: 0 fine, 1 broke
on the way, 2 wrong usage or configuration. MAS_LOG=DEBUG says where in the code it arose.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mas_edge.orchestrator.commands.cli_deploy import add_commands as add_deploying_commands
from mas_edge.orchestrator.commands.cli_fleet import add_commands as add_fleet_commands
from mas_edge.orchestrator.commands.cli_jobs import add_commands as add_job_commands
from mas_edge.orchestrator.commands.cli_looks import add_commands as add_looking_commands
from mas_edge.orchestrator.commands.cli_talk import add_socket, connected
from mas_edge.orchestrator.spec import POLICIES
from mas_edge.wire.command_line import WRONG, Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mas_edge.orchestrator.reports.runs import RunReport

BROKEN, INTERRUPTED = 1, 130


def parser() -> argparse.ArgumentParser:
    """The command line of `mas`."""
    top = Parser(
        prog="mas",
        description="Trains many federated tasks at once on a fleet of edge boards, and says what each cost.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo_parser(_command(commands, "demo", demo, "train on this machine: broker, orchestrator, agents"))
    _report_parser(_command(commands, "report", report, "show what a run learnt and cost, or compare two"))
    serve_ = _command(commands, "serve", serve, "run the orchestrator")
    serve_.add_argument(
        "--config", type=Path, default=Path("/etc/mas-edge/orchestrator.toml"), help="default: %(default)s"
    )
    serve_.add_argument("--until-done", action="store_true", help="end when every job in the store is over")
    families = add_job_commands, add_looking_commands, add_deploying_commands, add_fleet_commands
    for add_commands in families:
        add_commands(functools.partial(_command, commands))
    data = commands.add_parser(
        "data", help="look at a workload's data, or write it out", description="A workload's data."
    )
    looks = data.add_subparsers(dest="look", metavar="COMMAND", required=True)
    show = _command(looks, "show", data_show, "draw what tasks' inputs and targets look like")
    show.add_argument("--workload", default="watch", help="default: %(default)s")
    show.add_argument("--client", help="whose data (default: the workload's first client)")
    show.add_argument("--tasks", help="comma-separated (default: the workload's default tasks)")
    show.add_argument("--root", type=Path, help="folder of the data (default: what ships with the workload)")
    show.add_argument("--out", type=Path, default=Path("data.png"), help="PNG file (default: %(default)s)")
    export = _command(looks, "export", data_export, "write rendered buildings as files in Taskonomy's layout")
    export.add_argument("--clients", help="comma-separated buildings (default: all)")
    export.add_argument("--root", type=Path, help="folder of a made set (default: the set that is shipped)")
    export.add_argument("--out", type=Path, required=True, help="folder to write into")
    make = _command(looks, "make", data_make, "render a set of buildings")
    make.add_argument("--preset", default="bench", help="tiny, demo or bench (default: %(default)s)")
    make.add_argument("--seed", type=_at_least(0), default=1, help="default: %(default)s")
    make.add_argument(
        "--processes", type=_at_least(1), default=2, help="buildings at once (default: %(default)s)"
    )
    make.add_argument(
        "--cache", type=Path, help="where sets are kept (default: mas-edge in XDG_CACHE_HOME, or in ~/.cache)"
    )
    return top


def _command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    act: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=act.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(act=act)
    return command


def _report_parser(command: argparse.ArgumentParser) -> None:
    say = command.add_argument
    say("run", metavar="RUN", help="directory of a run, or a job of the running orchestrator")
    say(
        "--compare",
        metavar="RUN2",
        help="another run: ratios, RUN over RUN2, with their intervals",
    )
    say("--html", type=Path, metavar="FILE", help="write the page, one file that needs no network")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as JSON and nothing else")
    form.add_argument("--csv", action="store_true", help="print every row as CSV and nothing else")
    say(
        "--co2",
        type=float,
        metavar="G_PER_KWH",
        help="add CO2e at so many grams per kWh; there is no default",
    )
    add_socket(command)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: use a whole number, {least} or more")
        return int(text)

    return number


def _demo_parser(command: argparse.ArgumentParser) -> None:
    say = command.add_argument
    say("--workload", default="watch", help="what to learn (default: %(default)s)")
    say("--preset", default="demo", help="size: demo, or tiny for a few seconds (default: %(default)s)")
    say("--policy", help=f"{', '.join(POLICIES)} (default: mas)")
    say(
        "--compare",
        metavar="POLICIES",
        help="run several policies in turn, such as mas,all-in-one,one-by-one",
    )
    say("--partition", help="the groups of policy fixed, such as exercise+gravity,jerk+rotation")
    say("--tasks", help="comma-separated; all of the workload's default tasks if not given")
    say("--groups", help="groups of the policies that choose them, a number or auto (default: the preset's)")
    say("--rounds", type=int, help="rounds in all (default: the preset's)")
    say("--merge-rounds", type=int, help="merged rounds before the split (default: the preset's)")
    say("--clients", type=int, default=4, help="agents; the clients are dealt to them (default: %(default)s)")
    say(
        "--affinity",
        choices=("gram", "gram-full", "lookahead", "lookahead-momentum"),
        default="gram",
        help="how task affinity is measured (default: %(default)s)",
    )
    say("--seed", type=int, default=1, help="everything random follows from it (default: %(default)s)")
    say("--meter", default="auto", help="sensor of the agents: auto, rapl, estimate, replay:FILE, ...")
    say("--out", type=Path, help="the run's directory (default: runs/DATE-TIME)")
    say("--json", action="store_true", help="print the report as JSON and nothing else")


def demo(options: argparse.Namespace) -> int:
    """Train federated tasks on this machine: an embedded broker, the orchestrator and some agents, each
    a process of its own. Nothing is downloaded: the data of the workload `watch` (real smartwatch
    sensors of ten people) come with the package. At the end stand the affinities, the split, losses
    and what each task group cost; the run's directory keeps report.html, report.json, profile.csv, weights
    and pictures. Given again with the same --out, a run that was cut short goes on.

        mas demo
        mas demo --tasks gravity,jerk,rotation --groups 2
        mas demo --compare mas,all-in-one,one-by-one
        mas demo --policy tag --groups 3
        mas demo --preset tiny --rounds 4 --merge-rounds 2 --seed 7 --json --out runs/seven
    """
    from mas_edge.orchestrator.demos.showcase import showcase  # noqa: PLC0415 - keeps --help fast

    return showcase(options)


def report(options: argparse.Namespace) -> int:
    """Show what a run or a job learnt and what it cost: joules per task group, round, phase and device,
    with two standard uncertainties. Terminal, page, JSON and CSV show the same numbers. A job that the
    running orchestrator has need not be finished: then it is what is known by now.

        mas report runs/seven
        mas report runs/seven --html seven.html --co2 380
        mas report runs/seven/mas --compare runs/seven/one-by-one
        mas report runs/seven --csv > rows.csv
        mas report 1122-gravity-jerk-1
    """
    from mas_edge.orchestrator.demos.reporting import show  # noqa: PLC0415
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    def ask(job: str) -> RunReport:
        with connected(options) as orchestrator:
            return orchestrator.ask(orders.Account(job=job), orders.Accounted).run

    return show(options.run, options.compare, options.html, _form(options), options.co2, ask)


def _form(options: argparse.Namespace) -> Literal["text", "json", "csv"]:
    return "json" if options.json else "csv" if options.csv else "text"


def serve(options: argparse.Namespace) -> int:
    """Run the orchestrator: serve the jobs in its store until stopped.

    A smallest orchestrator.toml:

        fleet = "home"
        state = "/var/lib/mas-edge-orchestrator"

        [broker]
        url = "mqtt://127.0.0.1:1883"
        embedded = true

    `mas` asks it over its control socket; with [page] it shows itself at http://127.0.0.1:8765 too.
    """
    from mas_edge.orchestrator import service  # noqa: PLC0415 - keeps --help fast
    from mas_edge.wire.host import StopSignal, load_config, setup_logs  # noqa: PLC0415

    setup_logs()
    config = load_config(options.config, service.OrchestratorConfig)
    with StopSignal() as stop:
        failed = service.serve(config, stop, until_done=options.until_done)
    for reason in failed:
        print(f"mas: job failed: {reason}", file=sys.stderr)
    return BROKEN if failed else 0


def data_show(options: argparse.Namespace) -> int:
    """Draw what the input and the targets of tasks look like, for one client, into a PNG."""
    from mas_edge.models.show import show  # noqa: PLC0415 - keeps --help fast
    from mas_edge.models.tasks import find  # noqa: PLC0415

    workload = find(options.workload)
    client = options.client or workload.clients[0]
    tasks = options.tasks.split(",") if options.tasks else None
    show(workload, client, tasks, options.out, root=options.root)
    print(options.out)
    return 0


def data_export(options: argparse.Namespace) -> int:
    """Write rendered buildings as PNG files in Taskonomy's layout, and a dataset.toml that describes them.

    What was written is a data set of its own:

        mas data export --out rooms
        MAS_EDGE_FOLDER=rooms mas demo --workload folder
    """
    from mas_edge.models.workloads.buildings.export import export  # noqa: PLC0415 - keeps --help fast

    clients = None if options.clients is None else options.clients.split(",")
    count = export(options.out, clients, options.root)
    print(f"{options.out}: {count} pictures")
    return 0


def data_make(options: argparse.Namespace) -> int:
    """Render a set of buildings with all nine labels and print its folder, unless it is there already.

    Presets: tiny, 5 buildings of 12 views at 16 pixels; demo, 10 of 32 at 32 (seed 1 is what ships with
    the package); bench, 36 of 200 at 64, some minutes and 531 MB. The same preset and seed give the same
    set. Needs a ray engine: pip install 'mas-edge[buildings]', on x86-64. Boards get it as files:

        mas data export --root "$(mas data make --preset bench)" --out rooms
        MAS_EDGE_FOLDER=rooms mas demo --workload folder
    """
    from mas_edge.models.workloads.buildings.make import make  # noqa: PLC0415 - keeps --help fast
    from mas_edge.wire.folders import cache_folder  # noqa: PLC0415

    def progress(done: int, of: int) -> None:
        print(f"\r{done} of {of} buildings", end="\n" if done == of else "", file=sys.stderr, flush=True)

    cache = cache_folder() if options.cache is None else options.cache
    print(make(options.preset, options.seed, cache, processes=options.processes, progress=progress))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except (ValueError, LookupError, ConnectionError, PermissionError) as error:
        return _complain(error, WRONG)
    except (OSError, RuntimeError) as error:
        return _complain(error, BROKEN)
    except KeyboardInterrupt:
        print("\nmas: interrupted", file=sys.stderr)
        return INTERRUPTED


def _complain(error: Exception, code: int) -> int:
    print(f"mas: {error}", file=sys.stderr)
    if os.environ.get("MAS_LOG", "").upper() == "DEBUG":
        traceback.print_exception(error)
    return code


if __name__ == "__main__":
    sys.exit(main())
