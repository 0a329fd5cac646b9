"""The ``folder`` workload: dense tasks on one's own pictures, in Taskonomy's layout with a ``dataset.toml``.

``MAS_EDGE_FOLDER`` names the folder that holds ``dataset.toml`` (``workloads.description`` says what stands
in it) and, unless a device's configuration gives another root, the pictures. The description is part of the
fingerprint: machines whose folders mean different things do not train together. ``described`` makes the same
of a description in code, which is all that ``workloads.taskonomy`` does.

Prepared data are kept in ``XDG_CACHE_HOME``, by default ``~/.cache``. Importing this and making the
workload load neither torch nor numpy: both daemons do it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mas_edge.models.tasks import Array, DataRefused, Loss, Metric, Normalisation, Preset, Task, Workload
from mas_edge.models.workloads import dense, description
from mas_edge.wire.folders import cache_folder

if TYPE_CHECKING:
    from mas_edge.models.tasks import Dataset, Source, View
    from mas_edge.models.workloads.description import Description, Label

ROOT_VARIABLE = "MAS_EDGE_FOLDER"


def workload() -> Workload:
    """The workload of the folder that the environment names; raises DataRefused."""
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise DataRefused(
            f"workload 'folder' needs {ROOT_VARIABLE}=FOLDER, the folder with your {description.FILE}"
        )
    loaded = description.load(Path(root) / description.FILE)
    return described("folder", f"the tasks of {root}", loaded, ROOT_VARIABLE)


def described(name: str, title: str, given: Description, root_variable: str) -> Workload:
    """A workload on files that mean what the description says.

    Its data are under the root that a source gives, or else under the one that the environment variable
    names when they are opened.
    """
    return Workload(
        name=name,
        title=title,
        tasks=tuple(_task(task, label, given.pixels) for task, label in given.tasks.items()),
        networks=dense.NETWORKS,
        clients=(*given.clients, *given.unseen),
        unseen=given.unseen,
        input_shape=(3, given.pixels, given.pixels),
        definition=f"folder {description.VERSION}\n{msgspec.json.encode(given).decode()}",
        encoder=dense.encoder,
        decoder=dense.decoder,
        dataset=partial(_dataset, name, given, root_variable),
        draw=draw,
        presets=PRESETS,
        normalisation=Normalisation(_three(given.input.mean), _three(given.input.std)),
    )


def _three(values: tuple[float, ...]) -> tuple[float, ...]:
    """A value for each colour, of one for all or of three."""
    return values * (3 // len(values))


def _task(name: str, label: Label, pixels: int) -> Task:
    classes = label.kind == "classes"
    loss: Loss = label.loss or ("cross-entropy" if classes else "masked-l1" if label.masked else "l1")
    metrics: dict[str, Metric] = {"classes": "miou", "regression": "mae", "normals": "angular-error-deg"}
    row = label.constant * (label.channels if len(label.constant) == 1 else 1)
    return Task(
        name=name,
        title=label.title or name,
        loss=loss,
        metric=metrics[label.kind],
        shape=(label.channels, pixels, pixels),
        constant=tuple(((value,),) for value in row),  # of shape (channels, 1, 1)
        ignore=tuple(value for value in label.ignore if value < label.channels) if classes else (),
    )


def _dataset(
    name: str, given: Description, root_variable: str, source: Source, view: View, held_out_share: float
) -> Dataset:
    from mas_edge.models.workloads import folder_data  # noqa: PLC0415 - imports numpy

    root = source.root or os.environ.get(root_variable)
    if not root:
        raise DataRefused(
            f"workload {name!r} ships no data: set root in [data.{name}], or {root_variable}=FOLDER"
        )
    if not Path(root).is_dir():
        raise DataRefused(
            f"{root}: there is no such folder; it should hold the pictures of workload {name!r}"
        )
    return folder_data.dataset(given, Path(root), cache_folder() / name, source.clients, view, held_out_share)


def draw(task: Task, _inputs: Array, target: Array, axes: Any) -> None:
    """Picture one example's target: classes in colours, three channels or two as colour, one as heat."""
    import numpy as np  # noqa: PLC0415 - the daemons do without

    if task.loss == "cross-entropy":
        axes.imshow(target, cmap="tab20", vmin=0, vmax=max(19, task.shape[0] - 1), interpolation="nearest")
    else:
        shown = np.concatenate([target, np.zeros((max(0, 3 - len(target)), *target.shape[1:]), target.dtype)])
        low, high = np.percentile(target, (1, 99))
        scaled = np.clip((shown[:3] - low) / max(high - low, 1e-6), 0, 1)
        axes.imshow(scaled[0] if len(target) == 1 else scaled.transpose(1, 2, 0), cmap="viridis")
    axes.set(xticks=(), yticks=())


def _preset(name: str, network: str, batch: int) -> Preset:
    """MAS's schedule (100 rounds, 30 of them merged, affinity every tenth batch) on one of the networks."""
    return Preset(
        name=name,
        network=network,
        rounds=100,
        merge_rounds=30,
        epochs=1,
        batch=batch,
        lr=0.1,
        affinity_every=10,
        held_out_share=0.2,
    )


PRESETS = (
    replace(_preset("demo", "micro", 16), rounds=20, merge_rounds=8, lr=0.05),
    _preset("small", "small", 16),
    _preset("xception", "xception", 64),
)
"""``xception`` is the published setting."""
