"""Scenes that can be computed by hand, as a renderer would give them: planes, a sphere, a cylinder, a room.

``python tests/models/scenes.py`` writes the labels of twelve rooms to ``label_goldens.npz``; do so only when
labels are meant to change, and then raise ``records.FORMAT``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mas_edge.models.workloads.buildings.frame import Frame

GOLDENS = Path(__file__).with_name("label_goldens.npz")
ROOMS, PIXELS = 12, 16

SIZE = 64
FOCAL = SIZE / 2 / np.tan(np.radians(30))
ACROSS = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL
RAYS = np.stack([*np.meshgrid(ACROSS, ACROSS), np.ones((SIZE, SIZE))], -1)
"""Through each pixel's centre, one metre along the axis."""


def frame(depth, normal, *, rgb=None, label=None):
    depth = np.broadcast_to(np.asarray(depth, np.float32), (SIZE, SIZE)).copy()
    normal = np.broadcast_to(np.asarray(normal, np.float32), (SIZE, SIZE, 3))
    return Frame(
        rgb_HW3=np.full((SIZE, SIZE, 3), 128, np.uint8) if rgb is None else rgb,
        depth_HW=depth,
        normal_HW3=np.where(np.isfinite(depth)[..., None], normal, np.float32(0)),
        label_HW=np.ones((SIZE, SIZE), np.uint8) if label is None else label,
        focal_px=FOCAL,
    )


def plane(normal, distance_m):
    """The plane n·P = -distance, seen from the side to which n points."""
    normal = np.asarray(normal) / np.linalg.norm(normal)
    along = RAYS @ normal
    depth = np.divide(-distance_m, along, where=along < -1e-6, out=np.full((SIZE, SIZE), np.inf))
    return frame(depth, normal)


def round_thing(centre, radius, *, axes):
    """A sphere (axes x, y, z) or an upright cylinder (axes x, z) around a point."""
    keep = np.array([axis in axes for axis in "xyz"])
    flat, centre = RAYS * keep, np.asarray(centre) * keep
    a, b = (flat**2).sum(-1), flat @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    points = RAYS * np.where(np.isfinite(depth), depth, 0)[..., None]
    return frame(depth, (points * keep - centre) / radius)


def box_before_wall(*, box_m=2.0, wall_m=4.0):
    depth = np.full((SIZE, SIZE), wall_m)
    depth[:, SIZE // 4 : SIZE // 2] = box_m
    return frame(depth, [0, 0, -1])


def textured(points, rng):
    """Stripes and noise, different for each room."""
    stripes = np.sin(points @ rng.uniform(-12, 12, (3, 3))) > 0
    return (stripes * rng.integers(40, 120, 3) + rng.integers(0, 100, (SIZE, SIZE, 3))).astype(np.uint8)


def room(seed):
    """Four walls, floor and ceiling with a window, a column and three balls of various classes."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(-0.6, 0.6)
    forward, right = (-np.sin(turn), 0, -np.cos(turn)), (np.cos(turn), 0, -np.sin(turn))
    parts = [plane(n, d) for n, d in ((forward, 4), (right, 2.5), (np.negative(right), 2.5))]
    parts += [plane((0, -1, 0), 1.4), plane((0, 1, 0), 1.2)]
    parts.append(round_thing((rng.uniform(-1, 1), 0, rng.uniform(2, 3)), 0.15, axes="xz"))
    for _ in range(3):
        centre = (rng.uniform(-1, 1), rng.uniform(-0.5, 1), rng.uniform(1.5, 3))
        parts.append(round_thing(centre, rng.uniform(0.1, 0.5), axes="xyz"))
    depths = np.stack([part.depth_HW for part in parts])
    nearest = depths.argmin(0)
    depth = depths.min(0)
    depth[(nearest == 0) & (np.abs(RAYS[..., 0]) < 0.2) & (np.abs(RAYS[..., 1]) < 0.15)] = np.inf
    normal = np.take_along_axis(np.stack([part.normal_HW3 for part in parts]), nearest[None, ..., None], 0)[0]
    label = np.where(nearest < 5, 1, nearest * 2 - 1).astype(np.uint8)
    points = RAYS * np.where(np.isfinite(depth), depth, 9)[..., None]
    return frame(depth, normal, rgb=textured(points, rng), label=label)


def rooms_labels():
    """Labels of the twelve rooms, (12, 16, 16[, C]) by name."""
    from mas_edge.models.workloads.buildings.labels import labels  # noqa: PLC0415 - an extra

    made = [labels(room(seed), PIXELS) for seed in range(ROOMS)]
    return {name: np.stack([each[name] for each in made]) for name in made[0]}


if __name__ == "__main__":
    np.savez_compressed(GOLDENS, **rooms_labels())
