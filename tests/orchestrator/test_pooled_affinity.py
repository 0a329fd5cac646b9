"""Sums from many devices become one matrix: as if all batches had been measured in one place."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.affinity import Affinity, AffinityRefused, normalise, pool
from mas_edge.wire.messages import AffinitySums

TASKS = ("gait", "jerk")


def sums(values, weights, tasks=TASKS):
    """Sums over batches: ``values`` (batches, n, n), of which NaN are missing; ``weights`` (batches,)."""
    z = np.asarray(values, float).reshape(-1, len(tasks) ** 2)
    w = np.where(np.isnan(z), 0.0, np.asarray(weights, float)[:, None])
    z = np.nan_to_num(z)
    columns = {"w": w, "ww": w**2, "wz": w * z, "wzz": w * z**2}
    return AffinitySums(
        tasks=tasks,
        batches=tuple(int(n) for n in (w > 0).sum(axis=0)),
        **{name: tuple(map(float, column.sum(axis=0))) for name, column in columns.items()},
    )


def batches(least=2):
    entry = st.floats(-2, 2)
    batch = st.tuples(st.lists(entry, min_size=4, max_size=4), st.integers(1, 64))
    return st.lists(batch, min_size=least, max_size=12)


def test_a_weighted_mean_and_its_error_by_hand():
    pooled = pool([sums([[[0.5, 0.1], [0.2, 0.4]]] * 2 + [[[0.5, 0.4], [0.2, 0.4]]], [10, 10, 20])])
    assert pooled.tasks == TASKS
    assert pooled.mean[0, 1] == pytest.approx((10 * 0.1 + 10 * 0.1 + 20 * 0.4) / 40)
    # variance 0.0225; 40**2 / 600 = 8/3 batches count
    assert pooled.se[0, 1] == pytest.approx((0.0225 / (8 / 3 - 1)) ** 0.5)
    assert pooled.se[1, 0] == pytest.approx(0, abs=1e-8)
    assert pooled.batches.tolist() == [[3, 3], [3, 3]]


def test_a_batch_counts_by_its_examples_and_not_by_its_device():
    many = sums([[[0.1] * 2] * 2] * 20, [64] * 20)
    one = sums([[[0.9] * 2] * 2], [64])
    assert pool([many, one]).mean == pytest.approx((20 * 0.1 + 0.9) / 21)


@given(batches(), st.data())
def test_pooled_sums_equal_pooled_batches(measured, data):
    values, weights = zip(*measured, strict=True)
    at = data.draw(st.integers(0, len(measured)))
    halves = [(values[:at], weights[:at]), (values[at:], weights[at:])]
    pooled = pool(sums(v, w) for v, w in halves if v)
    z, w = np.array(values).reshape(-1, 2, 2), np.array(weights, float)
    mean = np.average(z, axis=0, weights=w)
    variance = np.average((z - mean) ** 2, axis=0, weights=w)
    effective = w.sum() ** 2 / (w**2).sum()
    assert pooled.mean == pytest.approx(mean, abs=1e-12)
    if effective >= 2:
        assert pooled.se == pytest.approx(np.sqrt(variance / (effective - 1)), abs=1e-6)
    assert pooled.batches.tolist() == [[len(measured)] * 2] * 2


@given(st.lists(batches(least=1), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_devices_does_not_show_in_a_single_bit(devices, rng):
    parts = [sums(*zip(*measured, strict=True)) for measured in devices]
    turned = rng.sample(parts, len(parts))
    for name in ("mean", "se", "batches"):
        assert getattr(pool(parts), name).tobytes() == getattr(pool(turned), name).tobytes()


def test_what_nobody_measured_is_unknown_and_not_zero():
    pooled = pool([sums([[[0.5, np.nan], [0.2, 0.4]]] * 3, [10] * 3)])
    assert np.isnan(pooled.mean[0, 1])
    assert np.isnan(pooled.se[0, 1])
    assert pooled.batches[0, 1] == 0
    assert pooled.missing == (("gait", "jerk"),)


@pytest.mark.parametrize(
    ("weights", "known"), [([7], False), ([7, 7], True), ([7, 1], False), ([7, 7, 1], True)]
)
def test_an_error_takes_two_batches_worth_of_examples(weights, known):
    pooled = pool([sums(np.arange(4.0 * len(weights)), weights)])
    assert np.isfinite(pooled.mean).all()
    assert bool(np.isfinite(pooled.se).all()) is known


GOOD = sums([[[0.5, 0.1], [0.2, 0.4]]] * 2, [10, 10])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "no affinities were measured"),
        (
            [GOOD, sums([[0.0] * 4], [1], tasks=("jerk", "gait"))],
            "jerk, gait do not pool with those of gait, jerk",
        ),
        ([msgspec.structs.replace(GOOD, wz=(0.1,) * 3)], "wz: 3 entries for 2 tasks"),
        ([msgspec.structs.replace(GOOD, w=(-1.0,) * 4)], "w: an entry is not a number from 0.0"),
        ([msgspec.structs.replace(GOOD, wz=(float("nan"),) * 4)], "wz: an entry is not a number"),
        ([msgspec.structs.replace(GOOD, wzz=(1e308,) * 4)] * 2, "wzz: an entry is not a number"),
        ([msgspec.structs.replace(GOOD, batches=(1 << 63,) * 4)], "batches: an entry is not a number"),
    ],
)
def test_sums_that_cannot_be_are_refused(parts, words):
    with pytest.raises(AffinityRefused, match=words):
        pool(parts)


@given(batches())
def test_sums_pool_the_same_after_their_way_over_the_wire(measured):
    part = sums(*zip(*measured, strict=True))
    carried = msgspec.json.decode(msgspec.json.encode(part), type=AffinitySums)
    assert json.loads(msgspec.json.encode(part))["tasks"] == list(TASKS)
    assert pool([carried]).mean.tobytes() == pool([part]).mean.tobytes()


# --- normalised -----------------------------------------------------------------------------------


def measured(mean, se):
    return Affinity(TASKS, np.array(mean), np.full((2, 2), se), np.ones((2, 2), int))


def test_raw_affinities_are_the_published_ones():
    raw = measured([[0.5, 0.1], [0.2, 0.4]], 0.1)
    assert normalise(raw) is raw


def test_a_column_is_divided_by_its_tasks_effect_on_itself():
    scaled = normalise(measured([[0.5, 0.1], [0.2, 0.4]], 0.1), "self")
    assert scaled.mean == pytest.approx(np.array([[1, 0.25], [0.4, 1]]))
    # d(a/b) = hypot(da, a/b * db) / b
    assert scaled.se == pytest.approx(
        np.array([[0, np.hypot(0.1, 0.025) / 0.4], [np.hypot(0.1, 0.04) / 0.5, 0]])
    )


def test_a_task_that_does_not_help_itself_has_no_normalised_column():
    scaled = normalise(measured([[-0.1, 0.1], [0.2, 0.4]], 0.1), "self")
    assert np.isnan(scaled.mean[:, 0]).all()
    assert np.isnan(scaled.se[:, 0]).all()
    assert scaled.missing == (("jerk", "gait"),)


def test_a_normalised_effect_is_at_most_that_on_oneself():
    scaled = normalise(measured([[0.01, 0.1], [-0.2, 0.4]], 0.1), "self")
    assert (scaled.mean[1, 0], scaled.mean[0, 1]) == (-1.0, pytest.approx(0.25))
