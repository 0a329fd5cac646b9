from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator import report
from mas_edge.wire.messages import Score

NAME = ("s", "g", 3)
counts = st.tuples(*[st.integers(0, 9)] * 3)


def score(intersection, union, count=2.0):
    return Score(task="s", count=count, loss_sum=3.0, intersection=intersection, union=union)


def test_the_miou_of_a_fleet_is_that_of_all_its_pixels_and_not_the_mean_of_devices():
    point = report._point(NAME, [score((0, 1, 0), (0, 1, 0)), score((0, 1, 2), (0, 9, 4))])
    assert point.metric == pytest.approx((2 / 10 + 2 / 4) / 2)  # devices alone: 1 and 0.31
    assert point.loss == 1.5


def test_a_class_that_nobody_has_or_predicts_does_not_count():
    assert report._point(NAME, [score((0, 0), (0, 0))]).metric is None
    assert report._point(NAME, [score((0, 3), (0, 4))]).metric == 0.75


def test_a_device_that_evaluated_nothing_does_not_count():
    assert report._point(NAME, [score((), (), count=0.0), score((0, 3), (0, 4))]).metric == 0.75


def test_other_metrics_are_means_over_examples():
    scores = [Score(task="s", count=c, loss_sum=1.0, metric_sum=m) for c, m in ((1.0, 5.0), (3.0, 3.0))]
    assert report._point(NAME, scores).metric == 2.0


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=5))
def test_scores_pool_in_any_grouping(devices):
    scores = [
        score(both, tuple(b + more for b, more in zip(both, rest, strict=True))) for both, rest in devices
    ]
    whole = [
        tuple(sum(column) for column in zip(*rows, strict=True))
        for rows in ([s.intersection for s in scores], [s.union for s in scores])
    ]
    assert report._point(NAME, scores).metric == report._point(NAME, [score(*whole)]).metric
