"""Keeps what happened: launches, jobs, their events, the devices, in one SQLite file that outlives us.

An event is on disk before ``append`` returns, and only then may it be acted on; reading a job's
events back in order restores the orchestrator. Progress is only overwritten, over a second connection that
does not wait. The file itself, and what is wrong with it, is ``orchestrator.storage.store_file``'s business.

Bodies are the JSON of tagged structs; which events there are, the caller says. Nothing is interpreted
here, and nothing is deleted but a launch that was taken back before its job began.

    StoreError
     |- StoreRefused (ValueError)       not a store, damaged, or of a newer version
     |- StoreMissing (FileNotFoundError) there is nothing to read
     |- StoreFull (OSError)             the disk is full; nothing of what was asked is written
     |- JobExists (ValueError)          a job of this name was added before
     '- UnknownJob (LookupError)        an event of a job that was never added
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from mas_edge.orchestrator.storage.store_file import (
    Mode,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreRefused,
    connect,
    explained,
    prepare,
)
from mas_edge.wire.messages import Alive, Hello, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

E = TypeVar("E", bound=msgspec.Struct)
T = TypeVar("T")
__all__ = ["JobExists", "Store", "StoreError", "StoreFull", "StoreMissing", "StoreRefused", "UnknownJob"]


class JobExists(StoreError, ValueError):
    """A job of this name is already in the store."""


class UnknownJob(StoreError, LookupError):
    """No job of this name is in the store."""


class Store(Generic[E]):
    """The store at a path, made if it is not there; ``event_type`` is the union of the events' types.

    For one thread. Every method raises StoreFull where the disk has no room, StoreRefused where the
    file is not, or no longer, a sound store of ours, and StoreError with SQLite's words for the rest.
    """

    def __init__(
        self,
        path: Path,
        event_type: Any,
        *,
        wall_s: Callable[[], float] = time.time,
        mode: Mode = "write",
    ) -> None:
        self._path, self._wall_s = path, wall_s
        self._decoder: msgspec.json.Decoder[E] = msgspec.json.Decoder(event_type)
        with explained(path), ExitStack() as opened:
            self._db = opened.enter_context(closing(connect(path, mode)))
            prepare(self._db, path, mode)
            self._live = opened.enter_context(closing(connect(path, mode)))
            self._live.execute("PRAGMA synchronous = NORMAL")
            opened.pop_all()  # all went well: they stay open

    @classmethod
    def reader(cls, path: Path, event_type: Any) -> Store[E]:
        """The store that another process writes, to be read; raises StoreMissing if there is none."""
        if not path.exists():
            raise StoreMissing(f"{path}: no store is here; has an orchestrator run on this folder?")
        return cls(path, event_type, mode="read")

    @property
    def identity(self) -> str:
        """What tells this store from every other one, also from one of the same jobs; a copy has it too."""
        ((identity,),) = self._read("SELECT id FROM identity")
        return str(identity)

    def close(self) -> None:
        """Lets go of the file. What was appended does not depend on it."""
        self._live.close()
        self._db.close()

    # --- launches, jobs and their events -----------------------------------------------------------

    def add_job(self, name: str, spec: bytes) -> None:
        """Keeps a job as the bytes that describe it; raises JobExists."""
        try:
            self._write("INSERT INTO jobs VALUES (?, ?, ?)", name, spec, self._wall_s())
        except sqlite3.IntegrityError as error:
            raise JobExists(f"job {name!r} is already in {self._path}") from error

    def jobs(self) -> tuple[tuple[str, bytes], ...]:
        """Name and description of every job, in the order in which they were added."""
        return tuple(self._read("SELECT name, spec FROM jobs ORDER BY rowid"))

    def append(self, job: str, time_s: float, event: E) -> int:
        """The event's number, greater than all before it; the event is on disk. Raises UnknownJob."""
        kind = str(event.__struct_config__.tag)
        row = (job, time_s, self._wall_s(), kind, msgspec.json.encode(event))
        try:
            return self._write("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?)", *row)
        except sqlite3.IntegrityError as error:
            raise UnknownJob(f"job {job!r} is not in {self._path}") from error

    def events(self, job: str, after: int = 0) -> Iterator[tuple[int, float, E]]:
        """Number, job time in seconds, and event, in order, of the job's events after a number."""
        return ((seq, time_s, event) for seq, time_s, _, event in self.history(job, after))

    def history(self, job: str, after: int = 0) -> Iterator[tuple[int, float, float, E]]:
        """The same with Unix time after job time, for people."""
        query = "SELECT seq, time_s, wall_s, body FROM events WHERE job = ? AND seq > ? ORDER BY seq"
        for seq, time_s, wall_s, body in self._read(query, job, after):
            yield seq, time_s, wall_s, self._decoded(self._decoder, body, f"event {seq} of job {job!r}")

    def add_launch(self, job: str, body: bytes) -> int:
        """Keeps what was launched, under the name of the job that it waits for; its number."""
        return self._write("INSERT INTO launches VALUES (NULL, ?, ?, ?)", job, body, self._wall_s())

    def launches(self) -> tuple[tuple[int, str, bytes, float], ...]:
        """Number, job, description and Unix time of every launch, in the order in which they came."""
        return tuple(self._read("SELECT number, job, body, wall_s FROM launches ORDER BY number"))

    def withdraw(self, number: int) -> None:
        """Forgets a launch whose job has not begun."""
        self._write("DELETE FROM launches WHERE number = ? AND job NOT IN (SELECT name FROM jobs)", number)

    def add_deployment(self, job: str, body: bytes) -> int:
        """Keeps what happened to a deployment of the job's models; its number. Raises UnknownJob."""
        try:
            return self._write("INSERT INTO deployments VALUES (NULL, ?, ?, ?)", job, body, self._wall_s())
        except sqlite3.IntegrityError as error:
            raise UnknownJob(f"job {job!r} is not in {self._path}") from error

    def deployments(self, after: int = 0) -> tuple[tuple[int, str, bytes, float], ...]:
        """Number, job, body and Unix time of what happened to deployments after a number, in order."""
        query = "SELECT number, job, body, wall_s FROM deployments WHERE number > ? ORDER BY number"
        return tuple(self._read(query, after))

    # --- devices -----------------------------------------------------------------------------------

    def remember_device(self, hello: Hello) -> None:
        """Keeps what a device said of itself, in place of what it said before."""
        row = (hello.device, msgspec.json.encode(hello), self._wall_s())
        self._write("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", *row)

    def devices(self) -> dict[str, Hello]:
        """What each device last said of itself, by name."""
        decoder = msgspec.json.Decoder(Hello)
        rows = self._read("SELECT name, hello FROM devices ORDER BY name")
        return {name: self._decoded(decoder, body, f"device {name!r}") for name, body in rows}

    def set_presence(self, device: str, alive: Alive) -> None:
        """Overwrites whether a device is there, and why it may not train; a power cut may lose it."""
        row = (device, msgspec.json.encode(alive), self._wall_s())
        self._overwrite("INSERT OR REPLACE INTO presence VALUES (?, ?, ?)", *row)

    def presence(self) -> dict[str, tuple[Alive, float]]:
        """What each device last said of being there, and when (Unix time), by name."""
        decoder = msgspec.json.Decoder(Alive)
        rows = self._read("SELECT device, body, wall_s FROM presence ORDER BY device")
        return {
            name: (self._decoded(decoder, body, f"presence of {name!r}"), wall_s)
            for name, body, wall_s in rows
        }

    def set_live(self, device: str, progress: Progress) -> None:
        """Overwrites where a device is; a power cut may lose it."""
        row = (device, msgspec.json.encode(progress), self._wall_s())
        self._overwrite("INSERT OR REPLACE INTO live VALUES (?, ?, ?)", *row)

    def live(self) -> tuple[Progress, ...]:
        """What each device last told of its progress, by the devices' names."""
        decoder = msgspec.json.Decoder(Progress)
        rows = self._read("SELECT device, body FROM live ORDER BY device")
        return tuple(self._decoded(decoder, body, f"progress of {device!r}") for device, body in rows)

    def last_heard(self) -> dict[str, float]:
        """When each device last said anything that is kept here beside events, in Unix time, by name."""
        said = "SELECT name, wall_s FROM devices UNION ALL SELECT device, wall_s FROM live"
        return dict(self._read(f"SELECT name, max(wall_s) FROM ({said}) GROUP BY name"))  # noqa: S608

    # --- SQLite ------------------------------------------------------------------------------------

    def _write(self, statement: str, *values: object) -> int:
        """One statement, committed; the number of the row that it inserted."""
        with explained(self._path):
            return self._db.execute(statement, values).lastrowid or 0

    def _overwrite(self, statement: str, *values: object) -> None:
        """One statement of which a power cut may take the effect back."""
        with explained(self._path):
            self._live.execute(statement, values)

    def _read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with explained(self._path):
            yield from self._db.execute(query, values)

    def _decoded(self, decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise StoreRefused(f"{self._path}: {what} cannot be read by this version: {error}") from error
