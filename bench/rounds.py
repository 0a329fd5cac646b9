"""What a round costs besides its training: eight devices that train nothing, a model of 16 MB.

``PYTHONSAFEPATH=1 .venv/bin/python bench/rounds.py`` runs some rounds with amqtt and with mosquitto, each of
broker, `mas serve` and the devices (``bench/simulated.py``) a process on this machine, and prints a markdown
table. A round is the time from one merge to the next, so the first is left out; MB/s are the weights that
all devices got and sent over that time. Memory is the most that was ever resident (VmHWM). Exit code 1 if the
orchestrator took more than two models and 100 MB.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from simulated import FLEET, TASK, WORKLOAD, device_name
from staged import Took, measure

from mas_edge.orchestrator.spec import JobSpec, Participation, check
from mas_edge.wire.messages import Training

BROKERS = ("amqtt", "mosquitto")


def job(devices: int, rounds: int, clients: int | None = None) -> JobSpec:
    """A job of one group for simulated devices, of which ``clients`` take part in each round, None all."""
    training = Training(workload=WORKLOAD, network="micro", rounds=rounds, epochs=1, batch=8, lr=0.1, seed=1)
    names = tuple(device_name(number) for number in range(1, devices + 1))
    spec = JobSpec(
        name=FLEET,
        tasks=(TASK,),
        training=training,
        policy="all-in-one",
        devices=names,
        participation=Participation(clients=clients, deadline_s=None),
    )
    return check(spec)


def row(kind: str, took: Took, *, clients: int, model_mb: float) -> str:
    """A line of the table."""
    middle_s = statistics.median(took.rounds_s)
    spread = f"{min(took.rounds_s):.2f} - {max(took.rounds_s):.2f}"
    rate = 2 * clients * model_mb / middle_s
    rounds = len(took.rounds_s)
    cells = [kind, f"{middle_s:.2f}", spread, f"{rate:.0f}"]
    for used in took.used.values():
        cells += [f"{used.cpu_s / rounds:.2f}", f"{used.peak_mb:.0f}"]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| broker | s per round | fastest - slowest | MB/s | orchestrator CPU-s per round | peak MB"
    " | broker CPU-s per round | peak MB | devices CPU-s per round | peak MB |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def machine() -> str:
    """What it ran on."""
    return (
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}; load"
        f" {os.getloadavg()[0]:.1f} before"
    )


def main() -> int:
    """Print the table; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--devices", type=int, default=8, help="of the job (default: %(default)s)")
    parser.add_argument("--mb", type=float, default=16.0, help="of the model (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="of each run (default: %(default)s)")
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=BROKERS)
    options = parser.parse_args()
    limit_mb = 2 * options.mb + 100
    print(f"Machine: {machine()}.\n")
    print(f"{options.devices} devices, a model of {options.mb:g} MB, {options.rounds} rounds.\n\n{HEAD}")
    kept = True
    for kind in options.brokers:
        with tempfile.TemporaryDirectory() as name:
            spec = job(options.devices, options.rounds)
            took = measure(
                spec, Path(name), kind=kind, devices=options.devices, model_bytes=int(options.mb * 1e6)
            )
        print(row(kind, took, clients=options.devices, model_mb=options.mb), flush=True)
        kept = kept and took.used["orchestrator"].peak_mb <= limit_mb
    print(f"\nLimit of the orchestrator's memory: two models and 100 MB, {limit_mb:.0f} MB.")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
