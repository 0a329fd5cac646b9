"""The tasks of buildings and watch in letters, as published task sets are named and groups written."""

from __future__ import annotations

LETTERS = {
    "s": "segment_semantic",
    "d": "depth_zbuffer",
    "n": "normal",
    "k": "keypoints2d",
    "t": "edge_texture",
    "e": "edge_occlusion",
    "r": "reshading",
    "c": "principal_curvature",
    "a": "rgb",
}
"""Of the tasks of buildings; MAS (ICCV 2023) names task sets by them."""

SHORT = {name: letter for letter, name in LETTERS.items()} | {
    "exercise": "x",
    "gravity": "g",
    "jerk": "j",
    "rotation": "o",
    "forecast": "f",
    "autoencoder": "a",
}
