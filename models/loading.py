"""Batches as tensors, several small ones read at a time.

Between two steps of training a processor forgets the code and the pages that reading data needs: of the
0.3 ms that a batch of 8 small pictures takes, more than half is that, however few they are. So as many
batches as come to ``AHEAD_BYTES`` are read together and then cut, which gives the same bits: what a data set
gives of an example does not depend on the others. bench/buildings_data.py measures the share of a step.

No thread reads ahead: on boards it would take its time from the training, which the caps count too.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mas_edge.models import losses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from mas_edge.models.tasks import Dataset, Task

AHEAD_BYTES = 6 << 20
"""Of inputs and labels; less than what ``edge_agent.fit`` sets aside for what does not grow with a batch."""


def batches(
    dataset: Dataset,
    tasks: Sequence[Task],
    device: torch.device | None,
    indices: Iterable[NDArray[np.int64]],
) -> Iterator[losses.Examples]:
    """The examples of each index in turn; the first one says how many of the others are read at a time."""
    waiting = iter(indices)
    count = 1
    while chosen := list(islice(waiting, count)):
        found = losses.examples(dataset.batch(np.concatenate(chosen)), tasks, device)
        if count == 1:
            count = max(1, AHEAD_BYTES // found.nbytes)
        yield from found.split([len(index) for index in chosen])
