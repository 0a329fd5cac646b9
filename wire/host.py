"""What a process needs of the machine it runs on: configuration, logs, signals, files.

Small functions over the standard library. ``load_config`` turns TOML into a struct of the caller and
names the misspelled key; ``setup_logs`` writes lines for people on a terminal and JSON elsewhere;
``StopSignal`` turns SIGTERM and SIGINT into a flag; ``write_atomic`` leaves the old file or the new one.
sd_notify(3), prctl(2) PR_SET_PDEATHSIG and /proc/sys/kernel/random/boot_id are Linux; elsewhere the
first two do nothing and the last raises. Nothing here knows of MQTT, training or energy.
"""

from __future__ import annotations

import ctypes
import difflib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

import msgspec

from mas_edge.wire.messages import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from typing_extensions import Self

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_T = TypeVar("_T", bound=msgspec.Struct)


class ConfigError(WireError, ValueError):
    """A configuration that is not usable; the text names the file, the key and a remedy."""


# --- configuration --------------------------------------------------------------------------------


def load_config(path: Path, kind: type[_T]) -> _T:
    """The struct in a TOML file; unknown keys are errors even in structs that ignore them elsewhere.

    Raises ConfigError if the file cannot be read, is no TOML, or does not fit the struct.
    """
    return as_config(path, read_toml(path), kind)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises ConfigError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def as_config(path: Path, data: dict[str, Any], kind: type[_T]) -> _T:
    """The struct in the tables of this file, as of ``load_config``; raises ConfigError."""
    _refuse_unknown(path, data, kind, "")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def _refuse_unknown(path: Path, data: dict[str, Any], kind: type[msgspec.Struct], prefix: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            remedy = f"did you mean {prefix + near[0]!r}?" if near else f"known: {', '.join(sorted(fields))}"
            raise ConfigError(f"{path}: unknown key {prefix + key!r}; {remedy}")
        if (inner := _struct_in(fields[key])) is None:
            continue
        named = get_origin(fields[key]) is dict  # tables of the user's own names: [data.NAME]
        listed = value if isinstance(value, list) else [value]  # [[key]]
        tables = value.items() if named and isinstance(value, dict) else [("", each) for each in listed]
        for name, table in tables:
            if isinstance(table, dict):
                _refuse_unknown(path, table, inner, f"{prefix}{key}." + f"{name}." * named)


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that a field may hold, also as one part of ``X | None``."""
    parts = getattr(kind, "__args__", (kind,))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)), None)


# --- logs -----------------------------------------------------------------------------------------


def setup_logs(*, as_json: bool | None = None) -> None:
    """Log to stderr, in JSON unless that is a terminal; the variable MAS_LOG names the level."""
    level = os.environ.get("MAS_LOG", "INFO").upper()
    if not isinstance(logging.getLevelName(level), int):
        raise ConfigError(f"MAS_LOG={level}: use DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler(sys.stderr)
    if as_json if as_json is not None else not sys.stderr.isatty():
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname).1s %(name)s  %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=level, handlers=[handler], force=True)


def set_log_level(level: str) -> None:
    """Log from this level on, unless the variable MAS_LOG names another."""
    if "MAS_LOG" not in os.environ:
        logging.getLogger().setLevel(level)


class _JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, text, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


# --- life and death -------------------------------------------------------------------------------


class StopSignal:
    """Becomes set when the process is asked to end; a second signal ends it at once.

    Hears SIGTERM and SIGINT while it is entered, and leaves them afterwards to whom it had them from.
    ``wake`` is called in the signal handler, for a loop that waits for something else.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._event = threading.Event()
        self._wake = wake
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {n: signal.signal(n, self._caught) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._event.set()
        if self._wake is not None:
            self._wake()

    def is_set(self) -> bool:
        """Whether the process was asked to end."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """``is_set()`` after at most that long."""
        return self._event.wait(timeout_s)


class HangUp:
    """Hears SIGHUP, by which a service is asked to read its configuration again."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        signal.signal(signal.SIGHUP, lambda *_: self._asked.set())

    def taken(self) -> bool:
        """Whether it was asked since this was called last."""
        asked = self._asked.is_set()
        self._asked.clear()
        return asked


def sd_notify(state: str) -> bool:
    """Whether systemd wanted to hear (``READY=1``, ``WATCHDOG=1``, ...) and was told; see man sd_notify."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    return True


def die_with_parent(number: signal.Signals) -> None:
    """Get this signal when the process that started us ends; Linux, see PR_SET_PDEATHSIG in prctl(2).

    The kernel watches the *thread* that started us: start processes from one that stays. A parent that
    ends while this is being arranged counts too.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def boot_id(root: Path = Path("/")) -> str:
    """What changes with each boot of the host; raises OSError where the kernel does not say."""
    return (root / "proc/sys/kernel/random/boot_id").read_text("ascii").strip()


# --- files and ports ------------------------------------------------------------------------------


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Put ``data`` into the file so that a crash leaves the old contents or the new; on disk after.

    ``mode`` is that of the file from its first byte on, less the process's umask.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
        sync_file(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Return when the file's contents are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Return when the folder's entries (what was created, renamed, deleted) are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderInUse(WireError, PermissionError):
    """Another process works in this folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the only process that works in a folder, which is made if it is not there.

    The kernel lets go when the process ends, however it ends: flock(2). Raises FolderInUse.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w", encoding="ascii")
    except OSError as error:
        remedy = "name a folder that this user may write to"
        raise ConfigError(f"state {folder} cannot be used: {error.strerror}; {remedy}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUse(f"{folder} is in use by another process: stop it, or name another") from error
        yield


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now; somebody may a moment later."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
