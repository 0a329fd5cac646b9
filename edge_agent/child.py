"""How a process begins in which the daemon has something computed: it dies with it, and before it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import BinaryIO

from mas_edge.wire.host import die_with_parent


def begin() -> BinaryIO:
    """Make this process such a child; returns where it answers, as what libraries print goes to stderr."""
    die_with_parent(signal.SIGKILL)
    with contextlib.suppress(OSError):  # whoever must be killed for want of memory: not the daemon
        Path("/proc/self/oom_score_adj").write_text("1000")
    for number in (signal.SIGINT, signal.SIGTERM):  # the daemon decides, also at a terminal's Ctrl-C
        signal.signal(number, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out
