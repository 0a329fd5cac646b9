"""How fast buildings are rendered with all nine labels, beside casting the same rays and nothing else.

``.venv/bin/python bench/buildings.py`` prints a markdown table: CPU milliseconds of one thread per view, for
choosing where to look from, rendering at two samples across a pixel and labelling, and for the primary rays
alone. ``--set`` also makes the preset ``bench`` with two processes, in a folder that is deleted, and says how
long that took. Exit code 1 if a limit is broken. What the pictures are like is bench/buildings_data.py's.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported: it asks once

import numpy as np

from mas_edge.models.workloads.buildings.building import Building, draw_building
from mas_edge.models.workloads.buildings.camera import Camera, draw_camera
from mas_edge.models.workloads.buildings.labels import labels
from mas_edge.models.workloads.buildings.make import SIZES, SUPERSAMPLING, make
from mas_edge.models.workloads.buildings.render import render

BUILDINGS = (1, 2, 3, 4)
VIEWS = {16: 64, 32: 64, 64: 32, 128: 12}
"""Per building, by the pixels of a label."""

LIMIT_MS = {32: 9.3, 64: 34.0}
LIMIT_SET_S = 240.0


def choose(building: Building, views: int) -> list[tuple[Camera, np.random.Generator]]:
    """Cameras of a building, each with its generator."""
    return [(draw_camera(rng, building), rng) for rng in map(np.random.default_rng, range(views))]


def raw_ms(building: Building, cameras: list[Camera], size: int) -> float:
    """CPU milliseconds per view for the ray engine's own answer to all primary rays."""
    origins = [np.repeat(camera.position_3[:, None], size * size, 1) for camera in cameras]
    rays = [camera.rays(size) for camera in cameras]
    start_s = time.process_time()
    for origin, ray in zip(origins, rays, strict=True):
        building.surfaces.engine.run(origin.T, ray.T, query="INTERSECT", output=1)
    return (time.process_time() - start_s) / len(cameras) * 1e3


def measure(building: Building, pixels: int, views: int) -> list[float]:
    """CPU milliseconds per view: where to look from, rendering, labels, raw rays."""
    size = pixels * SUPERSAMPLING
    marks = [time.process_time()]
    cameras = choose(building, views)
    marks.append(time.process_time())
    frames = list(render(building, cameras, size))
    marks.append(time.process_time())
    for frame in frames:
        labels(frame, pixels)
    marks.append(time.process_time())
    raw = raw_ms(building, [camera for camera, _ in cameras], size)
    return [*(np.diff(marks) / views * 1e3), raw]


def table(buildings: list[Building]) -> bool:
    """Print the table; returns whether the limits hold."""
    print(
        "| pixels | views | camera ms | render ms | labels ms | sum ms | views/s | raw rays ms | limit ms |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    held = True
    for pixels, views in VIEWS.items():
        measure(buildings[0], pixels, 2)  # what is loaded or planned on first use
        means = np.mean([measure(building, pixels, views) for building in buildings], 0)
        total, limit = means[:3].sum(), LIMIT_MS.get(pixels, np.inf)
        parts = " | ".join(f"{part:.2f}" for part in (*means[:3], total))
        shown = f"{limit:.1f}" if np.isfinite(limit) else ""
        count = views * len(buildings)
        print(f"| {pixels} | {count} | {parts} | {1e3 / total:.0f} | {means[3]:.2f} | {shown} |")
        held &= bool(total <= limit)
    return held


def make_set() -> bool:
    """Make the preset ``bench``; returns whether that was fast enough."""
    size = SIZES["bench"]
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        folder = make("bench", 1, Path(cache), processes=2, progress=lambda *_: None)
        took_s = time.perf_counter() - start_s
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(
        f"\nThe preset bench, {len(size.clients)} buildings of {size.views} views at {size.pixels} px, ",
        end="",
    )
    print(f"by two processes: {took_s:.0f} s, {megabytes:.0f} MB (limit {LIMIT_SET_S:.0f} s).")
    return took_s <= LIMIT_SET_S


def main() -> int:
    """Print the page of this machine."""
    parser = argparse.ArgumentParser(description="Speed of the renderer.")
    parser.add_argument("--set", action="store_true", help="also make the preset bench")
    options = parser.parse_args()
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    print("Command: `.venv/bin/python bench/buildings.py`\n")
    draw_building(np.random.default_rng(0))  # reads the furniture
    start_s = time.process_time()
    buildings = [draw_building(np.random.default_rng(seed)) for seed in BUILDINGS]
    each_s = (time.process_time() - start_s) / len(buildings)
    triangles = np.mean([len(building.surfaces) for building in buildings])
    print(f"A building: {each_s:.2f} s of CPU, {triangles:.0f} triangles. Per view, one thread:\n")
    held = table(buildings)
    return 0 if held & (not options.set or make_set()) else 1


if __name__ == "__main__":
    sys.exit(main())
