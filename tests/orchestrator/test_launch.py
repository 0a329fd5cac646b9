"""What people launch: files, what is wrong with them, what becomes one job, and when it begins."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models.tasks import WorkloadError, find
from mas_edge.orchestrator.launching import gather
from mas_edge.orchestrator.launching.gather import Waiting, due, job_spec, place
from mas_edge.orchestrator.launching.launch import LaunchRefused, admit, resolve
from mas_edge.orchestrator.launching.launch_files import read
from mas_edge.orchestrator.launching.launch_tables import JobFile, TaskFile, TrainingTable
from mas_edge.wire.host import ConfigError
from mas_edge.wire.messages import Hello, NameRefused, Offer, Training, Versions, is_name

try:
    import tomllib
except ImportError:
    import tomli as tomllib

EXAMPLES = Path(__file__).parents[2] / "examples"
WATCH = find("watch")
ORDER = [task.name for task in WATCH.tasks]


def hello(device, tasks=ORDER, workload="watch"):
    offer = Offer(workload=workload, tasks=tuple(tasks))
    return Hello(device=device, boot_id="b", versions=Versions(mas_edge="0", python="3"), workloads=(offer,))


FLEET = {name: hello(name) for name in ("d1", "d2")}


def launch(tmp_path, text, owner="anna", start_s=10.0):
    """The launch of a file with this text."""
    path = tmp_path / "x.toml"
    path.write_text(text)
    (wish,) = read([path])
    return resolve(wish, find(wish.job.workload), owner, start_s)


def task(tmp_path, name, **tables):
    """The launch of a task with these further lines in its tables."""
    lines = [f'[task]\nworkload = "watch"\ntask = "{name}"', tables.pop("task", "")]
    lines += [f"[{table}]\n{text}" for table, text in tables.items()]
    return launch(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("owner", ["\x1b[31manna", "a\nb", "x" * 300])
def test_an_owner_that_a_terminal_would_obey_or_that_has_no_end_is_refused(tmp_path, owner):
    with pytest.raises(LaunchRefused, match=r"owner .*printable"):
        launch(tmp_path, '[task]\nworkload = "watch"\ntask = "jerk"', owner=owner)


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_can_be_launched(path):
    (wish,) = read([path])
    made = resolve(wish, WATCH, "anna", 0.0)
    admit([made], {}, FLEET)
    assert job_spec("x-1", [made], ORDER, FLEET).launched == made.tasks


def leaves(kind, prefix=""):
    """Every key of a file, down to the last table."""
    for field in msgspec.structs.fields(kind):
        parts = getattr(field.type, "__args__", (field.type,))
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, msgspec.Struct)), None)
        yield from leaves(inner, f"{field.name}.") if inner else [prefix + field.name]


def shown(text):
    """Every key that a text sets or shows, with what it means."""
    table = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[+(\w+)\]+", line):
            table = heading[1]
        elif setting := re.match(r"(?:# )?(\w+) = \S.* # \S", line):
            yield f"{table}.{setting[1]}"


def test_every_key_that_may_stand_in_a_file_is_explained_in_the_examples():
    task_file = (EXAMPLES / "gravity.toml").read_text()
    assert sorted(shown(task_file)) == sorted(leaves(TaskFile))
    own = {key for key in leaves(JobFile) if key.startswith(("job.", "task."))}
    assert set(shown((EXAMPLES / "fleet-job.toml").read_text())) == own


def test_what_the_examples_show_as_default_is_the_default(tmp_path):
    text = (EXAMPLES / "gravity.toml").read_text()
    lines = [line.removeprefix("# ") if "# not set" not in line else "" for line in text.splitlines()[4:]]
    plain, whole = launch(tmp_path, text), launch(tmp_path, "\n".join(lines))
    assert whole == plain
    every = "\n".join(line.removeprefix("# ") for line in text.splitlines()[4:])
    assert tomllib.loads(every)
    launch(tmp_path, every.replace("cut_statistics = false", "cut_statistics = true"))


def test_training_takes_every_key_that_devices_are_told():
    own = {field.name for field in msgspec.structs.fields(TrainingTable)}
    assert own - {"preset", "merge_rounds"} == set(Training.__struct_fields__) - {"workload"}


def test_what_a_file_leaves_out_is_the_presets(tmp_path):
    made = task(tmp_path, "jerk", training='preset = "tiny"\nlr = 0.5')
    preset = WATCH.preset("tiny")
    assert (made.training.rounds, made.training.batch, made.merge_rounds) == (
        preset.rounds,
        preset.batch,
        preset.merge_rounds,
    )
    assert (made.training.lr, made.training.seed) == (0.5, 1)
    assert made.tasks[0].owner == "anna"


def test_fewer_rounds_than_the_presets_have_fewer_merged_ones(tmp_path):
    made = task(tmp_path, "jerk", training='preset = "tiny"\nrounds = 2')
    assert made.merge_rounds == 1


TASK = '[task]\nworkload = "watch"\ntask = "jerk"\n'
JOB = '[job]\nworkload = "watch"\n'
JERK = '[[task]]\ntask = "jerk"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = [", "is not TOML"),
        ("", r"needs a table \[task\], or \[job\]"),
        ('[[task]]\ntask = "jerk"', r"several \[\[task\]\] need a \[job\]"),
        ("[tsak]\n", r"needs a table \[task\]"),
        (TASK + "targt_loss = 1.0", "unknown key 'task.targt_loss'; did you mean 'task.target_loss'"),
        (TASK + "[training]\nround = 3", "unknown key 'training.round'; did you mean 'training.rounds'"),
        (JOB + '[[task]]\ntask = "jerk"\nnam = "x"', "unknown key 'task.nam'; did you mean 'task.name'"),
        (TASK + "[training]\nrounds = 0", "Expected `int` >= 1"),
        (TASK + "[training]\nrounds = 99999999999999999999999", "Expected `int` <= 2147483647"),
        (TASK + "[training]\nlr = inf", "training.lr is no number that can be reached"),
        (TASK + "[budget]\nenergy_j = nan", "budget.energy_j is no number that can be reached"),
        (TASK + "[training]\nlr = -1.0", r"Expected `float` > 0.0"),
        (TASK + '[training]\nlr = "much"', r"Expected `float.*lr"),
        (TASK + "[budget]\nenergy = 3", "did you mean 'budget.energy_j'"),
    ],
)
def test_a_file_that_is_not_right_is_refused_by_its_name_with_the_key(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        launch(tmp_path, text)
    assert "x.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.toml"):
        read([tmp_path / "gone.toml"])


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (JOB, LaunchRefused, "names no task"),
        (JOB + '[[task]]\ntask = "jerk"\n[[task]]\ntask = "jerk"', LaunchRefused, "two tasks .* task 'jerk'"),
        (
            JOB + '[[task]]\ntask = "jerk"\nname = "x"\n[[task]]\ntask = "gravity"\nname = "x"',
            LaunchRefused,
            "two tasks .* name 'x'",
        ),
        (TASK.replace("jerk", "jrek"), WorkloadError, "no task 'jrek'; it has"),
        (TASK + 'name = "No!"', NameRefused, "task name 'No!'"),
        (JOB + 'name = "a/b"\n[[task]]\ntask = "jerk"', NameRefused, "job name 'a/b'"),
        (TASK + 'unseen = ["99"]', LaunchRefused, "no client '99' in watch; there are 1, 2"),
        (TASK + '[training]\npreset = "huge"', WorkloadError, "no preset 'huge'"),
        (TASK + '[training]\nnetwork = "huge"', LaunchRefused, "no network 'huge'"),
        *(
            (JOB + f'policy = "{policy}"\n{text}', LaunchRefused, f"{key} belongs to policy {those}, not to")
            for policy, key, those, text in (
                ("one-by-one", "groups", "mas, mas-verified, tag, hoa", f"groups = 2\n{JERK}"),
                ("tag", "merge_rounds", "mas, mas-verified, fixed", f"{JERK}[training]\nmerge_rounds = 3"),
                ("mas", "partition", "fixed", f'partition = [["jerk"]]\n{JERK}'),
                ("mas", "groups", "mas, mas-verified, tag, hoa", f"groups = 1\n{JERK}"),
            )
        ),
    ],
)
def test_a_launch_that_names_what_there_is_not_is_refused(tmp_path, text, error, says):
    with pytest.raises(error, match=says):
        launch(tmp_path, text)


@pytest.mark.parametrize(
    ("fleet", "taken", "extra", "says"),
    [
        ({}, {}, "", "no device has said hello"),
        ({"d1": hello("d1", ("gravity",))}, {}, "", "no known device has data for task 'jerk' of watch"),
        ({"d1": hello("d1", workload="rooms")}, {}, "", "1 known, with rooms"),
        (FLEET, {"jerk": "1122-jerk-1"}, "", r"a task named 'jerk' already \(1122-jerk-1\)"),
        (FLEET, {}, 'devices = ["d1", "d22"]', "no device 'd22' is known; did you mean 'd2'"),
    ],
)
def test_what_this_fleet_cannot_run_is_refused_in_one_line(tmp_path, fleet, taken, extra, says):
    with pytest.raises(LaunchRefused, match=says):
        admit([task(tmp_path, "jerk", task=extra)], taken, fleet)


def test_trials_that_other_devices_would_judge_than_trained_are_refused(tmp_path):
    def asking(clients, tasks):
        text = f'{JOB}policy = "mas-verified"\n{tasks}[participation]\nclients = {clients}'
        return [launch(tmp_path, text)]

    two = f'{JERK}[[task]]\ntask = "gravity"\n'
    admit(asking(2, two), {}, FLEET)
    admit(asking(1, JERK), {}, FLEET)  # one task is all in one: nothing is tried
    with pytest.raises(LaunchRefused, match="mas-verified would try nothing: a round asks 1 of 2 devices"):
        admit(asking(1, two), {}, FLEET)


def test_two_tasks_of_one_name_on_one_command_line_are_refused(tmp_path):
    with pytest.raises(LaunchRefused, match="a task named 'jerk' already"):
        admit([task(tmp_path, "jerk"), task(tmp_path, "gravity", task='name = "jerk"')], {}, FLEET)


# --- what becomes one job ---------------------------------------------------------------------------


def jobs_of(launches, waiting=(), taken=(), day="1122"):
    return [each.job for each in place(launches, waiting, taken, day)]


def test_tasks_that_are_trained_alike_become_one_job_that_is_named_by_date_and_tasks(tmp_path):
    both = [task(tmp_path, "gravity"), task(tmp_path, "jerk")]
    assert jobs_of(both) == ["1122-gravity-jerk-1"] * 2
    assert jobs_of(both, taken={"1122-gravity-jerk-1", "1122-gravity-jerk-2"}) == ["1122-gravity-jerk-3"] * 2


def test_a_later_launch_joins_a_job_that_still_waits_and_keeps_its_name(tmp_path):
    early = Waiting(number=1, job="1122-gravity-1", launch=task(tmp_path, "gravity"), wall_s=0.0)
    assert jobs_of([task(tmp_path, "jerk")], [early]) == ["1122-gravity-1"]
    assert jobs_of([task(tmp_path, "gravity", task='name = "g2"')], [early]) == ["1122-g2-1"]


@pytest.mark.parametrize(
    ("tables", "apart"),
    [
        ({"training": "rounds = 7"}, "rounds is 20 and 7"),
        ({"training": "lr = 0.1"}, "lr is 0.05 and 0.1"),
        ({"training": "seed = 2"}, "seed is 1 and 2"),
        ({"training": "merge_rounds = 3"}, "merge_rounds is 8 and 3"),
        ({"task": "priority = 1"}, "priority is 0 and 1"),
        ({"task": 'devices = ["d1"]'}, "devices is all and d1"),
        ({"participation": "clients = 1"}, "participation is"),
        ({"budget": "time_s = 60.0"}, "budget time_s is None and 60.0"),
        ({"budget": "energy_j = 60.0"}, "budget energy_j is none and given"),
        ({"budget": "device_energy_j_per_day = 6.0"}, "budget device_energy_j_per_day is None and 6.0"),
    ],
)
def test_tasks_that_differ_in_what_both_must_obey_run_beside_each_other(tmp_path, tables, apart):
    one, other = task(tmp_path, "gravity"), task(tmp_path, "jerk", **tables)
    assert len(set(jobs_of([one, other]))) == 2
    assert gather.apart(one, other)[0].startswith(apart)


@pytest.mark.parametrize("table", [{"budget": "energy_j = 60.0"}, {"task": "target_loss = 0.5"}, {}])
def test_what_is_a_tasks_own_keeps_nobody_apart(tmp_path, table):
    pair = [task(tmp_path, "gravity", **table), task(tmp_path, "jerk", **table)]
    assert len(set(jobs_of(pair))) == 1


def test_joules_of_tasks_that_merge_add_up(tmp_path):
    pair = [task(tmp_path, name, budget="energy_j = 60.0\ntime_s = 9.0") for name in ("jerk", "gravity")]
    budget = job_spec("x-1", pair, ORDER, FLEET).budget
    assert (budget.energy_j, budget.time_s) == (120.0, 9.0)


def test_a_job_file_stands_alone(tmp_path):
    made = launch(tmp_path, JOB + 'name = "arm"\n[[task]]\ntask = "jerk"\n[[task]]\ntask = "rotation"')
    assert jobs_of([made, task(tmp_path, "gravity")]) == ["arm-1", "1122-gravity-1"]


def test_a_job_of_one_task_has_nothing_to_merge_or_to_split(tmp_path):
    made = job_spec("x-1", [task(tmp_path, "gravity")], ORDER, FLEET)
    assert (made.policy, made.merge_rounds) == ("all-in-one", 0)


def test_tasks_stand_in_the_workloads_order_and_devices_are_those_that_have_any_of_them(tmp_path):
    fleet = FLEET | {"d3": hello("d3", ("jerk",)), "d4": hello("d4", ("forecast",))}
    names = sorted(("jerk", "gravity"), key=ORDER.index)
    made = job_spec("x-1", [task(tmp_path, name) for name in reversed(names)], ORDER, fleet)
    assert (made.tasks, made.devices) == (tuple(names), ("d1", "d2", "d3"))
    assert tuple(each.task for each in made.launched) == made.tasks


names = st.lists(st.sampled_from(ORDER), min_size=1, max_size=6)
kinds = st.sampled_from(["", "rounds = 7"])


@given(st.lists(st.tuples(st.sampled_from(ORDER), kinds), min_size=1, max_size=8), st.integers(0, 8))
def test_every_launch_goes_to_one_job_and_no_job_has_a_task_twice(tmp_path_factory, asked, early):
    folder = tmp_path_factory.mktemp("files")
    launches = [
        task(folder, name, task=f'name = "t{n}"', training=kind) for n, (name, kind) in enumerate(asked)
    ]
    first = place(launches[:early], (), (), "1122")
    waiting = [Waiting(number=n, job=p.job, launch=p.launch, wall_s=0.0) for n, p in enumerate(first)]
    placed = (*first, *place(launches[early:], waiting, {p.job for p in first}, "1122"))
    assert [each.launch for each in placed] == launches
    assert all(is_name(each.job) for each in placed)
    for _, members in itertools.groupby(sorted(placed, key=lambda p: p.job), key=lambda p: p.job):
        own = [each.launch for each in members]
        tasks = [each.task for launch in own for each in launch.tasks]
        assert len(tasks) == len(set(tasks))
        assert len({launch.training for launch in own}) == 1
        assert job_spec("x-1", own, ORDER, FLEET)


# --- when it begins ---------------------------------------------------------------------------------


def waits(tmp_path, *ends):
    made = task(tmp_path, "gravity")
    return [
        Waiting(number=n, job=job, launch=msgspec.structs.replace(made, start_s=end_s), wall_s=100.0)
        for n, (job, end_s) in enumerate(ends)
    ]


def test_a_job_begins_when_the_window_of_its_first_member_closes(tmp_path):
    waiting = waits(tmp_path, ("a", 120.0), ("b", 110.0), ("a", 105.0))
    assert due(waiting, 104.9) == ()
    assert due(waiting, 105.0) == ("a",)
    assert due(waiting, 115.0) == ("b", "a")


def test_a_clock_that_is_set_back_holds_up_no_launch(tmp_path):
    assert due(waits(tmp_path, ("a", 110.0)), 50.0) == ("a",)
