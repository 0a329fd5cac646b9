"""What several tests of the agent need of the machine."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def small(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
