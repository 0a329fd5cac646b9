"""The subcommands of `mas` that look: what goes on, what happened, and what came of it.

``orchestrator.cli`` adds them to its parser, and turns their errors into text and exit codes. All of them ask
the running orchestrator over its control socket, and change nothing there.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.commands.cli_talk import (
    FOLLOW_S,
    command,
    connected,
    print_going,
    print_json,
    status,
    terminal,
)

if TYPE_CHECKING:
    from mas_edge.models.proof import Proof
    from mas_edge.orchestrator.commands.cli_talk import Add
    from mas_edge.orchestrator.launching import orders
    from mas_edge.wire.messages import Precision


def add_commands(add: Add) -> None:
    """Add all of them; ``add(name, act, summary)`` makes a subcommand's parser."""
    made = command(add, "ps", ps, "show the jobs")
    made.add_argument("--all", action="store_true", help="also those that were over long ago")
    made = command(add, "watch", watch, "look on while jobs run")
    made.add_argument("job", nargs="?", metavar="JOB", help="end when this one is over")
    command(add, "devices", devices, "show the devices")
    made = command(add, "logs", logs, "tell what happened to a job")
    made.add_argument("job", metavar="JOB")
    made.add_argument("-f", "--follow", action="store_true", help="go on until the job is over")
    _export_parser(command(add, "export", export, "write a job's models, weights and report into a folder"))


def ps(options: argparse.Namespace) -> int:
    """Show the jobs and their tasks: what they are at, losses, joules, time, and what they wait for. Losses
    are held-out ones over those of the best constant answer: below 1, something was learnt. A task's
    joules are its decoder's share of what its group used, and an equal part of what is shared.

        mas ps
        mas ps --all --json
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.views import status_tables  # noqa: PLC0415 - keeps --help fast
    from mas_edge.profiling.report import render  # noqa: PLC0415

    with connected(options) as orchestrator:
        seen = orchestrator.ask(orders.Look(every=options.all), orders.Seen)
    if options.json:
        print_json(msgspec.structs.asdict(seen.status) | {"waiting": seen.waiting})
        return 0
    console = terminal()
    render(status_tables.jobs(seen.status, brief=console.width < status_tables.WIDE), console)
    for each in seen.waiting:
        print_going(each)
    return 0


def watch(options: argparse.Namespace) -> int:
    """Look on while jobs run: rounds, losses, joules, devices, and how long it may still take. With a job
    it ends when that is over, 1 if it failed; without one, at Ctrl-C. The jobs do not notice.

        mas watch
        mas watch 1122-gravity-jerk-1
    """
    from mas_edge.orchestrator.commands.watch import show  # noqa: PLC0415 - keeps --help fast

    with connected(options) as orchestrator:
        return show(lambda: status(orchestrator, options.job), job=options.job, as_json=options.json)


def devices(options: argparse.Namespace) -> int:
    """Show the devices: what each does, has and used, why it declines, and which models it infers with.

    mas devices
    mas devices --json
    """
    from mas_edge.orchestrator.reports import in_use  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.views import status_tables  # noqa: PLC0415 - keeps --help fast
    from mas_edge.profiling.report import render  # noqa: PLC0415

    with connected(options) as orchestrator:
        now = status(orchestrator)
    if options.json:
        print_json(now.devices)
        return 0
    console = terminal()
    render(status_tables.devices(now, time.time()), console)
    if any(device.in_use for device in now.devices):
        render(in_use.everywhere(now.devices, brief=console.width < status_tables.WIDE), console)
    return 0


def logs(options: argparse.Namespace) -> int:
    """Tell what happened to a job, from its stored events, with local times.

    mas logs 1122-gravity-jerk-1
    mas logs 1122-gravity-jerk-1 -f
    """
    from mas_edge.orchestrator.launching import orders  # noqa: PLC0415 - keeps --help fast

    after, after_deployment = 0, 0
    with connected(options) as orchestrator:
        while True:
            question = orders.Tell(job=options.job, after=after, after_deployment=after_deployment)
            told = orchestrator.ask(question, orders.Told)
            if not after and not options.json:
                print(f"{told.job}: {told.about}")
            for line in told.lines:
                _print_line(line, as_json=options.json)
            after, after_deployment = told.last, told.last_deployment
            if told.over or not options.follow:
                return 0
            time.sleep(FOLLOW_S)


def _print_line(line: orders.Line, *, as_json: bool) -> None:
    if as_json:
        print_json(line)
    else:
        print(time.strftime("%m-%d %H:%M:%S", time.localtime(line.wall_s)), line.text, flush=True)


def _export_parser(made: argparse.ArgumentParser) -> None:
    made.add_argument("run", metavar="RUN", help="a job of the running orchestrator, or a run's directory")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--int8", action="store_true", help="models of 8 bits, calibrated on held-out data")
    form.add_argument("--fp16", action="store_true", help="models of 16 bits")
    form.add_argument("--safetensors", action="store_true", help="no models: weights and report alone")
    where = "a folder that is new or empty (default: exports/RUN)"
    made.add_argument("--out", type=Path, metavar="DIR", help=where)


def export(options: argparse.Namespace) -> int:
    """Write what a job brought into a folder: a model of each task group (ONNX, an output per task) and the
    proof that it computes what was trained, the weights (safetensors), report.html, report.json,
    profile.csv and manifest.json. `mas report DIR` shows it again. A job that still runs gives what it
    has by now. Of each model are printed its size, its largest error beside torch, and both losses, on
    examples that nobody trained on; models/GROUP.parity.json has more.

        mas export 1122-gravity-jerk-1
        mas export 1122-gravity-jerk-1 --int8 --out gravity-jerk
        mas export runs/seven --fp16
        mas export runs/seven --safetensors
    """
    from mas_edge.orchestrator.launching import exporting, orders  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.reports import runs  # noqa: PLC0415 - keeps --help fast

    def told(group: str, proof: Proof) -> None:
        if not options.json:
            print(exporting.line(group, proof), flush=True)

    folder = Path(options.run)
    out = options.out or Path("exports") / folder.resolve().name
    precision: Precision = "int8" if options.int8 else "fp16" if options.fp16 else "fp32"
    with ExitStack() as opened:
        if folder.is_dir() or "/" in options.run:  # no job has that in its name
            run = runs.read(folder)
            weights = {group: exporting.copied(folder, group) for group in run.final_digests}
        else:
            orchestrator = opened.enter_context(connected(options))
            found = orchestrator.ask(orders.Account(job=options.run), orders.Accounted)
            run = found.run
            weights = {group: exporting.fetched(ref, orchestrator) for group, ref in found.weights.items()}
        proofs = exporting.export(out, run, weights, None if options.safetensors else precision, told)
    if options.json:
        print_json({"job": run.report.name, "out": str(out), "groups": list(weights), "models": proofs})
    else:
        print(f"{out}: {', '.join(weights) or 'no weights yet'}")
    return 0
