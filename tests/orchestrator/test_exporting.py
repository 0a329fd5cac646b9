from __future__ import annotations

import json

import msgspec
import pytest
from finished import a_run

from mas_edge.models.proof import Proof, TaskProof
from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.launching import exporting
from mas_edge.orchestrator.reports.runs import read


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run with two groups, the weights of which are some bytes."""
    folder = tmp_path / "seven"
    (folder / "weights").mkdir(parents=True)
    for group in ("a", "b"):
        (folder / "weights" / f"{group}.safetensors").write_bytes(group.encode())
    (folder / "report.json").write_bytes(msgspec.json.encode(a_run()))
    return folder


def test_a_finished_runs_weights_and_report_are_copied_and_can_be_read_again(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(run), "--safetensors", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "job": "j",
        "out": str(out),
        "groups": ["a", "b"],
        "models": {},
    }
    assert (out / "weights" / "b.safetensors").read_bytes() == b"b"
    assert read(out) == read(run)
    assert not (out / "models").exists()


def test_weights_that_are_none_are_refused_by_their_group(run, tmp_path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "the weights of a are no safetensors file" in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seven"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run, _: (run / "report.json").unlink(), "holds no finished run"),
        (lambda run, _: (run / "weights" / "b.safetensors").unlink(), "the weights of b are not with their"),
        (lambda _, out: (out.mkdir(), (out / "mine").touch()), "is no empty folder: name another"),
        (lambda _, out: out.touch(), "is no empty folder: name another"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(run, tmp_path, capsys, spoil, says):
    spoil(run, tmp_path / "out")
    assert main(["export", str(run), "--safetensors", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_job_without_weights_has_no_models_yet_but_a_report(tmp_path):
    def ask(precision):
        return exporting.export(tmp_path / "out", a_run(), {}, precision, lambda *_: None)

    with pytest.raises(exporting.ExportRefused, match="j has no weights yet"):
        ask("fp32")
    assert not any(tmp_path.iterdir())
    assert ask(None) == {}
    assert read(tmp_path / "out") == a_run()


def test_a_group_whose_name_leads_out_of_the_folder_is_refused(tmp_path):
    weights = {"../../a": lambda path: path.write_bytes(b"a")}
    with pytest.raises(exporting.ExportRefused, match=r"'../../a' is no group's name"):
        exporting.export(tmp_path / "out", a_run(), weights, None, lambda *_: None)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_said_and_no_orchestrator_is_asked_for_it(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")]) == 2
    assert "none holds no finished run" in capsys.readouterr().err


def test_two_precisions_at_once_are_wrong_usage(run):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--int8", "--fp16"])
    assert ended.value.code == 2


def a_proof(**change):
    task = TaskProof(task="a", max_abs_error=2e-6, mean_abs_error=1e-7, loss=0.5, torch_loss=0.25)
    plain = {"digest": "0" * 64, "size_bytes": 430_000, "precision": "fp32", "opset": 20, "versions": {}}
    return Proof(**{**plain, "inputs": "held-out", "examples": 512, "tasks": (task,)} | change)


def test_a_line_about_a_model_says_what_was_compared_and_on_what():
    said = exporting.line("a", a_proof())
    assert said == "a.onnx: fp32, 0.43 MB, at most 2e-06 off torch on 512 examples, loss 0.5000 beside 0.2500"
    noise = exporting.line("a", a_proof(inputs="noise", reason="nobody is held out"))
    assert noise.endswith("on 512 examples of noise (nobody is held out)")
    unlabelled = TaskProof(task="a", max_abs_error=0.0, mean_abs_error=0.0)
    assert exporting.line("a", a_proof(tasks=(unlabelled,))).endswith("on 512 examples")
