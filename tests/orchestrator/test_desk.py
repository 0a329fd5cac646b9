"""Orders and questions to an orchestrator that has a store, a bus and two devices, and trains nothing."""

from __future__ import annotations

import contextlib
import random

import msgspec
import pytest

from mas_edge.orchestrator.job import Abandoned, Event, Initialised, Planned
from mas_edge.orchestrator.launching import orders
from mas_edge.orchestrator.launching.desk import Desk
from mas_edge.orchestrator.launching.launch_tables import JobTable, TaskTable, TrainingTable, Wish
from mas_edge.orchestrator.launching.looks import Looker
from mas_edge.orchestrator.server import Server
from mas_edge.orchestrator.spec import Budget, Participation
from mas_edge.orchestrator.storage.shelf import Shelf, StorageConfig
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.workshop import Workshop
from mas_edge.profiling.meters import open_one
from mas_edge.wire import messages as m
from mas_edge.wire.blobs import BlobStore
from mas_edge.wire.memory import Broker

DAY_S = 1_795_348_800.0  # 2026-11-22, noon


def wish(task, *, alone=False, name=None, **training):
    return Wish(
        source=f"{task}.toml",
        job=JobTable(workload="watch", name=name),
        tasks=tuple(TaskTable(task=each) for each in task.split("+")),
        training=TrainingTable(preset="tiny", **training),
        budget=Budget(),
        participation=Participation(),
        alone=alone,
    )


class Office:
    """A desk with its server; time is what the test says."""

    def __init__(self, root, storage=None) -> None:
        self.root, self.storage, self.now_s = root, storage, DAY_S
        self.open = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        """Start, or start again after what could have been a kill."""
        self.open.close()
        self.store = self.open.enter_context(
            contextlib.closing(Store(self.root / "store.db", Event, wall_s=lambda: self.now_s))
        )
        self.blobs = BlobStore(self.root / "blobs")
        meter = self.open.enter_context(contextlib.closing(open_one("estimate:idle_w=2,max_w=10")))
        workshop = self.open.enter_context(contextlib.closing(Workshop(self.blobs, self.root, meter)))
        bus = Broker().connect("orchestrator")
        self.server = Server(
            "f",
            bus,
            self.store,
            self.blobs,
            workshop,
            rng=random.Random(1),
            clock_s=lambda: self.now_s,
            shelf=Shelf(self.blobs, self.storage),
        )
        self.desk = Desk(self.server, self.store, wall_s=lambda: self.now_s)

    def device(self, name, tasks=("exercise", "gravity", "jerk", "rotation")) -> None:
        """A device that has said hello before the orchestrator started."""
        offer = m.Offer(workload="watch", tasks=tuple(tasks))
        versions = m.Versions(mas_edge="0", python="3")
        self.store.remember_device(m.Hello(device=name, boot_id="b", versions=versions, workloads=(offer,)))
        self.start()

    def launch(self, *wishes, wait_s=10.0):
        return self.desk.carry_out(orders.LaunchThese(wishes=wishes, owner="anna", wait_s=wait_s))

    def ask(self, question):
        with Looker(self.root) as look:
            return look(question)

    def after(self, seconds) -> None:
        self.now_s += seconds
        self.desk.turn()

    @property
    def jobs(self):
        return {job.spec.name: job for job in self.server.jobs}


@pytest.fixture
def office(tmp_path):
    made = Office(tmp_path)
    for name in ("edge-1", "edge-2"):
        made.device(name)
    yield made
    made.open.close()


def refused(answer) -> str:
    assert isinstance(answer, orders.Refused), answer
    assert "\n" not in answer.text
    return answer.text


# --- launching --------------------------------------------------------------------------------------


def test_tasks_launched_together_merge_and_begin_when_their_window_closes(office):
    (going,) = office.launch(wish("gravity"), wish("jerk")).jobs
    assert (going.job, going.tasks, going.beside, going.starts_in_s) == (
        "1122-gravity-jerk-1",
        ("gravity", "jerk"),
        (),
        10.0,
    )
    assert office.jobs == {}
    office.after(9.9)
    assert office.jobs == {}
    office.after(0.1)
    spec = office.jobs["1122-gravity-jerk-1"].spec
    assert set(spec.tasks) == {"gravity", "jerk"}
    assert spec.devices == ("edge-1", "edge-2")
    assert {each.owner for each in spec.launched} == {"anna"}


def test_what_somebody_else_launches_in_time_joins_and_what_comes_later_runs_beside(office):
    office.launch(wish("gravity"))
    office.after(5.0)
    (joined,) = office.launch(wish("jerk")).jobs
    assert (joined.job, joined.tasks, joined.beside) == ("1122-gravity-1", ("jerk",), ("gravity",))
    office.after(5.0)
    (beside,) = office.launch(wish("rotation")).jobs
    assert beside.job == "1122-rotation-1"
    office.after(10.0)
    assert {name: set(job.spec.tasks) for name, job in office.jobs.items()} == {
        "1122-gravity-1": {"gravity", "jerk"},
        "1122-rotation-1": {"rotation"},
    }


def test_a_launch_for_now_begins_at_once_and_takes_those_along_that_wait(office):
    office.launch(wish("gravity"))
    (going,) = office.launch(wish("jerk"), wait_s=0.0).jobs
    assert (going.beside, going.starts_in_s) == (("gravity",), 0.0)
    assert set(office.jobs[going.job].spec.tasks) == {"gravity", "jerk"}


def test_a_job_file_begins_at_once_and_is_joined_by_nobody(office):
    office.launch(wish("gravity"))
    (going,) = office.launch(wish("jerk+rotation", alone=True, name="arm")).jobs
    assert (going.job, list(office.jobs)) == ("arm-1", ["arm-1"])


def test_a_name_is_never_used_twice(office):
    for number in (1, 2):
        (going,) = office.launch(wish("gravity"), wait_s=0.0).jobs
        assert going.job == f"1122-gravity-{number}"
        office.server.happened(going.job, Abandoned(reason="no room"))


def test_a_launch_survives_a_restart_and_begins_when_it_should(office):
    office.launch(wish("gravity"), wish("jerk"))
    office.now_s += 4.0
    office.start()
    office.after(5.9)
    assert office.jobs == {}
    assert office.desk.waits
    office.after(0.2)
    assert list(office.jobs) == ["1122-gravity-jerk-1"]
    office.start()
    office.after(60.0)
    assert list(office.jobs) == ["1122-gravity-jerk-1"]
    assert not office.desk.waits


def test_what_does_not_merge_is_said_with_the_reason(office):
    one, other = office.launch(wish("gravity"), wish("jerk", rounds=6)).jobs
    assert one.apart == ""
    assert other.apart == "not one job with 1122-gravity-1: rounds is 6 and 4"


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ((wish("gravty"),), "gravty.toml: workload 'watch' has no task 'gravty'; it has"),
        ((wish("forecast"),), "no known device has data for task 'forecast'"),
        ((wish("gravity"), wish("gravity")), "a task named 'gravity' already (gravity.toml)"),
        ((wish("jerk+rotation", alone=True, merge_rounds=9),), "merge rounds must be 1 to 3"),
    ],
)
def test_a_launch_that_cannot_run_is_refused_whole_and_nothing_is_kept(office, wishes, says):
    assert says in refused(office.launch(*wishes))
    assert office.store.launches() == ()
    assert not office.desk.waits


def test_a_workload_that_is_not_installed_is_named(office):
    asked = msgspec.structs.replace(wish("gravity"), job=JobTable(workload="wacht"))
    assert "no workload 'wacht' is installed" in refused(office.launch(asked))


def test_a_fleet_without_a_device_can_be_given_nothing(tmp_path):
    empty = Office(tmp_path)
    assert "no device has said hello" in refused(empty.launch(wish("gravity")))
    empty.open.close()


def test_a_task_of_a_name_that_runs_or_waits_is_refused_and_the_running_one_is_not_hurt(office):
    office.launch(wish("gravity"), wait_s=0.0)
    before = office.jobs["1122-gravity-1"]
    assert "'gravity' already (1122-gravity-1)" in refused(office.launch(wish("gravity")))
    office.launch(wish("jerk"))
    assert "'jerk' already (1122-jerk-1)" in refused(office.launch(wish("jerk", rounds=6)))
    assert office.jobs["1122-gravity-1"] == before


def test_above_the_quota_nothing_is_launched_and_what_waited_begins_when_there_is_room(tmp_path, caplog):
    office = Office(tmp_path, StorageConfig(quota_bytes=100))
    office.device("edge-1")
    office.launch(wish("gravity"))
    ref = office.blobs.add(b"x" * 200)
    assert "the quota is" in refused(office.launch(wish("jerk")))
    office.after(10.0)
    office.after(10.0)
    assert office.jobs == {}
    assert [record.message for record in caplog.records if "cannot begin" in record.message] != []
    office.blobs.remove(ref.digest)
    office.after(1.0)
    assert list(office.jobs) == ["1122-gravity-1"]
    office.open.close()


def test_a_preview_says_what_would_be_and_keeps_nothing(office):
    told = office.desk.carry_out(orders.Preview(wishes=(wish("gravity"), wish("jerk"))))
    assert told.lines[0].startswith(
        "1122-gravity-jerk-1: gravity, jerk of watch on edge-1, edge-2: mas, 4 rounds"
    )
    assert office.store.launches() == ()


# --- stopping and resuming ---------------------------------------------------------------------------


@pytest.fixture
def running(office):
    office.launch(wish("gravity"), wish("jerk"), wait_s=0.0)
    ref = office.blobs.add(b"weights")
    office.server.happened(
        "1122-gravity-jerk-1", Initialised(weights=ref, fingerprint="f", parameters={"encoder": 5})
    )
    return office


def stop(office, name):
    return office.desk.carry_out(orders.Stop(name=name))


def resume(office, name):
    return office.desk.carry_out(orders.Resume(job=name))


def test_a_task_is_stopped_by_its_name_and_a_job_by_its_own(running):
    name = "1122-gravity-jerk-1"
    assert "jerk leaves job 1122-gravity-jerk-1 at the next round" in stop(running, "jerk").text
    assert running.jobs[name].stopped == ("jerk",)
    assert "'jerk' of job 1122-gravity-jerk-1 was stopped already" in refused(stop(running, "jerk"))
    assert "mas resume 1122-gravity-jerk-1 lets it go on" in stop(running, name).text
    assert running.jobs[name].phase == "stopped"
    assert "was stopped already" in refused(stop(running, name))
    assert "goes on: it is being planned" in resume(running, name).text
    assert "only what was stopped or failed can be resumed" in refused(resume(running, name))


def test_a_stopped_tasks_name_is_free_again(running):
    stop(running, "jerk")
    assert isinstance(running.launch(wish("jerk", rounds=6)), orders.Launched)


def plan(office, name, *, dry_run):
    return office.desk.carry_out(orders.Plan(job=name, dry_run=dry_run))


def test_a_plan_is_explained_and_before_it_is_taken_what_it_would_be_by_now(running):
    name = "1122-gravity-jerk-1"
    assert "nothing is decided yet" in refused(plan(running, name, dry_run=False))
    would = plan(running, name, dry_run=True)
    assert would.lines[0] == "1 group: gravity+jerk"
    assert running.jobs[name].plans == ()
    running.server.happened(name, Planned(decision=would.decision))
    assert plan(running, name, dry_run=False) == would
    merging = plan(running, name, dry_run=True)
    assert "affinity has no say: no affinities were measured" in "\n".join(merging.lines)
    stop(running, name)
    assert "is stopped: nothing is decided before it is resumed" in refused(plan(running, name, dry_run=True))
    assert "did you mean" in refused(plan(running, "1122-gravity-jerk-2", dry_run=False))


def test_what_is_on_trial_is_decided_on_later_and_the_answer_says_when(office):
    compared = msgspec.structs.replace(wish("gravity+jerk"), job=JobTable(workload="watch", policy="hoa"))
    (going,) = office.launch(compared, wait_s=0.0).jobs
    would = refused(plan(office, going.job, dry_run=True))
    assert "is waiting for its first weights: it is decided once they are there" in would
    ref = office.blobs.add(b"weights")
    office.server.happened(going.job, Initialised(weights=ref, fingerprint="f", parameters={"encoder": 5}))
    office.server.happened(going.job, Planned(decision=plan(office, going.job, dry_run=True).decision))
    assert "is trying groups beside each other: it is decided when all of them are trained" in refused(
        plan(office, going.job, dry_run=True)
    )


def test_stopping_the_last_task_stops_the_job_and_says_so(running):
    stop(running, "jerk")
    assert "1122-gravity-jerk-1 is stopped: gravity was its last task" in stop(running, "gravity").text


def test_what_waits_is_taken_back(office):
    office.launch(wish("gravity"), wish("jerk"))
    assert "jerk: taken back before" in stop(office, "jerk").text
    office.after(10.0)
    assert set(office.jobs["1122-gravity-jerk-1"].spec.tasks) == {"gravity"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jerck", "no job or task 'jerck' runs; did you mean 'jerk'?"),
        ("zebra", "there are 1122-gravity-jerk-1"),
    ],
)
def test_what_is_not_there_is_not_stopped_and_what_is_near_is_named(running, name, says):
    assert says in refused(stop(running, name))
    assert "did you mean '1122-gravity-jerk-1'" in refused(resume(running, "1122-gravity-jerk-2"))


def test_a_job_that_is_over_is_not_stopped_and_a_failed_one_goes_on(running):
    name = "1122-gravity-jerk-1"
    running.server.happened(name, Abandoned(reason="no room"))
    assert "is failed already" in refused(stop(running, name))
    assert "goes on: it is being planned" in resume(running, name).text


def test_a_jobs_time_stands_still_while_it_is_stopped_also_over_a_restart(running):
    name = "1122-gravity-jerk-1"
    running.now_s += 5.0
    stop(running, name)
    running.now_s += 100.0
    running.start()
    running.now_s += 100.0
    resume(running, name)
    running.now_s += 2.0
    stop(running, name)
    times = [time_s for _, time_s, _ in running.store.events(name)]
    assert times[-3:] == [5.0, 5.0, 7.0]


# --- questions ---------------------------------------------------------------------------------------


def test_what_happened_to_a_job_is_told_from_where_one_stopped_reading(running):
    name = "1122-gravity-jerk-1"
    told = running.ask(orders.Tell(job=name))
    assert told.about.startswith("gravity by anna, jerk by anna of watch on edge-1, edge-2: mas, 4 rounds")
    assert [line.text for line in told.lines] == ["first weights: 5 parameters", "is planned"]
    stop(running, "jerk")
    more = running.ask(orders.Tell(job=name, after=told.last))
    assert [line.text for line in more.lines] == ["stopped: jerk"]
    assert (more.over, more.last > told.last) == (False, True)


def test_who_asks_again_is_told_of_what_happened_since(running):
    with Looker(running.root) as look:
        before = look(orders.Look()).status.jobs[0].tasks
        stop(running, "jerk")
        after = look(orders.Look()).status.jobs[0].tasks
    assert [task.stopped for task in (*before, *after)] == [False, False, False, True]


def test_what_waits_is_seen_beside_the_jobs(running):
    running.launch(wish("rotation"))
    seen = running.ask(orders.Look())
    assert [job.name for job in seen.status.jobs] == ["1122-gravity-jerk-1"]
    assert [(each.job, each.tasks) for each in seen.waiting] == [("1122-rotation-1", ("rotation",))]


def test_a_job_that_is_not_finished_has_a_report_and_its_weights_come_in_pieces(running):
    answer = running.ask(orders.Account(job="1122-gravity-jerk-1"))
    assert (answer.run.report.phase, answer.run.policy) == ("planning", "mas")
    data = bytes(range(256)) * 6000
    ref = running.blobs.add(data)
    pieces, at = [], 0
    while piece := running.ask(orders.Fetch(digest=ref.digest, offset=at)).data:
        pieces.append(piece)
        at += len(piece)
    assert len(pieces) == 2
    assert b"".join(pieces) == data


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (orders.Tell(job="1122-gravity-jerk-2"), "did you mean '1122-gravity-jerk-1'"),
        (orders.Account(job="x"), "no job 'x'; there are 1122-gravity-jerk-1"),
        (orders.Fetch(digest="../store.db", offset=0), "names no weights"),
        (orders.Fetch(digest="0" * 64, offset=0), "are not here any more"),
    ],
)
def test_a_question_about_what_is_not_there_is_refused_in_a_line(running, question, says):
    assert says in refused(running.ask(question))


def test_a_question_to_a_state_without_a_store_is_refused(tmp_path):
    with Looker(tmp_path) as look:
        assert "no store is here" in refused(look(orders.Look()))
