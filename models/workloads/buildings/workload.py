"""The ``buildings`` workload: the nine dense tasks of MAS on rendered rooms, a building per client.

All tasks read the same picture: which object, how far, facing where, corners, edges of texture, edges of
depth, shading under a lamp at the camera, curvature, and the picture itself. They need different things of
it (keypoints and texture edges the photometry alone, occlusion edges depth, curvature normals, classes
identity), so that some help and some hurt each other. Buildings 9 and 10 are never trained on. Ten buildings
of 32 views ship with the package, so that a board without a ray engine trains on them; others of the same
size are read from the folder that a source names as root.

What the stored values mean is the same ``Description`` that a folder of one's own has; normalisation and
constant predictors in it are measured on the training buildings by ``statistics`` and frozen here.

Importing this loads neither torch nor numpy nor any view: both daemons do it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mas_edge.models.tasks import Array, Preset, Task, Workload
from mas_edge.models.workloads import folder
from mas_edge.models.workloads.buildings import records
from mas_edge.models.workloads.description import Description, Label, Mask

if TYPE_CHECKING:
    from mas_edge.models.tasks import Dataset, Source, View

CLASSES = {
    "uncertain": -13.1153,
    "background": -0.167,
    "bottle": -8.1317,
    "chair": -4.2018,
    "couch": -4.6224,
    "potted plant": -5.7032,
    "bed": -3.6224,
    "dining table": -3.8947,
    "toilet": -5.4164,
    "tv": -5.2905,
    "microwave": -8.3791,
    "oven": -4.4938,
    "toaster": -6.9798,
    "sink": -5.2691,
    "refrigerator": -3.2569,
    "book": -4.509,
    "clock": -8.3447,
    "vase": -6.469,
}
"""Taskonomy's classes, two that are no object and 16 that are, and the log of each one's share of pixels."""

PIXELS = 32

_Numbers: TypeAlias = "tuple[float, ...]"


def _values(title: str, mean: _Numbers, std: _Numbers, constant: _Numbers, *, masked: bool = False) -> Label:
    """A regression with a value of ``constant`` per channel."""
    channels = len(constant)
    return Label(
        kind="regression",
        channels=channels,
        title=title,
        masked=masked,
        mean=mean,
        std=std,
        constant=constant,
    )


_surface = partial(_values, masked=True)
"""A regression that counts only where a surface was hit."""

_MASK = Mask(domain="depth_zbuffer", below=8192)
"""16 m; a hole is 65535."""

DESCRIPTION = Description(
    pixels=PIXELS,
    clients=tuple(map(str, range(1, 9))),
    unseen=("9", "10"),
    mask=_MASK,
    tasks={
        "segment_semantic": Label(
            kind="classes",
            channels=len(CLASSES),
            title="which object",
            ignore=(0,),
            constant=tuple(CLASSES.values()),
        ),
        "depth_zbuffer": _surface("depth", (1004.0227,), (458.9561,), (-0.2114,)),
        "normal": Label(
            kind="normals",
            channels=3,
            title="surface normal",
            masked=True,
            mean=(127.5,),
            std=(127.5,),
            constant=(0.0039, -0.0588, 0.6941),
        ),
        "keypoints2d": _values("corners and blobs", (40.1991,), (74.603,), (-0.3646,)),
        "edge_texture": _values("edges of texture", (362.1445,), (396.1978,), (-0.384,)),
        "edge_occlusion": _surface("edges of depth", (26.1067,), (45.0478,), (-0.291,)),
        "reshading": _surface("shading", (167.5282,), (47.3794,), (0.0944,)),
        "principal_curvature": _surface(
            "curvatures", (132.7919, 122.6604), (16.5643, 12.4809), (-0.3497, 0.3477)
        ),
        "rgb": _values("the picture itself", (0.0,), (255.0,), (0.6588, 0.6431, 0.6039)),
    },
)
"""Means, deviations and constants are fitted on buildings 1 to 8 and frozen: others make another workload."""

DEFINITION = f"""buildings {records.FORMAT}
view: rendered, then the labels of the Taskonomy annotators scaled from 512 pixels, as stored in its pictures
{msgspec.json.encode(DESCRIPTION).decode()}
held out: the last max(1, round(share * n)) views of each building
"""

_SHOWN_DEPTH_M = 5.0
"""White in pictures of depth; most of what a room shows is nearer."""

_HOLE = (0.8, 0.2, 0.2)
"""The colour of what is no depth."""


def draw(task: Task, inputs: Array, target: Array, axes: Any) -> None:
    """Picture one example's target: classes, normals and curvatures in colours, else grey."""
    del inputs  # the task rgb shows it
    label = DESCRIPTION.tasks[task.name]
    colours, low, high = ("tab20", 1, 20) if label.kind == "classes" else ("gray", 0, 1)
    shown = _picture(task.name, label, target)
    axes.imshow(shown, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=(), yticks=(), facecolor="black")


def _picture(name: str, label: Label, target: Array) -> Array:
    """Grey (H, W) or colour (H, W, 3) in [0, 1] of a normalised target; of classes the id, NaN for none."""
    import numpy as np  # noqa: PLC0415 - the daemons do without

    if label.kind == "classes":
        return np.where(target > 0, target, np.nan)
    stored: Array = target.transpose(1, 2, 0) * np.array(label.std) + np.array(label.mean)
    match name:
        case "depth_zbuffer":
            grey = np.minimum(stored / (512 * _SHOWN_DEPTH_M), 1)
            shown = np.where(_MASK.valid(stored), grey, _HOLE)
        case "keypoints2d" | "edge_texture" | "edge_occlusion":  # few bright lines on a dark ground
            shown = np.sqrt(np.maximum(stored, 0) / max(np.quantile(stored, 0.99), 1))
        case "principal_curvature":
            shown = np.concatenate([stored, np.zeros_like(stored[..., :1])], -1) / 255
        case _:
            shown = stored / 255
    clipped: Array = shown.clip(0, 1)
    return clipped[..., 0] if clipped.shape[-1] == 1 else clipped


PRESETS = (
    Preset(
        name="demo",
        network="micro",
        rounds=40,
        merge_rounds=12,
        epochs=3,
        batch=8,
        lr=0.1,
        affinity_every=10,
        held_out_share=0.2,
        groups=2,
        clients_per_agent=1,
    ),
    Preset(
        name="tiny",
        network="micro",
        rounds=4,
        merge_rounds=2,
        epochs=1,
        batch=16,
        lr=0.1,
        affinity_every=5,
        held_out_share=0.2,
        groups=2,
        clients_per_agent=1,
    ),
)


def _dataset(source: Source, view: View, held_out_share: float) -> Dataset:
    """The shipped buildings, or those under the source's root."""
    from mas_edge.models.workloads.buildings import archive, dataset  # noqa: PLC0415 - import numpy

    return dataset.dataset(DESCRIPTION, archive.SHIPPED, source, view, held_out_share)


workload: Workload = replace(
    folder.described("buildings", "rendered rooms: nine dense tasks, ten buildings", DESCRIPTION, ""),
    definition=DEFINITION,
    dataset=_dataset,
    draw=draw,
    presets=PRESETS,
)
