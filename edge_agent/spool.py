"""Finished answers on disk, until the orchestrator has stored them.

One JSON file per answer, named by the digest of its key, written atomically. A file that cannot be read
(a disk that lied) is set aside and named in the log: the orchestrator asks for that training again.
One that the disk has no room for is kept in memory and written as soon as there is some.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent.session import Answer
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import Key, Update, encode

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.wire.blobs import BlobStore
    from mas_edge.wire.room import Room

log = logging.getLogger(__name__)


class Spool:
    """A folder of answers."""

    def __init__(self, root: Path, room: Room) -> None:
        self._root, self._room = root, room
        self._waiting: dict[Key, Answer] = {}
        self._decoder: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
        root.mkdir(parents=True, exist_ok=True)

    def answers(self) -> tuple[Answer, ...]:
        """What waits to be delivered, in the order of keys."""
        found = (self._read(path) for path in sorted(self._root.glob("*.json")))
        return tuple(sorted((a for a in found if a is not None), key=lambda answer: answer.key))

    def deliverable(self, blobs: BlobStore) -> tuple[Answer, ...]:
        """The answers less updates whose weights the disk has lost: the orchestrator asks for them again."""
        found = self.answers()
        lost = [a for a in found if isinstance(a, Update) and a.weights and not blobs.has(a.weights.digest)]
        for answer in lost:
            log.warning("the weights of %s are gone from the disk: it will be trained again", answer.key)
            self.remove(answer.key)
        return tuple(answer for answer in found if answer not in lost)

    def add(self, answer: Answer) -> None:
        """On disk when this returns, if there is room."""
        self._waiting[answer.key] = answer
        self.write()

    def write(self) -> None:
        """Put on disk what it had no room for."""
        for key, answer in list(self._waiting.items()):
            with self._room.writing():
                write_atomic(self._path(key), encode(answer))
                del self._waiting[key]

    def remove(self, key: Key) -> None:
        """Forget an answer, if it is there."""
        self._waiting.pop(key, None)
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._root / f"{hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:32]}.json"

    def _read(self, path: Path) -> Answer | None:
        try:
            return self._decoder.decode(path.read_bytes())
        except msgspec.MsgspecError as error:
            log.warning("%s is not a whole answer (%s): set aside", path, error)
            path.rename(path.with_suffix(".broken"))
            return None
