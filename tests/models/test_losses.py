from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.models import losses
from mas_edge.models.tasks import Batch, Task

CLASSES = Task("c", "", "cross-entropy", "accuracy", (3,), np.log([0.5, 0.25, 0.25]))
PIXELS = Task("p", "", "cross-entropy", "accuracy", (3, 2, 2), np.log([0.5, 0.25, 0.25])[:, None, None])
SQUARE = Task("s", "", "mse", "mae", (2,), np.array([1.0, 0.0]))
ABSOLUTE = Task("a", "", "l1", "mae", (1, 2, 2), np.zeros(1))
ALL = (CLASSES, PIXELS, SQUARE, ABSOLUTE)


def labels(task, target, valid=None):
    batch = Batch(
        np.zeros((len(target), 1), np.float32),
        {task.name: target},
        {} if valid is None else {task.name: valid},
    )
    return losses.examples(batch, [task]).labels[task.name]


def random_case(task, seed, size=5):
    rng = np.random.default_rng(seed)
    shape = (size, *(task.shape[1:] if task.loss == "cross-entropy" else task.shape))
    target = (
        rng.integers(0, 3, shape)
        if task.loss == "cross-entropy"
        else rng.normal(size=shape).astype(np.float32)
    )
    output = torch.tensor(rng.normal(size=(size, *task.shape)).astype(np.float32), requires_grad=True)
    return output, target, rng.random(shape) < 0.5


def test_the_losses_equal_the_hand_calculation():
    probabilities = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    assert losses.loss_sum(CLASSES, probabilities, labels(CLASSES, np.array([0, 2]))).item() == pytest.approx(
        -np.log(0.5) - np.log(0.8)
    )
    output = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    square = labels(SQUARE, np.array([[1.0, 0.0], [3.0, 1.0]]))
    assert losses.loss_sum(SQUARE, output, square).item() == pytest.approx((0 + 4) / 2 + (9 + 1) / 2)
    assert losses.metric_sum(SQUARE, output, square).item() == pytest.approx(2 / 2 + 4 / 2)


def test_an_examples_loss_is_the_mean_over_its_valid_elements():
    target = np.array([[[[1.0, 9.0], [9.0, 3.0]]]])
    valid = np.array([[[[True, False], [False, True]]]])
    given_ = labels(ABSOLUTE, target, valid)
    assert losses.loss_sum(ABSOLUTE, torch.zeros(1, 1, 2, 2), given_).item() == pytest.approx(2.0)
    assert given_.count == 1


def test_accuracy_counts_right_answers():
    output = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 1, 2]])
    assert losses.metric_sum(CLASSES, output, labels(CLASSES, np.array([0, 1, 1]))).item() == 2


def test_the_constant_predictors_loss_is_the_same_function():
    given_ = labels(CLASSES, np.array([0, 1]))
    assert losses.constant_loss_sum(CLASSES, given_).item() == pytest.approx(-np.log(0.5) - np.log(0.25))
    assert losses.constant_loss_sum(SQUARE, labels(SQUARE, np.array([[1.0, 2.0]]))).item() == pytest.approx(
        2.0
    )
    assert losses.constant_loss_sum(PIXELS, labels(PIXELS, np.zeros((1, 2, 2), int))).item() == pytest.approx(
        -np.log(0.5)
    )


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_nothing_valid_gives_zero_and_no_gradient_whatever_stands_there(task):
    output, target, _ = random_case(task, 0)
    target = np.full_like(target, 255 if task.loss == "cross-entropy" else np.nan)
    given_ = labels(task, target, np.zeros(target.shape, bool))
    value = losses.loss_sum(task, output, given_)
    value.backward()
    assert (value.item(), given_.count) == (0, 0)
    assert torch.equal(output.grad, torch.zeros_like(output))
    assert losses.metric_sum(task, output, given_).item() == 0


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_an_invalid_element_reaches_neither_value_nor_gradient(task):
    output, target, valid = random_case(task, 1)
    garbage = np.where(valid, target, -100 if task.loss == "cross-entropy" else np.inf)
    results = []
    for given_target in (target, garbage):
        value = losses.loss_sum(task, output, labels(task, given_target, valid))
        results.append((value.item(), torch.autograd.grad(value, output)[0]))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@given(st.sampled_from(ALL), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_sums_and_counts_of_the_parts_add_up_to_the_whole(task, seed, cut):
    output, target, valid = random_case(task, seed)
    whole = labels(task, target, valid)
    pieces = [(slice(0, cut)), (slice(cut, 5))]
    parts = [(output[at], labels(task, target[at], valid[at])) for at in pieces]
    assert sum(part.count for _, part in parts) == whole.count
    total = sum(losses.loss_sum(task, out, part).item() for out, part in parts)
    assert total == pytest.approx(losses.loss_sum(task, output, whole).item(), rel=1e-5, abs=1e-5)


def test_a_mask_per_example_covers_the_whole_example():
    given_ = labels(ABSOLUTE, np.ones((2, 1, 2, 2)), np.array([True, False]))
    assert given_.count == 1
    np.testing.assert_array_equal(given_.share[:, 0].numpy(), [[[0.25] * 2] * 2, [[0] * 2] * 2])


def test_tasks_with_one_mask_are_handed_one_tensor_of_it():
    mask = np.array([[[[True, False]]], [[[False, False]]]])
    one, two = (
        Task(name, "", "masked-l1", "mae", (n, 1, 2), np.zeros(1)) for name, n in (("o", 1), ("t", 3))
    )
    targets = {"o": np.zeros((2, 1, 1, 2)), "t": np.zeros((2, 3, 1, 2))}
    found = losses.examples(Batch(np.zeros((2, 1)), targets, {"o": mask, "t": mask}), (one, two)).labels
    assert found["o"].mask is found["t"].mask
    assert [found[name].count for name in "ot"] == [1, 1]
    np.testing.assert_allclose(found["t"].share[0, :, 0], [[1 / 3, 0]] * 3)
    assert not found["t"].share[1].any()


def test_equal_classes_that_one_task_ignores_are_valid_for_another():
    target = np.array([0, 1, 2])
    tasks = [Task(str(n), "", "cross-entropy", "accuracy", (3,), np.zeros(3), ignore=(n,)) for n in (0, 2)]
    found = losses.examples(Batch(np.zeros((3, 1)), {"0": target, "2": target}, {}), tasks).labels
    assert [labels.valid.tolist() for labels in found.values()] == [[False, True, True], [True, True, False]]
