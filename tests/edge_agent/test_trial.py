"""The process that tries a model: a real one, on the watch's real held-out windows."""

from __future__ import annotations

import hashlib
import os
import signal
import time

import pytest
from onnx_files import watch_model

from mas_edge.edge_agent.inference import percentile
from mas_edge.edge_agent.trial import Ready, Timed, TrialProcess, Tried, Try, Unfit

LIMIT_S = 60.0


class Trial:
    def __init__(self, folder, file: bytes, **options) -> None:
        path = folder / "model"
        path.write_bytes(file)
        given = {"digest": hashlib.sha256(file).hexdigest(), "tasks": ("gravity", "jerk"), **options}
        order = Try(path=str(path), workload="watch", clients=("1",), timed_s=0.1, **given)
        self.process, self.words = TrialProcess(order, folder / "inference.log"), []

    def until(self, kind):
        """The first word of this kind; ``Go`` is said when it is time to."""
        end_s = time.monotonic() + LIMIT_S
        while time.monotonic() < end_s:
            for word in self.process.heard():
                self.words.append(word)
                if isinstance(word, kind):
                    return word
                if isinstance(word, Ready):
                    self.process.go()
            time.sleep(0.005)
        raise TimeoutError(self.words)


@pytest.fixture
def trial(tmp_path):
    begun = []

    def begin(file, **options):
        begun.append(Trial(tmp_path, file, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.close()


def test_a_model_is_timed_and_then_judged_by_the_jobs_held_out_examples(trial):
    one = trial(watch_model())
    tried = one.until(Tried)
    ready, timed, last = one.words
    assert isinstance(ready, Ready)
    assert isinstance(timed, Timed)
    assert last is tried
    assert timed.inputs >= 30
    assert 0 < timed.latency_p50_s <= timed.latency_p95_s < timed.wall_s
    assert timed.cpu_s > 0
    assert tried.inputs_per_s > 0
    assert 20e6 < tried.peak_rss_bytes < 300e6
    assert tried.held_out_share == 0.2
    assert [score.task for score in tried.scores] == ["gravity", "jerk"]
    for score in tried.scores:  # it answers with the constant predictor
        assert score.loss_sum == pytest.approx(score.constant_loss_sum)
        assert score.count == 86


def test_it_is_judged_by_as_many_examples_as_it_is_told(trial):
    tried = trial(watch_model(), held_out_share=0.5).until(Tried)
    assert tried.held_out_share == 0.5
    assert tried.scores[0].count > 200


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        (watch_model()[:999], {}, "it is cut short"),
        (watch_model(), {"digest": "0" * 64}, "its SHA-256 is"),
        (watch_model(operator=("Frobnicate", "")), {}, "Frobnicate"),
        (watch_model(), {"tasks": ("side",)}, "it is for gravity, jerk, and asked for was side"),
        (watch_model(off=float("nan")), {}, "its held-out loss of task 'gravity' is nan"),
    ],
)
def test_a_model_that_cannot_be_used_is_unfit_in_one_line(trial, file, options, said):
    why = trial(file, **options).until(Unfit).why
    assert said in why
    assert "\n" not in why


def test_a_process_that_is_killed_is_unfit(trial):
    one = trial(watch_model())
    os.kill(one.process.pid, signal.SIGKILL)
    assert "ended by signal 9" in one.until(Unfit).why


def test_percentiles_are_of_what_was_measured():
    assert percentile([7.0], 95) == 7.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
