"""One run in four forms: the page, JSON, CSV and the terminal say the same, and nothing that is not so."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from finished import MODEL, RAPL, SPEC, a_run, events, profile

from mas_edge.orchestrator.cli import main
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.peaks import Memory
from mas_edge.orchestrator.plan import DemoPlan
from mas_edge.orchestrator.reports import charts, tables
from mas_edge.orchestrator.reports.manifest import manifest
from mas_edge.orchestrator.reports.page import Named, page
from mas_edge.orchestrator.reports.runs import REPORT, RunReport, compose, read
from mas_edge.orchestrator.reports.summary import headline, trajectory
from mas_edge.orchestrator.rounds import GaveUp
from mas_edge.profiling.report import joules
from mas_edge.profiling.tables import WIDE
from mas_edge.wire import messages as m

pytest.importorskip("matplotlib", reason="reports need matplotlib (extra orchestrator)")

FORMS = {"text": (), "json": ("--json",), "csv": ("--csv",)}


class Tables(html.parser.HTMLParser):
    """The cells of every table of a page, row by row."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, _attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self._cell = ""

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.tables[-1][-1].append(self._cell)
            self._cell = None


def saved(folder, run):
    folder.mkdir(exist_ok=True)
    (folder / REPORT).write_bytes(msgspec.json.encode(run))
    return folder


@pytest.fixture(scope="module")
def made():
    return a_run()


@pytest.fixture
def run(tmp_path, made):
    return saved(tmp_path / "run", made)


def told(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def words(line):
    return line.replace("│", " ").split()


def figures(row):
    """Every figure of a row of report.json as people read it, by its heading."""
    cost = row["cost"]
    texts = {
        f"{name} J": joules(cost[f"{name}_energy_j"], cost[f"{name}_u_j"])
        for name in ("attributed", "dynamic", "window")
    }
    for title, name, factor in (
        ("mean W", "mean_w", 1),
        ("mJ/sample", "j_per_example", 1e3),
        ("J/round", "j_per_round", 1),
        ("J·s", "edp_js", 1),
    ):
        number = row[name]
        texts[title] = "–" if number is None else joules(number["value"] * factor, number["u"] * factor)
    for title, name in (("MB sent", "sent_bytes"), ("MB received", "received_bytes")):
        texts[title] = f"{cost[name] / 1e6:.2f}"
    return texts | {
        "wall s": f"{cost['wall_s']:.1f}",
        "CPU s": f"{cost['cpu_s']:.1f}",
        "samples": str(cost["examples"] or "–"),
        "method": "+".join(cost["methods"]),
        "sensor": "+".join(row["sensors"]),
        "scope": "+".join(row["scopes"]),
    }


def plain(heading):
    return heading.partition(" (")[0]


def test_every_form_says_the_same_of_every_row(run, capsys):
    """Each number of JSON, written with the digits that its u allows, stands in the other three forms."""
    found = json.loads(told(capsys, run, "--json"))["rows"]
    flat = list(csv.DictReader(io.StringIO(told(capsys, run, "--csv"))))
    told(capsys, run, "--html", run / "page.html")
    tables = Tables((run / "page.html").read_text()).tables
    terminal = [words(line) for line in told(capsys, run).splitlines()]
    every = next(rows for rows in tables if rows[0][:5] == ["device", "group", "round", "phase", "wall s"])
    by_group = next(rows for rows in tables if rows[0][0] == "" and rows[0][-1] == "all")
    assert len(flat) == len(found)
    for row, line in zip(found, flat, strict=True):
        group = {"a+b": "all 2 tasks"}.get(row["group"], row["group"])
        cost, texts = row["cost"], figures(row)
        for name in ("attributed", "dynamic", "window"):
            value, u = cost[f"{name}_energy_j"], cost[f"{name}_u_j"]
            assert (float(line[f"{name}_energy_j"]), float(line[f"{name}_u_j"])) == (value, u)
        for name in ("wall_s", "cpu_s", "examples", "sent_bytes", "received_bytes"):
            assert float(line[name]) == cost[name]
        for name in ("mean_w", "j_per_round", "edp_js"):
            number = row[name]
            assert (float(line[name]), float(line[f"{name}_u"])) == (number["value"], number["u"])
        if row["level"] == "row":
            keys = [row["device"], group, str(row["round"]), row["phase"]]
            (cells,) = [cells for cells in every if cells[:4] == keys]
            shown = dict(zip(map(plain, every[0]), cells, strict=True))
            assert {title: shown[title] for title in texts} == texts
        if row["level"] == "group":
            column = by_group[0].index(group)
            shown = {plain(cells[0]): cells[column] for cells in by_group}
            assert {title: shown[title] for title in texts} == texts
            lines = {plain(" ".join(line)): line for line in terminal}
            for title, text in texts.items():
                assert [
                    line for name, line in lines.items() if name.startswith(title) and text in " ".join(line)
                ]
        if row["level"] in {"group", "group-phase"}:
            start = [*group.split(), *(row["phase"] or "all").split()]
            shown = [" ".join(line) for line in terminal if line[: len(start)] == start]
            narrow = ("attributed J", "window J", "mean W", "mJ/sample", "wall s", "CPU s")
            assert [all(texts[title] in line for title in narrow) for line in shown] == [True]


def test_totals_close_and_stand_in_every_form(run, made, capsys):
    total = joules(made.bill.total_j, made.bill.total_u_j)
    assert abs(made.bill.closing_error_j) <= 1e-9 * made.bill.total_j
    told(capsys, run, "--html", run / "page.html")
    assert total in (run / "page.html").read_text()
    assert total in told(capsys, run)
    everything = [
        row for row in csv.DictReader(io.StringIO(told(capsys, run, "--csv"))) if row["level"] == "all"
    ]
    assert [float(row["attributed_energy_j"]) for row in everything] == [made.bill.attributed_j]


def test_a_report_reads_back_as_it_was_written(run, made):
    assert read(run) == made
    assert msgspec.json.decode((run / REPORT).read_bytes(), type=RunReport) == made


def test_no_number_of_joules_has_more_digits_than_its_uncertainty_allows(made):
    for row in made.rows:
        for column in WIDE:
            value, sign, doubt = column.cell(row).partition(" ±")
            if sign:
                assert len(value.partition(".")[2]) == len(doubt.partition(".")[2])
                assert len(doubt.replace(".", "").lstrip("0")) <= 2 or doubt.endswith("0")


def test_an_estimate_is_called_so_in_every_heading_and_in_the_headline():
    run = a_run(sensors=(MODEL, MODEL))
    text = page(Named("x", run))
    assert "no sensor measured it" in headline(run)
    cells = [cell for table in Tables(text).tables for line in table for cell in line]
    energetic = [cell for cell in cells if re.search(r" J\b| W\b|J/|J·s", cell.partition("(")[0])]
    assert len(energetic) > 20
    assert [cell for cell in energetic if "(est.)" not in cell and not cell[0].isdigit()] == []
    assert "attributed J (est.); whiskers" in text


def test_measured_and_estimated_in_one_sum_are_called_mixed():
    run = a_run(sensors=(RAPL, MODEL))
    assert "measured and estimated joules mixed" in headline(run)
    assert "attributed J (mixed: counter+est.)" in page(Named("x", run))
    assert "mixed" in run.bill.flags


@pytest.mark.parametrize("sensor", [None, RAPL], ids=["no sensor", "a sensor that never answered"])
def test_what_nobody_measured_is_a_dash_or_null_and_never_a_zero(sensor, tmp_path, capsys):
    run = a_run(joules=None, sensors=(sensor, sensor))
    folder = saved(tmp_path / "run", run)
    told(capsys, folder, "--html", folder / "page.html")
    assert {row.cost.attributed_energy_j for row in run.rows} == {None}
    assert {row.mean_w for row in run.rows} == {None}
    flat = list(csv.DictReader(io.StringIO(told(capsys, folder, "--csv"))))
    assert {line["window_energy_j"] + line["peak_w"] + line["mean_w"] for line in flat} == {""}
    text = (folder / "page.html").read_text()
    assert "joules is not known" in headline(run)
    assert "Not drawn" in text
    assert not [
        cell
        for table in Tables(text).tables
        for line in table
        if " J (" in line[0]
        for cell in line[1:]
        if cell != "–"
    ]


def test_loss_against_energy_adds_up_what_the_groups_were_charged(made):
    steps = trajectory(made)
    assert [step.round for step in steps] == [0, 1]
    assert [step.energy_j.value for step in steps] == pytest.approx([6.0, 18.0])
    assert [step.relative_loss for step in steps] == pytest.approx([8 / 12, 7 / 12])


def test_co2_is_told_with_the_number_that_was_given(run, made, capsys):
    rows = json.loads(told(capsys, run, "--json", "--co2", "360"))["rows"]
    for row, before in zip(rows, made.rows, strict=True):
        assert row["co2e_g"]["value"] == pytest.approx(before.cost.attributed_energy_j * 1e-4)
    assert "at 360 g/kWh, as given" in told(capsys, run, "--co2", "360")
    assert all(row["co2e_g"] is None for row in json.loads(told(capsys, run, "--json"))["rows"])


def test_memory_and_what_did_not_fit_stand_on_the_page_and_on_the_terminal(tmp_path, made, capsys):
    took = Memory(
        group="a",
        device="d1",
        micro_batch=4,
        checkpointing=True,
        peak_bytes=287_000_000,
        estimated_bytes=291_000_000,
        allowed_bytes=300_000_000,
        cut_statistics=False,
        killed_bytes=None,
    )
    note = "d2 cannot train a from round 1 on ([caps] <b> [/b])"  # a device's words are no markup
    report = msgspec.structs.replace(made.report, memory=(took,), replans=(note,))
    run = saved(tmp_path / "run", msgspec.structs.replace(made, report=report))
    text = page(Named("run", read(run)))
    assert "d2 cannot train a from round 1 on ([caps] &lt;b&gt; [/b])" in text
    line = ["d1", "4", "287", "291", "300", "–", "computed twice"]
    assert any(row[1:] == line for table in Tables(text).tables for row in table)
    said = " ".join(told(capsys, run).split())
    assert f"Memory: {note}" in said
    assert " ".join(line) in said
    assert "memory" not in page(Named("run", made)).split("<main>")[1].lower()


@pytest.mark.parametrize(("lead_se", "even"), [(0.1, False), (0.3, True), (None, False)])
@pytest.mark.parametrize("lead", [0.5, -0.5])
def test_a_lead_within_its_error_is_called_too_little(lead, lead_se, even):
    decision = Decision(
        groups=(("a",), ("b",)),
        score=1.5,
        runner_up=(("a", "b"),),
        runner_up_score=1.5 - lead,
        lead_se=lead_se,
        why="the best",
    )
    report = msgspec.structs.replace(a_run().report, decision=decision)
    *_, line = tables.split(report)
    assert line.startswith(f"Runner-up: a+b; lead {lead:+.4f}")
    assert ("too little to tell the two apart" in line) == even


def test_names_cannot_write_into_the_page(made):
    text = page(Named("<script>alert(1)</script>", made))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_needs_nothing_from_elsewhere_and_no_script(made):
    text = page(Named("x", made))
    assert text.count("<svg") >= 4
    for word in ("<script", "<link", "<img", "@import", "src=", "http://localhost", "https://"):
        assert word not in text.replace("https://json-schema.org", "")
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda run: run.mkdir(), "holds no finished run"),
        (lambda _run: None, "holds no finished run"),
        (lambda run: saved(run, {"schema_version": 99}), "schema 99 and this program reads 1"),
        (lambda run: saved(run, {"policy": "mas"}), "schema 0"),
        (lambda run: saved(run, {"schema_version": 1}), "is no report of a run"),
        (lambda run: saved(run, "nonsense"), "is no report of a run"),
        (lambda run: (run.mkdir(), saved(run / "mas", {})), "name one: "),
    ],
)
def test_what_is_no_run_is_one_line_and_exit_code_2(write, words, tmp_path, capsys):
    write(tmp_path / "run")
    assert main(["report", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", ["-1", "nan", "inf"])
def test_a_carbon_intensity_that_cannot_be_is_refused(number, run, capsys):
    assert main(["report", str(run), "--co2", number]) == 2
    assert "grams per kWh" in capsys.readouterr().err


def test_a_page_without_a_place_is_one_line_and_leaves_nothing_behind(run, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "nowhere" / "page.html", tmp_path / "folder"):
        assert main(["report", str(run), "--html", str(place)]) == 2
        err = capsys.readouterr().err
        assert f"cannot write {place}: " in err
        assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "run"]


def test_the_schema_of_the_report_is_up_to_date():
    root = Path(__file__).resolve().parents[2]
    script = [sys.executable, str(root / "scripts" / "report_schema"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_group_of_another_job_that_has_the_same_name_is_a_bar_of_its_own():
    made = a_run()
    again = tuple(msgspec.structs.replace(row, job="other") for row in made.rows if row.group == "a")
    figure = charts.energy(msgspec.structs.replace(made, rows=made.rows + again))
    bars = {(row.job, row.group) for row in (*made.rows, *again) if row.level == "group"}
    assert len(figure.axes[0].get_yticks()) == len(bars)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_where_an_error_arose_is_told_to_who_asks_for_it(level, tmp_path):
    command = [sys.executable, "-m", "mas_edge.orchestrator.cli", "launch", str(tmp_path / "no.toml")]
    env = {**os.environ, "PYTHONSAFEPATH": "1", "MAS_LOG": level}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, first.startswith("mas: cannot read")) == (2, True)
    assert ("Traceback (most recent call last):" in rest) == (level == "DEBUG")


def test_what_a_device_bills_for_a_job_with_another_ones_answer_is_paid_by_its_tasks():
    key = m.Key(job="other", group="a", round=0, attempt=0, device="d1")
    stray = profile("a", 0, 1.0, 5.0, RAPL, SPEC.name)
    beside = msgspec.structs.replace(stray, rows=stray.rows + profile("a", 0, 1.0, 7.0, RAPL, "other").rows)
    answer = GaveUp(key=key, reason="broke", profile=beside)
    plan = manifest(DemoPlan(spec=SPEC, clients={}), {})
    alone, paid = (
        compose(SPEC, events(), plan, wall_s=18.0, elsewhere=elsewhere) for elsewhere in ((), [(2.0, answer)])
    )
    joules = [math.fsum(bill.energy_j or 0.0 for bill in run.task_bills) for run in (alone, paid)]
    assert joules[1] - joules[0] == pytest.approx(5.0)
    assert paid.rows == alone.rows, "it stands in the other job's rows"
