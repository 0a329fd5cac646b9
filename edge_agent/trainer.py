"""One assignment in the worker, attempt after attempt, until it comes to an answer.

The daemon's side of a training: it hands the work over with the memory that it may take, bills what the
worker says, and decides what follows when that breaks. A worker killed for memory tries again in smaller
parts (``edge_agent.fit``). One that hangs is killed and tries once more: it gives no sign of life, and
either uses no processor time for minutes (stopped, deadlocked) or is silent far longer than it has ever been
(an endless loop). A disk without room is not the training's fault: the device declines until there is some.
One assignment at a time, in one slot; what is to begin is handed to ``trainers``, which says when there is
memory for it. One that did not fit beside others, or was killed beside them, was not judged yet: it
waits until it has more, at last all. Nothing is sent from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mas_edge.edge_agent import answers, fit
from mas_edge.edge_agent.admission import Neighbour
from mas_edge.edge_agent.caps import threads
from mas_edge.edge_agent.conditions import DISK
from mas_edge.edge_agent.pulse import Pulse
from mas_edge.edge_agent.work import KILL_AFTER_S, Beat, Broke, Done, Fitted, Word, Work, WorkerProcess
from mas_edge.profiling.cpu import file_bytes, process_cpu_ns, rss_bytes
from mas_edge.wire import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mas_edge.edge_agent.account import Account
    from mas_edge.edge_agent.caps import Fence
    from mas_edge.edge_agent.config import TrainConfig
    from mas_edge.edge_agent.pulse import Patience
    from mas_edge.edge_agent.session import Answer
    from mas_edge.models.tasks import Source
    from mas_edge.wire.blobs import BlobStore

log = logging.getLogger(__name__)

ROOM_BYTES = 1 << 20
"""What the disk must hold besides the new weights before a training begins: answer, ledger, log."""


@dataclass(frozen=True)
class Wish:
    """A training that is to begin; who has wished longest goes first.

    ``needed_bytes`` is what an attempt beside others has found that it needs; ``alone``: all that there is.
    """

    assign: m.Assign
    since_s: float
    needed_bytes: int = 0
    alone: bool = False


class Trainer:
    """The worker of one slot, and what it is at."""

    def __init__(  # noqa: PLR0913 - what a training takes
        self,
        state: Path,
        blobs: BlobStore,
        account: Account,
        sources: Mapping[str, Source],
        train: TrainConfig,
        fence: Fence,
        caps: m.Caps,
        *,
        patience: Patience,
        slot: int,
    ) -> None:
        self._state, self._blobs, self._account, self._sources = state, blobs, account, sources
        self._config, self._fence, self.caps, self._patience = train, fence, caps, patience
        self._slot, self._mark = slot, f"-{slot}" if slot else ""
        self._worker = WorkerProcess(state / f"worker{self._mark}.log")
        self._fitted: tuple[m.Fit, m.Shortage] | None = None
        self._killed: m.Fit | None = None
        self._pulse = Pulse()
        self._taken_bytes = 0  # by other slots, when this training began
        self._given_bytes: int | None = None
        self._alone, self._since_s = False, 0.0
        self.accompanied = False
        """Whether another training ran beside this one."""
        self.wish: Wish | None = None
        """What is to begin as soon as there is memory."""

    @property
    def pid(self) -> int | None:
        """The worker, while there is one."""
        return self._worker.pid

    @property
    def working(self) -> bool:
        """Whether the worker has work that has not ended."""
        return self._worker.working

    @property
    def held_bytes(self) -> int | None:
        """What the worker has resident and nobody could drop; None without a worker."""
        if self._worker.pid is None or (resident := rss_bytes(self._worker.pid)) is None:
            return None
        return resident - fit.droppable(file_bytes(self._worker.pid) or 0)

    def neighbour(self, free_bytes: int | None) -> Neighbour:
        """The worker as others see it that would begin beside; all of ``free_bytes`` if it is to be alone."""
        expected = None
        if self._fitted and self._worker.pid is not None:
            files = fit.droppable(file_bytes(self._worker.pid) or 0)
            expected = free_bytes if self._alone else (self._fitted[0].estimated_bytes or 0) - files
        return Neighbour(held_bytes=self.held_bytes or 0, training=self.working, expected_bytes=expected)

    @property
    def stuck(self) -> bool:
        """Whether the worker cannot even be killed: what waits in the kernel for a disk that is gone."""
        killed_s = self._pulse.killed_s
        return self._worker.working and killed_s is not None and time.monotonic() - killed_s > KILL_AFTER_S

    def begin(self, assign: m.Assign) -> Answer | None:
        """Wish to train, its weights being on disk; an answer at once without torch, or room on disk."""
        if find_spec("torch") is None:
            return answers.cannot_train(assign.key)
        needed_bytes = assign.weights.size_bytes + ROOM_BYTES
        free_bytes = shutil.disk_usage(self._state).free
        if free_bytes < needed_bytes:
            room = f"{free_bytes / 1e6:.1f} MB free in {self._state}, needed are {needed_bytes / 1e6:.1f} MB"
            return answers.not_now(assign.key, f"{DISK}: {room}")
        self.wish = Wish(assign, time.monotonic())
        return None

    def start(self, taken_bytes: int, *, beside: bool) -> None:
        """Do what is wished, with what the others leave; ``beside`` says that one of them trains."""
        if self.wish:
            wish, self.wish = self.wish, None
            self._taken_bytes, self._alone, self.accompanied = taken_bytes, wish.alone, beside
            self._since_s = wish.since_s
            self._pulse = Pulse()
            self._start(wish.assign)

    def rest(self) -> None:
        """End the worker if it has nothing to do: its memory is needed."""
        if not self._worker.working:
            self._worker.close()

    def halt(self) -> None:
        """Stop at the next micro-batch; the worker stays warm."""
        self.wish = None
        self._worker.halt()

    def turn(self, doing: m.Assign | None) -> Iterator[m.Progress | Answer]:
        """What the worker's words since the last turn come to, for the assignment in hand."""
        for word in self._worker.heard():
            if isinstance(word, Done):
                self._account.heard(word.phases, word.examples, word.peak_rss_bytes, slot=self._slot)
            else:
                self._account.heard(word.phases, slot=self._slot)
            if doing is not None and self._worker.means(word):
                self._pulse.heard()
                yield from self._meant(doing, word)
        if doing is not None and self._worker.working:
            self._feel()

    def close(self) -> None:
        """End the worker; at once if it is at work."""
        if self._worker.working:
            self._worker.kill()
        self._worker.close()

    # --- inside --------------------------------------------------------------------------------

    def _meant(self, doing: m.Assign, word: Word) -> Iterator[m.Progress | Answer]:
        match word:
            case Beat():
                energy_j = self._account.energy_j(self._slot)
                yield m.Progress(
                    key=doing.key, phase=word.phase, step=word.step, steps=word.steps, energy_j=energy_j
                )
            case Fitted():
                self._fitted = word.fit, word.shortage
            case Done():
                ref = self._blobs.adopt(self._result) if doing.train else None
                yield answers.update(doing, word, ref, self._account.bill(word.train_device, self._slot))
            case Broke():
                self._account.lose(word.peak_rss_bytes, self._slot)
                yield from self._broke(doing, word)

    def _broke(self, doing: m.Assign, broke: Broke) -> Iterator[Answer]:
        if self._pulse.killed_s is not None:
            yield from self._hung(doing)
        elif broke.reason == "memory":
            yield from self._out_of_memory(doing, broke)
        elif broke.reason == DISK:
            yield answers.not_now(doing.key, f"{DISK}: {broke.detail}", self._bill())
        else:
            yield answers.without_update(doing.key, broke, self._bill())

    def _out_of_memory(self, doing: m.Assign, broke: Broke) -> Iterator[Answer]:
        """It does not fit, or was killed: tried once more in a smaller way, then declined with numbers."""
        if wish := self._wish_for_more(doing, broke.shortage):
            log.info("no room for %s beside another training: it waits", doing.key.group)
            self.wish = wish
            self._account.wait(self._slot)
            return
        verdict = broke.shortage or fit.after_kill(
            doing.training, self._fitted, self._killed, broke.peak_rss_bytes
        )
        if isinstance(verdict, m.Fit):
            log.warning("killed for memory at %s bytes: tried again in smaller parts", broke.peak_rss_bytes)
            self._start(doing, verdict)
        else:
            yield answers.too_large(doing.key, verdict, self._bill())

    def _wish_for_more(self, doing: m.Assign, shortage: m.Shortage | None) -> Wish | None:
        """What to wait for, if it had less than all, or was killed while another trained."""
        if shortage is None:
            return Wish(doing, self._since_s, alone=True) if self.accompanied and not self._alone else None
        if shortage.needed_bytes is None or shortage.allowed_bytes is None or self._given_bytes is None:
            return None
        lacking_bytes = shortage.needed_bytes - shortage.allowed_bytes
        if lacking_bytes > self._taken_bytes:  # nor would it fit alone
            return None
        return Wish(doing, self._since_s, needed_bytes=self._given_bytes + lacking_bytes)

    def _bill(self) -> m.Profile:
        """Of a training that brought nothing."""
        return self._account.bill("cpu", self._slot)

    def _hung(self, doing: m.Assign) -> Iterator[Answer]:
        """It was killed because it hung: tried once more, then reported."""
        detail, again = self._pulse.detail, not self._pulse.again
        if again:
            log.warning("the worker %s: killed, and tried again", detail)
            self._pulse = Pulse(again=True)
            self._start(doing, self._killed)
        else:
            self._pulse = Pulse()
            yield m.Failed(key=doing.key, reason="hung", detail=f"the worker {detail}", profile=self._bill())

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
        return self._state / f"result{self._mark}.safetensors"

    def _start(self, assign: m.Assign, killed: m.Fit | None = None) -> None:
        source, warm = self._sources[assign.training.workload], self._worker.pid
        self._account.train(self._slot, warm=warm is not None)
        self._fitted, self._killed = None, killed
        own_bytes, slots = rss_bytes(os.getpid()) or 0, self._config.slots
        taken_bytes = own_bytes + self._taken_bytes
        self._given_bytes = fit.allowed_bytes(self.caps.memory_bytes, taken_bytes, None)
        self._worker.start(
            Work(
                assign=assign,
                weights=str(self._blobs.path(assign.weights.digest)),
                result=str(self._result),
                clients=source.clients,
                root=str(source.root) if source.root else None,
                train_device=self._config.device,
                threads=self._config.threads or threads(self.caps, len(os.sched_getaffinity(0)), slots),
                memory_bytes=fit.allowed_bytes(self.caps.memory_bytes, taken_bytes, killed),
                killed=killed,
            )
        )
        if self._worker.pid is not None and self._worker.pid != warm:
            self._fence.around(self._worker.pid, own_bytes, self._slot, slots)
        self._account.follow(self._worker.pid, self._slot)
