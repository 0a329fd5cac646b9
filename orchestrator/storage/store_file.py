"""The SQLite file behind the store: opened, made, brought up to date, refused, and its errors in words.

It is in WAL mode, so that other processes read while one writes, and every commit waits for the disk
(``synchronous=FULL``: NORMAL would lose the last ones in a power cut, after devices were told that their
update is kept). A file of an older version gets what it lacks when it is opened to be written.

Source: https://www.sqlite.org/wal.html and https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Mode: TypeAlias = Literal["write", "read"]

APPLICATION = 0x6D617345
"""Marks the file as ours in its header ("masE"), where ``file`` shows it."""

VERSION = 3
"""Of the tables below; a store of a newer one is refused."""

SCHEMAS = (
    """
CREATE TABLE jobs (name TEXT PRIMARY KEY, spec BLOB NOT NULL, wall_s REAL NOT NULL);  -- Unix time
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
""",
    """
CREATE TABLE launches (     -- what was launched; waits for its job as long as there is none of that name
  number INTEGER PRIMARY KEY,
  job TEXT NOT NULL,
  body BLOB NOT NULL,
  wall_s REAL NOT NULL
);
CREATE TABLE presence (device TEXT PRIMARY KEY, body BLOB NOT NULL, wall_s REAL NOT NULL);
CREATE TABLE identity (id TEXT NOT NULL);
INSERT INTO identity SELECT lower(hex(randomblob(16)));
""",
    """
CREATE TABLE deployments (  -- what happened to models on their way to devices; not part of a job's life
  number INTEGER PRIMARY KEY,
  job TEXT NOT NULL REFERENCES jobs (name),
  body BLOB NOT NULL,
  wall_s REAL NOT NULL
);
""",
)
"""What each version added."""


class StoreError(Exception):
    """Root of what can go wrong with the store."""


class StoreRefused(StoreError, ValueError):
    """A file that is no store, is damaged, or was written by a newer version."""


class StoreMissing(StoreError, FileNotFoundError):
    """No store where one should be read."""


class StoreFull(StoreError, OSError):
    """The disk is full; the store is as it was before."""


def connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """A connection that commits each statement by itself."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if mode == 'read' else 'rwc'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def prepare(db: sqlite3.Connection, path: Path, mode: Mode) -> None:
    """Makes the tables of a new store, and refuses a file that is not a sound store of ours."""
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if mode == "read" and not tables:
        raise StoreMissing(f"{path}: the store is empty; wait until the orchestrator has made it")
    if not tables:
        db.execute("PRAGMA journal_mode = WAL")
        _bring_up(db, 0)
    (ours,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if ours != APPLICATION:
        raise StoreRefused(f"{path}: an SQLite file, but not a store of ours; move it away or name another")
    if version > VERSION:
        raise StoreRefused(f"{path}: store version {version}; this program reads up to {VERSION}: update it")
    if mode == "read" and version < VERSION:
        raise StoreRefused(f"{path}: store version {version}: `mas serve` brings it to {VERSION}, start it")
    if mode == "write":
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreRefused(
                f"{path}: damaged ({verdict.splitlines()[-1]}); restore a copy or move it away"
            )
        _bring_up(db, version)


def _bring_up(db: sqlite3.Connection, version: int) -> None:
    """Adds what a store of this version lacks, all of it or nothing."""
    if version < VERSION:
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        db.executescript(f"BEGIN; {''.join(SCHEMAS[version:])} {marks} COMMIT;")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file's name; a broken constraint is the caller's to explain."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        text = str(error)
        # Python 3.10 does not give SQLite's error code, so the words have to do
        if "disk is full" in text:
            raise StoreFull(errno.ENOSPC, f"{text}: free some space", str(path)) from error
        if "not a database" in text or "malformed" in text:
            raise StoreRefused(f"{path}: {text}; restore a copy or move it away") from error
        raise StoreError(f"{path}: {text}") from error
