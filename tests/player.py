"""The test in the place of the orchestrator: it assigns, hands out real weights, and keeps what it hears.

Only what a device can see is played: nothing is stored, merged or decided.
"""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec

from mas_edge.models.job import Init, Initialised
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore

FLEET, DEVICE = "f", "edge-1"
LIMIT_S = 120.0
TRAINING = m.Training(workload="watch", network="micro", rounds=2, epochs=1, batch=8, lr=0.05, seed=1)


def first_weights(folder, *tasks: str):
    """Fresh weights of the tasks in a blob store, their reference, and the workload's fingerprint."""
    blobs, out = BlobStore(folder / "theirs"), folder / "fresh.safetensors"
    request = Init(workload="watch", network="micro", tasks=tasks, seed=1, out=str(out))
    words = [sys.executable, "-m", "mas_edge.models.job"]
    done = subprocess.run(words, input=msgspec.json.encode(request), capture_output=True, check=True)
    return blobs, blobs.adopt(out), msgspec.json.decode(done.stdout, type=Initialised).fingerprint


class Player:
    """An orchestrator of one device."""

    def __init__(self, bus, folder, tasks=("gravity", "jerk"), store="s1") -> None:
        self.bus, self.store, self.said = bus, store, []
        self._weights = {task: first_weights(folder, task) for task in tasks}
        bus.subscribe(m.up_topic(FLEET, DEVICE))

    def say(self, message: m.Down) -> None:
        self.bus.publish(m.down_topic(FLEET, DEVICE), m.encode(message))

    def assign(self, task: str, attempt: int = 0, **training) -> m.Key:
        _, ref, fingerprint = self._weights[task]
        key = m.Key(job="j", group=task, round=0, attempt=attempt, device=DEVICE)
        how = msgspec.structs.replace(TRAINING, **training)
        self.say(m.Assign(key=key, tasks=(task,), training=how, weights=ref, fingerprint=fingerprint))
        return key

    def hear(self) -> None:
        while delivery := self.bus.get(0.0):
            message = m.decode_up(delivery.payload)
            self.said.append(message)
            match message:
                case m.Hello():
                    self.say(m.Welcome(boot_id=message.boot_id, store=self.store))
                case m.Need():
                    self._give(message)
                case m.Update() | m.Declined() | m.Failed():
                    self.say(m.Stored(key=message.key))

    def until(self, kind, meanwhile=lambda: None, *, of=None):
        """The first message of this kind that has come or comes; of this training if it is given."""
        end_s = time.monotonic() + LIMIT_S
        while True:
            self.hear()
            for message in self.said:
                if isinstance(message, kind) and (of is None or message.key == of):
                    return message
            assert time.monotonic() < end_s, (kind, self.said[-3:])
            meanwhile()
            time.sleep(0.005)

    def _give(self, need: m.Need) -> None:
        blobs = next(blobs for blobs, ref, _ in self._weights.values() if ref.digest == need.digest)
        for first, past in need.ranges:
            for i in range(first, past):
                self.bus.publish(m.blob_topic(FLEET, m.EVERYONE, need.digest, i), blobs.chunk(need.digest, i))
