"""How fast updates are merged and how much memory that takes, by the number of devices.

``.venv/bin/python bench/aggregate.py`` prints a markdown table. Each row merges updates of an encoder
with one big tensor and of two decoders in a fresh process, with the files in the page cache: bytes of
updates read per second of wall time, and the process's peak resident memory less what it was before
the merge. Exit code 1 if a limit is broken. The result's correctness is a test
(tests/orchestrator/test_aggregate.py); disks are not measured.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import save_file

from mas_edge.orchestrator.aggregate import Contribution, merge

DEVICES = (4, 16, 64)
TENSOR_MB = 16
LEAST_GB_S = 0.5
MOST_MB = 3 * TENSOR_MB + 40


def update(seed: int) -> dict[str, np.ndarray]:
    """22 MB of float32: one tensor of TENSOR_MB, and small ones."""
    rng = np.random.default_rng(seed)
    big = TENSOR_MB * 1_000_000 // 4
    small = {f"encoder.block{i}.weight": rng.random(100_000, np.float32) for i in range(5)}
    heads = {f"decoder.{task}.weight": rng.random(500_000, np.float32) for task in ("gait", "jerk")}
    return {"encoder.stem.weight": rng.random(big, np.float32), **small, **heads}


def peak_bytes() -> int:
    """Peak resident memory of this process since it was last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(folder: Path, devices: int) -> None:
    """Merges what is in the folder and prints GB/s and the megabytes that it took."""
    weights = {"gait": 3.0, "jerk": 5.0}
    updates = [Contribution(f"d{i:03}", folder / f"{i}", i + 1.0, weights) for i in range(devices)]
    merge(updates[:1], folder / "merged", base=folder / "0")  # warms up imports and allocators
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak, proc(5)
    before = psutil.Process().memory_info().rss
    start_s = time.perf_counter()
    done = merge(updates, folder / "merged", base=folder / "0")
    wall_s = time.perf_counter() - start_s
    print(done.read_bytes / wall_s / 1e9, (peak_bytes() - before) / 1e6)


def main() -> int:
    print(f"Machine: {platform.platform()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    print("Command: `.venv/bin/python bench/aggregate.py`\n")
    print(f"| devices | updates GB | GB/s | limit | peak memory MB | limit (3 x {TENSOR_MB} MB + 40) |")
    print("|---:|---:|---:|---:|---:|---:|")
    held = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(max(DEVICES)):
            save_file(update(i), folder / f"{i}")
        for devices in DEVICES:
            child = [sys.executable, __file__, name, str(devices)]
            text = subprocess.run(child, check=True, capture_output=True, text=True).stdout
            gb_s, mb = map(float, text.split())
            size_gb = devices * (folder / "0").stat().st_size / 1e9
            print(f"| {devices} | {size_gb:.2f} | {gb_s:.2f} | ≥ {LEAST_GB_S} | {mb:.1f} | ≤ {MOST_MB} |")
            held = held and gb_s >= LEAST_GB_S and mb <= MOST_MB
    return 0 if held else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
