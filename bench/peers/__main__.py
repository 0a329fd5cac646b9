"""Measure the same job on Flower and on mas-edge, side by side, and what becomes of it under faults.

``PYTHONPATH=. .venv/bin/python bench/peers`` in the repository's root runs every arm ``--repeats`` times, one
after the other and interleaved, then the probes, and writes docs/results/peers.md. What was measured is kept
in results.json of ``--folder`` after each step; the same command goes on where it was. Flower's environment
is made once, in ``--flower``, from the package registry. Exit code 1 if the gate or a probe of ours failed.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import msgspec

from bench.overhead import PR_SET_CHILD_SUBREAPER, Sampler
from bench.peers.flower_site import Flower, environment
from bench.peers.ours import Ours
from bench.peers.page import Arm, Probed, Results, page
from bench.peers.probes import PROBES, TOLERANCE, difference, probe
from bench.peers.sites import TASKS, Links, Site, Work

SYSTEMS = ("ours", "Flower")
WORKS = {"all-in-one": Work(), "one-by-one": Work(groups=tuple((task,) for task in TASKS))}
ARM_LIMIT_S = 600.0


class Bench:
    """The folder of the benchmark, and what is in it."""

    def __init__(self, folder: Path, flower: Path) -> None:
        self._folder, self._results = folder, folder / "results.json"
        self._bin = environment(flower)
        self.results = Results()
        if self._results.exists():
            self.results = msgspec.json.decode(self._results.read_bytes(), type=Results)

    def site(self, system: str, work: Work, links: Links) -> Site:
        """A fresh site of a system in a folder of its own."""
        folder = self._folder / "site"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if system == "ours":
            return Ours(folder, work, links)
        return Flower(folder, work, links, self._bin)

    def keep(self) -> None:
        """Put the results on disk and the page in its place."""
        self.results.machine = machine()
        self._results.write_bytes(msgspec.json.format(msgspec.json.encode(self.results)))
        Path("docs/results/peers.md").write_text(page(self.results), encoding="utf-8")

    def arm(self, system: str, name: str) -> None:
        """Run the work once and note what it took."""
        load = os.getloadavg()[0]
        site = self.site(system, WORKS[name], Links())
        with Sampler() as seen:
            began_s = time.monotonic()
            site.begin()
            while not site.over():
                if time.monotonic() - began_s > ARM_LIMIT_S:
                    raise SystemExit(f"{system}, {name}: not over after {ARM_LIMIT_S:.0f} s")
                time.sleep(0.05)
            wall_s = time.monotonic() - began_s
            site.close()
        figures = {"wall_s": wall_s, "cpu_s": seen.cpu_s, "rss_gb": seen.rss_gb, "pss_gb": seen.pss_gb}
        arm = Arm(system=system, work=name, **figures, mb=site.links.mb, load=load, losses=site.losses())
        print(f"{system}, {name}: {wall_s:.1f} s, {seen.cpu_s:.1f} CPU-s, {arm.mb:.2f} MB", flush=True)
        self.results.arms.append(arm)
        self.keep()

    def fault(self, system: str, name: str) -> None:
        """Run one probe on one system."""
        undisturbed = next((a.losses for a in self.results.arms if a.work == "all-in-one"), None)
        outcome = probe(name, lambda work, links: self.site(system, work, links), undisturbed)  # type: ignore[arg-type]
        print(f"{system}, {name}: {'pass' if outcome.passed else 'fail'}, {outcome.words}", flush=True)
        self.results.probes.append(Probed(system=system, name=name, outcome=outcome))
        self.keep()


def machine() -> str:
    """What it runs on."""
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def gate(results: Results) -> bool:
    """Whether all-in-one came to the same losses on both, and we stood every probe that was run."""
    losses = {arm.system: arm.losses for arm in results.arms if arm.work == "all-in-one"}
    same = len(losses) < 2 or difference(losses["ours"], losses["Flower"]) <= TOLERANCE
    return same and all(found.outcome.passed for found in results.probes if found.system == "ours")


def main() -> int:
    """Measure what is missing; 1 if the gate or a probe of ours failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each arm (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("build/peers"), help="default: %(default)s")
    parser.add_argument("--flower", type=Path, default=Path("build/flower"), help="default: %(default)s")
    parser.add_argument("--probes", nargs="*", choices=PROBES, default=PROBES, help="default: all")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="default: both")
    options = parser.parse_args()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("prctl(PR_SET_CHILD_SUBREAPER) failed: orphans would not be counted")
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.folder.resolve(), options.flower.resolve())
    for repeat in range(1, options.repeats + 1):
        for name in WORKS:
            for system in options.systems:
                had = sum(arm.system == system and arm.work == name for arm in bench.results.arms)
                if had < repeat:
                    bench.arm(system, name)
    for name in options.probes:
        for system in options.systems:
            if not any((found.system, found.name) == (system, name) for found in bench.results.probes):
                bench.fault(system, name)
    bench.keep()
    return int(not gate(bench.results))


if __name__ == "__main__":
    sys.exit(main())
