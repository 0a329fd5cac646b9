from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mas_edge.models.tasks import DataRefused
from mas_edge.models.workloads import pictures

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6


def png(bits, colour, rows, width):
    """A PNG file by the book: rows of packed samples without a filter."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
STORED = st.one_of(
    arrays.arrays(np.uint8, SIDES),
    arrays.arrays(np.uint16, SIDES),
    arrays.arrays(np.uint8, SIDES.map(lambda side: (*side, 3))),
)


@given(STORED)
def test_what_is_written_is_read_back_equal(tmp_path_factory, stored):
    path = tmp_path_factory.mktemp("png") / "a.png"
    pictures.write(path, stored)
    back = pictures.read(path)
    assert back.dtype == stored.dtype
    np.testing.assert_array_equal(back, stored)


def test_65535_stays_65535_and_never_becomes_minus_one(tmp_path):
    values = np.array([[0, 1, 32767], [32768, 65534, 65535]], np.uint16)
    path = tmp_path / "depth.png"
    path.write_bytes(png(16, GREY, [row.astype(">u2").tobytes() for row in values], 3))
    back = pictures.read(path)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("colour", [COLOUR, GREY_ALPHA, COLOUR_ALPHA])
def test_16_bit_colour_is_refused_rather_than_cut_to_8_bits(tmp_path, colour):
    path = tmp_path / "normal.png"
    path.write_bytes(png(16, colour, [bytes(range(16))], 2))
    with pytest.raises(DataRefused, match=r"normal\.png.*16-bit colour.*npy"):
        pictures.read(path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_refused_rather_than_stretched(tmp_path, bits):
    path = tmp_path / "classes.png"
    path.write_bytes(png(bits, GREY, [b"\x12"], 2))
    with pytest.raises(DataRefused, match=rf"classes\.png.*{bits} bits.*8 bits"):
        pictures.read(path)


def test_a_palette_picture_gives_its_indices(tmp_path):
    ids = np.array([[0, 3], [7, 255]], np.uint8)
    picture = Image.new("P", (2, 2))
    picture.putpalette([value for n in range(256) for value in (255 - n, n, 9)])
    picture.putdata(ids.ravel().tolist())
    picture.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(pictures.read(tmp_path / "voc.png"), ids)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_npy_is_read_as_it_is(tmp_path, kind):
    stored = np.arange(12, dtype=kind).reshape(2, 3, 2)
    np.save(tmp_path / "a.npy", stored)
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.npy"), stored)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.int16), np.zeros(4, np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_npy_of_another_kind_is_refused(tmp_path, bad):
    np.save(tmp_path / "a.npy", bad)
    with pytest.raises(DataRefused, match=r"a\.npy.*store uint8, uint16 or float32"):
        pictures.read(tmp_path / "a.npy")


def test_a_pickle_is_never_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"an": "object"}], dtype=object))
    with pytest.raises(DataRefused, match="pickle"):
        pictures.read(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_a_missing_file_is_refused_by_its_name(tmp_path, name):
    with pytest.raises(DataRefused, match=rf"{name}: there is no such file"):
        pictures.read(tmp_path / name)


def flipped(raw):
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:30], flipped, lambda _: b""]
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, damage):
    noise = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    path = tmp_path / "label.png"
    pictures.write(path, noise)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataRefused, match=r"label\.png: cannot be read"):
        pictures.read(path)


def test_a_photograph_with_the_wrong_name_is_refused(tmp_path):
    path = tmp_path / "rgb.png"
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    with pytest.raises(DataRefused, match=r"rgb\.png.*not a PNG"):
        pictures.read(path)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.int16), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint16)]
)
def test_what_png_would_change_is_not_written(tmp_path, bad):
    with pytest.raises(TypeError, match="PNG takes"):
        pictures.write(tmp_path / "a.png", bad)
    assert not (tmp_path / "a.png").exists()
