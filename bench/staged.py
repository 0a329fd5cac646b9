"""A site for the benchmarks of the orchestrator: a job, the processes, what they used.

``measure`` makes a state directory with a job whose first weights are there, as if torch had made them, and
runs broker, `mas serve` and simulated devices (``simulated.py``) until the job is over. What was used is read
from /proc (proc_pid_stat(5), proc_pid_status(5)); how long rounds took, from the store.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import psutil
from safetensors.numpy import save
from simulated import FLEET, TASK

from mas_edge.orchestrator.job import Initialised
from mas_edge.orchestrator.rounds import Merged
from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire import broker
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.host import free_port

SIMULATED = Path(__file__).with_name("simulated.py")
TENSORS = 16


@dataclass
class Used:
    """What a process took: processor time from the first merge to the last, and the most of memory."""

    cpu_s: float = 0.0
    peak_mb: float = 0.0
    before_s: float = 0.0


@dataclass
class Took:
    """A run: seconds of its rounds but the first, and what the processes used in them."""

    rounds_s: list[float] = field(default_factory=list)
    used: dict[str, Used] = field(default_factory=dict)


def prepare(state: Path, spec: JobSpec, model_bytes: int) -> None:
    """A state directory with this job and first weights of about that size, as if torch had made them."""
    state.mkdir(parents=True)
    rng = np.random.default_rng(0)
    count = model_bytes // 4 // TENSORS
    arrays = {f"encoder.{i:02}.w": rng.standard_normal(count, np.float32) for i in range(TENSORS)}
    data = save({**arrays, f"decoder.{TASK}.w": np.zeros(2, np.float32)})
    with contextlib.closing(open_store(state)) as store:
        store.add_job(spec.name, msgspec.json.encode(spec))
        weights = BlobStore(state / "blobs").add(data)
        store.append(spec.name, 0.0, Initialised(weights=weights, fingerprint="f", parameters={}))


@contextlib.contextmanager
def running(*command: str, log: Path) -> Iterator[psutil.Process]:
    """A process of ours, ended with the block."""
    with log.open("wb") as out:
        process = psutil.Popen(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A broker of this kind and its port."""
    if kind == "amqtt":
        started, address = broker.start()
        try:
            yield psutil.Process(started.pid), address.port
        finally:
            started.terminate()
            started.wait(10)
    else:
        port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n", "utf-8")
        with running("mosquitto", "-c", str(config), log=folder / "mosquitto.log") as process:
            time.sleep(0.5)
            yield process, port


def measure(
    spec: JobSpec, folder: Path, *, kind: str, devices: int, model_bytes: int, profile: Path | None = None
) -> Took:
    """Run the job with a broker, `mas serve` and so many simulated devices; the latter share a process.

    ``profile`` is where to keep a profile of the orchestrator.
    """
    state = folder / "state"
    prepare(state, spec, model_bytes)
    took = Took()
    with serving(kind, folder) as (broker_, port):
        config = folder / "orchestrator.toml"
        url = f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
        config.write_text(
            f'fleet = "{FLEET}"\nstate = "{state}"\n{url}[energy]\nmeter = "estimate"\n', "utf-8"
        )
        profiled = ("-m", "cProfile", "-o", str(profile.resolve())) if profile else ()
        mas = (sys.executable, *profiled, str(Path(sys.executable).with_name("mas")))
        simulate = [sys.executable, str(SIMULATED), "--port", str(port), "--devices", str(devices)]
        with (
            running(
                *mas, "serve", "--config", str(config), "--until-done", log=folder / "serve.log"
            ) as serve,
            running(*simulate, "--folder", str(folder / "devices"), log=folder / "devices.log") as players,
        ):
            looked = {"orchestrator": serve, f"broker ({kind})": broker_, "devices": players}
            took.used = {name: Used() for name in looked}
            _look_on(looked, took, Merges(state, spec))
    took.rounds_s = rounds_s(state, spec.name)
    return took


class Merges:
    """How many rounds were merged, as often as one asks."""

    def __init__(self, state: Path, spec: JobSpec) -> None:
        self._state, self._job, self._rounds = state, spec.name, spec.training.rounds
        self._seq = self._count = 0

    def under_way(self) -> bool | None:
        """None before the first merge, then True, and False from the last one on."""
        with contextlib.closing(read_store(self._state)) as store:
            for seq, _, event in store.events(self._job, self._seq):
                self._seq = seq
                self._count += isinstance(event, Merged)
        return None if self._count == 0 else self._count < self._rounds


def _look_on(looked: dict[str, psutil.Process], took: Took, merges: Merges) -> None:
    """Note what the processes use until the orchestrator's job is over."""
    serve, counted = looked["orchestrator"], None
    while serve.is_running() and serve.status() != psutil.STATUS_ZOMBIE:
        for name, process in looked.items():
            used = took.used[name]
            with contextlib.suppress(psutil.Error, OSError):
                cpu_s = sum(process.cpu_times()[:2])
                used.peak_mb = max(used.peak_mb, high_water_mb(process.pid))
                if counted is None:
                    used.before_s = cpu_s
                elif counted:
                    used.cpu_s = cpu_s - used.before_s
        if not looked["devices"].is_running() or looked["devices"].status() == psutil.STATUS_ZOMBIE:
            raise SystemExit("the simulated devices ended before the job: see devices.log")
        counted = merges.under_way()
        time.sleep(0.1)


def high_water_mb(pid: int) -> float:
    """The most that a process ever had resident (VmHWM), in MB of 10^6 bytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    lines = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return max((int(line.split()[1]) * 1024 / 1e6 for line in lines), default=0.0)  # a zombie has none


def rounds_s(state: Path, job: str) -> list[float]:
    """Seconds from one merge to the next, from the store, in job time."""
    with contextlib.closing(read_store(state)) as store:
        merged = [at_s for _, at_s, event in store.events(job) if isinstance(event, Merged)]
    return [after - before for before, after in itertools.pairwise(merged)]
