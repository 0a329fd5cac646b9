"""The ``taskonomy`` workload: the nine dense tasks of MAS on the user's own copy of Taskonomy.

It is a folder (``workloads.folder``) whose description is known: the domains' names and encodings as
released, the normalisation of the published experiments, the buildings of the Tiny partition. Another
size, other buildings or fewer tasks: write ``TASKONOMY`` out as a ``dataset.toml``, change it, and use the
workload ``folder``. Nothing of Taskonomy is shipped: its licence is not commercial. Constant predictors
are zero, the mean that the normalisation was made for, and every class is equally likely: no constants
have been fitted.

Source: data/README.md of github.com/StanfordVL/taskonomy (encodings, partitions); taskonomy_loader.py of
Standley et al., ICML 2020 (means, deviations, and a mask of 16 m), which MAS (arXiv 2307.11285) uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.models.workloads import folder
from mas_edge.models.workloads.description import Description, Label, Mask

if TYPE_CHECKING:
    from mas_edge.models.tasks import Workload

ROOT_VARIABLE = "MAS_EDGE_TASKONOMY"
"""Where Taskonomy lies if a configuration does not say."""

# fmt: off
TRAINED = (
    "allensville", "beechwood", "benevolence", "coffeen", "cosmos", "forkland", "hanson", "hiteman",
    "klickitat", "lakeville", "leonardo", "lindenwood", "marstons", "merom", "mifflinburg", "newfields",
    "onaga", "pinesdale", "pomaria", "ranchester", "shelbyville", "stockman", "tolstoy", "wainscott",
    "woodbine",
)
"""The training buildings of the Tiny partition."""

UNSEEN = (
    "collierville", "corozal", "darden", "ihlen", "markleeville", "mcdade", "muleshoe", "noxapater",
    "uvalda", "wiconisco",
)
"""Its buildings for validation and test."""
# fmt: on

TASKS = {
    "segment_semantic": Label(kind="classes", channels=18, title="which object", ignore=(0,)),
    "depth_zbuffer": Label(
        kind="regression", channels=1, title="depth, 1/512 m", masked=True, mean=(1500.0,), std=(1000.0,)
    ),
    "normal": Label(
        kind="normals", channels=3, title="surface normal", masked=True, mean=(127.5,), std=(127.5,)
    ),
    "keypoints2d": Label(kind="regression", channels=1, title="2-d keypoints", mean=(50.0,), std=(100.0,)),
    "edge_texture": Label(
        kind="regression", channels=1, title="edges of texture", mean=(718.0,), std=(1070.0,)
    ),
    "edge_occlusion": Label(
        kind="regression", channels=1, title="edges of depth", masked=True, mean=(56.0248,), std=(239.1265,)
    ),
    "reshading": Label(
        kind="regression", channels=1, title="shading", masked=True, mean=(0.4962 * 255,), std=(0.2846 * 255,)
    ),
    "principal_curvature": Label(
        kind="regression",
        channels=2,
        title="curvatures",
        masked=True,
        mean=(0.5175 * 255, 0.4987 * 255),
        std=(0.1373 * 255, 0.0359 * 255),
    ),
    "rgb": Label(kind="regression", channels=3, title="the picture itself", std=(255.0,)),
}

TASKONOMY = Description(
    pixels=256,
    clients=TRAINED,
    unseen=UNSEEN,
    tasks=TASKS,
    mask=Mask(domain="depth_zbuffer", below=8192),
)


def workload() -> Workload:
    """The workload; its data are where the source says, or where the environment variable does."""
    return folder.described(
        "taskonomy", "the nine tasks of MAS on Taskonomy, 256 px", TASKONOMY, ROOT_VARIABLE
    )
