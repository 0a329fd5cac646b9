"""`mas demo`'s options: what they mean, and that what cannot be is refused before anything starts."""

from __future__ import annotations

import pytest

from mas_edge.orchestrator import cli
from mas_edge.orchestrator.plan import DemoOptions, demo_plan


def test_the_people_who_train_are_dealt_to_the_agents_and_the_unseen_are_not():
    plan = demo_plan(DemoOptions(clients=3))
    dealt = [client for clients in plan.clients.values() for client in clients]
    assert sorted(dealt, key=int) == [str(n) for n in range(1, 9)]
    assert plan.spec.unseen == ("9", "10")
    assert plan.spec.devices == ("edge-1", "edge-2", "edge-3")


def test_a_preset_fixes_the_size_and_options_override_it():
    plan = demo_plan(DemoOptions(preset="tiny", rounds=5, merge_rounds=3, seed=9))
    assert (plan.spec.training.rounds, plan.spec.merge_rounds, plan.spec.training.seed) == (5, 3, 9)
    assert plan.spec.training.reproducible


def test_side_is_left_out_unless_it_is_asked_for():
    assert "side" not in demo_plan(DemoOptions()).spec.tasks
    assert demo_plan(DemoOptions(tasks="side,gravity")).spec.tasks == ("gravity", "side")


WRONG = {
    "an unknown task": (["--tasks", "gravity,colour"], "has no task 'colour'; it has exercise"),
    "an unknown workload": (["--workload", "clock"], "no workload 'clock' is installed; there are"),
    "an unknown policy": (["--policy", "best"], "no policy 'best'; there are mas"),
    "an unknown preset": (["--preset", "huge"], "has no preset 'huge'; it has"),
    "a partition with a task twice": (
        ["--policy", "fixed", "--partition", "gravity+jerk,gravity"],
        "gravity",
    ),
    "a partition without policy fixed": (["--partition", "gravity"], "--partition belongs to --policy fixed"),
    "a comparison and a policy": (
        ["--compare", "mas,hoa", "--policy", "mas"],
        "--compare names the policies: leave out --policy",
    ),
    "a partition, and no policy that is compared is fixed": (
        ["--compare", "mas,hoa", "--partition", "gravity"],
        "--partition belongs to --policy fixed, not to mas, hoa",
    ),
    "merge rounds where nothing is merged": (
        ["--policy", "hoa", "--merge-rounds", "3"],
        "--merge-rounds belongs to --policy mas, mas-verified, fixed, not to hoa",
    ),
    "groups where none are chosen": (
        ["--compare", "all-in-one,one-by-one", "--groups", "2"],
        "--groups belongs to --policy mas, mas-verified, tag, hoa, not to all-in-one, one-by-one",
    ),
    "policy fixed without a partition": (["--policy", "fixed"], "--policy fixed needs --partition"),
    "more groups than tasks": (["--groups", "7"], "groups must be auto or 1 to 6"),
    "groups that are no number": (["--groups", "many"], "give a number of groups, or auto"),
    "merge rounds as many as rounds": (
        ["--rounds", "4", "--merge-rounds", "4"],
        "merge rounds must be 1 to 3",
    ),
    "no rounds": (["--rounds", "0"], "rounds must be at least 1"),
    "more agents than people": (["--clients", "9"], "--clients must be 1 to 8"),
    "an unknown policy to compare": (["--compare", "mas,none"], "no policy 'none'"),
    "an unknown meter": (["--meter", "sundial"], "no meter 'sundial'"),
    "a replay of no file": (["--meter", "replay:/nowhere.csv"], "no usable meter: replay: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_get_one_line_and_exit_code_2_and_leave_nothing(name, tmp_path, capsys):
    options, says = WRONG[name]
    out = tmp_path / "run"
    assert cli.main(["demo", "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("mas: ")
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not out.exists()


def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.main(["demo", "--preset", "tiny", "--out", str(tmp_path)]) == 2
    assert "holds other things" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["demo", "--preset", "tiny", "--out", str(file)]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_an_orchestrator_with_a_misspelled_key_names_it_and_what_was_meant(tmp_path, capsys):
    config = tmp_path / "orchestrator.toml"
    config.write_text('fleet = "f"\nstate = "/nowhere"\n[broker]\nulr = "mqtt://127.0.0.1:1"\n')
    assert cli.main(["serve", "--config", str(config)]) == 2
    assert "unknown key 'broker.ulr'; did you mean 'broker.url'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "says"),
    [("mqtt://broker.example:1883", "is another machine"), ("http://x", "write mqtt://HOST:PORT")],
)
def test_an_orchestrator_whose_broker_is_refused_leaves_no_state_behind(tmp_path, capsys, url, says):
    config = tmp_path / "orchestrator.toml"
    config.write_text(f'fleet = "f"\nstate = "{tmp_path / "state"}"\n[broker]\nurl = "{url}"\n')
    assert cli.main(["serve", "--config", str(config)]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_an_orchestrator_without_a_broker_says_where_it_looked(tmp_path, capsys):
    config = tmp_path / "orchestrator.toml"
    broker = '[broker]\nurl = "mqtt://127.0.0.1:1"\nwait_s = 0.1\n'
    config.write_text(f'fleet = "f"\nstate = "{tmp_path / "state"}"\n{broker}')
    assert cli.main(["serve", "--config", str(config)]) == 2
    printed = capsys.readouterr().err
    assert "127.0.0.1:1" in printed.splitlines()[-1]
