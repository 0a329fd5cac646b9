"""Finished answers on disk, until the orchestrator has stored them.

One JSON file per answer, named by the digest of its key, written atomically. A file that cannot be read
(a disk that lied) is set aside and named in the log: the orchestrator asks for that training again.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec

from mas_edge.edge_agent.session import Answer
from mas_edge.wire.host import write_atomic
from mas_edge.wire.messages import Key, encode

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Spool:
    """A folder of answers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._decoder: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
        root.mkdir(parents=True, exist_ok=True)

    def answers(self) -> tuple[Answer, ...]:
        """What waits to be delivered, in the order of keys."""
        found = (self._read(path) for path in sorted(self._root.glob("*.json")))
        return tuple(sorted((a for a in found if a is not None), key=lambda answer: answer.key))

    def add(self, answer: Answer) -> None:
        """On disk when this returns."""
        write_atomic(self._path(answer.key), encode(answer))

    def remove(self, key: Key) -> None:
        """Forget an answer, if it is there."""
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
