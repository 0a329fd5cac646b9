"""The report of a job from its events: what is unknown stays in its row and in no total."""

from __future__ import annotations

import msgspec

from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.job import Initialised, Judged, Planned
from mas_edge.orchestrator.report import report
from mas_edge.orchestrator.rounds import Carved, Heard, Merged
from mas_edge.orchestrator.spec import JobSpec
from mas_edge.wire.messages import BlobRef, Fit, Key, Profile, Score, Spend, Training, Update

TASKS = ("a", "b", "c")
TRAINING = Training(
    workload="watch", network="micro", rounds=1, epochs=1, batch=8, lr=0.1, seed=1, reproducible=True
)
SPEC = JobSpec(name="j", tasks=TASKS, training=TRAINING, policy="all-in-one", devices=("d1",), unseen=("9",))
GROUP = "a+b+c"


def ref(name: str) -> BlobRef:
    return BlobRef(digest=name, size_bytes=1, chunk_bytes=1)


def heard(round_: int, weights: str | None, *tasks: str) -> Heard:
    key = Key(job="j", group=GROUP, round=round_, attempt=0, device="d1")
    scores = tuple(Score(task=task, count=2.0, loss_sum=1.0, constant_loss_sum=4.0) for task in tasks)
    return Heard(update=Update(key=key, weights=ref(weights) if weights else None, examples=2, scores=scores))


def events(*tasks: str):
    """A job whose devices and unseen clients have labels for these tasks only."""
    scores = tuple(Score(task=task, count=2.0, loss_sum=3.0, constant_loss_sum=4.0) for task in tasks)
    happened = (
        Initialised(weights=ref("first"), fingerprint="f", parameters={}),
        Planned(decision=Decision(groups=(TASKS,))),
        Carved(group=GROUP, weights=ref("first")),
        heard(0, "u"),
        Merged(group=GROUP, round=0, weights=ref("merged")),
        heard(1, None, *tasks),
        Judged(group=GROUP, scores=scores),
    )
    return [(float(second), event) for second, event in enumerate(happened)]


def test_losses_stand_in_the_row_of_their_task():
    made = report(SPEC, events("a", "c"))
    assert made.phase == "done"
    assert [(point.task, point.loss) for point in made.held_out] == [("a", 0.5), ("b", None), ("c", 0.5)]
    assert [(point.task, point.loss) for point in made.unseen] == [("a", 1.5), ("b", None), ("c", 1.5)]


def test_a_total_over_tasks_of_which_one_is_unknown_is_unknown():
    made = report(SPEC, events("a", "c"))
    assert (made.held_out_total, made.held_out_relative, made.unseen_total) == (None, None, None)
    whole = report(SPEC, events(*TASKS))
    assert (whole.held_out_total, whole.held_out_relative, whole.unseen_total) == (1.5, 0.25, 4.5)


def spent(phase: str, peak: int) -> Spend:
    return Spend(job="j", group=GROUP, round=0, phase=phase, wall_s=1.0, cpu_s=1.0, peak_rss_bytes=peak)


def test_memory_is_what_each_group_took_at_the_most_on_each_device_and_lost_attempts_stand_apart():
    fitted = Fit(micro_batch=4, estimated_bytes=300, allowed_bytes=400, killed_bytes=390)
    profile = Profile(rows=(spent("lost", 390), spent("forward", 250), spent("save", 310)))
    made = events(*TASKS)
    second, first = made[3][0], made[3][1].update
    made[3] = second, Heard(update=msgspec.structs.replace(first, fit=fitted, profile=profile))
    (row,) = report(SPEC, made).memory
    assert (row.group, row.device, row.micro_batch, row.checkpointing) == (GROUP, "d1", 4, False)
    assert (row.peak_bytes, row.estimated_bytes, row.allowed_bytes, row.killed_bytes) == (310, 300, 400, 390)
    assert report(SPEC, events(*TASKS)).memory == ()
