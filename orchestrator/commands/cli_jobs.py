"""The subcommands of `mas` that order: launching, stopping, resuming, planning.

``orchestrator.cli`` adds them to its parser, and turns their errors into text and exit codes. All of them ask
the running orchestrator over its control socket (``orchestrator.launching.remote``).
"""

from __future__ import annotations

import argparse
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.orchestrator.commands.cli_talk import (
    FOLLOW_S,
    command,
    connected,
    print_going,
    print_json,
    status,
)

if TYPE_CHECKING:
    from mas_edge.orchestrator.commands.cli_talk import Add
    from mas_edge.orchestrator.launching import orders
    from mas_edge.orchestrator.launching.remote import Orchestrator

WINDOW_S = 10.0
"""How long a launch waits for others to join."""


class JobUsage(ValueError):
    """A command line about jobs that cannot be meant."""


class TakenBack(RuntimeError):
    """What was launched was stopped before it began."""


def add_commands(add: Add) -> None:
    """Add all of them; ``add(name, act, summary)`` makes a subcommand's parser."""
    made = command(add, "launch", launch, "launch tasks")
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="task files or job files")
    window = made.add_mutually_exclusive_group()
    window.add_argument("--now", action="store_true", help="begin at once")
    window.add_argument(
        "--wait", type=float, default=WINDOW_S, metavar="S", help="seconds in which others may join (10)"
    )
    made.add_argument("--owner", default=None, help="who pays (default: your user name)")
    made.add_argument("--watch", action="store_true", help="then look on until the jobs are over")
    made = command(add, "stop", stop, "stop a job, or one task of it")
    made.add_argument("name", metavar="JOB|TASK")
    made = command(add, "resume", resume, "let a stopped or failed job go on")
    made.add_argument("job", metavar="JOB")
    made = command(add, "plan", plan, "explain how a job is planned, or would be")
    made.add_argument("what", nargs="+", metavar="JOB|FILE", help="a job, or files that could be launched")
    made.add_argument("--dry-run", action="store_true", help="plan the job anew, and change nothing")


def launch(options: argparse.Namespace) -> int:
    """Launch tasks, and say which jobs they became: tasks that are to be trained alike merge into one job.
    A job begins when the first of its tasks has waited for --wait seconds; until then what others
    launch may join it, and `mas stop TASK` takes a task back. Nobody joins later.

        mas launch gravity.toml jerk.toml
        mas launch fleet-job.toml --watch
        mas launch exercise.toml --now --json

    What may stand in a file is explained in those of examples/.
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.launching.launch_files import read  # noqa: PLC0415

    if not 0 <= options.wait < 86400:
        raise JobUsage(f"--wait {options.wait:g}: give seconds, from 0 to a day")
    wishes = read(options.files)
    order = orders.LaunchThese(
        wishes=wishes,
        owner=_user() if options.owner is None else options.owner,
        wait_s=0.0 if options.now else options.wait,
    )
    with connected(options) as orchestrator:
        made = orchestrator.ask(order, orders.Launched)
        if options.json:
            print_json(made)
        else:
            for going in made.jobs:
                print_going(going)
        return max(_until_over(options, orchestrator, each) for each in made.jobs) if options.watch else 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may know no name for its user
        return ""


def _until_over(options: argparse.Namespace, orchestrator: Orchestrator, going: orders.Going) -> int:
    """Look on from the beginning of a job to its end; the exit code. Raises TakenBack."""
    from mas_edge.orchestrator.commands.watch import show  # noqa: PLC0415
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    while all(job.name != going.job for job in status(orchestrator, going.job).jobs):
        if all(each.job != going.job for each in orchestrator.ask(orders.Look(), orders.Seen).waiting):
            raise TakenBack(f"{', '.join(going.tasks)}: somebody took it back before {going.job} began")
        time.sleep(FOLLOW_S)
    return show(lambda: status(orchestrator, going.job), job=going.job, as_json=options.json)


def stop(options: argparse.Namespace) -> int:
    """Stop a job, or one task: a task leaves its group at the next round, and what it used stays on its
    bill; a task that still waits for its job is taken back. A stopped job keeps everything.

        mas stop jerk
        mas stop 1122-gravity-jerk-1
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    return _order(options, orders.Stop(name=options.name))


def resume(options: argparse.Namespace) -> int:
    """Let a stopped or failed job go on where it was; its devices get new tries.

    mas resume 1122-gravity-jerk-1
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    return _order(options, orders.Resume(job=options.job))


def _order(options: argparse.Namespace, order: orders.Order) -> int:
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    with connected(options) as orchestrator:
        done = orchestrator.ask(order, orders.Done)
    if options.json:
        print_json(done)
    else:
        print(done.text)
    return 0


def plan(options: argparse.Namespace) -> int:
    """Explain how a job is planned: which groups, on which devices, what that is expected to cost, and
    why nothing else was chosen. Of files, what they would become now; nothing is launched.

        mas plan 1122-gravity-jerk-1
        mas plan 1122-gravity-jerk-1 --dry-run
        mas plan gravity.toml jerk.toml
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.launching.launch_files import read  # noqa: PLC0415

    files = [Path(each) for each in options.what if each.endswith(".toml") or "/" in each]
    if files and len(files) < len(options.what):
        raise JobUsage("name one job, or files that end in .toml")
    if not files and len(options.what) > 1:
        raise JobUsage("name one job; files end in .toml")
    order: orders.Order = (
        orders.Preview(wishes=read(files))
        if files
        else orders.Plan(job=options.what[0], dry_run=options.dry_run)
    )
    with connected(options) as orchestrator:
        told = orchestrator.ask(order, orders.Explained)
    if options.json:
        print_json(told)
    else:
        print("\n".join(told.lines))
    return 0
