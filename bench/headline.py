"""Whether merging and splitting pays: every policy on the same data and seeds, at equal rounds and energy.

``PYTHONSAFEPATH=1 .venv/bin/python bench/headline.py --quick`` trains the quick half (two task sets, one
seed; under 15 minutes on two idle cores) and prints its tables; ``--nightly`` does all of it (three seeds
and the map of regimes: a night). What a folder holds is never trained again: a kill loses one round, and
several may work on other points or seeds of one folder. ``--page`` trains nothing and prints what there is
and what is missing, ``--fleet`` runs every policy on real processes for time, joules and bytes,
``--pictures`` draws. What is trained is in comparison/points.py, how in comparison/hands.py, how it is
judged in comparison/judge.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parent))  # where PYTHONSAFEPATH is set, a script's folder is not there

import torch
from comparison import page
from comparison.book import ComparisonRefused
from comparison.data import place
from comparison.points import BASE, HEADLINE, NINE, POINTS, PUBLISHED, chosen, quick
from comparison.table import table
from comparison.trained import train

from mas_edge.models.workloads.buildings.make import NoRayEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.points import Point

IN_FULL = {point.name for point in (*HEADLINE, BASE, NINE, PUBLISHED)}
"""Points that are shown policy by policy and task by task; the others are places of the map."""

FLEETS = (*HEADLINE, BASE, NINE)
"""Points whose policies are also run on real processes, for as many rounds as the point has."""


def make(folder: Path) -> None:
    """The folder is there afterwards; raises ComparisonRefused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ComparisonRefused(f"no trainings can be kept in {folder}: {error.strerror}") from error


def show(folder: Path, points: Sequence[Point], pictures: Path | None) -> None:
    from comparison import fleet  # noqa: PLC0415 - rich, and all of mas demo

    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread")
    every = [table(folder, point) for point in points]
    tables = [found for found in every if found.arms]
    sets = [found for found in tables if found.point.name in IN_FULL]
    around = [found for found in tables if found not in sets]
    runs = {each.name: fleet.found(folder, each, each.arms) for each in points if each in FLEETS}
    sections = {"Two groups, and what they should do": page.goals(tables, page.TWO)}
    sections["`auto`, and what it should do"] = page.goals(tables, page.AUTO)
    sections["When a split pays"] = page.carrying(tables)
    sections |= {f"Every policy: {found.point.name}": page.policies(found) for found in sets}
    sections["The map"] = page.regimes(tables)
    sections |= {f"Each task: {found.point.name}": page.tasks(found) for found in sets}
    for found in sets:
        if measured := runs.get(found.point.name):
            sections[f"Real fleets: {found.point.name}"] = page.fleets(found.point, measured)
    sections |= {f"Around: {found.point.name}": page.policies(found) for found in around}
    sections["Missing"] = page.missing(every)
    for title, text in sections.items():
        print(f"\n## {title}\n\n{text}")
    if pictures:
        from comparison import pictures as drawn  # noqa: PLC0415 - imports matplotlib

        drawn.draw(sets, tables, runs, pictures)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def points_of(options: argparse.Namespace) -> tuple[Point, ...]:
    """What the options name; raises ComparisonRefused."""
    halves = HEADLINE[:2]
    every = halves if options.quick else tuple(POINTS.values())
    named = chosen(options.points.split(",")) if options.points else every
    if more := [point.name for point in named if point not in every]:
        there = ", ".join(point.name for point in halves)
        raise ComparisonRefused(f"--quick has no {', '.join(more)}; it has {there}: leave it out")
    return tuple(quick(point) for point in named) if options.quick else named


def seeds_of(options: argparse.Namespace, points: Sequence[Point]) -> list[int]:
    """Those that the options name, or all of these points; raises ComparisonRefused."""
    every = sorted({seed for point in points for seed in point.seeds})
    named = options.seeds.split(",") if options.seeds else map(str, every)
    known = {str(seed): seed for seed in every}
    try:
        return [known[seed] for seed in named]
    except KeyError as error:
        raise ComparisonRefused(f"no seed {error} at these points; there are {', '.join(known)}") from error


def checked(options: argparse.Namespace) -> tuple[tuple[Point, ...], list[int]]:
    """Points and seeds; raises ComparisonRefused for what cannot be done."""
    if options.processes < 1:
        raise ComparisonRefused(f"--processes must be at least 1, not {options.processes}")
    points = points_of(options)
    return points, seeds_of(options, points)


def work(folder: Path, points: Sequence[Point], seeds: Sequence[int], processes: int) -> None:
    """Train what is missing, all points under one seed before the next; raises ComparisonRefused."""
    pairs = [(point, seed) for seed in seeds for point in points if seed in point.seeds]
    if processes == 1:
        for point, seed in pairs:
            train(folder, point, point.arms, seed, say=say)
        return
    for point in points:
        place(folder, point)  # two processes would each render it
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        begun = [pool.submit(train, folder, point, point.arms, seed, say=say) for point, seed in pairs]
        for each in begun:
            each.result()


def measure(folder: Path, points: Sequence[Point]) -> None:
    """Run what is missing on real processes."""
    from comparison import fleet  # noqa: PLC0415 - rich, and all of mas demo

    for point in points:
        if point in FLEETS:
            fleet.measure(folder, point, [arm for arm in point.arms if arm.factor == 1.0], say=say)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("runs/headline"),
        help="where trainings are kept (default: %(default)s)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--quick", action="store_true", help="two task sets, one seed")
    what.add_argument("--nightly", action="store_true", help="everything")
    what.add_argument("--page", action="store_true", help="train nothing")
    what.add_argument(
        "--fleet", action="store_true", help="run every policy at some points on real processes"
    )
    parser.add_argument("--points", help="only these of " + ", ".join(POINTS))
    parser.add_argument("--seeds", help="only these")
    parser.add_argument("--processes", type=int, default=2, help="how many train (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a folder to draw into")
    options = parser.parse_args()
    try:
        points, seeds = checked(options)
        make(options.folder)
        if options.fleet:
            measure(options.folder, points)
        elif not options.page:
            work(options.folder, points, seeds, options.processes)
        show(options.folder, points, options.pictures)
    except (ComparisonRefused, NoRayEngine) as refused:
        print(refused, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
