"""The workers of all slots: each trains one assignment, and begins when there is memory for it.

Trainings begin in the order in which they were asked for. One that has no room beside those that run
(``admission``) waits, and those behind it too, so that a large one has its turn. With one slot nothing is
ever compared, and a training begins at once.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from mas_edge.edge_agent import fit
from mas_edge.edge_agent.admission import Begin, EndIdle, admit
from mas_edge.edge_agent.trainer import Trainer
from mas_edge.edge_agent.work import KILL_AFTER_S
from mas_edge.profiling.cpu import rss_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mas_edge.edge_agent.account import Account
    from mas_edge.edge_agent.admission import Verdict
    from mas_edge.edge_agent.caps import Fence
    from mas_edge.edge_agent.config import TrainConfig
    from mas_edge.edge_agent.pulse import Patience
    from mas_edge.edge_agent.session import Answer
    from mas_edge.models.tasks import Source
    from mas_edge.wire.blobs import BlobStore
    from mas_edge.wire.messages import Assign, Caps, Key, Progress


class Trainers:
    """All trainings of a device."""

    def __init__(
        self,
        state: Path,
        blobs: BlobStore,
        account: Account,
        sources: Mapping[str, Source],
        train: TrainConfig,
        fence: Fence,
        caps: Caps,
        patience: Patience,
    ) -> None:
        self._account, self._caps = account, caps
        self.paused = False
        """Whether trainings that were asked for wait: something else needs the device to itself."""
        self._trainers = tuple(
            Trainer(state, blobs, account, sources, train, fence, caps, patience=patience, slot=slot)
            for slot in range(train.slots)
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Our own processes: the daemon and the workers that there are."""
        return (os.getpid(), *(trainer.pid for trainer in self._trainers if trainer.pid is not None))

    @property
    def stuck(self) -> bool:
        """Whether a worker cannot even be killed: what waits in the kernel for a disk that is gone."""
        return any(trainer.stuck for trainer in self._trainers)

    @property
    def waiting(self) -> frozenset[Key]:
        """The trainings that wait for memory."""
        return frozenset(trainer.wish.assign.key for trainer in self._trainers if trainer.wish)

    @property
    def working(self) -> bool:
        """Whether something is trained."""
        return any(trainer.working for trainer in self._trainers)

    def rest(self) -> None:
        """End the workers that have nothing to do, if memory is limited: it is needed."""
        if self._caps.memory_bytes is not None:
            for trainer in self._trainers:
                trainer.rest()

    def limit(self, caps: Caps) -> None:
        """Keep to other caps, from the next training on."""
        self._caps = caps
        for trainer in self._trainers:
            trainer.caps = caps

    def begin(self, slot: int, assign: Assign) -> Answer | None:
        """Train in a slot, its weights being on disk; an answer at once if that cannot be."""
        answer = self._trainers[slot].begin(assign)
        if answer is None:
            self._admit()
            if self._trainers[slot].wish:
                self._account.wait(slot)
        return answer

    def halt(self, slot: int) -> None:
        """Stop what is trained in a slot at the next micro-batch; the worker stays warm."""
        self._trainers[slot].halt()

    def turn(self, doing: Sequence[Assign | None]) -> Iterator[Progress | Answer]:
        """What the workers' words since the last turn come to, for the assignment in hand in each slot."""
        for trainer, assign in zip(self._trainers, doing, strict=True):
            yield from trainer.turn(assign)
        self._admit()

    def close(self) -> None:
        """End the workers: at their next micro-batch if it is soon, and what they used is billed."""
        for slot in range(len(self._trainers)):
            self.halt(slot)
        end_s = time.monotonic() + KILL_AFTER_S
        while any(trainer.working for trainer in self._trainers) and time.monotonic() < end_s:
            for trainer in self._trainers:
                list(trainer.turn(None))
            time.sleep(0.01)
        for trainer in self._trainers:
            trainer.close()

    # --- admission -----------------------------------------------------------------------------

    def _admit(self) -> None:
        """Begin what may begin now."""
        if self.paused:
            return
        wishes = [(trainer.wish.since_s, i) for i, trainer in enumerate(self._trainers) if trainer.wish]
        for _, i in sorted(wishes):
            others = [trainer for k, trainer in enumerate(self._trainers) if k != i]
            verdict = self._verdict(self._trainers[i], others)
            if isinstance(verdict, EndIdle):
                for other in others:
                    other.rest()
                verdict = self._verdict(self._trainers[i], others)
            if not isinstance(verdict, Begin):
                return
            working = [other for other in others if other.working]
            for other in working:
                other.accompanied = True
            self._trainers[i].start(verdict.taken_bytes, beside=bool(working))

    def _verdict(self, trainer: Trainer, others: Sequence[Trainer]) -> Verdict:
        wish, own_bytes = trainer.wish, rss_bytes(os.getpid()) or 0
        if wish is None or not others:
            return Begin()
        free_bytes = fit.allowed_bytes(self._caps.memory_bytes, own_bytes, None)
        neighbours = [other.neighbour(free_bytes) for other in others]
        needed_bytes = free_bytes if wish.alone else wish.needed_bytes
        return admit(free_bytes, neighbours, trainer.held_bytes, needed_bytes)
