from __future__ import annotations

import numpy as np
import pytest

from mas_edge.models.panels import PALETTE, panel
from mas_edge.models.tasks import Normalisation, Task

CLASSES = Task("classes", "", "cross-entropy", "miou", (3, 2, 2), 0.0)
NORMALS = Task("normals", "", "l1", "angular-error-deg", (3, 2, 2), 0.0)
TILE, FIRST, SECOND, MIDDLE = 200, 8, 208, 24 + 48
"""Tiles begin every 200 pixels; below a title of 16 lie 2 x 2 pixels, each drawn 96 wide."""


def drawn(inputs, outputs, tasks=(), normalisation=None):
    """The panel as (H, W, 3)."""
    return np.asarray(panel(inputs, outputs, tasks, normalisation))


def quarters(picture, left):
    return picture[MIDDLE, left + 48], picture[MIDDLE, left + 144], picture[MIDDLE + 96, left + 48]


def test_a_picture_is_shown_as_it_was_before_it_was_normalised():
    inputs = np.zeros((3, 2, 2), np.float32)
    inputs[0, 0, 0] = 1
    picture = drawn(inputs, {}, normalisation=Normalisation((100.0,) * 3, (50.0,) * 3))
    assert [tuple(each) for each in quarters(picture, FIRST)] == [(150, 100, 100), *[(100, 100, 100)] * 2]


def test_classes_are_coloured_by_the_likeliest():
    scores = np.zeros((3, 2, 2))
    scores[1, 0, 1], scores[2, 1, 0] = 5, 5
    picture = drawn(np.zeros((3, 2, 2)), {"classes": scores}, (CLASSES,))
    assert [tuple(each) for each in quarters(picture, SECOND)] == [tuple(PALETTE[n]) for n in (0, 1, 2)]


def test_vectors_are_coloured_from_minus_one_to_one():
    vectors = np.zeros((3, 2, 2))
    vectors[:, 0, 0] = 1, -1, 0
    picture = drawn(np.zeros((3, 2, 2)), {"normals": vectors}, (NORMALS,))
    assert tuple(quarters(picture, SECOND)[0]) == (255, 0, 128)


def test_one_channel_is_grey_from_its_least_to_its_greatest():
    picture = drawn(np.zeros((3, 2, 2)), {"depth": np.array([[[1.0, 3.0], [2.0, 1.0]]])})
    dark, bright, between = (tuple(each) for each in quarters(picture, SECOND))
    assert dark == (0, 0, 0)
    assert bright == (255, 255, 255)
    assert 0 < between[0] < 255
    assert len(set(between)) == 1


@pytest.mark.parametrize(
    "values",
    [np.zeros(3), np.full(3, np.nan), np.array([1e30, -1e30, np.inf]), np.arange(50.0), np.zeros((6, 16))],
)
def test_any_numbers_can_be_drawn(values):
    assert drawn(np.zeros((6, 128)), {"numbers": values}).shape == (224, 408, 3)


def test_the_longest_bar_is_the_greatest_number():
    picture = drawn(np.zeros((6, 128)), {"numbers": np.array([1.0, 4.0, 2.0])})
    below = picture[24:, SECOND:]
    bars = [(below == np.array(PALETTE[n])).all(-1).sum() for n in range(3)]
    assert bars[1] > bars[2] > bars[0] > 0
