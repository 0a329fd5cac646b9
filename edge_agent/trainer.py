"""One assignment in the worker, attempt after attempt, until it comes to an answer.

The daemon's side of a training: it hands the work over with the memory that it may take, bills what the
worker says, and decides what follows when that breaks. A worker killed for memory tries again in smaller
parts (``edge_agent.fit``). One that hangs is killed and tries once more: it gives no sign of life, and
either uses no processor time for minutes (stopped, deadlocked) or is silent far longer than it has ever been
(an endless loop). A disk without room is not the training's fault: the device declines until there is some.
One assignment at a time; nothing is sent from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mas_edge.edge_agent import answers, fit
from mas_edge.edge_agent.caps import threads
from mas_edge.edge_agent.conditions import DISK
from mas_edge.edge_agent.work import KILL_AFTER_S, Beat, Broke, Done, Fitted, Word, Work, WorkerProcess
from mas_edge.profiling.cpu import process_cpu_ns, rss_bytes
from mas_edge.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mas_edge.edge_agent.account import Account
    from mas_edge.edge_agent.caps import Fence
    from mas_edge.edge_agent.config import TrainConfig
    from mas_edge.edge_agent.session import Answer
    from mas_edge.models.tasks import Source
    from mas_edge.wire.blobs import BlobStore

log = logging.getLogger(__name__)

ROOM_BYTES = 1 << 20
"""What the disk must hold besides the new weights before a training begins: answer, ledger, log."""


@dataclass(frozen=True)
class Patience:
    """How long a worker may give no sign of life: without using processor time, and while it does."""

    still_s: float = 120.0
    silent_s: float = 1800.0
    times: float = 20.0
    """Nor is it given up before this many times the longest silence that it broke itself."""
    look_s: float = 1.0

    def lost(self, silent_s: float, still_s: float, longest_s: float) -> bool:
        """Whether a worker hangs that was silent for so long, and without processor time for so long."""
        still = min(silent_s, still_s) > self.still_s
        return still or silent_s > max(self.silent_s, self.times * longest_s)


class Trainer:
    """The worker of an agent, and what it is at."""

    def __init__(
        self,
        state: Path,
        blobs: BlobStore,
        account: Account,
        sources: Mapping[str, Source],
        train: TrainConfig,
        fence: Fence,
        caps: m.Caps,
        patience: Patience = Patience(),
    ) -> None:
        self._state, self._blobs, self._account, self._sources = state, blobs, account, sources
        self._config, self._fence, self.caps, self._patience = train, fence, caps, patience
        self._worker = WorkerProcess(state / "worker.log")
        self._fitted: tuple[m.Fit, m.Shortage] | None = None
        self._killed: m.Fit | None = None
        self._pulse = _Pulse()

    @property
    def pids(self) -> tuple[int, ...]:
        """Our own processes: the daemon and, while there is one, the worker."""
        return (os.getpid(),) if self._worker.pid is None else (os.getpid(), self._worker.pid)

    @property
    def stuck(self) -> bool:
        """Whether the worker cannot even be killed: what waits in the kernel for a disk that is gone."""
        killed_s = self._pulse.killed_s
        return self._worker.working and killed_s is not None and time.monotonic() - killed_s > KILL_AFTER_S

    def begin(self, assign: m.Assign) -> Answer | None:
        """Train, its weights being on disk; an answer at once if there is no room for what it brings."""
        self._pulse = _Pulse()
        needed_bytes = assign.weights.size_bytes + ROOM_BYTES
        free_bytes = shutil.disk_usage(self._state).free
        if free_bytes < needed_bytes:
            room = f"{free_bytes / 1e6:.1f} MB free in {self._state}, needed are {needed_bytes / 1e6:.1f} MB"
            return answers.not_now(assign.key, f"{DISK}: {room}")
        self._start(assign)
        return None

    def halt(self) -> None:
        """Stop at the next micro-batch; the worker stays warm."""
        self._worker.halt()

    def turn(self, doing: m.Assign | None) -> Iterator[m.Progress | Answer]:
        """What the worker's words since the last turn come to, for the assignment in hand."""
        for word in self._worker.heard():
            if isinstance(word, Done):
                self._account.heard(word.phases, word.examples, word.peak_rss_bytes)
            else:
                self._account.heard(word.phases)
            if doing is not None and self._worker.means(word):
                self._pulse.heard()
                yield from self._meant(doing, word)
        if doing is not None and self._worker.working:
            self._feel()

    def close(self) -> None:
        """End the worker: at its next micro-batch if it is soon, and what it used is billed."""
        self._worker.halt()
        end_s = time.monotonic() + KILL_AFTER_S
        while self._worker.working and time.monotonic() < end_s:
            for word in self._worker.heard():
                self._account.heard(word.phases)
            time.sleep(0.01)
        if self._worker.working:
            self._worker.kill()
        self._worker.close()

    # --- inside --------------------------------------------------------------------------------

    def _meant(self, doing: m.Assign, word: Word) -> Iterator[m.Progress | Answer]:
        match word:
            case Beat():
                energy_j = self._account.energy_j
                yield m.Progress(
                    key=doing.key, phase=word.phase, step=word.step, steps=word.steps, energy_j=energy_j
                )
            case Fitted():
                self._fitted = word.fit, word.shortage
            case Done():
                ref = self._blobs.adopt(self._result) if doing.train else None
                yield answers.update(doing, word, ref, self._account.bill(word.train_device))
            case Broke():
                self._account.lose(word.peak_rss_bytes)
                yield from self._broke(doing, word)

    def _broke(self, doing: m.Assign, broke: Broke) -> Iterator[Answer]:
        if self._pulse.killed_s is not None:
            yield from self._hung(doing)
        elif broke.reason == "memory":
            yield from self._out_of_memory(doing, broke)
        elif broke.reason == DISK:
            yield answers.not_now(doing.key, f"{DISK}: {broke.detail}", self._account.bill("cpu"))
        else:
            yield answers.without_update(doing.key, broke, self._account.bill("cpu"))

    def _out_of_memory(self, doing: m.Assign, broke: Broke) -> Iterator[Answer]:
        """It does not fit, or was killed: tried once more in a smaller way, then declined with numbers."""
        verdict = broke.shortage or fit.after_kill(
            doing.training, self._fitted, self._killed, broke.peak_rss_bytes
        )
        if isinstance(verdict, m.Fit):
            log.warning("killed for memory at %s bytes: tried again in smaller parts", broke.peak_rss_bytes)
            self._start(doing, verdict)
        else:
            yield answers.too_large(doing.key, verdict, self._account.bill("cpu"))

    def _hung(self, doing: m.Assign) -> Iterator[Answer]:
        """It was killed because it hung: tried once more, then reported."""
        detail, again = self._pulse.detail, not self._pulse.again
        if again:
            log.warning("the worker %s: killed, and tried again", detail)
            self._pulse = _Pulse(again=True)
            self._start(doing, self._killed)
        else:
            self._pulse = _Pulse()
            yield m.Failed(
                key=doing.key, reason="hung", detail=f"the worker {detail}", profile=self._account.bill("cpu")
            )

    def _feel(self) -> None:
        """Kill a worker that hangs."""
        pulse, now_s = self._pulse, time.monotonic()
        if (
            self._worker.pid is None
            or pulse.killed_s is not None
            or now_s - pulse.felt_s < self._patience.look_s
        ):
            return
        pulse.feel(now_s, process_cpu_ns(self._worker.pid))
        silent_s, still_s = now_s - pulse.heard_s, now_s - pulse.moved_s
        if self._patience.lost(silent_s, still_s, pulse.longest_s):
            pulse.detail = f"gave no sign of life for {silent_s:.0f} s, no processor time for {still_s:.0f} s"
            pulse.killed_s = now_s
            self._worker.kill()

    @property
    def _result(self) -> Path:
        """Where the worker puts its weights: it does one work after the other, so one place is enough."""
        return self._state / "result.safetensors"

    def _start(self, assign: m.Assign, killed: m.Fit | None = None) -> None:
        source, warm = self._sources[assign.training.workload], self._worker.pid
        self._account.train(warm=warm is not None)
        self._fitted, self._killed = None, killed
        own_bytes = rss_bytes(os.getpid()) or 0
        self._worker.start(
            Work(
                assign=assign,
                weights=str(self._blobs.path(assign.weights.digest)),
                result=str(self._result),
                clients=source.clients,
                root=str(source.root) if source.root else None,
                train_device=self._config.device,
                threads=self._config.threads or threads(self.caps, len(os.sched_getaffinity(0))),
                memory_bytes=fit.allowed_bytes(self.caps.memory_bytes, own_bytes, killed),
                killed=killed,
            )
        )
        if self._worker.pid is not None and self._worker.pid != warm:
            self._fence.around(self._worker.pid, own_bytes)


class _Pulse:
    """When the worker last gave a sign of life, and when its processor time last grew."""

    def __init__(self, *, again: bool = False) -> None:
        self.heard_s = self.moved_s = self.felt_s = time.monotonic()
        self.longest_s = 0.0
        self.cpu_ns: int | None = None
        self.killed_s: float | None = None
        self.again = again
        self.detail = ""

    def heard(self) -> None:
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self.heard_s)
        self.heard_s = now_s

    def feel(self, now_s: float, cpu_ns: int | None) -> None:
        self.felt_s = now_s
        if cpu_ns is None or self.cpu_ns is None or cpu_ns - self.cpu_ns > 1e6 * 10:
            self.moved_s, self.cpu_ns = now_s, cpu_ns
