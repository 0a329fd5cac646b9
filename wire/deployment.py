"""What stands inside messages of deployment: a model as a file, what it does on a device, what is in use.

Frozen structs as in ``wire.values``, exported by ``mas_edge.wire.messages``; import them from there. What is
inside a model's file, and how a device judges it, is not said here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from mas_edge.wire.values import BlobRef, Record, Score

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""Of a network's weights and arithmetic; ``int8`` is static quantisation, calibrated beforehand."""


class Model(Record, frozen=True):
    """One task group's network as an ONNX file, with the weights that ``round`` of the job ended with.

    ``round`` counts the rounds of the job that are in it.
    """

    workload: str
    job: str
    group: str
    round: int
    tasks: tuple[str, ...]
    file: BlobRef
    precision: Precision = "fp32"


class InferenceProfile(Record, frozen=True):
    """What a model does on a device: how well, how fast, in how much memory, for how many joules.

    ``scores`` are those on the device's held-out examples. Latencies are of one input at a time, warm;
    ``inputs_per_s`` is the throughput in batches of ``batch``; ``peak_rss_bytes`` is the whole process's.
    ``energy_j`` is attributed to one input, ``energy_u_j`` its standard uncertainty, ``method`` how it came
    about (None with it: there was no sensor). None is unknown.
    """

    scores: tuple[Score, ...] = ()
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    inputs_per_s: float | None = None
    batch: int | None = None
    peak_rss_bytes: int | None = None
    energy_j: float | None = None
    energy_u_j: float | None = None
    method: Literal["counter", "sampled", "estimated"] | None = None


class InUse(Record, frozen=True):
    """The model that a device infers with for a group of a workload, as measured there when it came.

    ``previous`` is what a rollback would put back in its place.
    """

    model: Model
    profile: InferenceProfile = InferenceProfile()
    previous: Model | None = None
