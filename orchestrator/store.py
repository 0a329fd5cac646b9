"""Keeps what happened: jobs, their events, the devices, in one SQLite file that outlives the process.

An event is on disk before ``append`` returns, and only then may it be acted on; reading a job's
events back in order restores the orchestrator. The file is in WAL mode, so that other processes read
while one writes. ``synchronous=FULL`` makes every commit wait for the disk: NORMAL would lose the
last ones in a power cut, after devices were told that their update is kept. Progress is only
overwritten, over a second connection that does not wait.

Source: https://www.sqlite.org/wal.html and https://www.sqlite.org/pragma.html#pragma_synchronous.
Bodies are the JSON of tagged structs; which events there are, the caller says. Nothing is interpreted
here and nothing is deleted.

    StoreError
     |- StoreRefused (ValueError)       not a store, damaged, or of a newer version
     |- StoreMissing (FileNotFoundError) there is nothing to read
     |- StoreFull (OSError)             the disk is full; nothing of what was asked is written
     |- JobExists (ValueError)          a job of this name was added before
     '- UnknownJob (LookupError)        an event of a job that was never added
"""

from __future__ import annotations

import errno
import sqlite3
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from mas_edge.wire.messages import Hello, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

E = TypeVar("E", bound=msgspec.Struct)
T = TypeVar("T")
Mode: TypeAlias = Literal["write", "read"]

APPLICATION = 0x6D617345
"""Marks the file as ours in its header ("masE"), where ``file`` shows it."""

VERSION = 1
"""Of the tables below; a store of a newer one is refused."""

SCHEMA = """
CREATE TABLE jobs (
  name TEXT PRIMARY KEY,
  spec BLOB NOT NULL,
  wall_s REAL NOT NULL      -- Unix time, for people
);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  job TEXT NOT NULL REFERENCES jobs (name),
  time_s REAL NOT NULL,     -- job time: seconds that the orchestrator has been running the job
  wall_s REAL NOT NULL,
  kind TEXT NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX events_of_job ON events (job, seq);
CREATE TABLE devices (name TEXT PRIMARY KEY, hello BLOB NOT NULL, wall_s REAL NOT NULL);
CREATE TABLE live (device TEXT PRIMARY KEY, body BLOB NOT NULL, wall_s REAL NOT NULL);
"""


class StoreError(Exception):
    """Root of what can go wrong with the store."""


class StoreRefused(StoreError, ValueError):
    """A file that is no store, is damaged, or was written by a newer version."""


class StoreMissing(StoreError, FileNotFoundError):
    """No store where one should be read."""


class StoreFull(StoreError, OSError):
    """The disk is full; the store is as it was before."""


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
        with _explained(path), ExitStack() as opened:
            self._db = opened.enter_context(closing(_connect(path, mode)))
            _prepare(self._db, path, mode)
            self._live = opened.enter_context(closing(_connect(path, mode)))
            self._live.execute("PRAGMA synchronous = NORMAL")
            opened.pop_all()  # all went well: they stay open

    @classmethod
    def reader(cls, path: Path, event_type: Any) -> Store[E]:
        """The store that another process writes, to be read; raises StoreMissing if there is none."""
        if not path.exists():
            raise StoreMissing(f"{path}: no store is here; has an orchestrator run on this folder?")
        return cls(path, event_type, mode="read")

    def close(self) -> None:
        """Lets go of the file. What was appended does not depend on it."""
        self._live.close()
        self._db.close()

    # --- jobs and their events ---------------------------------------------------------------------

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
        query = "SELECT seq, time_s, body FROM events WHERE job = ? AND seq > ? ORDER BY seq"
        for seq, time_s, body in self._read(query, job, after):
            yield seq, time_s, self._decoded(self._decoder, body, f"event {seq} of job {job!r}")

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

    def set_live(self, device: str, progress: Progress) -> None:
        """Overwrites where a device is; a power cut may lose it."""
        row = (device, msgspec.json.encode(progress), self._wall_s())
        with _explained(self._path):
            self._live.execute("INSERT OR REPLACE INTO live VALUES (?, ?, ?)", row)

    def live(self) -> tuple[Progress, ...]:
        """What each device last told of its progress, by the devices' names."""
        decoder = msgspec.json.Decoder(Progress)
        rows = self._read("SELECT device, body FROM live ORDER BY device")
        return tuple(self._decoded(decoder, body, f"progress of {device!r}") for device, body in rows)

    # --- SQLite ------------------------------------------------------------------------------------

    def _write(self, statement: str, *values: object) -> int:
        """One statement, committed; the number of the row that it inserted."""
        with _explained(self._path):
            return self._db.execute(statement, values).lastrowid or 0

    def _read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with _explained(self._path):
            yield from self._db.execute(query, values)

    def _decoded(self, decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise StoreRefused(f"{self._path}: {what} cannot be read by this version: {error}") from error


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """A connection that commits each statement by itself."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if mode == 'read' else 'rwc'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _prepare(db: sqlite3.Connection, path: Path, mode: Mode) -> None:
    """Makes the tables of a new store, and refuses a file that is not a sound store of ours."""
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if mode == "read" and not tables:
        raise StoreMissing(f"{path}: the store is empty; wait until the orchestrator has made it")
    if not tables:
        db.execute("PRAGMA journal_mode = WAL")
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        db.executescript(f"BEGIN; {SCHEMA} {marks} COMMIT;")
    (ours,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if ours != APPLICATION:
        raise StoreRefused(f"{path}: an SQLite file, but not a store of ours; move it away or name another")
    if version > VERSION:
        raise StoreRefused(f"{path}: store version {version}; this program reads up to {VERSION}: update it")
    if mode == "write":
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreRefused(
                f"{path}: damaged ({verdict.splitlines()[-1]}); restore a copy or move it away"
            )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file's name; a broken constraint is the caller's to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        text = str(error)
        # Python 3.10 does not give SQLite's error code, so the words have to do
        if "disk is full" in text:
            raise StoreFull(errno.ENOSPC, f"{text}: free some space and start again", str(path)) from error
        if "not a database" in text or "malformed" in text:
            raise StoreRefused(f"{path}: {text}; restore a copy or move it away") from error
        raise StoreError(f"{path}: {text}") from error
