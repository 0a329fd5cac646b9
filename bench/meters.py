"""What a window over RAPL counters costs, and what it says, beside pyJoules and Zeus on the same fake tree.

``.venv/bin/python bench/meters.py``, as root, prints markdown tables. Each reader is a process of its own in
a mount namespace (unshare(1)) in which a fake powercap tree is the host's /sys/class/powercap, so that the
libraries are unmodified; this process sets the counters. Zeus comes from PyPI into a virtual environment
that is thrown away (``--no-zeus`` leaves it out, ``--zeus PYTHON`` takes one that has it).

* Latency: begin + end of a window on a server with two sockets, the readers in turn, RUNS times WINDOWS.
* Truth: windows whose joules are known: plain, around a wrap, and on a tree that lists psys first.
* Sampling: processor time of our threads while nobody reads: the counters', and the one that reads a fake
  tegrastats ten times a second (what NVIDIA's command itself takes is the board's, and not in it).

The tree is in memory: on hardware each counter adds a call to its package's first core, for every reader
alike. Exit code 1 if a limit is broken or one of our joules is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mas_edge.profiling.meters import open_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READERS = Path(__file__).with_name("meters_readers.py")
RUNS, WINDOWS = 9, 1000
LIMIT_US, SAMPLING_LIMIT = 100.0, 0.005
SAMPLING_S, SAMPLING_RUNS = 20.0, 3
ZEUS = "zeus==0.16.0"
LOOKED_S = 3.0
"""After so long, those that look for wraps now and then (Zeus: each second) have looked."""
PACKAGE_UJ, DRAM_UJ = 262_143_328_850, 65_712_999_613  # a server's ranges
START_UJ, NEAR_UJ = 1_000_000_000, PACKAGE_UJ - 2_000_000
SERVER = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "core",
    "intel-rapl:1:1": "dram",
}
PSYS_FIRST = {"intel-rapl:0": "psys", "intel-rapl:1": "package-0", "intel-rapl:1:0": "dram"}
TEGRASTATS = """#!/bin/bash
while :; do
  echo "RAM 2447/7620MB (lfb 4x4MB) CPU [2%@1510,1%@1510] VDD_IN 4768mW/4768mW VDD_SOC 1073mW/1073mW"
  sleep 0.1
done
"""


class Tree:
    """A powercap tree whose counters are set by hand."""

    def __init__(self, root: Path, names: Mapping[str, str]) -> None:
        self.root = root
        for entry, name in names.items():
            controller, *numbers = entry.split(":")
            nested = [":".join([controller, *numbers[: k + 1]]) for k in range(len(numbers))]
            folder = root / "/".join([controller, *nested])
            folder.mkdir(parents=True)
            (root / entry).symlink_to(folder.relative_to(root))
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text(f"{DRAM_UJ if name == 'dram' else PACKAGE_UJ}\n")
        self.put(dict.fromkeys(names, START_UJ))

    def put(self, values: Mapping[str, int]) -> None:
        """Sets these counters."""
        for entry, value_uj in values.items():
            (self.root / entry / "energy_uj").write_text(f"{value_uj}\n")


class Child:
    """A reader in a process that sees a tree as the host's own."""

    def __init__(self, name: str, python: str, tree: Tree) -> None:
        mounts = "p=/sys/class/powercap; mount -t tmpfs none /sys/class && mkdir $p && mount --bind $0 $p"
        inside = ["bash", "-c", f'{mounts} && exec "$@"', str(tree.root)]
        command = ["unshare", "-m", *inside, python, str(READERS), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def ask(self, request: str) -> Any:
        """What it answers; raises SystemExit if it has ended."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends it."""
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a reader has ended: see above why (this takes root, unshare and mount)")
        return json.loads(line)


@dataclass(frozen=True)
class Window:
    """Counters before and after, the joules in between, and what happens at the edges."""

    name: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    true_j: float
    inside_s: float = 0.0
    begin_early: bool = True


def windows() -> tuple[Window, ...]:
    wrapped = {"intel-rapl:0": 6_000_000}
    near = {"intel-rapl:0": NEAR_UJ}
    some = dict.fromkeys(("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"), START_UJ + 5_000_000)
    return (
        Window("plain", dict.fromkeys(some, START_UJ), some, 15.0),
        Window("a wrap, 3 s before the end", near, wrapped, 8.0, inside_s=LOOKED_S),
        Window("a wrap, just before the end", near, wrapped, 8.0),
        Window("a wrap, just before the beginning", near, wrapped, 0.0, LOOKED_S, begin_early=False),
    )


def said_j(window: Window, tree: Tree, child: Child) -> float:
    """The joules that a reader sees in a window."""
    tree.put(window.before)
    child.ask("begin")  # some learn of a counter only by reading it
    child.ask("end")
    time.sleep(LOOKED_S)
    if window.begin_early:
        child.ask("begin")
    tree.put(window.after)
    if not window.begin_early:
        child.ask("begin")
    time.sleep(window.inside_s)
    return child.ask("end")


def latency(children: Mapping[str, Child]) -> Iterator[tuple[str, bool]]:
    """A row per reader, and whether its limit is kept."""
    found: dict[str, list[list[float]]] = {name: [] for name in children}
    for _ in range(RUNS):
        for name, child in children.items():
            found[name].append(sorted(child.ask(f"latency {WINDOWS}")))
    medians = {name: sorted(map(statistics.median, runs)) for name, runs in found.items()}
    ours_us = statistics.median(medians["ours"])
    for name, runs in found.items():
        middle_us = statistics.median(medians[name])
        late_us = statistics.median(run[len(run) * 99 // 100] for run in runs)
        parent = psutil.Process(children[name].process.pid)
        processes = [parent, *parent.children(recursive=True)]
        resident_mb = sum(one.memory_info().rss for one in processes) / 1e6
        us = f"{middle_us:.0f} | {medians[name][0]:.0f} to {medians[name][-1]:.0f} | {late_us:.0f}"
        row = f"| {name} | {us} | {middle_us / ours_us:.1f} | {len(processes)} | {resident_mb:.0f} |"
        yield row, name != "ours" or middle_us <= LIMIT_US


def truths(
    pythons: Mapping[str, str], children: Mapping[str, Child], server: Tree
) -> Iterator[tuple[str, bool]]:
    """A row per window with what each reader says, and whether ours is true."""
    for window in windows():
        yield truth(window, {name: said_j(window, server, child) for name, child in children.items()})
    after = {"intel-rapl:0": 90_000_000, "intel-rapl:1": 20_000_000, "intel-rapl:1:0": 2_000_000}
    before = dict.fromkeys(PSYS_FIRST, START_UJ)
    window = Window("psys first", before, {e: START_UJ + step for e, step in after.items()}, 22.0)
    found = {}
    for name, python in pythons.items():
        tree = Tree(server.root.with_name(f"psys-{name}"), PSYS_FIRST)
        child = Child(name, python, tree)
        found[name] = said_j(window, tree, child)
        child.close()
    yield truth(window, found)


def truth(window: Window, found: Mapping[str, float]) -> tuple[str, bool]:
    said = " | ".join(f"{value_j:.1f}" for value_j in found.values())
    return f"| {window.name} | {window.true_j:.1f} | {said} |", abs(found["ours"] - window.true_j) < 0.001


def sampling(folder: Path) -> Iterator[tuple[str, bool]]:
    """A row per driver, and whether its limit is kept."""
    Tree(folder / "sys/class/powercap", SERVER)
    command = folder / "tegrastats"
    command.write_text(TEGRASTATS)
    command.chmod(0o755)
    yield "\n| our threads while nobody reads | of a core | limit |\n|---|---:|---:|", True
    for name, spec in (("rapl", "rapl"), ("tegrastats at 10 Hz", f"tegrastats:{command}")):
        meter = open_one(spec, root=folder)
        try:
            meter.read()
            share = statistics.median(busy() for _ in range(SAMPLING_RUNS))
        finally:
            meter.close()
        yield f"| {name} | {share:.3%} | {SAMPLING_LIMIT:.1%} |", share <= SAMPLING_LIMIT


def busy() -> float:
    """How much of a core this process uses while it sleeps."""
    cpu_s, start_s = time.process_time(), time.monotonic()
    time.sleep(SAMPLING_S)
    return (time.process_time() - cpu_s) / (time.monotonic() - start_s)


def zeus_python(folder: Path) -> str:
    """A Python that has Zeus, in a virtual environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "--quiet", "--quiet", ZEUS], check=True)
    return str(folder / "bin/python")


def compare(pythons: Mapping[str, str], folder: Path) -> Iterator[tuple[str, bool]]:
    """All rows about the readers, headings included, and whether each limit was kept."""
    with ExitStack() as ending:
        server = Tree(folder / "server", SERVER)
        children = {name: Child(name, python, server) for name, python in pythons.items()}
        for child in children.values():
            ending.callback(child.close)
        yield (
            "| reader | begin + end, median (us) | of the runs | 99 % (us) | ours = 1 | processes | MB |",
            True,
        )
        yield "|---|---:|---|---:|---:|---:|---:|", True
        yield from latency(children)
        yield f"\n| window | true J | {' J | '.join(pythons)} J |", True
        yield f"|---|---:|{'---:|' * len(pythons)}", True
        yield from truths(pythons, children, server)


def main() -> int:
    """Print the tables; 1 if a limit is broken, or our joules are not the true ones."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--zeus", metavar="PYTHON", help="a Python that has Zeus installed")
    options.add_argument("--no-zeus", action="store_true", help="leave Zeus out")
    asked = options.parse_args()
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise SystemExit("it takes root and unshare: each reader gets a /sys of its own")
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        pythons = {"ours": sys.executable, "pyJoules": sys.executable}
        try:
            if not asked.no_zeus:
                pythons["Zeus"] = asked.zeus or zeus_python(Path(folder) / "zeus")
            rows = chain(compare(pythons, Path(folder)), sampling(Path(folder) / "sampling"))
            for row, fine in rows:
                print(row, flush=True)
                kept.append(fine)
        finally:
            subprocess.run(["umount", folder], check=True)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
