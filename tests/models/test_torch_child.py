from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from mas_edge.models import job, weights
from mas_edge.models.fingerprint import fingerprint
from mas_edge.models.job import Evaluate, Export, Init
from mas_edge.models.onnx_file import open_model
from mas_edge.models.workloads.watch import workload

TASKS = ("jerk", "exercise")


def init(path, **change):
    request = {"workload": "watch", "network": "micro", "tasks": TASKS, "seed": 4, "out": str(path)}
    return Init(**request | change)


def ask(request):
    return job.answer(msgspec.json.encode(request))


def test_a_child_process_writes_first_weights_and_says_what_they_are_and_cost(tmp_path):
    request = msgspec.json.encode(init(tmp_path / "w"))
    done = subprocess.run(
        [sys.executable, "-m", "mas_edge.models.job"], input=request, capture_output=True, check=True
    )
    answer = msgspec.json.decode(done.stdout, type=job.Answer)
    assert isinstance(answer, job.Initialised)
    assert done.stderr == b""
    assert set(answer.parameters) == {"encoder", "decoder.jerk", "decoder.exercise"}
    counted = sum(array.size for array in weights.load(tmp_path / "w").values())
    assert sum(answer.parameters.values()) == counted
    assert answer.flops.keys() == answer.parameters.keys()
    assert answer.flops["encoder"] > answer.flops["decoder.jerk"] > 0
    assert answer.fingerprint == fingerprint(workload, "micro")
    assert answer.cost.cpu_s > 0.1
    assert answer.cost.peak_rss_bytes > 50e6


def test_the_same_request_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        ask(init(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_weights_are_evaluated_on_people_that_nobody_trains_on(tmp_path):
    ask(init(tmp_path / "w"))
    request = Evaluate(
        workload="watch", network="micro", tasks=TASKS, weights=str(tmp_path / "w"), clients=workload.unseen
    )
    answer = ask(request)
    assert isinstance(answer, job.Evaluated)
    assert [(score.task, score.count) for score in answer.scores] == [("exercise", 764), ("jerk", 764)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workload": "none"}, "no workload 'none'"),
        ({"network": "huge"}, "no network 'huge'"),
        ({"tasks": ("jerk", "jrek")}, "no task 'jrek'"),
        ({"out": "/nowhere/w"}, "/nowhere"),
    ],
)
def test_what_cannot_be_met_is_refused_in_one_line(tmp_path, change, says):
    answer = ask(init(tmp_path / "w", **change))
    assert isinstance(answer, job.Refused)
    assert says in answer.detail
    assert "\n" not in answer.detail
    assert not list(tmp_path.iterdir())


def test_damaged_weights_and_other_networks_weights_are_refused(tmp_path):
    ask(init(tmp_path / "w"))
    request = {"workload": "watch", "tasks": TASKS, "weights": str(tmp_path / "w"), "clients": ("9",)}
    assert "shape" in ask(Evaluate(network="small", **request)).detail
    (tmp_path / "w").write_bytes(b"half")
    assert "safetensors" in ask(Evaluate(network="micro", **request)).detail


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clients": ("11",)}, "11"),
        ({"network": "small"}, "shape"),
        ({"tasks": ("jerk", "gravity")}, "no decoder.gravity"),
        ({"weights": "/nowhere"}, "/nowhere"),
    ],
)
def test_an_export_that_cannot_be_is_refused_and_leaves_no_file(tmp_path, change, says):
    ask(init(tmp_path / "w"))
    request = {"workload": "watch", "network": "micro", "tasks": TASKS, "weights": str(tmp_path / "w")}
    answer = ask(Export(**{**request, "out": str(tmp_path / "m.onnx")} | change))
    assert isinstance(answer, job.Refused)
    assert says in answer.detail
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.slow
def test_a_group_is_exported_for_some_of_its_tasks_and_computes_the_same_for_them(tmp_path):
    ask(init(tmp_path / "w"))
    request = {"workload": "watch", "network": "micro", "weights": str(tmp_path / "w"), "clients": ("9",)}
    inputs, outputs = np.random.default_rng(1).standard_normal((3, 6, 128), np.float32), []
    for tasks in (TASKS, ("jerk",)):
        answer = ask(Export(**request, tasks=tasks, out=str(tmp_path / "m.onnx")))
        assert isinstance(answer, job.Exported), answer
        model = open_model(tmp_path / "m.onnx")
        assert set(model.card.tasks) == set(tasks)
        outputs.append(model.run(inputs)["jerk"])
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_request_that_is_none_exits_with_2_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "mas_edge.models.job"],
        input=b'{"kind": "dance"}',
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"dance" in done.stdout
    assert done.stderr == b""
