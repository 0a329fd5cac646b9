"""`mas demo` from its options to what is printed: one policy, or several compared.

Everything is checked first; then each policy's run has its own directory, and when it is over the
page, the bill per row, the weights, the manifest and the pictures are written there. ``report.json`` comes
last, so that a directory with one holds a whole run.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mas_edge.models.tasks import Source, find
from mas_edge.orchestrator.demos.demo import STATE, Outcome, holds, prepare, run
from mas_edge.orchestrator.demos.progress import Display
from mas_edge.orchestrator.plan import DemoOptions, demo_plans
from mas_edge.orchestrator.reports import tables
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.reports.page import PAGE, Named, page
from mas_edge.orchestrator.reports.pictures import affinity, curves
from mas_edge.orchestrator.reports.runs import REPORT, compose, read
from mas_edge.orchestrator.service import read_store
from mas_edge.profiling.choice import EnergyConfig, choose
from mas_edge.profiling.report import csv_text, render
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from rich.console import Console

    from mas_edge.orchestrator.plan import DemoPlan
    from mas_edge.orchestrator.report import Report
    from mas_edge.orchestrator.reports.runs import RunReport


PLAIN_WIDTH = 132
"""Columns where there is no terminal to ask."""


def showcase(options: argparse.Namespace) -> int:
    """Run what the options of `mas demo` say and print it; the exit code."""
    from rich.console import Console  # noqa: PLC0415 - an extra

    given = {name: getattr(options, name) for name in DemoOptions.__struct_fields__}
    plans = demo_plans(DemoOptions(**given), options.compare)
    choose(EnergyConfig(meter=options.meter))[0].close()  # a wrong --meter is found here, not in each agent
    _check_data(plans.values())
    out = options.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    folders = {policy: out / policy if options.compare else out for policy in plans}
    done = {policy for policy, plan in plans.items() if holds(plan, folders[policy])}
    done = done if len(done) < len(plans) else set()  # nothing is left to do: all of it is done anew
    for policy in plans.keys() - done:
        prepare(plans[policy], folders[policy])
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    arms = [
        _arm(plan, folders[policy], options.meter, console, done=policy in done)
        for policy, plan in plans.items()
    ]
    if options.json:
        found = [msgspec.to_builtins(run) for run in arms]
        sys.stdout.write(json.dumps({"arms": found} if options.compare else found[0]) + "\n")
        return 0
    if options.compare:
        render(tables.policies([(run.policy, run) for run in arms]), console)
    console.print(f"\nEverything is in [bold]{out}[/]", highlight=False)
    return 0


def _check_data(plans: Iterable[DemoPlan]) -> None:
    """Damaged data are found before anything starts; raises DataRefused."""
    for plan in plans:
        workload = find(plan.spec.training.workload)
        clients = tuple(client for dealt in plan.clients.values() for client in dealt)
        workload.dataset(Source(clients=(*clients, *plan.spec.unseen)), "all", 0.0)


def _arm(plan: DemoPlan, out: Path, meter: str, console: Console, *, done: bool) -> RunReport:
    spec = plan.spec
    if done:
        console.print(f"[bold]{spec.policy}[/]: finished before, in {out}", highlight=False)
        return read(out)
    console.print(
        f"[bold]{spec.policy}[/]: {', '.join(spec.tasks)} on {len(plan.clients)} agents", highlight=False
    )
    with Display(console, spec.policy) as display:
        outcome = run(plan, out, meter, display)
    made = write(plan, out, outcome)
    tables.job(console, made)
    if outcome.restarts:
        console.print(f"started again: {', '.join(outcome.restarts)}", highlight=False)
    return made


def write(plan: DemoPlan, out: Path, outcome: Outcome) -> RunReport:
    """The files of a finished run in its directory, and what is in them."""
    store = read_store(out / STATE)
    try:
        stored = [(time_s, event) for _, time_s, event in store.events(plan.spec.name)]
        devices = store.devices()
    finally:
        store.close()
    made = compose(
        plan.spec,
        stored,
        manifest(plan, devices, tuple(sys.argv)),
        wall_s=outcome.wall_s,
        restarts=outcome.restarts,
    )
    _weights(out, made.report)
    if made.report.affinity:
        affinity(made.report.affinity, made.report.decision).savefig(out / "affinity.png", dpi=110)
    curves(made.report).savefig(out / "losses.png", dpi=110)
    write_atomic(out / "manifest.json", _pretty(made.manifest))
    write_atomic(out / "profile.csv", csv_text(made.rows).encode())
    write_atomic(out / PAGE, page(Named(out.name, made)).encode())
    write_atomic(out / REPORT, _pretty(made))
    return made


def _weights(out: Path, made: Report) -> None:
    blobs = BlobStore(out / STATE / "blobs")
    (out / "weights").mkdir(exist_ok=True)
    for group, digest in made.final_digests.items():
        shutil.copyfile(blobs.path(digest), out / "weights" / f"{group}.safetensors")


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
