"""Pictures are drawn from whatever a report may hold: gaps, no decision, one task, no rounds."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib (extra orchestrator)")

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.report import AffinityTable, Point, Report
from mas_edge.orchestrator.reports.pictures import affinity, curves
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire.messages import Training

TABLE = AffinityTable(
    tasks=("a", "b", "c"),
    mean=((0.5, 0.1, None), (-0.2, 0.4, 0.0), (0.1, None, 0.3)),
    se=((0.1, 0.05, None), (0.1, 0.1, 0.1), (None, None, 0.1)),
    batches=((3, 3, 0), (3, 3, 3), (1, 0, 3)),
)
SPLIT = Decision(groups=(("a", "c"), ("b",)))


def size(path):
    """Width and height in pixels, from the PNG's header."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def point(task, group, round_, loss):
    return Point(task=task, group=group, round=round_, count=9.0, loss=loss, constant_loss=1.0, metric=None)


def made(tasks, groups, curve, decision=None):
    training = Training(workload="watch", network="micro", rounds=4, epochs=1, batch=8, lr=0.1, seed=0)
    spec = JobSpec(
        name="j",
        tasks=tasks,
        training=training,
        policy="mas",
        devices=("edge-1",),
        merge_rounds=2 if decision else 0,
    )
    none = dict.fromkeys(name for name in Report.__struct_fields__ if name.endswith(("_total", "_relative")))
    known = {"name": "j", "phase": "done", "reason": "", "spec": spec, "wall_s": 1.0, "groups": groups}
    known |= {"decision": decision, "affinity": None, "curve": tuple(curve)}
    empty = {"parameters": {}, "held_out": (), "unseen": (), "final_digests": {}, "gave_up": ()}
    return Report(**{**none, **empty, **known})


def test_affinities_are_drawn_with_gaps_and_unknown_errors(tmp_path):
    affinity(TABLE, SPLIT).savefig(tmp_path / "with.png")
    affinity(TABLE, None).savefig(tmp_path / "without.png")
    assert min(size(tmp_path / "with.png")) > 400
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_one_task_has_an_affinity_picture_too(tmp_path):
    alone = AffinityTable(tasks=("a",), mean=((0.5,),), se=((None,),), batches=((1,),))
    affinity(alone, None).savefig(tmp_path / "a.png")
    assert min(size(tmp_path / "a.png")) > 200


def test_losses_are_drawn_over_a_split_with_unknown_ones_left_out(tmp_path):
    merged = [point(task, "a+b+c", 0, 0.9) for task in "abc"]
    after = [
        point(t, g, r, 0.8 - 0.1 * r)
        for t, g in zip("abc", ("a+c", "b", "a+c"), strict=True)
        for r in (1, 2, 3)
    ]
    curve = [*merged, *after, point("c", "a+c", 4, None)]
    curves(made(tuple("abc"), ("a+c", "b"), curve, SPLIT)).savefig(tmp_path / "l.png")
    assert size(tmp_path / "l.png")[0] > size(tmp_path / "l.png")[1]


@pytest.mark.parametrize("tasks", [("a",), tuple("abcd"), tuple("abcdefg")])
def test_every_number_of_tasks_fits_and_a_job_without_rounds_is_drawn_empty(tmp_path, tasks):
    curves(made(tasks, tasks, [])).savefig(tmp_path / "l.png")
    assert min(size(tmp_path / "l.png")) > 200
