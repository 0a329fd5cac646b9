"""Files that are launched, from disk: TOML of one of two kinds, or a line that says what is wrong with it.

A file with ``[job]`` is a job file, any other a task file; what may stand there says
``orchestrator.launching.launch_tables``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mas_edge.orchestrator.launching.launch_tables import JobFile, TaskFile, Wish, wish
from mas_edge.wire.host import ConfigError, as_config, read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def read(paths: Sequence[Path]) -> tuple[Wish, ...]:
    """What the files ask for, in their order; raises ConfigError with the file, the key and a remedy."""
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> Wish:
    data = read_toml(path)
    if endless := _endless(data):
        raise ConfigError(f"{path}: {endless} is no number that can be reached: give one, or leave it out")
    if "job" not in data and not isinstance(data.get("task"), dict):
        several = "; several [[task]] need a [job]" if "task" in data else ""
        raise ConfigError(f"{path}: needs a table [task], or [job] with [[task]]s{several}")
    if "job" in data:
        return wish(str(path), as_config(path, data, JobFile))
    return wish(str(path), as_config(path, data, TaskFile))


def _endless(table: Mapping[str, object]) -> str:
    """The key of an ``inf`` or ``nan``, which JSON would turn into "not given"; empty if there is none."""
    for key, value in table.items():
        inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, float) and not math.isfinite(value):
            return key
        if found := next(filter(None, (_endless(each) for each in inner if isinstance(each, dict))), ""):
            return f"{key}.{found}"
    return ""
