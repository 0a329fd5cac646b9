from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mas_edge.models.inputs import InputRefused, read
from mas_edge.models.onnx_file import Card
from mas_edge.models.tasks import Normalisation

CARD = Card(
    workload="w",
    network="n",
    tasks=("t",),
    input_shape=(3, 4, 4),
    precision="fp32",
    fingerprint="",
    normalisation=Normalisation((127.5,) * 3, (127.5,) * 3),
)


def test_a_picture_is_cut_around_its_middle_and_reduced_by_the_mean(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 255  # the middle, which is square
    wide[0, 4] = 127, 127, 127
    Image.fromarray(wide).save(tmp_path / "wide.png")
    inputs = read(tmp_path / "wide.png", CARD, raw=False)
    assert (inputs.shape, inputs.dtype) == ((1, 3, 4, 4), np.float32)
    assert (inputs[0, :, 1:] == 1).all()
    assert inputs[0, 0, 0, 0] == pytest.approx(1 - 128 / 4 / 127.5, abs=0.01)


def test_grey_and_palette_pictures_become_colour(tmp_path):
    for mode in ("L", "P", "RGBA", "1"):
        Image.new(mode, (4, 4)).save(tmp_path / f"{mode}.png")
        assert read(tmp_path / f"{mode}.png", CARD, raw=False).shape == (1, 3, 4, 4)
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.JPG")
    assert read(tmp_path / "photo.JPG", CARD, raw=False).shape == (1, 3, 4, 4)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(InputRefused, match=r"page\.png: is no picture"):
        read(tmp_path / "page.png", CARD, raw=False)


def test_whole_numbers_are_raw_and_floats_are_not_unless_it_is_said(tmp_path):
    np.save(tmp_path / "bytes.npy", np.full((3, 4, 4), 255, np.uint8))
    np.save(tmp_path / "floats.npy", np.full((3, 4, 4), 255, np.float64))
    assert (read(tmp_path / "bytes.npy", CARD, raw=False) == 1).all()
    assert (read(tmp_path / "floats.npy", CARD, raw=False) == 255).all()
    assert (read(tmp_path / "floats.npy", CARD, raw=True) == 1).all()


def test_raw_values_without_a_normalisation_are_refused(tmp_path):
    np.save(tmp_path / "bytes.npy", np.zeros((3, 4, 4), np.uint8))
    card = Card("w", "n", ("t",), (3, 4, 4), "fp32", "")
    with pytest.raises(InputRefused, match="does not say how raw values are normalised"):
        read(tmp_path / "bytes.npy", card, raw=False)
