"""What stands inside messages: keys, weights by digest, hyper-parameters, scores, affinities, memory.

Frozen structs of plain values with the unit in each field's name. They are exported by
``mas_edge.wire.messages``, where the contract and its rules of change are written; import them from there.
Nothing here does any input or output.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside a message."""


class Key(Record, frozen=True, order=True):
    """Names one training of one group on one device; what is deduplicated by."""

    job: str
    group: str
    round: int
    attempt: int
    device: str


class BlobRef(Record, frozen=True):
    """A binary by content: SHA-256 in hex, its size, and how it is cut."""

    digest: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1)]

    @property
    def chunks(self) -> int:
        """Number of chunks; an empty blob has one empty chunk."""
        return max(1, -(-self.size_bytes // self.chunk_bytes))


class Caps(Record, frozen=True):
    """What an agent with its worker may take of its device, and who says so; None: nobody does.

    ``enforced`` is false where only the agent itself keeps to a limit. ``cpus`` counts processors.
    """

    memory_bytes: int | None = None
    memory_source: str = ""
    memory_enforced: bool = True
    cpus: float | None = None
    cpus_source: str = ""
    cpus_enforced: bool = True


class Reason(Record, frozen=True):
    """Why a device trains nothing now: the condition's name, and in words what was found and is asked."""

    condition: str
    detail: str


class Versions(Record, frozen=True):
    """Versions of what decides a training's result; None where a package is not installed."""

    mas_edge: str
    python: str
    torch: str | None = None
    numpy: str | None = None


class Offer(Record, frozen=True):
    """A workload that is installed on the device, with the tasks it has labels for.

    ``fingerprint`` is None until the device has computed it once (it takes torch to do so).
    """

    workload: str
    tasks: tuple[str, ...]
    clients: tuple[str, ...] = ()
    fingerprint: str | None = None


class Training(Record, frozen=True):
    """How a device trains; tasks merge only if all of this is equal.

    The learning rate of round r of R is ``lr * (1 - r/R) ** lr_power``; momentum starts at zero in
    each round. ``micro_batch`` is the most examples at a time, None the whole batch; a device may take
    fewer to fit its memory, unless the job is ``reproducible``, or the network normalises over the batch
    and ``cut_statistics`` does not allow it (what is learnt would change). ``prox_mu`` holds a device's
    weights w near the received ones w0 by the loss prox_mu / 2 * |w - w0|^2 (FedProx, arXiv 1812.06127).
    """

    workload: str
    network: str
    rounds: int
    epochs: int
    batch: int
    lr: float
    seed: int
    micro_batch: int | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    lr_power: float = 0.9
    encoder_gradient_scale: Literal["one", "rsqrt-tasks"] = "one"
    held_out_share: float = 0.2
    affinity: Literal["gram", "gram-full", "lookahead", "lookahead-momentum"] = "gram"
    affinity_every: int = 10
    reproducible: bool = False
    cut_statistics: bool = False
    prox_mu: float = 0.0


class Score(Record, frozen=True):
    """Sums over the valid examples of one task, so that scores of many devices add up.

    ``constant_loss_sum`` is the loss of the workload's constant predictor on the same examples,
    None where it was not computed (training losses). A metric that is no mean over examples, the mean
    intersection over union of classes, has no ``metric_sum`` but per class the number of elements in the
    intersection and in the union of what was predicted and what is labelled.
    """

    task: str
    count: float
    loss_sum: float
    constant_loss_sum: float | None = None
    metric_sum: float | None = None
    intersection: tuple[int, ...] = ()
    union: tuple[int, ...] = ()


class Fit(Record, frozen=True):
    """How a training was made to fit the device's memory.

    ``estimated_bytes`` is the expected peak of the worker's resident memory (measured, once the group has
    been trained so), ``allowed_bytes`` what it may be: the cap, and on top pages of files that the kernel can
    drop.
    ``cut_statistics``: a network that normalises over the batch was trained on parts of batches.
    ``killed_bytes`` is the peak at which an attempt before this one was killed for memory.
    """

    micro_batch: int
    checkpointing: bool = False
    estimated_bytes: int | None = None
    allowed_bytes: int | None = None
    cut_statistics: bool = False
    killed_bytes: int | None = None


class TaskBytes(Record, frozen=True):
    """Memory that a task adds to a group."""

    task: str
    bytes: int


class Shortage(Record, frozen=True):
    """Why a group does not fit a device's memory: what it would need at the least, and may have.

    ``needed_bytes`` is an estimate, the sum of ``encoder_bytes`` (the process, the encoder and whatever
    every group needs) and of the ``decoders``; so other groups of the same tasks can be judged by it.
    ``peak_bytes`` is measured: a worker was killed for memory when it had that much. None is unknown.
    """

    micro_batch: int
    checkpointing: bool = False
    needed_bytes: int | None = None
    allowed_bytes: int | None = None
    encoder_bytes: int | None = None
    decoders: tuple[TaskBytes, ...] = ()
    peak_bytes: int | None = None


class AffinitySums(Record, frozen=True):
    """Measured effects of task i's encoder step on task j's loss, as sums that pool.

    Every matrix is row-major with ``len(tasks) ** 2`` entries, diagonal (self-effect) included.
    With z one measured batch's value and w its valid examples: ``w`` = Σw, ``ww`` = Σw²,
    ``wz`` = Σwz, ``wzz`` = Σwz², ``batches`` = how many were measured.
    """

    tasks: tuple[str, ...]
    batches: tuple[int, ...]
    w: tuple[float, ...]
    ww: tuple[float, ...]
    wz: tuple[float, ...]
    wzz: tuple[float, ...]
