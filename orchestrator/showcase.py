"""`mas demo` from its options to what is printed: one policy, or several compared.

Everything is checked first; then each policy's run has its own directory, and when it is over the
report, the bill per row, the weights, the manifest and the pictures are written there. ``report.json``
comes last, so that a directory with one holds a whole run.
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
from mas_edge.orchestrator import tables
from mas_edge.orchestrator.demo import REPORT, STATE, Outcome, prepare, run
from mas_edge.orchestrator.manifest import manifest
from mas_edge.orchestrator.pictures import affinity_png, curves_png
from mas_edge.orchestrator.plan import DemoOptions, compared, demo_plan
from mas_edge.orchestrator.progress import Display
from mas_edge.orchestrator.report import Report, profiles, report
from mas_edge.orchestrator.service import read_store
from mas_edge.profiling.bill import FleetBill, billed, fleet
from mas_edge.profiling.choice import EnergyConfig, choose
from mas_edge.profiling.report import csv_text
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from rich.console import Console

    from mas_edge.orchestrator.plan import DemoPlan


PLAIN_WIDTH = 132
"""Columns where there is no terminal to ask."""


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One finished policy: ``report.json`` is this."""

    policy: str
    report: Report
    bill: FleetBill
    wall_s: float
    restarts: tuple[str, ...]
    final_digests: dict[str, str]


def showcase(options: argparse.Namespace) -> int:
    """Run what the options of `mas demo` say and print it; the exit code."""
    from rich.console import Console  # noqa: PLC0415 - an extra

    policies = compared(options.compare) if options.compare else (options.policy,)
    plans = {policy: demo_plan(_demo_options(options, policy)) for policy in policies}
    choose(EnergyConfig(meter=options.meter))[0].close()  # a wrong --meter is found here, not in each agent
    _check_data(plans.values())
    out = options.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    folders = {policy: out / policy if options.compare else out for policy in policies}
    for policy, plan in plans.items():
        prepare(plan, folders[policy])
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    arms = [_arm(plan, folders[policy], options.meter, console) for policy, plan in plans.items()]
    if options.json:
        found = [msgspec.to_builtins(arm) for arm in arms]
        sys.stdout.write(json.dumps({"arms": found} if options.compare else found[0]) + "\n")
        return 0
    if options.compare:
        tables.comparison(console, [(arm.policy, arm.report, arm.bill, arm.wall_s) for arm in arms])
    console.print(f"\nEverything is in [bold]{out}[/]", highlight=False)
    return 0


def _check_data(plans: Iterable[DemoPlan]) -> None:
    """Damaged data are found before anything starts; raises DataRefused."""
    for plan in plans:
        workload = find(plan.spec.training.workload)
        clients = tuple(client for dealt in plan.clients.values() for client in dealt)
        workload.dataset(Source(clients=(*clients, *plan.spec.unseen)), "all", 0.0)


def _demo_options(options: argparse.Namespace, policy: str) -> DemoOptions:
    given = {name: getattr(options, name) for name in DemoOptions.__struct_fields__}
    if options.compare and policy != "fixed":
        given["partition"] = None
    return DemoOptions(**{**given, "policy": policy})


def _arm(plan: DemoPlan, out: Path, meter: str, console: Console) -> Arm:
    spec = plan.spec
    console.print(
        f"[bold]{spec.policy}[/]: {', '.join(spec.tasks)} on {len(plan.clients)} agents", highlight=False
    )
    with Display(console, spec.policy) as display:
        outcome = run(plan, out, meter, display)
    arm = write(plan, out, outcome)
    tables.job(console, arm.report, arm.bill)
    if outcome.restarts:
        console.print(f"started again: {', '.join(outcome.restarts)}", highlight=False)
    return arm


def write(plan: DemoPlan, out: Path, outcome: Outcome) -> Arm:
    """The files of a finished run in its directory, and what is in them."""
    store = read_store(out / STATE)
    try:
        stored = [(time_s, event) for _, time_s, event in store.events(plan.spec.name)]
        devices = store.devices()
    finally:
        store.close()
    made, found = report(plan.spec, stored), profiles(stored)
    arm = Arm(
        policy=plan.spec.policy,
        report=made,
        bill=fleet(found),
        wall_s=outcome.wall_s,
        restarts=outcome.restarts,
        final_digests=made.final_digests,
    )
    write_atomic(out / "profile.csv", csv_text(billed(found)).encode())
    _weights(out, made)
    if made.affinity:
        affinity_png(made.affinity, made.decision, out / "affinity.png")
    curves_png(made, out / "losses.png")
    write_atomic(out / "manifest.json", _pretty(manifest(plan, devices)))
    write_atomic(out / REPORT, _pretty(arm))
    return arm


def _weights(out: Path, made: Report) -> None:
    blobs = BlobStore(out / STATE / "blobs")
    (out / "weights").mkdir(exist_ok=True)
    for group, digest in made.final_digests.items():
        shutil.copyfile(blobs.path(digest), out / "weights" / f"{group}.safetensors")


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
