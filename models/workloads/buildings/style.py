"""What one building's owner likes and what its camera does: paints, light, and the mix of rooms.

Every building is one client; it is drawn from its own random numbers, so that clients differ in colours,
materials, lamps, gamma, white balance, noise and in which rooms they have. Colours are muted where real ones
are (walls, floors) and stronger on cloth and small things.

It returns values and paints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.workloads.buildings import texture
from mas_edge.models.workloads.buildings.texture import colour

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mas_edge.models.workloads.buildings.texture import Colour, Paint

KINDS = ("living", "bedroom", "kitchen", "bath", "office", "dining")
BOOKS, PICTURES, RUGS = 6, 5, 3

_TONES = ((0.09, 0.42, 0.72), (0.1, 0.38, 0.86), (0.07, 0.5, 0.42), (0.11, 0.06, 0.9), (0.08, 0.1, 0.55))
"""Oak, pine, walnut, white paint and grey oak, as hue, saturation and value."""


@dataclass(frozen=True)
class Style:
    """A building's taste (paints by material name, mix of rooms), its light and its camera."""

    paints: dict[str, Paint]
    mix: dict[str, float]
    lamp_rgb: NDArray[np.float32]
    ambient_rgb: NDArray[np.float32]
    sun_rgb: NDArray[np.float32]
    towards_sun: NDArray[np.float32]
    sky_rgb: NDArray[np.float32]
    white_balance: NDArray[np.float32]
    gamma: float
    noise: float


def draw_style(rng: np.random.Generator) -> Style:
    """A random style."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(18, 50))
    level = np.cos(elevation)
    warm = rng.uniform(0, 0.35)  # 0 is daylight white
    lamp = np.array([1, 1 - 0.35 * warm, 1 - warm]) * rng.uniform(1.5, 3.5)
    return Style(
        paints=_paints(rng),
        mix=dict(zip(KINDS, rng.dirichlet(np.full(len(KINDS), 1.5)) + 0.03, strict=True)),
        lamp_rgb=lamp.astype(np.float32),
        ambient_rgb=(rng.uniform(0.25, 0.5) * np.array([0.97, 1, 1.03])).astype(np.float32),
        sun_rgb=(rng.uniform(1.0, 3.0) * np.array([1, 0.95, 0.85])).astype(np.float32),
        towards_sun=np.array(
            [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], np.float32
        ),
        sky_rgb=(np.array([0.75, 0.9, 1.05]) * rng.uniform(1.0, 1.6)).astype(np.float32),
        white_balance=rng.uniform(0.92, 1.08, 3).astype(np.float32),
        gamma=rng.uniform(1.9, 2.4),
        noise=rng.uniform(0.004, 0.02),
    )


def _paints(rng: np.random.Generator) -> dict[str, Paint]:
    tone = _TONES[rng.integers(len(_TONES))]
    other = _TONES[rng.integers(len(_TONES))]
    return (
        _rooms(rng)
        | _joinery(rng, tone, other)
        | _cloth(rng)
        | _things(rng)
        | {f"picture{n}": texture.picture(rng, tile_m=1.2) for n in range(PICTURES)}
    )


def _rooms(rng: np.random.Generator) -> dict[str, Paint]:
    """Walls and floor per kind of room; wet rooms are tiled."""
    hue, tone = rng.random(), _TONES[rng.integers(len(_TONES))]
    boards = texture.wood(
        rng, _near(rng, tone), planks=int(rng.integers(5, 10)), tile_m=rng.uniform(0.9, 1.4)
    )
    carpet = texture.speckled(
        rng, colour(hue + 0.5, rng.uniform(0.05, 0.3), rng.uniform(0.45, 0.75)), tile_m=0.8
    )
    paints = {
        "ceiling": texture.plain(rng, colour(0.12, 0.02, 0.97), tile_m=2),
        "trim": _flat((0.8, 0.8, 0.77)),
    }
    dry = carpet if rng.random() < 0.3 else boards
    for kind in KINDS:
        wet = kind in ("bath", "kitchen")
        base = colour(hue + rng.normal(0, 0.08), 0.25 * rng.beta(1.2, 2), rng.uniform(0.72, 0.95))
        paints[f"wall {kind}"] = _wallpaper(rng, base, tiled=kind == "bath")
        paints[f"floor {kind}"] = _floor_tiles(rng, hue) if wet else dry
    return paints


def _wallpaper(rng: np.random.Generator, base: Colour, *, tiled: bool) -> Paint:
    second = _scaled(base, rng.uniform(0.7, 0.88))
    match "tiles" if tiled else rng.choice(["plain", "stripes", "dots", "bricks"], p=[0.6, 0.15, 0.12, 0.13]):
        case "tiles":
            return texture.tiles(rng, base, base, count=4, tile_m=rng.uniform(0.6, 1.2))
        case "stripes":
            return texture.stripes(
                rng, base, second, count=int(rng.integers(4, 9)), tile_m=rng.uniform(0.8, 1.6)
            )
        case "dots":
            return texture.dots(rng, base, second, count=4, tile_m=rng.uniform(0.7, 1.2))
        case "bricks":
            return texture.bricks(
                rng, colour(0.03, rng.uniform(0.1, 0.5), rng.uniform(0.55, 0.85)), tile_m=1.3
            )
        case _:
            return texture.plain(rng, base, tile_m=2.0)


def _floor_tiles(rng: np.random.Generator, hue: float) -> Paint:
    base = colour(hue, rng.uniform(0.0, 0.2), rng.uniform(0.55, 0.9))
    other = _scaled(base, 0.35) if rng.random() < 0.3 else base
    return texture.tiles(rng, base, other, count=4, tile_m=rng.uniform(0.9, 1.8))


def _joinery(
    rng: np.random.Generator, tone: tuple[float, float, float], other: tuple[float, float, float]
) -> dict[str, Paint]:
    front = colour(rng.random(), rng.uniform(0.0, 0.4), rng.uniform(0.5, 0.95))
    return {
        "wood": texture.wood(rng, _near(rng, tone), planks=3, tile_m=0.7),
        "wood2": texture.wood(rng, _near(rng, other), planks=2, tile_m=0.9),
        "cabinet": texture.plain(rng, front)
        if rng.random() < 0.5
        else texture.wood(rng, _near(rng, tone), planks=2, tile_m=1.2),
        "stone": texture.speckled(rng, colour(0.1, 0.1, rng.uniform(0.25, 0.85)), tile_m=0.5),
    }


def _cloth(rng: np.random.Generator) -> dict[str, Paint]:
    hue = rng.random()
    paints = {}
    for name, away in (
        ("fabric", 0.0),
        ("fabric2", 0.45),
        ("bedding", 0.12),
        ("rug0", 0.3),
        ("rug1", 0.5),
        ("rug2", 0.8),
    ):
        base = colour(hue + away + rng.normal(0, 0.05), 0.1 + 0.5 * rng.beta(1.5, 2), rng.uniform(0.35, 0.85))
        paints[name] = _woven(rng, base, plain=0.15 if name.startswith("rug") else 0.55)
    return paints


def _woven(rng: np.random.Generator, base: Colour, *, plain: float) -> Paint:
    second = _scaled(base, rng.uniform(0.3, 0.7))
    if rng.random() < plain:
        return texture.speckled(rng, base, tile_m=0.4, contrast=0.3)
    count, tile_m = int(rng.integers(3, 7)), rng.uniform(0.4, 0.8)
    pattern = (texture.stripes, texture.dots, texture.tiles)[rng.integers(3)]
    return pattern(rng, base, second, count=count + count % 2, tile_m=tile_m)


def _things(rng: np.random.Generator) -> dict[str, Paint]:
    grey = rng.uniform(0.3, 0.65)
    flat = {
        "white": (0.78, 0.77, 0.75),
        "black": (0.025, 0.025, 0.03),
        "metal": (grey, grey, grey * 1.03),
        "mirror": (0.5, 0.56, 0.6),
        "lamp": (0.95, 0.93, 0.85),
        "glass": colour(rng.uniform(0.2, 0.5), 0.5, rng.uniform(0.25, 0.6)),
        "pot": colour(rng.uniform(0, 0.12), rng.uniform(0.1, 0.7), rng.uniform(0.4, 0.9)),
        "vase": colour(rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.9)),
    }
    paints = {name: _flat(base) for name, base in flat.items()}
    paints["leaf"] = texture.speckled(
        rng, colour(rng.uniform(0.22, 0.38), 0.65, rng.uniform(0.4, 0.65)), tile_m=0.3, contrast=0.7
    )
    paints["screen"] = texture.picture(rng, tile_m=1.6)
    for number in range(BOOKS):
        paints[f"book{number}"] = _flat(colour(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.25, 0.75)))
    return paints


def _near(rng: np.random.Generator, tone: tuple[float, float, float]) -> Colour:
    hue, saturation, value = tone
    return colour(
        hue + rng.normal(0, 0.01), saturation * rng.uniform(0.8, 1.2), value * rng.uniform(0.9, 1.1)
    )


def _flat(base: Colour) -> Paint:
    return texture.Paint(
        np.broadcast_to(np.asarray(base, np.float32), (texture.TEXELS, texture.TEXELS, 3)).clip(0.01, 0.95)
    )


def _scaled(base: Colour, factor: float) -> Colour:
    return base[0] * factor, base[1] * factor, base[2] * factor
