"""Whether the disk takes what is written to it, said once when that changes.

A full disk is a state, not the end of a daemon: what could not be written is tried again, what is on disk
stays. Only the errors of a full disk are caught (ENOSPC, EDQUOT); any other is not ours to pass over. Room
is believed in again when the kernel gives a whole probe of it (posix_fallocate(3)), for more than the little
that was freed by chance.
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
    """The room in a folder; ``meanwhile`` says, in the log, what is done without."""

    def __init__(self, folder: Path, meanwhile: str) -> None:
        self._folder, self._meanwhile = folder, meanwhile
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
                log.warning("%s: %s", self.full, self._meanwhile)

    def look(self, needed_bytes: int = PROBE_BYTES) -> None:
        """Whether a full disk has room again: for so much at a time."""
        if self.full is None:
            return
        probe = self._folder / ".room"
        try:
            with probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, needed_bytes)
        except OSError:
            return
        finally:
            probe.unlink(missing_ok=True)
        self.full = None
        log.info("there is room in %s again", self._folder)
