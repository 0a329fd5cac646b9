from __future__ import annotations

import io
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path):
    lying = np.zeros((8, 8, 3), np.uint8)
    lying[:, :4] = 255  # its left half
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees clockwise
    Image.fromarray(lying).save(tmp_path / "photo.jpg", exif=exif, quality=100)
    inputs = read(tmp_path / "photo.jpg", CARD, raw=False)
    assert (inputs[0, :, :2] > 0.9).all()
    assert (inputs[0, :, 2:] < -0.9).all()


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "shape", ["(3, 4, 4", "(9" + "0" * 13 + ", 4, 4)", "(9" + "0" * 30 + ",)", "(3, 04, 4)"]
)
def test_an_array_whose_header_is_torn_or_lies_is_refused(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(header(shape))
    with pytest.raises(InputRefused, match=r"a\.npy: is no \.npy file that can be read"):
        read(tmp_path / "a.npy", CARD, raw=False)


def test_what_is_in_an_archive_and_no_array_is_no_input(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("input", "hello")
    with pytest.raises(InputRefused, match="has the arrays none"):
        read(tmp_path / "a.npz", CARD, raw=False)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_archive_is_read_or_refused(changes):
    made = io.BytesIO()
    np.savez_compressed(made, input=np.zeros((3, 4, 4), np.float32))
    data = bytearray(made.getvalue())
    for place, byte in changes:
        data[place % len(data)] = byte
    with tempfile.TemporaryDirectory() as folder, suppress(InputRefused):
        path = Path(folder) / "a.npz"
        path.write_bytes(data)
        assert read(path, CARD, raw=False).shape[1:] == (3, 4, 4)


def test_numbers_that_are_too_large_for_the_network_are_refused(tmp_path):
    np.save(tmp_path / "large.npy", np.full((3, 4, 4), 1e300))
    with pytest.raises(InputRefused, match="no finite numbers"):
        read(tmp_path / "large.npy", CARD, raw=False)


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
