"""A large fleet: a thousand registered devices, of which a hundred take part in each round, a model of 1 MB.

``.venv/bin/python bench/fleet.py`` runs some rounds with a broker, `mas serve` and all the devices
(``bench/simulated.py``: a connection each, in one process) on this machine, and prints a markdown table as
``bench/rounds.py`` does. ``--profile FILE`` runs the orchestrator under cProfile, which makes it slower, and
keeps what that found, for pstats.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rounds import BROKERS, HEAD, job, machine, row
from staged import measure


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--devices", type=int, default=1000, help="that are there (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=100, help="of each round (default: %(default)s)")
    parser.add_argument("--mb", type=float, default=1.0, help="of the model (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="of each run (default: %(default)s)")
    parser.add_argument("--brokers", nargs="+", choices=BROKERS, default=("mosquitto", "amqtt"))
    parser.add_argument("--profile", type=Path, help="where to keep a profile of the orchestrator")
    options = parser.parse_args()
    print(f"Machine: {machine()}.\n")
    print(f"{options.devices} devices, {options.clients} in a round, a model of {options.mb:g} MB,")
    print(f"{options.rounds} rounds.\n\n{HEAD}")
    for kind in options.brokers:
        with tempfile.TemporaryDirectory() as name:
            took = measure(
                job(options.devices, options.rounds, options.clients),
                Path(name),
                kind=kind,
                devices=options.devices,
                model_bytes=int(options.mb * 1e6),
                profile=options.profile,
            )
        print(row(kind, took, clients=options.clients, model_mb=options.mb), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
