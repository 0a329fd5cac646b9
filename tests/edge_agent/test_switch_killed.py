"""kill -9 at any instant of a switch: the device has one whole model, and gives no answer that is untrue.

Both processes are real. The first switches as fast as the disk lets it, so that most kills fall into a
switch; the second is the agent as it is, killed while it fetches, tries, switches or answers.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from onnx_files import GROUP

from mas_edge.edge_agent import infer
from mas_edge.edge_agent.in_use import find
from mas_edge.edge_agent.model_folder import kept

KILLS, AGENT_KILLS = 30, 8
TESTS = str(Path(onnx_files.__file__).parent)
SWITCHING = """
import sys
from pathlib import Path

from onnx_files import GROUP, watch_model

from mas_edge.edge_agent import deployment as d
from mas_edge.edge_agent.model_folder import ModelFolder
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.messages import Deploy, InferenceProfile, Model, Score

state, first = Path(sys.argv[1]), int(sys.argv[2])
blobs, folder = BlobStore(state / "blobs"), ModelFolder(state / "models")
now = d.State(able=frozenset({("watch", "gravity")}), kept=folder.kept())
folder.clear(now.needed)
good = InferenceProfile(scores=(Score(task="gravity", count=1, loss_sum=1),))
for number in range(first, first + 10000):
    ref = blobs.add(watch_model(off=float(number)))
    model = Model(workload="watch", job="j", group=GROUP, round=1, tasks=("gravity", "jerk"), file=ref)
    order = Deploy(request=str(number), workload="watch", job="j", group=GROUP, model=model)
    now, _ = d.step(now, d.Asked(deploy=order))
    folder.take(blobs, ref.digest)
    for event in (d.Fetched(digest=ref.digest), *[d.Measured(profile=good, held_out_share=0.2)] * 2):
        now, actions = d.step(now, event)
        if answers := [action.answer for action in actions if isinstance(action, d.Keep)]:
            folder.keep(now.kept)
            folder.clear(now.needed)
            print(answers[0].request, flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_while_it_switches_leaves_one_whole_model_that_is_the_last_or_the_next(tmp_path):
    rng, number, last = random.Random(7), 0, None
    for _ in range(KILLS):
        command = [sys.executable, "-c", f"import sys; sys.path.append({TESTS!r})\n{SWITCHING}"]
        process = subprocess.Popen([*command, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
        with process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            said = [number, *map(int, process.stdout.read().split())]
        assert process.returncode == -signal.SIGKILL
        last = said[-1]
        now = the_offset(tmp_path)
        assert now in {last, last + 1}  # what it said last, or what it was about to say
        number = now + 1
    assert last > KILLS


def the_offset(state: Path) -> int:
    """What the model in use adds to its answers; it is opened, verified and run on the way."""
    (serving,) = infer.in_use(state, None, None)
    outputs = serving.model.run(np.zeros((1, 6, 128), np.float32))
    return round(float(outputs["jerk"][0, 0]))


AGENT = """
import sys
from pathlib import Path

from onnx_files import watch_model
from deploying import Site, m

root, request = Path(sys.argv[1]), int(sys.argv[2])
site = Site(root)
print("up", flush=True)
while True:
    site.deploy(watch_model(off=request / 1000), f"r{request}")
    answer = site.heard(m.Deployed)
    print(answer.request, answer.verdict.replace(" ", "-"), flush=True)
    request += 1
"""


@pytest.mark.slow
def test_an_agent_killed_at_any_moment_has_a_whole_model_and_stands_by_what_it_said(tmp_path):
    rng, request, said = random.Random(3), 0, {}
    code = f"import sys; sys.path.append({TESTS!r})\n{AGENT}"
    for _ in range(AGENT_KILLS):
        command = [sys.executable, "-c", code, str(tmp_path), str(request)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 12))
            process.send_signal(signal.SIGKILL)
            answers = dict(line.split() for line in process.stdout.read().splitlines())
        said |= answers
        assert set(answers.values()) <= {"in-use"}
        request = max([request, *(int(name[1:]) + 1 for name in answers)])
        known = {answer.request for answer in kept(tmp_path / "state/models").answers}
        assert said.keys() <= known
        if found := find(kept(tmp_path / "state/models").in_use, "watch", GROUP):
            assert infer.in_use(tmp_path / "state", None, None)[0].model.digest == found.model.file.digest
    assert said
