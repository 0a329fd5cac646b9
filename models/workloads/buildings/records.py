"""What a rendered view's record holds, in numbers, and the version of it.

They stand apart from ``archive``, which works with arrays, so that a daemon can offer the workload without
loading numpy (13 MB of a board's memory).
"""

from __future__ import annotations

FORMAT = 1
"""Changes when records are laid out or labels are computed differently."""

LABELS: dict[str, tuple[str, int]] = {
    "segment_semantic": ("u1", 1),
    "depth_zbuffer": ("<u2", 1),
    "normal": ("u1", 3),
    "keypoints2d": ("<u2", 1),
    "edge_texture": ("<u2", 1),
    "edge_occlusion": ("<u2", 1),
    "reshading": ("u1", 1),
    "principal_curvature": ("u1", 2),
    "rgb": ("u1", 3),
}
"""Stored type and channels of each label, in Taskonomy's names."""
