"""What the study keeps: a JSON Lines file per task set and seed, a line as soon as a training is done.

The first line says what was run; a folder with other settings is refused. A line that a kill cut short is
dropped when the file is next opened to be written, and what it stood for is trained again.
"""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mas_edge.wire.messages import AffinitySums

if TYPE_CHECKING:
    from pathlib import Path

Losses: TypeAlias = dict[str, tuple[float, float]]
"""By task the mean loss, and that of the constant predictor on the same examples."""

Method: TypeAlias = Literal["lookahead", "gram-full", "gram"]


class StudyRefused(Exception):
    """A folder or a choice with which the study cannot go on; the text says what to change."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower, omit_defaults=True):
    """A line of the file."""


class Setting(_Line, frozen=True):
    """What is trained. ``spec`` is the job in JSON."""

    name: str
    seed: int
    spec: str
    data: str
    torch: str
    machine: str


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A round: held-out losses after it, CPU seconds of its training on all devices, what was measured."""

    round: int
    held_out: Losses
    cpu_s: float
    measured: tuple[AffinitySums, ...] = ()


class Trained(_Line, frozen=True):
    """A training: all tasks merged, a group from the merged weights on, or all tasks for ``factor`` as long.

    ``digest`` is that of the final weights, ``unseen`` their losses on clients that nobody trains on.
    """

    what: Literal["merged", "group", "longer"]
    tasks: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    unseen: Losses = {}
    digest: str = ""
    method: str = ""
    every: int = 0
    factor: float = 1.0

    @property
    def name(self) -> tuple[object, ...]:
        """What tells it from the others of its file."""
        return self.what, self.tasks, self.method if self.what == "merged" else "", self.every, self.factor

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the whole training."""
        return sum(step.cpu_s for step in self.steps)


class Costs(_Line, frozen=True):
    """CPU seconds of the same few steps of each group, measured in turn: ``cpu_s[repeat][group]``."""

    groups: tuple[tuple[str, ...], ...]
    cpu_s: tuple[tuple[float, ...], ...]


Record: TypeAlias = Setting | Trained | Costs
_DECODER = msgspec.json.Decoder(Record)


def read(path: Path) -> tuple[Setting, list[Trained], Costs | None]:
    """What is in a file; a last line that was cut short is left out. Raises StudyRefused."""
    *whole, _rest = path.read_bytes().split(b"\n")
    try:
        setting, *records = map(_DECODER.decode, whole)
    except (ValueError, msgspec.MsgspecError) as error:
        raise StudyRefused(f"{path}: not a file of the study ({error}); name another folder") from error
    if not isinstance(setting, Setting):
        raise StudyRefused(f"{path}: does not begin with what was run; name another folder")
    costs = next((each for each in records if isinstance(each, Costs)), None)
    return setting, [each for each in records if isinstance(each, Trained)], costs


class Book:
    """A file that is being written, by one process at a time."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self._file = path.open("ab+")
        try:
            trained, self.costs = self._taken(path, setting)
        except StudyRefused:
            self.close()
            raise
        self.trained = {each.name: each for each in trained}

    def _taken(self, path: Path, setting: Setting) -> tuple[list[Trained], Costs | None]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyRefused(f"{path}: another process is at it") from None
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)
        if not path.stat().st_size:
            self._write(setting)
        found, trained, costs = read(path)
        if (found.spec, found.data) != (setting.spec, setting.data):
            raise StudyRefused(f"{path}: was begun with other settings; name another folder")
        return trained, costs

    def close(self) -> None:
        """Let others write."""
        self._file.close()

    def add(self, record: Trained | Costs) -> None:
        """Keep it, in the file when this returns."""
        self._write(record)
        if isinstance(record, Trained):
            self.trained[record.name] = record
        else:
            self.costs = record

    def _write(self, record: Record) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
