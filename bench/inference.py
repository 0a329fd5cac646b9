"""What an inference costs: onnxruntime with exported files beside torch eager, on two cores.

``PYTHONSAFEPATH=1 .venv/bin/python bench/inference.py`` exports every network of the shipped workloads with
all their tasks as fp32, fp16 and int8 (fresh weights: they change no time), then runs each file, and the
network in torch, in a process of its own, one after the other, for several rounds, and prints a markdown
table per number of threads. Inputs are real held-out ones. Nothing is trained, and nothing said of losses:
``models/GROUP.parity.json`` of `mas export` has those.

Latency is that of one input at a time, warm, p50 and p95 of a process, then the median over the rounds;
ratios are torch's figure over the file's within a round, median and range over the rounds. On a machine with
other work that of CPU time is the one to look at, of one thread. Joules are an estimate: CPU time times the
power of a busy core above idle, by the constants of the driver ``estimate`` for this machine. Throughput is
in batches of 32; memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mas_edge.models.onnx_file import open_model
from mas_edge.models.tasks import Source, find
from mas_edge.profiling.drivers.estimate import constants_for

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS = (
    ("watch", "micro"),
    ("watch", "small"),
    ("buildings", "micro"),
    ("buildings", "small"),
    ("buildings", "xception"),
)
VARIANTS = ("torch", "fp32", "fp16", "int8")
BATCH, WARM, INFERENCES_S, INPUTS = 32, 20, 1.5, 64

COLUMNS = (
    *("workload", "network", "with", "file MB", "p50 ms", "p95 ms", "torch's over it"),
    *("CPU ms", "torch's over it", "est. mJ", "inputs/s", "peak MB"),
)

Row = dict[str, float]


def main() -> None:
    options = arguments()
    if options.child:
        print(json.dumps(measure(*options.child, threads=options.threads[0], seconds=options.seconds)))
        return
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: exported(*name, Path(folder)) for name in NETWORKS}
        for threads in options.threads:
            print(f"## {threads} {'thread' if threads == 1 else 'threads'}\n")
            print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
            for name, variants in files.items():
                table(name, variants, threads, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="onnxruntime beside torch eager")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--seconds", type=float, default=INFERENCES_S, help="of single inferences, a process")
    parser.add_argument("--child", nargs=4, metavar=("WORKLOAD", "NETWORK", "VARIANT", "FILE"))
    return parser.parse_args()


def exported(workload: str, network: str, folder: Path) -> dict[str, Path]:
    """The network's files by precision; ``torch`` has its weights."""
    tasks = [task.name for task in find(workload).tasks]
    made = {"torch": folder / f"{workload}-{network}.safetensors"}
    common = {"workload": workload, "network": network, "tasks": tasks}
    child({**common, "kind": "init", "seed": 1, "out": str(made["torch"])})
    for precision in VARIANTS[1:]:
        made[precision] = folder / f"{workload}-{network}.{precision}.onnx"
        request = {"kind": "export", "weights": str(made["torch"]), "precision": precision}
        child({**common, **request, "out": str(made[precision])})
    return made


def child(request: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "mas_edge.models.job"]
    subprocess.run(command, input=json.dumps(request).encode(), stdout=subprocess.DEVNULL, check=True)


def table(name: tuple[str, str], files: dict[str, Path], threads: int, options: argparse.Namespace) -> None:
    rounds = [
        {
            variant: in_a_process(*name, variant, path, threads, options.seconds)
            for variant, path in files.items()
        }
        for _ in range(options.rounds)
    ]
    for variant, path in files.items():
        row = {key: statistics.median(one[variant][key] for one in rounds) for key in rounds[0][variant]}
        cells = [
            *(*name, variant, f"{path.stat().st_size / 1e6:.2f}"),
            *(f"{row['p50_s'] * 1e3:.2f}", f"{row['p95_s'] * 1e3:.2f}", ratio(rounds, variant, "p50_s")),
            *(f"{row['cpu_s'] * 1e3:.2f}", ratio(rounds, variant, "cpu_s"), f"{row['energy_j'] * 1e3:.1f}"),
            *(f"{row['inputs_per_s']:.0f}", f"{row['peak_rss_bytes'] / 1e6:.0f}"),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def ratio(rounds: list[dict[str, Row]], variant: str, key: str) -> str:
    """Torch's figure over the variant's within a round: median and range over the rounds."""
    if variant == "torch":
        return ""
    found = [one["torch"][key] / one[variant][key] for one in rounds]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def in_a_process(workload: str, network: str, variant: str, path: Path, threads: int, seconds: float) -> Row:
    command = [sys.executable, __file__, "--threads", str(threads), "--seconds", str(seconds), "--child"]
    done = subprocess.run(
        [*command, workload, network, variant, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        check=True,
    )
    found: Row = json.loads(done.stdout)
    return found


def measure(workload: str, network: str, variant: str, path: str, *, threads: int, seconds: float) -> Row:
    """In a process of its own: latency, throughput, CPU time and estimated joules of an inference."""
    chosen = find(workload)
    data = chosen.dataset(Source(chosen.unseen), "all", 0.0)
    inputs = data.batch(np.arange(min(len(data), INPUTS))).inputs
    run = in_torch(workload, network, path, threads) if variant == "torch" else in_onnxruntime(path, threads)
    for at in range(WARM):
        run(inputs[at : at + 1])
    times, cpu_s, end_s = [], time.process_time(), time.perf_counter() + seconds
    while (started_s := time.perf_counter()) < end_s:
        at = len(times) % len(inputs)
        run(inputs[at : at + 1])
        times.append(time.perf_counter() - started_s)
    cpu_s = (time.process_time() - cpu_s) / len(times)
    p50, p95 = np.percentile(times, (50, 95)).tolist()
    _, constants = constants_for(None, cores := os.cpu_count() or 1)
    return {
        "p50_s": p50,
        "p95_s": p95,
        "inputs_per_s": throughput(run, np.concatenate([inputs] * 2)[:BATCH], seconds / 2),
        "cpu_s": cpu_s,
        "energy_j": cpu_s * (constants.max_w - constants.idle_w) / cores,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def peak_rss_bytes() -> int:
    """Of this process since it was started; getrusage(2) would count its parent's, from before exec(2)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def throughput(run: Callable[[np.ndarray], Any], batch: np.ndarray, seconds: float) -> float:
    run(batch)
    count, started_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < seconds or not count:
        run(batch)
        count += len(batch)
    return count / passed_s


def in_onnxruntime(path: str, threads: int) -> Callable[[np.ndarray], Any]:
    return open_model(Path(path), threads=threads).run


def in_torch(workload: str, network: str, path: str, threads: int) -> Callable[[np.ndarray], Any]:
    import torch  # noqa: PLC0415 - the other processes do without

    from mas_edge.models import net, weights  # noqa: PLC0415

    torch.set_num_threads(threads)
    chosen = find(workload)
    built = net.build(chosen, network, [task.name for task in chosen.tasks], seed=0).eval()
    net.load(built, weights.load(Path(path)))

    def run(inputs: np.ndarray) -> Any:
        with torch.inference_mode():
            return {name: output.numpy() for name, output in built(torch.from_numpy(inputs)).items()}

    return run


def machine() -> str:
    """Where this ran, and with what."""
    board, constants = constants_for(None, os.cpu_count() or 1)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime"))
    return (
        f"Machine: {os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}, {libraries},"
        f" load {os.getloadavg()[0]:.1f} at the start; joules: {board}, {constants.idle_w:g} W idle,"
        f" {constants.max_w:g} W at work ({constants.source})"
    )


if __name__ == "__main__":
    main()
