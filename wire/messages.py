"""Everything that is said between an agent and the orchestrator: topics and messages.

This module is the whole MQTT contract. Control messages are small JSON objects with a ``kind``;
they travel on ``mas/1/FLEET/DEVICE/up`` (device to orchestrator) and ``.../down`` (back), QoS 1.
Binaries (weights) travel as raw chunks on blob topics and are named by their SHA-256. ``alive`` is
the only retained topic and carries the last will. docs/protocol.md is generated from here.

Rules of change: a new field has a default, a field's type never changes, unknown fields are
ignored. Nothing here is executable, and nothing here does any input or output.

A conversation, as a device sees it::

    up    Hello                    on every connection, repeated until answered
    down  Welcome | Assign | Stored | Cancel
    up    Accepted | Declined      the answer to Assign
    up    Need                     chunks of the weights it lacks
    up    Progress                 a few a second at most, never repeated
    up    Update | Failed          repeated until Stored
    down  Need                     chunks of the update that the orchestrator lacks
    down  Stored                   now the device may forget it
    down  Deploy                   repeated until answered; the device may Need its file
    up    Deployed                 the answer, the same however often it is asked
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from mas_edge.wire.deployment import InferenceProfile, InUse, Model, Precision
from mas_edge.wire.energy import Baseline, Machine, Profile, Rail, Refusal, Sampling, Sensor, Spend, Trace
from mas_edge.wire.topics import (
    EVERYONE,
    ORCHESTRATOR,
    PROTOCOL,
    NameRefused,
    Place,
    WireError,
    alive_topic,
    blob_topic,
    check_name,
    down_topic,
    is_digest,
    is_name,
    parse_topic,
    up_topic,
)
from mas_edge.wire.values import (
    AffinitySums,
    BlobRef,
    Caps,
    Fit,
    Key,
    Offer,
    Reason,
    Record,
    Score,
    Shortage,
    TaskBytes,
    Training,
    Versions,
)


class _Message(Record, frozen=True, tag_field="kind", tag=str.lower):
    """A message; its class name in lower case is its ``kind``."""


# --- device to orchestrator ----------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """I am here, this is what I have, and this is what I am doing.

    I do ``slots`` trainings at a time, ``beside`` are those besides ``working_on``; I infer with ``in_use``.
    """

    device: str
    boot_id: str
    versions: Versions
    workloads: tuple[Offer, ...]
    spooled: tuple[Key, ...] = ()
    working_on: Key | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    sensor: Sensor | None = None
    refused: tuple[Refusal, ...] = ()
    caps: Caps = Caps()
    slots: Annotated[int, msgspec.Meta(ge=1)] = 1
    beside: tuple[Key, ...] = ()
    in_use: tuple[InUse, ...] = ()


class Accepted(_Message, frozen=True):
    """The assignment is being worked on."""

    key: Key


class Declined(_Message, frozen=True):
    """Not taken; the reason names its kind: no-data, memory (see shortage), not-now (in ``again_s``?)."""

    key: Key
    reason: str
    detail: str = ""
    shortage: Shortage | None = None
    profile: Profile = Profile()
    again_s: float | None = None


class Failed(_Message, frozen=True):
    """The training was taken and broke."""

    key: Key
    reason: str
    detail: str = ""
    profile: Profile = Profile()


class Progress(_Message, frozen=True):
    """Where the training is; lost without harm."""

    key: Key
    phase: str
    step: int
    steps: int
    energy_j: float | None = None


class Update(_Message, frozen=True):
    """What a training brought: weights (None if it only evaluated), scores, affinity, bill.

    ``scores`` are those of the *received* weights on the device's held-out examples; they belong
    to the round that produced these weights. ``examples`` counts what went into the encoder,
    ``trained[i].count`` what had the label of its task.
    """

    key: Key
    weights: BlobRef | None = None
    examples: int = 0
    trained: tuple[Score, ...] = ()
    scores: tuple[Score, ...] = ()
    affinity: AffinitySums | None = None
    profile: Profile = Profile()
    fit: Fit | None = None


class Deployed(_Message, frozen=True):
    """What became of a Deploy: ``why`` in words if it was refused, ``in_use`` what this group has now.

    ``profile`` is the model's on this device, ``running`` that of the model which was in use until then, on
    the same examples; None: there was none, or it did not come to that.
    """

    request: str
    job: str
    group: str
    verdict: Literal["in use", "refused", "rolled back"]
    why: str = ""
    profile: InferenceProfile | None = None
    running: InferenceProfile | None = None
    in_use: InUse | None = None


class Need(_Message, frozen=True):
    """Send me these chunks: half-open ranges [first, past) of indices. Used in both directions."""

    digest: str
    ranges: tuple[tuple[int, int], ...]


class Alive(_Message, frozen=True):
    """Retained on the alive topic; ``online`` false is the last will. ``reasons``: why it may not train."""

    online: bool
    boot_id: str
    reasons: tuple[Reason, ...] = ()


# --- orchestrator to device ----------------------------------------------------------------------


class Welcome(_Message, frozen=True):
    """Your Hello was heard and there is nothing for you to do now.

    ``store`` names the orchestrator's memory of events: another one knows nothing of what was settled.
    """

    boot_id: str
    store: str = ""


class Greet(_Message, frozen=True):
    """I do not know you (any more): say Hello."""


class Assign(_Message, frozen=True):
    """Train (or only evaluate) these tasks from these weights.

    ``remaining_s`` is how long the round waits from now on, None without a limit; it waits longer if too few
    answer by then, so a device works on until it hears ``Cancel``. ``fingerprint`` is the orchestrator's for
    the workload: a device that computes another one declines.
    """

    key: Key
    tasks: tuple[str, ...]
    training: Training
    weights: BlobRef
    fingerprint: str
    train: bool = True
    evaluate: bool = False
    measure: bool = False
    remaining_s: float | None = None


class Stored(_Message, frozen=True):
    """The update, failure or refusal of this key is kept; forget it."""

    key: Key


class Cancel(_Message, frozen=True):
    """Stop working on this key; whatever it brought is not wanted."""

    key: Key


class Deploy(_Message, frozen=True):
    """Infer with this model from now on, unless it is unsound, or worse than the one in use.

    ``model`` None: put back what this job's model took the place of. ``request`` is unique for ever. Worse:
    the sum over tasks of the mean held-out losses is greater by more than the share ``margin``.
    """

    request: str
    workload: str
    job: str
    group: str
    model: Model | None = None
    margin: Annotated[float, msgspec.Meta(ge=0)] = 0.05


Up: TypeAlias = Hello | Accepted | Declined | Failed | Progress | Update | Deployed | Need
Down: TypeAlias = Welcome | Greet | Assign | Stored | Cancel | Deploy | Need

LONGEST_BYTES = 4 << 20
"""Control messages are small; what is longer is refused unread."""

_up: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)
_down: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
_alive = msgspec.json.Decoder(Alive)
_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


class MessageRefused(WireError, ValueError):
    """A payload that is not a message of this contract."""


def encode(message: Up | Down | Alive) -> bytes:
    """The bytes of a message: compact JSON, fields in the order of the class."""
    return _encoder.encode(message)


def decode_up(payload: bytes) -> Up:
    """A message from a device; raises MessageRefused."""
    return _decode(_up, payload)


def decode_down(payload: bytes) -> Down:
    """A message from the orchestrator; raises MessageRefused."""
    return _decode(_down, payload)


def decode_alive(payload: bytes) -> Alive:
    """An alive message; raises MessageRefused."""
    return _decode(_alive, payload)


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    if len(payload) > LONGEST_BYTES:
        raise MessageRefused(f"{len(payload)} bytes: a message has at most {LONGEST_BYTES}")
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MessageRefused(f"not a message of protocol {PROTOCOL}: {error}") from error


# fmt: off
__all__ = [
    "EVERYONE", "ORCHESTRATOR", "Accepted", "AffinitySums", "Alive", "Assign", "Baseline", "BlobRef",
    "Cancel", "Caps", "Declined", "Deploy", "Deployed", "Down", "Failed", "Fit", "Greet", "Hello", "InUse",
    "InferenceProfile", "Key", "Machine", "MessageRefused", "Model", "NameRefused", "Need", "Offer", "Place",
    "Precision", "Profile", "Progress", "Rail", "Reason", "Refusal", "Sampling", "Score", "Sensor",
    "Shortage", "Spend", "Stored", "TaskBytes", "Trace", "Training", "Up", "Update", "Versions", "Welcome",
    "WireError", "alive_topic", "blob_topic", "check_name", "decode_alive", "decode_down", "decode_up",
    "down_topic", "encode", "is_digest", "is_name", "parse_topic", "up_topic",
]
# fmt: on
