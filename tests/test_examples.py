"""The examples are run: what we show to others works."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mas_edge.models import losses, net
from mas_edge.models.evaluate import evaluate
from mas_edge.models.fingerprint import fingerprint
from mas_edge.models.show import show
from mas_edge.models.tasks import Source

OWN_WORKLOAD = Path(__file__).parents[1] / "examples/own_workload.py"


@pytest.fixture(scope="module")
def own():
    spec = importlib.util.spec_from_file_location("own_workload", OWN_WORKLOAD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.workload


def test_a_workload_of_ones_own_is_sixty_lines_of_code():
    text = OWN_WORKLOAD.read_text()
    words = len(ast.get_docstring(ast.parse(text), clean=False).splitlines())
    assert sum(bool(line.strip()) for line in text.splitlines()[words:]) <= 60


def test_it_loads_no_torch_when_it_is_imported():
    program = f"import sys, runpy; runpy.run_path({str(OWN_WORKLOAD)!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_its_views_do_not_overlap_and_are_the_same_each_time(own):
    train, held_out, again = (
        own.dataset(Source(("small", "large")), view, 0.25).batch(np.arange(128))
        for view in ("train", "held-out", "train")
    )
    np.testing.assert_array_equal(train.inputs, again.inputs)
    assert not {row.tobytes() for row in train.inputs} & {row.tobytes() for row in held_out.inputs}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_what_it_teaches_is_learnt_on_a_bell_that_nobody_trained_on(own):
    rng = np.random.default_rng(1)
    trained = net.build(own, own.networks[0], [task.name for task in own.tasks], seed=1)
    optimiser = torch.optim.SGD(trained.parameters(), lr=own.presets[0].lr, momentum=0.9)
    data = own.dataset(Source(("small", "large")), "train", own.presets[0].held_out_share)
    for _ in range(120):
        given = losses.examples(data.batch(rng.integers(0, len(data), 32)), own.tasks)
        outputs = trained(given.inputs)
        total = sum(losses.loss_sum(t, outputs[t.name], given.labels[t.name]) for t in own.tasks) / 32
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    for score in evaluate(trained, own.dataset(Source(own.unseen), "all", 0.0), own.tasks, 256):
        assert score.loss_sum < 0.7 * score.constant_loss_sum, score


def test_it_has_a_fingerprint_and_a_picture(own, tmp_path):
    assert len(fingerprint(own, own.networks[0])) == 64
    show(own, own.clients[0], None, tmp_path / "data.png")
    assert (tmp_path / "data.png").stat().st_size > 1000
