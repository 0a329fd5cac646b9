"""What somebody sees who watches: tables as text, a line for what is new, JSON; and how watching ends."""

# ruff: noqa: E501 - tables stand here as they are printed

from __future__ import annotations

import io

import going
import msgspec
import pytest
from finished import RAPL
from test_status import EVENTS, NOON_S, SPEC, SPLIT, known, owed, shown, told

from mas_edge.orchestrator.commands.watch import WatchRefused, picture, show
from mas_edge.orchestrator.demos.progress import Display
from mas_edge.orchestrator.job import Abandoned, Job, step
from mas_edge.orchestrator.spec import Budget
from mas_edge.orchestrator.views import status_tables as tables
from mas_edge.orchestrator.views.status_values import Status
from mas_edge.profiling.report import drawn
from mas_edge.wire import messages as m

console = pytest.importorskip("rich.console", reason="rich draws what is watched (extra orchestrator)")

JOBS = """
Jobs
job, task    at          done   loss              J        left         time
──────────────────────────────────────────────────────────────────────────────
evening      round 3/6    20%   0.77   18.00 of 900   2 min 4 s         31 s
gravity    round 3/6          0.62          4.500
jerk       round 3/6          0.72          4.500
rotation   round 3/6          0.82          4.500
exercise   round 3/6          0.92          4.500
morning      done        100%   0.33          63.00           –   1 min 13 s
gravity                       0.18          15.75
jerk                          0.28          15.75
rotation                      0.38          15.75
exercise                      0.48          15.75
evening waits for round 3 of gravity+jerk: edge-1 (training), edge-2 (away), edge-3 (may not train now: temperature: 81 °C, below 75 °C is asked)
"""
DEVICES = """
Devices
left
device   does                                                     has                                     J   today   today
─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
edge-1   training gravity+jerk, round 3 of evening, step 3 of 9   4 cpus, 4.0 GB, rapl                27.00   27.00   34.00
edge-2   away for 1 h 2 min                                       4 cpus, 4.0 GB, rapl                27.00   27.00   34.00
edge-3   may not train for 1 h 2 min                              1.5 cpus, 0.5 GB, estimate (est.)   27.00   27.00   34.00
edge-3: may not train now: temperature: 81 °C, below 75 °C is asked
"""
TASKS = """
evening: mas, round 3/6, 20% done, 18.00 J, 31 s, about 2 min 4 s left
held-out         of           device   training
task       owner   group               round       loss   constant       J     time       loss
────────────────────────────────────────────────────────────────────────────────────────────────
gravity    –       gravity+jerk          3/6      0.936       0.62   4.500      6 s      0.936
jerk       –       gravity+jerk          3/6      1.086       0.72   4.500      6 s      1.086
rotation   –       rotation+exercise     3/6      1.236       0.82   4.500      6 s      1.236
exercise   –       rotation+exercise     3/6      1.386       0.92   4.500      6 s      1.386
waits for round 3 of gravity+jerk: edge-1 (training), edge-2 (away), edge-3 (may not train now: temperature: 81 °C, below 75 °C is asked)
"""


def text(table) -> str:
    out = console.Console(file=io.StringIO(), width=150)
    out.print(drawn(table))
    lines = (line.strip() for line in out.file.getvalue().splitlines())
    return "\n".join(line for line in lines if line)


def a_fleet():
    """A job after its split, one that is done, and devices in all conditions."""
    tally = told(going.spec(budget=Budget(energy_j=900.0, device_energy_j_per_day=40.0)), past=SPLIT + 2)
    hot = (m.Reason(condition="temperature", detail="81 °C, below 75 °C is asked"),)
    progress = m.Progress(key=owed(tally, "edge-1"), phase="backward", step=3, steps=9)
    estimated = msgspec.structs.replace(RAPL, name="estimate", method="estimated")
    said = {
        "edge-1": known("edge-1", progress=progress),
        "edge-2": known("edge-2", online=False),
        "edge-3": msgspec.structs.replace(
            known("edge-3", reasons=hot),
            hello=going.hello("edge-3", sensor=estimated, caps=m.Caps(memory_bytes=500_000_000, cpus=1.5)),
        ),
    }
    done = told(going.spec("morning", policy="all-in-one", merge_rounds=0))
    return shown(tally, done, known=said)


def test_a_table_of_jobs_says_where_each_is_and_what_it_waits_for():
    assert text(tables.jobs(a_fleet())) == JOBS.strip()


def test_a_table_of_devices_says_what_each_does_has_and_may_still_use():
    assert text(tables.devices(a_fleet(), NOON_S + 3725)) == DEVICES.strip()


def test_a_table_of_a_jobs_tasks_says_who_learns_what_how_well():
    assert text(tables.tasks(a_fleet().jobs[0])) == TASKS.strip()


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_where_it_is_narrow(width):
    fleet, brief = a_fleet(), width < tables.WIDE
    long = (msgspec.structs.replace(job, name=job.name + "-" + "long" * 15) for job in fleet.jobs)
    fleet = msgspec.structs.replace(fleet, jobs=tuple(long))
    shown_ = [tables.jobs(fleet, brief=brief), tables.tasks(fleet.jobs[0], brief=brief)]
    for table in (*shown_, tables.devices(fleet, NOON_S + 3725)):
        out = console.Console(file=io.StringIO(), width=width)
        out.print(drawn(table))
        said = out.file.getvalue()
        numbers = {part for row in table.rows for cell in row[table.keys :] for part in cell.splitlines()}
        assert "…" not in said
        assert all(number in said for number in numbers)
        assert max(map(len, said.splitlines())) <= width


def test_on_a_terminal_each_job_stands_below_the_bar_of_the_one_before():
    out = console.Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    out.print(picture(shown(told(past=SPLIT + 2), told(going.spec("night"), past=3)), NOON_S, 100))
    lines = out.file.getvalue().splitlines()
    assert sum(line.startswith(("evening: ", "night: ")) for line in lines) == 2


def test_what_is_empty_says_what_to_do():
    assert "mas launch FILE" in text(tables.jobs(Status()))
    assert "mas-agent run" in text(tables.devices(Status(), NOON_S))


def looks(*pasts):
    """What somebody sees who looks at the job after so many of its events, and then at the end."""
    seen = iter([shown(told(past=past)) for past in (*pasts, None)])
    return lambda: next(seen)


def lines(*pasts) -> list[str]:
    out = console.Console(file=io.StringIO(), width=200)
    assert show(looks(*pasts), job="evening", console=out, pause=lambda _s: None) == 0
    return out.file.getvalue().splitlines()


def test_where_there_is_no_terminal_each_round_has_one_line_however_often_somebody_looks():
    often = lines(*range(len(EVENTS)))
    rounds = [line for line in often if "  round " in line]
    assert len(rounds) == 2 + 2 * 4
    assert len([line for line in often if "split into gravity+jerk | rotation+exercise" in line]) == 1
    assert len([line for line in often if "unseen" in line]) == 2
    assert "  mas, done, 108.0 J, " in often[-1]
    assert [line.split("  round ")[1].split("  ")[:2] for line in rounds][:3] == [
        ["1/6", "gravity+jerk+rotation+exercise"],
        ["2/6", "gravity+jerk+rotation+exercise"],
        ["3/6", "gravity+jerk"],
    ]
    seldom = [line for line in lines(1) if "  round " in line]
    assert [line.split("  training")[0].split("  round ")[1] for line in seldom] == sorted(
        (line.split("  training")[0].split("  round ")[1] for line in rounds), key=by_group
    )


def by_group(line):
    number, group = line.split("/6  ")
    return len(group) < 20, group, int(number)


def test_the_first_line_says_where_a_job_is_that_was_on_its_way():
    first = lines(SPLIT)[0]
    assert first.startswith("evening ")
    assert "mas, round 3/6" in first


def test_the_same_lines_are_what_mas_demo_prints():
    out = console.Console(file=io.StringIO(), width=200)
    job = Job(spec=SPEC)
    with Display(out, "mas") as display:
        for time_s, event in EVENTS:
            job, _ = step(job, event, time_s)
            display.event(job, event, time_s)
            display.look(job, ())
    printed = [line.split(" s  ", 1)[1] for line in out.file.getvalue().splitlines()]
    assert printed[0].startswith("first weights: 5,070 parameters")
    assert [line for line in printed if line.startswith("round")] == [
        line.split(" s  ", 1)[1] for line in lines(*range(len(EVENTS))) if "  round " in line
    ]


def test_json_is_a_status_a_line_and_none_twice(capsys):
    assert show(looks(1, 1, 5, 5), job="evening", as_json=True, pause=lambda _s: None) == 0
    found = [msgspec.json.decode(line, type=Status) for line in capsys.readouterr().out.splitlines()]
    assert [status.jobs[0].phase for status in found] == ["planning", "first", "done"]


def test_a_terminal_shows_jobs_devices_and_a_bar_and_is_left_as_it_was():
    out = console.Console(file=io.StringIO(), width=150, force_terminal=True, color_system=None)
    assert show(looks(SPLIT), job="evening", console=out, pause=lambda _s: None) == 0
    drawn_ = out.file.getvalue()
    assert "Devices" in drawn_
    assert "━" in drawn_
    assert drawn_.rstrip().endswith("\x1b[?25h")  # the cursor is there again


def test_who_has_seen_enough_leaves_without_a_fuss():
    def enough(_s):
        raise KeyboardInterrupt

    out = console.Console(file=io.StringIO(), width=150)
    assert show(looks(1), console=out, pause=enough) == 0


def test_a_job_that_failed_ends_watching_with_an_exit_code():
    failed = shown(told(past=1, extra=[(9.0, Abandoned(reason="no room"))]))
    out = console.Console(file=io.StringIO(), width=150)
    assert show(lambda: failed, job="evening", console=out, pause=lambda _s: None) == 1


def test_a_job_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(WatchRefused, match="did you mean 'evening'"):
        show(looks(1), job="evenings", console=console.Console(file=io.StringIO()))
    with pytest.raises(WatchRefused, match="there are none"):
        show(Status, job="x", console=console.Console(file=io.StringIO()))


def test_words_of_devices_are_no_markup_on_a_terminal_either():
    evil = (m.Reason(condition="[red]x[/red]", detail="[link=http://x]y[/link]"),)
    whole = shown(told(past=3), known={"edge-1": known("edge-1", reasons=evil)})
    assert "[red]x[/red]: [link=http://x]y[/link]" in text(tables.devices(whole, NOON_S))
