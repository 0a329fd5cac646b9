"""A job in one process: the bits of a fleet, nothing trained twice, kills forgiven."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest
import torch
from comparison.book import Book, ComparisonRefused, Setting
from comparison.hands import Hands, run
from comparison.trained import Turns, ends, turns
from lab import Lab, digest

from mas_edge.edge_agent import train
from mas_edge.orchestrator.events import Heard, Merged, Selected
from mas_edge.orchestrator.job import replay
from mas_edge.orchestrator.plan import DemoOptions, demo_plan
from mas_edge.orchestrator.spec import Participation
from mas_edge.wire.messages import BlobRef

SETTING = Setting(data="shipped", torch="", machine="")


@pytest.fixture(autouse=True, scope="module")
def _settled():
    threads = torch.get_num_threads()
    train.use_device("cpu", threads=1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


class Place:
    """A folder in which jobs are run; every call is a process that was started anew."""

    def __init__(self, folder, plan):
        self.folder, self.plan = folder, plan
        folder.mkdir()

    def run(self, say=lambda _: None, **changes):
        """The events of a job of the plan, with these changes."""
        spec = msgspec.structs.replace(self.plan.spec, **changes)
        (self.folder / "scratch").mkdir(exist_ok=True)
        with closing(Book(self.folder / "book.jsonl", SETTING)) as book:
            hands = Hands(self.plan.clients, book, self.folder / "weights", self.folder / "scratch")
            return spec, run(spec, hands, say)

    @property
    def kept(self):
        """How many events the book holds."""
        return (self.folder / "book.jsonl").read_bytes().count(b"\n") - 1


@pytest.fixture(scope="module")
def plan():
    """Two tasks on two devices: four rounds, two of them merged."""
    made = demo_plan(DemoOptions(preset="tiny", tasks="gravity,jerk", clients=8, groups="2"))
    clients = dict(list(made.clients.items())[:2])
    spec = msgspec.structs.replace(made.spec, devices=tuple(clients))
    return msgspec.structs.replace(made, spec=spec, clients=clients)


@pytest.fixture
def place(tmp_path, plan):
    return Place(tmp_path / "place", plan)


@pytest.fixture(scope="module")
def done(tmp_path_factory, plan):
    """Where the job was run, its spec and its events; what is run there later has these to take from."""
    there = Place(tmp_path_factory.mktemp("done") / "place", plan)
    return there, *there.run()


def final(spec, events):
    """Digests of a job's groups at its end."""
    job = replay(spec, [(0.0, event) for event in events])
    assert job.phase == "done"
    return {job_run.group: job_run.weights.digest for job_run in job.runs}


def test_an_unsplit_job_ends_with_the_weights_of_the_lab(place, plan, tmp_path):
    found = final(*place.run(policy="all-in-one", merge_rounds=0))
    (tmp_path / "lab").mkdir()
    lab = Lab(plan.spec, plan.clients, tmp_path / "lab")
    for done in lab.run(plan.spec.tasks, lab.begin(), range(plan.spec.training.rounds)):
        last = digest(done.weights)
    assert found == {"gravity+jerk": last}


def test_a_job_that_is_run_again_trains_nothing(done):
    there, spec, events = done
    kept = there.kept
    assert final(*there.run()) == final(spec, events)
    assert there.kept == kept
    assert set(final(spec, events)) == {"gravity", "jerk"}


def test_another_policy_takes_over_the_merged_rounds_though_it_measures_nothing(done):
    there, _, measured = done
    _, events = there.run(policy="all-in-one", merge_rounds=0)
    answers = [event for event in events if isinstance(event, Heard)]
    assert all(event.update.affinity is None for event in answers)
    merges = [event for event in measured if isinstance(event, Merged) and event.group == "gravity+jerk"]
    assert [event for event in events if isinstance(event, Merged)][: len(merges)] == merges


class Killed(Exception):
    pass


def test_a_killed_job_goes_on_where_it_was_and_ends_the_same(place, done):
    seen = []

    def kill(job):
        seen.append(job)
        if len(seen) == 8:
            raise Killed

    with pytest.raises(Killed):
        place.run(say=kill)
    kept = place.kept
    assert final(*place.run()) == final(*done[1:])
    assert place.kept > kept > 0


def test_devices_weights_go_when_they_are_merged(done):
    there, _, _ = done
    assert list((there.folder / "scratch" / "updates").iterdir()) == []


def test_one_of_two_devices_is_asked_and_the_draw_repeats(place, plan, tmp_path):
    training = msgspec.structs.replace(plan.spec.training, reproducible=False)
    half = {"training": training, "participation": Participation(clients=1, deadline_s=None)}
    spec, events = place.run(**half)
    asked = [e.devices for e in events if isinstance(e, Selected) and e.round < training.rounds]
    assert {len(devices) for devices in asked} == {1}
    assert len(set(asked)) == 2
    assert final(*Place(tmp_path / "again", plan).run(**half)) == final(spec, events)


def test_weights_of_rounds_in_between_go_and_those_that_others_go_on_from_stay(done, plan):
    there, spec, events = done
    ends_ = set(ends(events))
    merged = [event for event in events if isinstance(event, Merged)]
    boundary = next(e for e in merged if (e.group, e.round) == ("gravity+jerk", spec.merge_rounds - 1))
    between = next(e for e in merged if (e.group, e.round) == ("gravity+jerk", 0))
    assert {boundary.weights.digest, *final(spec, events).values()} <= ends_
    assert between.weights.digest not in ends_
    with closing(Book(there.folder / "book.jsonl", SETTING)) as book:
        Hands(plan.clients, book, there.folder / "weights", there.folder / "scratch").tidy(ends_)
    assert {path.name for path in (there.folder / "weights").iterdir()} == ends_
    assert final(*there.run()) == final(spec, events)


def test_a_policy_that_measures_on_goes_on_from_rounds_whose_weights_were_tidied_away(place, plan):
    spec, events = place.run(policy="all-in-one", merge_rounds=0)
    with closing(Book(place.folder / "book.jsonl", SETTING)) as book:
        hands = Hands(plan.clients, book, place.folder / "weights", place.folder / "scratch")
        hands.tidy(ends(events))
    merged, longer = place.run(merge_rounds=3, groups=1)  # measured, so trained again, to the same weights
    assert final(merged, longer) == final(spec, events)


def test_weights_that_were_tidied_away_are_made_again_where_a_policy_parts_from_what_was_trained(place, plan):
    place.run(policy="all-in-one", merge_rounds=0)
    with closing(Book(place.folder / "book.jsonl", SETTING)) as book:
        Hands(plan.clients, book, place.folder / "weights", place.folder / "scratch").tidy(())
    parted = {"policy": "fixed", "merge_rounds": 2, "partition": (("gravity",), ("jerk",)), "groups": "auto"}
    spec, events = place.run(**parted)
    assert set(final(spec, events)) == {"gravity", "jerk"}


def test_what_was_trained_is_counted_by_group_and_measuring(done):
    _, spec, events = done
    devices = len(spec.devices)
    assert set(turns("gram", events)) == {
        Turns(tasks=("gravity", "jerk"), measured="", count=devices),
        Turns(tasks=("gravity", "jerk"), measured="gram", count=devices),
        Turns(tasks=("gravity",), measured="", count=2 * devices),
        Turns(tasks=("jerk",), measured="", count=2 * devices),
    }


def test_a_book_of_other_data_is_refused(tmp_path):
    Book(tmp_path / "book", SETTING).close()
    other = msgspec.structs.replace(SETTING, data="others")
    with pytest.raises(ComparisonRefused, match="name another folder"):
        Book(tmp_path / "book", other)


def test_two_processes_cannot_write_one_book(tmp_path):
    with (
        closing(Book(tmp_path / "book", SETTING)),
        pytest.raises(ComparisonRefused, match="another process"),
    ):
        Book(tmp_path / "book", SETTING)


def test_a_line_that_was_cut_short_is_dropped(tmp_path):
    merged = Merged(group="a", round=1, weights=BlobRef(digest="0" * 64, size_bytes=1, chunk_bytes=1))
    with closing(Book(tmp_path / "book", SETTING)) as book:
        book.keep([("one", merged), ("two", merged)])
    whole = (tmp_path / "book").read_bytes()
    (tmp_path / "book").write_bytes(whole[:-5])
    with closing(Book(tmp_path / "book", SETTING)) as book:
        assert (book.get("one") is None, book.get("two") is None) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("mas", "3"), ("one-by-one", None)])
def test_a_job_in_one_process_ends_with_the_weights_of_the_demo(tmp_path, options):
    policy, groups = options
    asked = ("--groups", groups) if groups else ()
    given = ("--preset", "tiny", "--seed", "7", "--policy", policy, *asked, "--json")
    demo = subprocess.run(
        [sys.executable, "-m", "mas_edge.orchestrator.cli", "demo", *given, "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    made = demo_plan(DemoOptions(preset="tiny", seed=7, policy=policy, groups=groups))
    assert final(*Place(tmp_path / "place", made).run()) == json.loads(demo.stdout)["final_digests"]
