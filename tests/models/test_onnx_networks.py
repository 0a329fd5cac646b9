"""Every network of every workload as ONNX, in every precision, and every group of finished demos."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest

from mas_edge.models import job
from mas_edge.models.proof import TOLERANCE, Proof
from mas_edge.models.tasks import find, installed
from mas_edge.models.weights import tasks_in
from mas_edge.models.workloads import dense

pytestmark = pytest.mark.slow

DENSE = ("buildings", "folder", "taskonomy")
NETWORKS = [(name, network) for name in DENSE for network in dense.NETWORKS] + [
    ("watch", "micro"),
    ("watch", "small"),
]
MOST_LOSS = 0.05
"""The share by which an int8 model's held-out loss may be greater: a device refuses more, by default."""


@pytest.fixture(autouse=True)
def _described(tmp_path, monkeypatch):
    """A folder of one's own, without pictures, as the environment names it."""
    label = 'kind = "regression"\nchannels = 1\nmasked = true'
    tables = (
        f'[tasks.depth]\n{label}\n[tasks.class]\nkind = "classes"\nchannels = 5\n[mask]\ndomain = "depth"'
    )
    (tmp_path / "dataset.toml").write_text(f'pixels = 32\nclients = ["attic"]\n{tables}\nabove = 0\n')
    monkeypatch.setenv("MAS_EDGE_FOLDER", str(tmp_path))


def test_the_networks_below_are_all_there_are():
    assert sorted(NETWORKS) == sorted((name, each) for name in installed() for each in find(name).networks)


@pytest.mark.parametrize(("name", "network"), NETWORKS, ids=lambda each: each)
def test_a_network_becomes_a_file_that_computes_the_same(tmp_path, name, network):
    tasks = tuple(task.name for task in find(name).tasks)
    asked = {"workload": name, "network": network, "tasks": tasks}
    job.perform(job.Init(**asked, seed=1, out=str(tmp_path / "w")))
    exported = job.Export(**asked, weights=str(tmp_path / "w"), out=str(tmp_path / "m.onnx"))
    proof = job.perform(exported).proof
    assert [each.task for each in proof.tasks] == list(tasks)
    assert proof.max_abs_error <= TOLERANCE
    assert proof.inputs == ("held-out" if name in {"buildings", "watch"} else "noise")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_torch_child_writes_the_same_file_for_the_same_weights_and_no_other(tmp_path, precision):
    asked = {"workload": "watch", "network": "micro", "tasks": ("jerk", "rotation")}
    job.perform(job.Init(**asked, seed=1, out=str(tmp_path / "w")))
    made = tmp_path / "made"
    made.mkdir()
    for name in ("one", "two"):
        request = job.Export(
            **asked,
            weights=str(tmp_path / "w"),
            out=str(made / name),
            precision=precision,
            about={"job": "j"},
        )
        command = [sys.executable, "-m", "mas_edge.models.job"]
        done = subprocess.run(command, input=msgspec.json.encode(request), capture_output=True, check=True)
        assert done.stderr == b""
    assert sorted(path.name for path in made.iterdir()) == ["one", "two"]
    assert (made / "one").read_bytes() == (made / "two").read_bytes()


def mas(*options) -> str:
    command = [sys.executable, "-m", "mas_edge.orchestrator.cli", *options]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("workload", ["buildings", "watch"])
def test_every_group_of_a_finished_demo_is_exported_in_every_precision(tmp_path, workload):
    run = tmp_path / "run"
    mas("demo", "--workload", workload, "--preset", "tiny", "--groups", "2", "--json", "--out", str(run))
    for options, precision in (((), "fp32"), (("--fp16",), "fp16"), (("--int8",), "int8")):
        out = tmp_path / precision
        said = json.loads(mas("export", str(run), *options, "--json", "--out", str(out)))
        assert len(said["groups"]) == 2
        for group in said["groups"]:
            proof = proof_of(out, group)
            assert (proof.precision, proof.inputs) == (precision, "held-out")
            assert {each.task for each in proof.tasks} == set(group.split("+"))
            assert precision != "fp32" or proof.max_abs_error <= TOLERANCE
            assert proof.loss <= (1 + MOST_LOSS) * proof.torch_loss
    assert mas("report", str(tmp_path / "int8"))


def proof_of(out, group) -> Proof:
    """The proof beside a group's file, which is as large as it says and has the tasks of its weights."""
    proof = msgspec.json.decode((out / "models" / f"{group}.parity.json").read_bytes(), type=Proof)
    assert (out / "models" / f"{group}.onnx").stat().st_size == proof.size_bytes
    assert set(tasks_in(out / "weights" / f"{group}.safetensors")) == {each.task for each in proof.tasks}
    return proof
