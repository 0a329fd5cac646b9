"""docs/results/peers.md out of what was measured; an arm without a measurement is left out."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.peers.probes import TOLERANCE, Outcome, difference

if TYPE_CHECKING:
    from collections.abc import Iterable


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one system: what it took, and the losses that it came to."""

    system: str
    work: str
    wall_s: float
    cpu_s: float
    rss_gb: float
    pss_gb: float
    mb: float
    load: float
    losses: dict[str, float]


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a system under a fault."""

    system: str
    name: str
    outcome: Outcome


class Results(msgspec.Struct, kw_only=True):
    """Everything measured so far."""

    machine: str = ""
    arms: list[Arm] = []
    probes: list[Probed] = []


FIGURES = {
    "wall_s": "wall (s)",
    "cpu_s": "CPU-s",
    "rss_gb": "peak RSS (GB)",
    "pss_gb": "peak PSS (GB)",
    "mb": "MB",
}
LIMITS = {
    ("ours", "all-in-one"): "≤ 12 CPU-s, ≤ 1.0 GB",
    ("ours", "one-by-one"): "≤ 20 CPU-s",
}
ABOUT = {
    "restart": "orchestrator killed in round 2 and started again",
    "lost": "one of two nodes killed, not back",
    "upload": "one of four nodes killed in its upload, back at once",
    "state": "orchestrator killed: is what is said of the job true",
}


HEAD = """# Beside Flower

Command: `PYTHONPATH=. .venv/bin/python bench/peers`

Machine: {machine}; load {load} before the runs.

The same job on Flower 1.41.0 (SuperLink with SQLite, a SuperNode per client, `flwr run`) and on mas-edge
(embedded broker, `mas serve`, an agent per client): workload `watch`, network `small` (197,475 parameters,
0.79 MB), three tasks, two clients of one person each, two rounds of one epoch, and an evaluation of the last
weights by both clients. Both train by the same function on the same data in the same order from the same
weights, on one torch thread. one-by-one is three runs at once for Flower, one job under that policy for us.

Medians (fastest - slowest). Wall time is from the start of the first process to the end of the job. CPU time
and memory are those of all processes of the arm: CPU time as charged when they are reaped
(`RUSAGE_CHILDREN`), RSS and PSS summed, 20 times a second. MB are payloads of TCP between nodes and server,
both ways. The first weights cost us a torch process, and Flower nothing: its server reads a file.
"""


def page(results: Results) -> str:
    """The whole file."""
    return "\n".join(
        [*_head(results), *_costs(results.arms), *_gate(results.arms), *_faults(results.probes), ""]
    )


def _head(results: Results) -> list[str]:
    loads = [arm.load for arm in results.arms] or [0.0]
    load = f"{min(loads):.1f} - {max(loads):.1f}"
    return [*HEAD.format(machine=results.machine, load=load).splitlines(), ""]


def _costs(arms: Iterable[Arm]) -> list[str]:
    groups: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.work, arm.system), []).append(arm)
    heads = ["", "", *FIGURES.values(), "limit", "runs"]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * len(FIGURES)}---|---:|"]
    for (work, system), runs in sorted(groups.items()):
        cells = [_spread([getattr(run, name) for run in runs]) for name in FIGURES]
        limit = LIMITS.get((system, work), "")
        lines.append(f"| {work} | {system} | {' | '.join(cells)} | {limit} | {len(runs)} |")
    return [*lines, ""]


def _spread(values: list[float]) -> str:
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.2f} - {max(values):.2f})"


def _gate(arms: list[Arm]) -> list[str]:
    lines = ["## The same losses", ""]
    for work in sorted({arm.work for arm in arms}):
        found = {arm.system: arm.losses for arm in arms if arm.work == work}
        if len(found) < 2:
            continue
        apart = difference(found["ours"], found["Flower"])
        verdict = "kept" if apart <= TOLERANCE else "BROKEN"
        what = f"{len(found['ours'])} losses (training and held-out, of each task and round)"
        lines.append(f"{work}: {what} differ by at most {apart:.1e}; allowed are {TOLERANCE:.0e}: {verdict}.")
    return [*lines, ""]


def _short(words: str) -> str:
    """What a system said, without where on this machine it was run."""
    return words.replace(f"{Path.cwd()}/", "")


def _faults(probes: Iterable[Probed]) -> list[str]:
    lines = ["## Faults", "", "| fault | system | | s | what became of it |", "|---|---|---|---:|---|"]
    for found in sorted(probes, key=lambda found: (list(ABOUT).index(found.name), found.system)):
        outcome = found.outcome
        verdict = "pass" if outcome.passed else "fail"
        cells = (ABOUT[found.name], found.system, verdict, f"{outcome.seconds:.0f}", _short(outcome.words))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "What counts as a pass stands in `bench/peers/probes.py`."]
