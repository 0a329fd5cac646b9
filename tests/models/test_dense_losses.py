from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mas_edge.models import losses
from mas_edge.models.tasks import Batch, Task

SEGMENT = Task(
    "s", "", "cross-entropy", "miou", (4, 5, 6), np.log([0.1, 0.2, 0.3, 0.4])[:, None, None], ignore=(0,)
)
DEPTH = Task("d", "", "masked-l1", "mae", (1, 5, 6), np.full(1, 2.0))
NORMAL = Task("n", "", "masked-l1", "angular-error-deg", (3, 5, 6), np.array([0.0, 0.0, 1.0])[:, None, None])
SHIFTED = Task("x", "", "shifted-masked-l1", "mae", (1, 5, 6), np.zeros(1))
ALL = (SEGMENT, DEPTH, NORMAL, SHIFTED)


def labels(task, target, valid=None):
    batch = Batch(
        np.zeros((len(target), 1), np.float32),
        {task.name: target},
        {} if valid is None else {task.name: valid},
    )
    return losses.examples(batch, [task]).labels[task.name]


def random_case(task, seed, size=3):
    rng = np.random.default_rng(seed)
    if task.loss == "cross-entropy":
        target = rng.integers(0, 4, (size, *task.shape[1:])).astype(np.uint8)
        valid = rng.random(target.shape) < 0.7
    else:
        target = rng.normal(size=(size, *task.shape)).astype(np.float32)
        valid = rng.random((size, 1, *task.shape[1:])) < 0.7
    output = torch.tensor(rng.normal(size=(size, *task.shape)).astype(np.float32), requires_grad=True)
    return output, target, valid


def test_masked_l1_divides_by_all_elements_and_l1_by_the_valid_ones():
    target = np.array([[[[1.0, 2.0], [3.0, 9.0]]]])
    valid = np.array([[[[True, True], [True, False]]]])
    for loss, expected in (("masked-l1", 6 / 4), ("l1", 6 / 3)):
        task = Task("t", "", loss, "mae", (1, 2, 2), np.zeros(1))
        given_ = labels(task, target, valid)
        assert losses.loss_sum(task, torch.zeros(1, 1, 2, 2), given_).item() == pytest.approx(expected)
        assert losses.metric_sum(task, torch.zeros(1, 1, 2, 2), given_).item() == pytest.approx(6 / 3)
        assert given_.count == 1


@pytest.mark.parametrize("task", [DEPTH, NORMAL], ids=lambda task: task.name)
def test_masked_l1_is_the_published_mean_where_every_picture_has_a_valid_pixel(task):
    output, target, valid = random_case(task, 3)
    published = (
        functional.l1_loss(output, torch.tensor(target), reduction="none") * torch.tensor(valid)
    ).mean()
    given_ = labels(task, target, valid)
    assert (losses.loss_sum(task, output, given_) / given_.count).item() == pytest.approx(
        published.item(), rel=1e-6
    )


def test_cross_entropy_leaves_the_ignored_class_out_of_every_picture():
    output, target, _ = random_case(SEGMENT, 4)
    each = [
        functional.cross_entropy(out[None], torch.tensor(t[None], dtype=torch.int64), ignore_index=0)
        for out, t in zip(output, target, strict=True)
    ]
    given_ = labels(SEGMENT, target)
    assert losses.loss_sum(SEGMENT, output, given_).item() == pytest.approx(sum(each).item(), rel=1e-6)
    assert given_.count == 3
    assert labels(SEGMENT, np.zeros((2, 5, 6), np.uint8)).count == 0


@pytest.mark.parametrize("move", [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], ids=str)
def test_the_shifted_loss_forgives_one_pixel_in_any_direction(move):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(1, 1, 5, 6)).astype(np.float32)
    output = torch.tensor(np.roll(target, move, (2, 3)))
    assert losses.loss_sum(SHIFTED, output, labels(SHIFTED, target)).item() == 0
    further = torch.tensor(np.roll(target, (2, 0), (2, 3)))
    assert losses.loss_sum(SHIFTED, further, labels(SHIFTED, target)).item() > 0.1


def test_the_shifted_loss_is_one_minimum_per_picture():
    target = np.zeros((2, 1, 4, 4), np.float32)
    target[:, 0, 1, 1] = 1
    output = torch.zeros(2, 1, 4, 4)
    output[0, 0, 2, 1] = output[1, 0, 1, 2] = 1  # each picture off in a direction of its own
    given_ = labels(SHIFTED, target)
    assert losses.loss_sum(SHIFTED, output, given_).item() == 0
    output[1, 0, 1, 2] = 0.5  # half of the one of four inner pixels is missing
    assert losses.loss_sum(SHIFTED, output, given_).item() == pytest.approx(0.5 / 4)


def test_the_angle_between_normals_is_in_degrees_and_ignores_their_length():
    target = np.zeros((1, 3, 1, 5), np.float32)
    target[0, 2] = 1.0
    output = torch.tensor([[0.0, 0, 2], [0, 3, 0], [0, 0, -1], [1, 0, 1], [0, 0, 0]]).T[None, :, None]
    task = Task("n", "", "l1", "angular-error-deg", (3, 1, 5), np.zeros(1))
    for pixel, degrees in enumerate((0, 90, 180, 45, 90)):
        valid = np.zeros((1, 1, 1, 5), bool)
        valid[..., pixel] = True
        found = losses.metric_sum(task, output, labels(task, target, valid)).item()
        assert found == pytest.approx(degrees, abs=1e-4)
    assert losses.metric_sum(task, output, labels(task, target)).item() == pytest.approx(405 / 5)


def test_overlap_counts_intersection_and_union_per_class_without_ignored_pixels():
    target = np.array([[[1, 1, 2, 0]]], np.uint8)
    task = Task("s", "", "cross-entropy", "miou", (4, 1, 4), np.zeros(1), ignore=(0,))
    said = torch.tensor([1, 2, 0, 3])  # right; wrong; the ignored class on a valid pixel; on an ignored one
    output = functional.one_hot(said, 4).T[None, :, None].float()
    both, either = losses.overlap(task, output, labels(task, target)).tolist()
    assert both == [0, 1, 0, 0]
    assert either == [0, 2, 2, 0]
    with pytest.raises(ValueError, match="miou"):
        losses.metric_sum(task, output, labels(task, target))


@given(st.sampled_from(ALL), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_dense_sums_of_the_parts_add_up_to_the_whole(task, seed, cut):
    output, target, valid = random_case(task, seed)
    whole = labels(task, target, valid)
    parts = [(output[at], labels(task, target[at], valid[at])) for at in (slice(0, cut), slice(cut, 3))]
    for function in (losses.loss_sum, losses.overlap if task is SEGMENT else losses.metric_sum):
        total = sum(function(task, *part) for part in parts)
        torch.testing.assert_close(total, function(task, output, whole), rtol=1e-5, atol=1e-4)
    constants = sum(losses.constant_loss_sum(task, part).item() for _, part in parts)
    assert constants == pytest.approx(losses.constant_loss_sum(task, whole).item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_an_invalid_pixel_reaches_neither_value_nor_gradient(task):
    output, target, valid = random_case(task, 1)
    garbage = np.where(valid, target, 200 if task is SEGMENT else np.nan)
    results = []
    for given_target in (target, garbage):
        value = losses.loss_sum(task, output, labels(task, given_target, valid))
        results.append((value.item(), torch.autograd.grad(value, output)[0]))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.isfinite(results[0][1]).all()


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_pictures_without_a_valid_pixel_give_zero_and_no_gradient(task):
    output, target, valid = random_case(task, 2)
    given_ = labels(task, target, np.zeros_like(valid))
    value = losses.loss_sum(task, output, given_)
    value.backward()
    assert (value.item(), given_.count) == (0, 0)
    assert not output.grad.any()
    metric = losses.overlap if task is SEGMENT else losses.metric_sum
    assert not metric(task, output, given_).any()


@pytest.mark.parametrize(
    ("task", "target", "expected"),
    [
        (SEGMENT, np.full((1, 5, 6), 2, np.uint8), -np.log(0.3)),
        (DEPTH, np.full((1, 1, 5, 6), 5.0), 3.0),
        (NORMAL, np.broadcast_to([[[[0.0]], [[1.0]], [[0.0]]]], (1, 3, 5, 6)), 2 / 3),
        (SHIFTED, np.full((1, 1, 5, 6), -1.5), 1.5),
    ],
    ids=["s", "d", "n", "x"],
)
def test_the_constant_predictor_of_a_dense_task_is_one_value_per_channel(task, target, expected):
    found = losses.constant_loss_sum(task, labels(task, np.array(target)))
    assert found.item() == pytest.approx(expected, rel=1e-6)
