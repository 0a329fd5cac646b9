"""What was done before, by content: a JSON Lines file of events, so that nothing is trained twice.

A training's result depends on the weights, data and settings that went in, not on the policy that asked for
it. So the event that answers an action is kept under a hash of all of these (``hands``), and policies share
merged rounds and groups. Lines are appended as soon as they may count; a last line that a kill cut short is
dropped when the file is next opened. One process at a time has a file.
"""

from __future__ import annotations

import fcntl
import hashlib
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.job import Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class ComparisonRefused(Exception):
    """A folder or a choice with which the comparison cannot go on; the text says what to change."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What all events of a file have in common: data, library, machine type."""

    data: str
    torch: str
    machine: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and the hash of what it answers."""

    of: str
    event: Event


def content(*parts: object) -> str:
    """The hash of what an event depends on."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


class Book:
    """A file of events that is being written."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self._file = path.open("ab+")
        try:
            self._events = self._read(path, setting)
        except ComparisonRefused:
            self.close()
            raise

    def _read(self, path: Path, setting: Setting) -> dict[str, Event]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ComparisonRefused(f"{path}: another process is at it") from None
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)
        self._file.seek(0)
        first, *lines = self._file.read().split(b"\n")[:-1] or [msgspec.json.encode(setting)]
        try:
            found, events = msgspec.json.decode(first, type=Setting), map(_LINE.decode, lines)
            known = {line.of: line.event for line in events}
        except msgspec.MsgspecError as error:
            raise ComparisonRefused(f"{path}: no file of this comparison ({error})") from error
        if found != setting:
            raise ComparisonRefused(f"{path}: was begun with {found}, now {setting}; name another folder")
        if not whole:
            self._write([first])
        return known

    def close(self) -> None:
        """Let others write."""
        self._file.close()

    def get(self, of: str) -> Event | None:
        """The event that answered this before."""
        return self._events.get(of)

    def keep(self, answers: Sequence[tuple[str, Event]]) -> None:
        """Keep these answers, in the file when this returns."""
        self._events.update(answers)
        self._write([msgspec.json.encode(Line(of=of, event=event)) for of, event in answers])

    def _write(self, lines: Sequence[bytes]) -> None:
        self._file.write(b"".join(line + b"\n" for line in lines))
        self._file.flush()


_LINE = msgspec.json.Decoder(Line)
