"""What the subcommands that ask a running orchestrator share: the connection, and how answers are printed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from mas_edge.orchestrator.launching import orders
    from mas_edge.orchestrator.launching.remote import Orchestrator
    from mas_edge.orchestrator.views.status_values import Status

    Act: TypeAlias = Callable[[argparse.Namespace], int]
    Add: TypeAlias = Callable[[str, Act, str], argparse.ArgumentParser]

FOLLOW_S = 1.0
"""Between two looks at something that goes on."""
PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask."""


def command(add: Add, name: str, act: Act, summary: str) -> argparse.ArgumentParser:
    """A subcommand that asks the orchestrator."""
    made = add(name, act, summary)
    made.add_argument("--json", action="store_true", help="print JSON and nothing else")
    add_socket(made)
    return made


def add_socket(command: argparse.ArgumentParser) -> None:
    """The option that says which orchestrator is meant."""
    command.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="its control socket (default: MAS_SOCKET, or the service's)",
    )


def connected(options: argparse.Namespace) -> Orchestrator:
    """The orchestrator that a command line means; raises NobodyThere."""
    from mas_edge.orchestrator.launching.remote import Orchestrator, socket_path  # noqa: PLC0415 - keeps --help fast

    return Orchestrator(socket_path(options.socket))


def status(orchestrator: Orchestrator, job: str | None = None) -> Status:
    """What goes on, with this job however old it is."""
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    return orchestrator.ask(orders.Look(job=job), orders.Seen).status


def print_going(going: orders.Going) -> None:
    """A job that was launched: its tasks, when it begins, why it is one of its own."""
    beside = f" with {', '.join(going.beside)}" if going.beside else ""
    when = f"begins in {going.starts_in_s:.0f} s" if going.starts_in_s > 0 else "begins now"
    print(f"{going.job}: {', '.join(going.tasks)}{beside}, {when}")
    if going.apart:
        print(f"  {going.apart}")


def print_json(value: object) -> None:
    """One line of JSON, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def terminal() -> Console:
    """The terminal, or something plain and wide where there is none."""
    from rich.console import Console  # noqa: PLC0415 - an extra

    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
