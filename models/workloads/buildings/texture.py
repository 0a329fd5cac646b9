"""Painted surfaces: generated patterns, kept at several sizes so that far ones do not flicker; numpy only.

A pattern is TEXELS × TEXELS linear reflectances that repeat without a seam; its *paint* says how many metres
it covers. For sampling, all paints of a building lie in one array with their halved copies (a mip pyramid,
Williams 1983): a pixel reads the copy whose texels are about as large as what the pixel sees.

Nothing here knows what a paint is for; ``style`` chooses.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Array

    Floats = NDArray[np.float32]

TEXELS = 128
LEVELS = TEXELS.bit_length()

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Paint:
    """A pattern (TEXELS, TEXELS, 3) in linear light and the metres after which it repeats."""

    pattern: Floats
    tile_m: float = 1.0


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Linear reflectances of a colour that is given as one mixes it on a screen; hue wraps at 1."""
    red, green, blue = (part**2.2 for part in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))
    return red, green, blue


def plain(rng: np.random.Generator, base: Colour, *, tile_m: float = 1.0, unevenness: float = 0.06) -> Paint:
    """One colour, a little uneven."""
    shade = 1 + unevenness * (2 * noise(rng, 4) - 1)
    return Paint(_painted(shade[..., None] * np.array(base)), tile_m)


def wood(rng: np.random.Generator, base: Colour, *, planks: int, tile_m: float) -> Paint:
    """Grain along the second axis, in boards of various shades with joints."""
    x, y = _grid()
    board = np.floor(x * planks).astype(int)
    along = (y + rng.random(planks)[board]) % 1
    shade = rng.uniform(0.75, 1.1, 2 * planks)[2 * board + (along > 0.5)] * (
        0.72 + 0.5 * noise(rng, 5, across=8)
    )
    joint = ((x * planks) % 1 < 1.5 * planks / TEXELS) | ((along * 2) % 1 < 3 / TEXELS)
    return Paint(_painted((shade * np.where(joint, 0.5, 1))[..., None] * np.array(base)), tile_m)


def tiles(rng: np.random.Generator, base: Colour, other: Colour, *, count: int, tile_m: float) -> Paint:
    """Squares of two colours (which may be one) with grey joints."""
    x, y = _grid()
    odd = (np.floor(x * count) + np.floor(y * count)) % 2
    shade = rng.uniform(0.92, 1.04, (count, count))[(x * count).astype(int), (y * count).astype(int)]
    joint = ((x * count) % 1 < 0.05) | ((y * count) % 1 < 0.05)
    body = np.where(odd[..., None] > 0, np.array(other), np.array(base)) * shade[..., None]
    return Paint(_painted(np.where(joint[..., None], 0.4, body)), tile_m)


def bricks(rng: np.random.Generator, base: Colour, *, tile_m: float) -> Paint:
    """Six by twelve bricks in running bond."""
    x, y = _grid()
    row = np.floor(y * 12).astype(int)
    across = (x * 6 + 0.5 * (row % 2)) % 6
    shade = rng.uniform(0.7, 1.15, (6, 12))[across.astype(int), row] * (0.85 + 0.3 * noise(rng, 5))
    joint = (across % 1 < 0.07) | ((y * 12) % 1 < 0.13)
    return Paint(_painted(np.where(joint[..., None], 0.5, shade[..., None] * np.array(base))), tile_m)


def stripes(rng: np.random.Generator, base: Colour, other: Colour, *, count: int, tile_m: float) -> Paint:
    """Vertical stripes."""
    x, _ = _grid()
    return _two(rng, base, other, (x * count) % 1 < rng.uniform(0.25, 0.6), tile_m)


def dots(rng: np.random.Generator, base: Colour, other: Colour, *, count: int, tile_m: float) -> Paint:
    """Round dots, every second row shifted."""
    x, y = _grid()
    row = np.floor(y * 2 * count)
    inside = ((x * count + 0.5 * (row % 2)) % 1 - 0.5) ** 2 + (((y * 2 * count) % 1 - 0.5) / 2) ** 2
    return _two(rng, base, other, inside < rng.uniform(0.02, 0.05), tile_m)


def speckled(rng: np.random.Generator, base: Colour, *, tile_m: float, contrast: float = 0.5) -> Paint:
    """Carpet or stone: grains and patches."""
    grain = rng.random((TEXELS, TEXELS)) * 0.6 + noise(rng, 6) * 0.4
    return Paint(_painted((1 + contrast * (grain - 0.5))[..., None] * np.array(base)), tile_m)


def picture(rng: np.random.Generator, *, tile_m: float) -> Paint:
    """A painting: smooth fields of a few colours, meant to be seen once."""
    hue, spread = rng.random(), rng.uniform(0.05, 0.4)
    palette = [
        colour(hue + rng.normal(0, spread), rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.95)) for _ in range(6)
    ]
    field = noise(rng, int(rng.integers(3, 6)))
    steps = np.searchsorted(np.quantile(field, np.linspace(0, 1, 7)[1:-1]), field)
    shade = 0.7 + 0.5 * noise(rng, 6)
    return Paint(_painted(np.array(palette)[steps] * shade[..., None]), tile_m)


def noise(rng: np.random.Generator, octaves: int, *, across: int = 1) -> Floats:
    """Smooth seamless noise in [0, 1], each octave half as strong; ``across`` times finer along x."""
    total = np.zeros((TEXELS, TEXELS), np.float32)
    for octave in range(1, octaves + 1):
        rows, columns = min(2**octave * across, TEXELS), 2**octave
        wave = rng.standard_normal((rows, columns), dtype=np.float32)
        total += _stretched(_stretched(wave).T).T / np.float32(2**octave)
    total -= total.min()
    even: Floats = total / total.max()
    return even


class Paints:
    """All paints of a building, side by side with their smaller copies; read by material number."""

    def __init__(self, paints: Sequence[Paint]) -> None:
        """The material's number is its paint's place."""
        level: Array = np.stack([paint.pattern for paint in paints])
        levels = [level]
        while level.shape[1] > 1:
            level = (
                level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]
            ) / 4
            levels.append(level)
        self._texels = np.concatenate([each.reshape(-1, 3) for each in levels])
        sizes = np.array([each[..., 0].size for each in levels])
        self._first = (np.cumsum(sizes) - sizes).astype(np.int32)
        self._per_m = np.array([1 / paint.tile_m for paint in paints], np.float32)

    def sample(self, material_N: Array, surface_2N: Floats, seen_m_N: Array) -> Floats:
        """Reflectance (3, N) at surface coordinates in metres, averaged over about ``seen_m_N`` metres."""
        per_m = self._per_m[material_N]
        _, level = np.frexp(np.maximum(seen_m_N * per_m * TEXELS, 1))
        level = np.minimum(level - 1, LEVELS - 1)
        side = np.right_shift(np.int32(TEXELS), level)
        x, y = (self._texel(row * per_m, side) for row in surface_2N)
        texels: Floats = self._texels.take(self._first[level] + (material_N * side + x) * side + y, 0)
        return texels.T.copy()

    @staticmethod
    def _texel(place: Floats, side: Array) -> Array:
        """Which of ``side`` texels; the middle of a pattern is at 0."""
        place += 0.5
        place -= np.floor(place)
        texel: Array = np.minimum((place * side.astype(np.float32)).astype(np.int32), side - 1)
        return texel


def _grid() -> tuple[Array, Array]:
    """Coordinates in [0, 1) of each texel; the first axis is x."""
    x, y = np.mgrid[0:TEXELS, 0:TEXELS] / TEXELS
    return x, y


def _two(rng: np.random.Generator, base: Colour, other: Colour, where: Array, tile_m: float) -> Paint:
    shade = 0.94 + 0.12 * noise(rng, 4)
    return Paint(
        _painted(np.where(where[..., None], np.array(other), np.array(base)) * shade[..., None]), tile_m
    )


def _painted(reflectance: Array) -> Floats:
    """No surface sends back nothing, or all."""
    return np.clip(reflectance, 0.01, 0.95).astype(np.float32)


def _stretched(wave: Floats) -> Floats:
    """Rows interpolated linearly to TEXELS, around the end."""
    at = np.arange(TEXELS, dtype=np.float32) * np.float32(len(wave) / TEXELS)
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    stretched: Floats = wave[low] * (1 - part) + wave[(low + 1) % len(wave)] * part
    return stretched
