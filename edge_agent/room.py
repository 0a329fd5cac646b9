"""Whether the disk takes what is written to it, said once when that changes.

A full disk is a state of the device, not the end of the agent: what could not be written is tried again,
what is on disk stays, and ``full`` is one of the reasons for which nothing is trained. Only the errors of a
full disk are caught (ENOSPC, EDQUOT); any other is not ours to pass over.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBE_BYTES = 1 << 20


class Room:
    """The room in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.full: str | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write in here: if the disk is full that is noted, and the rest of the block is left out."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            if self.full is None:
                self.full = f"no room in {self._folder} ({error.strerror})"
                log.warning("%s: what is spooled stays, nothing is trained until there is some", self.full)

    def look(self) -> None:
        """Whether a full disk has room again: for more than the little that was freed by chance."""
        if self.full is None:
            return
        probe = self._folder / ".room"
        try:
            with probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, PROBE_BYTES)
        except OSError:
            return
        finally:
            probe.unlink(missing_ok=True)
        self.full = None
        log.info("there is room in %s again", self._folder)
