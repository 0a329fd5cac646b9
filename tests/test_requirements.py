"""The suite's own promise: CI cannot skip what it was told to have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_passes():
    pass

def test_one():
    pytest.skip("no mosquitto on this machine")

@pytest.mark.skipif(True, reason="Mosquitto is not installed")
def test_two():
    pass
"""
MODULE = 'import pytest\npytest.skip("no mosquitto on this machine", allow_module_level=True)\n'


@pytest.mark.parametrize(("required", "fails"), [("", False), ("amqtt", False), ("amqtt mosquitto", True)])
def test_a_skip_for_want_of_a_requirement_fails(tmp_path, required, fails):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_inner.py").write_text(SUITE)
    (tmp_path / "test_module.py").write_text(MODULE)
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options]
    env = {**os.environ, "MAS_REQUIRE": required, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode != 0) is fails, done.stdout
    assert done.stdout.count("MAS_REQUIRE names mosquitto") >= 3 * fails
    assert "1 passed" in done.stdout
