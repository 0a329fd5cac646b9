"""The subcommand of `mas` that brings what was learnt to devices: ``mas deploy``.

``orchestrator.cli`` adds it to its parser, and turns its errors into text and exit codes. It orders over the
control socket, then asks until every device has answered; the orchestrator goes on without it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING

from mas_edge.orchestrator.commands.cli_talk import FOLLOW_S, command, connected, print_json, terminal

if TYPE_CHECKING:
    from mas_edge.orchestrator.commands.cli_talk import Add
    from mas_edge.orchestrator.launching import orders
    from mas_edge.orchestrator.launching.remote import Orchestrator

WAIT_S = 600.0
"""How long devices' answers are waited for; the slowest part is measuring, on a board that also trains."""

OPEN = frozenset({"exporting", "asked"})
"""States of an outcome that another one follows."""


class DeployUsage(ValueError):
    """A command line about a deployment that cannot be meant."""


def add_commands(add: Add) -> None:
    """Add it; ``add(name, act, summary)`` makes a subcommand's parser."""
    made = command(add, "deploy", deploy, "have devices infer with what a job has learnt")
    made.add_argument("job", metavar="JOB")
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", nargs="+", metavar="DEVICE", default=(), help="these devices")
    where.add_argument("--all", action="store_true", help="every device that has data of the group's tasks")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--int8", action="store_true", help="weights and activations in 8 bits")
    form.add_argument("--fp16", action="store_true", help="weights and activations in 16 bits")
    form.add_argument("--rollback", action="store_true", help="put back what was in use before")
    made.add_argument(
        "--margin",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="so much worse than the model in use it may be (default: %(default)g)",
    )
    made.add_argument(
        "--wait",
        type=float,
        default=WAIT_S,
        metavar="S",
        help="seconds to wait for answers (default: %(default)g)",
    )


def deploy(options: argparse.Namespace) -> int:
    """Have devices infer with what a job has learnt: each task group is exported to ONNX and proved to
    compute the same, and every device measures it on its own held-out data before it takes it into use:
    loss, latency, memory, joules. One that is unsound, or worse than the model in use by more than
    --margin, is refused there, and what was in use stays. The exit code is 1 unless all took it.

        mas deploy 1122-gravity-jerk-1 --to edge-1 edge-2
        mas deploy 1122-gravity-jerk-1 --all --int8
        mas deploy 1122-gravity-jerk-1 --to edge-1 --rollback

    A device that is away is asked when it comes back, also long after this command has ended.
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    for name, value in (("--margin", options.margin), ("--wait", options.wait)):
        if not 0 <= value < math.inf:
            raise DeployUsage(f"{name} {value:g}: use a number, 0 or more")
    order = orders.DeployThese(
        job=options.job,
        devices=tuple(dict.fromkeys(options.to)),
        precision="int8" if options.int8 else "fp16" if options.fp16 else "fp32",
        rollback=options.rollback,
        margin=options.margin / 100,
    )
    with connected(options) as orchestrator:
        made = orchestrator.ask(order, orders.Deploying)
        made = _answered(orchestrator, made, options.wait, quiet=options.json)
    if options.json:
        print_json(made)
    else:
        _print(made)
    well = {"in use", "rolled back"}
    return 0 if all(each.state in well for each in made.outcomes) else 1


def _answered(
    orchestrator: Orchestrator, made: orders.Deploying, wait_s: float, *, quiet: bool
) -> orders.Deploying:
    """The deployment when all have answered, or so many seconds later; meanwhile a line for each answer."""
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    end_s, told = time.monotonic() + wait_s, set[tuple[str, str]]()
    while True:
        for each in made.outcomes:
            name = each.device, each.group
            if each.state not in OPEN and name not in told:
                told.add(name)
                if not quiet:
                    print(f"{each.device}: {each.group} {each.state}", file=sys.stderr)
        if len(told) == len(made.outcomes) or time.monotonic() >= end_s:
            return made
        time.sleep(FOLLOW_S)
        made = orchestrator.ask(orders.Follow(request=made.request), orders.Deploying)


def _print(made: orders.Deploying) -> None:
    from mas_edge.orchestrator.reports import in_use  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.views import status_tables  # noqa: PLC0415 - keeps --help fast
    from mas_edge.profiling.report import render  # noqa: PLC0415

    console, what = terminal(), "rolled back" if made.rollback else f"as {made.precision}"
    brief = console.width < status_tables.WIDE
    render(in_use.answers(f"{made.job} {what}", made.outcomes, brief=brief), console)
    if waiting := [each for each in made.outcomes if each.state in OPEN]:
        names = ", ".join(dict.fromkeys(each.device for each in waiting))
        print(
            f"no answer yet from {names}: they are asked until they answer; mas devices shows what they use"
        )
