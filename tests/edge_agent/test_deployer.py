"""The agent and models that it is to infer with; the test plays the orchestrator, the trials are real."""

from __future__ import annotations

import os

import msgspec
import pytest
from deploying import GROUP, TASKS, a_site
from onnx_files import watch_model

from mas_edge.edge_agent.model_folder import kept
from mas_edge.edge_agent.moments import look, price
from mas_edge.profiling.meters import open_one
from mas_edge.profiling.rows import Use
from mas_edge.wire import messages as m
from mas_edge.wire.memory import Broker


def test_an_unsound_model_is_refused_and_its_file_removed(tmp_path):
    with a_site(tmp_path) as site:
        site.deploy(watch_model()[:999], "r1")
        answer = site.heard(m.Deployed)
        assert (answer.request, answer.verdict, answer.in_use) == ("r1", "refused", None)
        assert "it is cut short" in answer.why
        left = {path.name for path in (tmp_path / "state/models").iterdir()}
        assert left == {"in-use.json"}
        assert not list((tmp_path / "state/blobs").iterdir())


def test_the_trial_of_a_model_that_nobody_wants_any_more_is_ended(tmp_path):
    with a_site(tmp_path) as site:
        site.deploy(watch_model(), "r1")
        site.until_status(f"trying a model of {GROUP}")
        site.deploy(b"no model", "r2")
        assert [site.heard(m.Deployed).request for _ in range(2)] == ["r1", "r2"]
        site.until_status("idle")
        assert site.in_use is None


def test_an_answer_is_given_again_also_after_a_restart(tmp_path):
    with a_site(tmp_path) as site:
        order = site.deploy(b"no model", "r1")
        answer = site.heard(m.Deployed)
        site.say(order)
        assert site.heard(m.Deployed) == answer
    with a_site(tmp_path) as site:
        site.say(order)
        assert site.heard(m.Deployed) == answer


def test_a_request_for_a_file_that_cannot_be_is_left_alone(tmp_path):
    with a_site(tmp_path) as site:
        order = site.deploy(b"", "r1")
        nowhere = msgspec.structs.replace(order.model.file, digest="../../etc/passwd")
        model = msgspec.structs.replace(order.model, file=nowhere)
        site.heard(m.Deployed)
        site.say(msgspec.structs.replace(order, request="r2", model=model))
        site.say(m.Deploy(request="r3", workload="watch", job="j", group=GROUP))
        assert site.heard(m.Deployed).request == "r3"


def test_an_answer_is_not_given_before_there_is_room_to_keep_it(tmp_path, small):
    with a_site(tmp_path, state=small) as site:
        (small / "ballast").write_bytes(bytes(os.statvfs(small).f_bavail * 4096))
        site.say(m.Deploy(request="r1", workload="watch", job="j", group=GROUP))
        for _ in range(20):
            assert not any(isinstance(message, m.Deployed) for message in site.said())
        assert kept(small / "models").answers == ()
        (small / "ballast").unlink()
        answer = site.heard(m.Deployed)
        assert kept(small / "models").answers == (answer,)


@pytest.mark.slow
def test_a_model_comes_into_use_with_its_numbers_a_worse_one_does_not_and_the_one_before_comes_back(tmp_path):
    with a_site(tmp_path) as site:
        first = site.deploy(watch_model(off=0.5), "r1")
        answer = site.heard(m.Deployed)
        assert (answer.verdict, answer.in_use, answer.running) == ("in use", site.in_use, None)
        profile = answer.profile
        assert [score.task for score in profile.scores] == list(TASKS)
        assert 0 < profile.latency_p50_s <= profile.latency_p95_s < 1
        assert profile.inputs_per_s > 10
        assert profile.peak_rss_bytes > 20e6
        assert profile.method == "estimated"
        assert 0 < profile.energy_j < 1
        assert profile.energy_u_j > 0

        better = site.deploy(watch_model(off=0.0), "r2")
        answer = site.heard(m.Deployed)
        assert (answer.verdict, answer.in_use.previous) == ("in use", first.model)
        assert answer.running.scores == profile.scores
        assert answer.profile.scores != profile.scores

        site.deploy(watch_model(off=0.3), "r3")
        answer = site.heard(m.Deployed)
        assert (answer.verdict, answer.in_use.model) == ("refused", better.model)
        assert "worse by more than 0.05" in answer.why
        site.deploy(watch_model(off=0.3, job="generous"), "r4", job="generous", margin=100.0)
        assert site.heard(m.Deployed).verdict == "in use"

        site.say(m.Deploy(request="r5", workload="watch", job="generous", group=GROUP))
        answer = site.heard(m.Deployed)
        assert (answer.verdict, answer.in_use.model) == ("rolled back", better.model)
    with a_site(tmp_path) as site:
        assert site.heard(m.Hello).in_use == (answer.in_use,)


@pytest.mark.slow
def test_a_training_that_comes_during_a_trial_waits_for_its_end(tmp_path):
    with a_site(tmp_path) as site:
        site.deploy(watch_model(), "r1")
        site.until_status(f"trying a model of {GROUP}")
        site.assign()
        site.until_status(f"trying a model of {GROUP}; waiting for its turn for gravity, round 1")
        assert site.heard((m.Deployed, m.Declined)).verdict == "in use"
        assert site.heard(m.Declined).reason == "fingerprint"  # which a worker finds out


def test_joules_are_unknown_where_the_idle_power_is():
    meter, bus = open_one("estimate:idle_w=2,max_w=10"), Broker().connect("d1")
    first = look(meter, bus)
    use = Use(job="", group="", round=0, phase="infer", wall_s=0.1, cpu_s=0.1)
    assert price(first, look(meter, bus, first), use, meter, None).attributed_energy_j is None
