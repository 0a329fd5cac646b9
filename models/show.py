"""A picture of what a workload teaches: some examples of one client, each task's target over the input.

Draws with the workload's own ``draw`` into a PNG, one column per task and one row per example, the
examples spread evenly over the client's data. It needs matplotlib (extra ``orchestrator``), which is
imported when called; it trains nothing and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models.tasks import Source, UnknownChoice

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mas_edge.models.tasks import Workload

_ROW_IN, _SIGNAL_IN, _PICTURE_IN = 1.7, 2.6, 1.8
"""Height of an example, and its width: signals are long, pictures are square."""


def show(
    workload: Workload,
    client: str,
    tasks: Iterable[str] | None,
    out_png: Path,
    *,
    examples: int = 4,
    root: Path | None = None,
) -> None:
    """Write the picture; tasks None is the default ones.

    Raises UnknownTask, UnknownChoice for a client without examples, DataRefused, OSError.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and an extra

    chosen = workload.choose(tasks)
    data = workload.dataset(Source((client,), root), "all", 0.0)
    if not len(data):
        raise UnknownChoice(f"client {client!r} of workload {workload.name!r} has no examples")
    rows = min(examples, len(data))
    batch = data.batch(np.linspace(0, len(data) - 1, rows).astype(np.int64))
    column_in = _PICTURE_IN if len(workload.input_shape) == 3 else _SIGNAL_IN
    figure = Figure(figsize=(column_in * len(chosen), _ROW_IN * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, len(chosen), squeeze=False, sharex="col", sharey="col")
    for column, task in zip(grid.T, chosen, strict=True):
        column[0].set_title(f"{task.name}\n{task.title}", fontsize="medium")
        for row, axes in enumerate(column):
            if task.name in batch.targets:
                workload.draw(task, batch.inputs[row], batch.targets[task.name][row], axes)
    figure.suptitle(f"{workload.name}, client {client}: {workload.title}")
    figure.savefig(out_png, dpi=110)
