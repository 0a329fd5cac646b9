"""A device that only infers: mas-edge[infer] in an environment of its own, without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from onnx_files import watch_model

ROOT = Path(__file__).resolve().parents[1]
DEVICE = """
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.append(sys.argv[1])
from deploying import a_site, m

assert find_spec("torch") is None and find_spec("onnx") is None
root = Path(sys.argv[2])
with a_site(root) as site:
    site.deploy((root / "model.onnx").read_bytes(), "r1")
    answer = site.heard(m.Deployed)
    site.assign()
    declined = site.heard(m.Declined)
print(answer.verdict, len(answer.profile.scores), declined.detail, sep="; ")
"""


def run(*command: object, **options) -> str:
    """What it printed; its exit status must be 0."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment with mas-edge[infer], as pip installs it, and nothing else."""
    folder = tmp_path_factory.mktemp("infer")
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, files):  # pip builds in the tree, and would pack what an older build left there
        if (ROOT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv/bin"
    wanted = [f"{folder / 'source'}[infer]", "-c", ROOT / "constraints.txt"]
    done = subprocess.run([programs / "pip", "install", "--quiet", *wanted], capture_output=True, check=False)
    if b"connection broken" in done.stderr:
        pytest.skip("no package index on this machine")
    assert done.returncode == 0, done.stderr.decode()
    return programs


@pytest.mark.slow
def test_a_device_without_torch_infers_deploys_and_declines_to_train(installed, tmp_path):
    packages = run(installed / "pip", "list", "--format", "freeze").lower()
    assert "onnxruntime==" in packages
    assert not any(line.startswith(("torch==", "onnx==", "nvidia")) for line in packages.splitlines())

    (tmp_path / "model.onnx").write_bytes(watch_model(off=0.5))
    np.save(tmp_path / "windows.npy", np.zeros((2, 6, 128), np.float32))
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    options = ("infer", "--model", "model.onnx", "--input", "windows.npy", "--out", "out")
    lines = run(installed / "mas-agent", *options, cwd=tmp_path, env=env).splitlines()
    assert [line.split()[1] for line in lines] == ["gravity", "jerk", "picture", "picture"]
    np.testing.assert_allclose(np.load(tmp_path / "out/windows.jerk.npy"), 0.5)

    said = run(installed / "python", "-c", DEVICE, ROOT / "tests", tmp_path, cwd=tmp_path, env=env)
    assert said.startswith("in use; 2; torch is not installed: this device only infers; to train: pip")
