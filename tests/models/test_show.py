from __future__ import annotations

import pytest

from mas_edge.models.show import show
from mas_edge.models.tasks import UnknownChoice, UnknownTask
from mas_edge.models.workloads.watch import workload

pytest.importorskip("matplotlib")


def test_every_task_is_drawn(tmp_path):
    show(workload, "9", [task.name for task in workload.tasks], tmp_path / "p.png", examples=1)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_names_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(UnknownTask, match="none"):
        show(workload, "9", ["none"], tmp_path / "p.png")
    with pytest.raises(UnknownChoice, match="client"):
        show(workload, "nobody", None, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())
