"""A workload of one's own, whole: how a struck bell rings, learnt from 64 noisy samples of each strike.

A client is a bell; nobody trains on the cracked one. In an installed package whose pyproject.toml says

    [project.entry-points."mas_edge.workloads"]
    bells = "your_package.own_workload:workload"

`mas demo --workload bells --clients 2` trains it; a board says `[data.bells]` in its agent.toml.
"""

from typing import Any

import numpy as np

from mas_edge.models.tasks import Array, Batch, Preset, Source, Task, View, Workload

NOISE = {"small": 0.05, "large": 0.1, "cracked": 0.15}
PITCH = Task("pitch", "(Hz - 8) / 3", "mse", "mae", (1,), constant=np.zeros(1))
MUFFLED = Task("muffled", "fades within 0.25 s", "cross-entropy", "accuracy", (2,), constant=np.zeros(2))


class Strikes:
    """A data set: 256 strikes of each bell, all of them labelled."""

    labels = frozenset((PITCH.name, MUFFLED.name))

    def __init__(self, source: Source, view: View, held_out_share: float) -> None:
        cut = round(256 * (1 - held_out_share))
        rows = {"train": slice(cut), "held-out": slice(cut, None), "all": slice(None)}[view]
        self.rows = np.concatenate([strikes(name)[rows] for name in source.clients])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Array) -> Batch:
        """The strikes at these positions."""
        signal, hz, decay = np.split(self.rows[index], (64, 65), axis=1)
        targets = {PITCH.name: (hz - 8) / 3, MUFFLED.name: decay[:, 0] > 4}
        return Batch(signal[:, None].astype(np.float32), targets, {})


def strikes(name: str) -> Array:
    """(256, 66): 64 samples of a second, the frequency in Hz, the decay in 1/s."""
    rng, time_s = np.random.default_rng(list(NOISE).index(name)), np.linspace(0, 1, 64)
    hz, decay = rng.uniform(3, 13, (256, 1)), rng.uniform(0, 8, (256, 1))
    clean = np.exp(-decay * time_s) * np.sin(2 * np.pi * hz * time_s)
    return np.hstack([rng.normal(clean, NOISE[name]), hz, decay])


def encoder(_network: str) -> Any:
    """Anything that torch can train; ``last_block`` is a part of it."""
    from mas_edge.models.conv1d import Encoder  # noqa: PLC0415 - daemons import this file, but not torch

    return Encoder(1, (16, 32))


def decoder(_network: str, task: Task) -> Any:
    """A head for the encoder's 32 channels."""
    from mas_edge.models.conv1d import Summary  # noqa: PLC0415

    return Summary(32, task.shape[0])


def draw(task: Task, inputs: Array, target: Array, axes: Any) -> None:
    """For `mas data show`."""
    axes.plot(inputs[0])
    axes.set_xlabel(f"{task.title}: {target}")


DEMO = Preset("demo", "tiny", 6, 2, epochs=2, batch=32, lr=0.02, affinity_every=4, held_out_share=0.2)
workload = Workload(
    "bells",
    "how a struck bell rings",
    tasks=(PITCH, MUFFLED),
    networks=("tiny",),
    clients=tuple(NOISE),
    unseen=("cracked",),
    input_shape=(1, 64),
    definition="bells 1",  # change it with the data
    encoder=encoder,
    decoder=decoder,
    dataset=Strikes,
    draw=draw,
    presets=(DEMO,),
)
