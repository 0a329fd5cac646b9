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
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, TypeVar

import msgspec

PROTOCOL = 1
"""Version of this contract; it stands in every topic."""

EVERYONE = "all"
"""The device name under which the orchestrator publishes what all may read; reserved."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NameRefused(ValueError):
    """A fleet or device name that cannot stand in a topic."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside a message."""


class _Message(_Record, frozen=True, tag_field="kind", tag=str.lower):
    """A message; its class name in lower case is its ``kind``."""


# --- values -------------------------------------------------------------------------------------


class Key(_Record, frozen=True, order=True):
    """Names one training of one group on one device; what is deduplicated by."""

    job: str
    group: str
    round: int
    attempt: int
    device: str


class BlobRef(_Record, frozen=True):
    """A binary by content: SHA-256 in hex, its size, and how it is cut."""

    digest: str
    size_bytes: int
    chunk_bytes: int

    @property
    def chunks(self) -> int:
        """Number of chunks; an empty blob has one empty chunk."""
        return max(1, -(-self.size_bytes // self.chunk_bytes))


class Refusal(_Record, frozen=True):
    """A sensor that was tried and not used: which, why, and what would help."""

    sensor: str
    reason: str
    remedy: str | None = None


class Sensor(_Record, frozen=True):
    """Where joules come from. ``sensor_host`` is equal for agents that read one and the same sensor."""

    name: str
    method: Literal["counter", "sampled", "estimated"]
    scope: Literal["package", "module", "board"]
    sensor_host: str
    detail: str = ""


class Versions(_Record, frozen=True):
    """Versions of what decides a training's result; None where a package is not installed."""

    mas_edge: str
    python: str
    torch: str | None = None
    numpy: str | None = None


class Offer(_Record, frozen=True):
    """A workload that is installed on the device, with the tasks it has labels for.

    ``fingerprint`` is None until the device has computed it once (it takes torch to do so).
    """

    workload: str
    tasks: tuple[str, ...]
    clients: tuple[str, ...] = ()
    fingerprint: str | None = None


class Training(_Record, frozen=True):
    """How a device trains; tasks merge only if all of this is equal.

    The learning rate of round r of R is ``lr * (1 - r/R) ** lr_power``; momentum starts at zero in
    each round. ``micro_batch`` None means the whole batch at once.
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


class Score(_Record, frozen=True):
    """Sums over the valid examples of one task, so that scores of many devices add up.

    ``constant_loss_sum`` is the loss of the workload's constant predictor on the same examples,
    None where it was not computed (training losses).
    """

    task: str
    count: float
    loss_sum: float
    constant_loss_sum: float | None = None
    metric_sum: float | None = None


class AffinitySums(_Record, frozen=True):
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


class Spend(_Record, frozen=True):
    """What one phase of one group's round cost on one device.

    The four figures are those of the ledger: window (all energy while the phase ran), dynamic
    (window less idle power x time), attributed (dynamic, shared by CPU time), each with its standard
    uncertainty u; None is unknown, never zero. ``exclusive_fraction`` is the share of the time in
    which no other group trained on the sensor's host.
    """

    job: str
    group: str
    round: int
    phase: str
    wall_s: float
    cpu_s: float
    examples: int = 0
    window_energy_j: float | None = None
    window_u_j: float | None = None
    dynamic_energy_j: float | None = None
    dynamic_u_j: float | None = None
    attributed_energy_j: float | None = None
    attributed_u_j: float | None = None
    exclusive_fraction: float | None = None
    peak_rss_bytes: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    flags: tuple[str, ...] = ()


class Trace(_Record, frozen=True):
    """The sensor's cumulated energy at moments of the host's monotonic clock, in order.

    Agents on one host share the clock, so that their traces can be united without counting a
    joule twice.
    """

    t_ns: tuple[int, ...] = ()
    energy_j: tuple[float, ...] = ()
    variance_j2: tuple[float, ...] = ()


class Profile(_Record, frozen=True):
    """The bill of one training: rows per phase, and the device's own energy over the same time."""

    rows: tuple[Spend, ...] = ()
    sensor: Sensor | None = None
    idle_w: float | None = None
    idle_u_w: float | None = None
    trace: Trace = Trace()
    train_device: str = "cpu"


# --- device to orchestrator ----------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """I am here, this is what I have, and this is what I am doing."""

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


class Accepted(_Message, frozen=True):
    """The assignment is being worked on."""

    key: Key


class Declined(_Message, frozen=True):
    """The assignment is not taken, for a reason that names its kind (no-data, fingerprint, ...)."""

    key: Key
    reason: str
    detail: str = ""


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


class Need(_Message, frozen=True):
    """Send me these chunks: half-open ranges [first, past) of indices. Used in both directions."""

    digest: str
    ranges: tuple[tuple[int, int], ...]


class Alive(_Message, frozen=True):
    """Retained on the alive topic; ``online`` false is the last will."""

    online: bool
    boot_id: str


# --- orchestrator to device ----------------------------------------------------------------------


class Welcome(_Message, frozen=True):
    """Your Hello was heard and there is nothing for you to do now."""

    boot_id: str


class Greet(_Message, frozen=True):
    """I do not know you (any more): say Hello."""


class Assign(_Message, frozen=True):
    """Train (or only evaluate) these tasks from these weights.

    ``remaining_s`` is how long the round waits from now on, None without a limit. ``fingerprint``
    is the orchestrator's for the workload: a device that computes another one declines.
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


Up: TypeAlias = Hello | Accepted | Declined | Failed | Progress | Update | Need
Down: TypeAlias = Welcome | Greet | Assign | Stored | Cancel | Need

_up = msgspec.json.Decoder(Up)
_down = msgspec.json.Decoder(Down)
_alive = msgspec.json.Decoder(Alive)
_encoder = msgspec.json.Encoder()


class MessageRefused(ValueError):
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


_T = TypeVar("_T")


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    try:
        return decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise MessageRefused(f"not a message of protocol {PROTOCOL}: {error}") from error


# --- topics --------------------------------------------------------------------------------------


def check_name(name: str, what: str = "device") -> str:
    """The name, if it can stand in a topic; raises NameRefused."""
    if not _NAME.fullmatch(name) or name == EVERYONE:
        raise NameRefused(
            f"{what} name {name!r}: use 1 to 48 of a-z, 0-9 and '-', not starting with '-', not {EVERYONE!r}"
        )
    return name


def topic(fleet: str, device: str, leaf: str) -> str:
    """``mas/1/FLEET/DEVICE/LEAF``; the device may be ``+`` in a filter."""
    return f"mas/{PROTOCOL}/{fleet}/{device}/{leaf}"


def up_topic(fleet: str, device: str = "+") -> str:
    """Where a device speaks."""
    return topic(fleet, device, "up")


def down_topic(fleet: str, device: str) -> str:
    """Where a device listens."""
    return topic(fleet, device, "down")


def alive_topic(fleet: str, device: str = "+") -> str:
    """Where a device's presence is retained."""
    return topic(fleet, device, "alive")


def blob_topic(fleet: str, device: str, digest: str = "+", index: int | str = "+") -> str:
    """Where a chunk goes; device ``all`` for merged weights. Wildcards make it a filter."""
    return topic(fleet, device, f"blob/{digest}/{index}")


class Place(_Record, frozen=True):
    """A parsed topic: who, which leaf, and for a chunk which blob and index."""

    device: str
    leaf: Literal["up", "down", "alive", "blob"]
    digest: str = ""
    index: int = 0


def parse_topic(fleet: str, name: str) -> Place | None:
    """What a topic of this fleet means; None if it is none of ours."""
    match name.split("/"):
        case ["mas", version, of, device, ("up" | "down" | "alive") as leaf]:
            place = Place(device=device, leaf=leaf)  # type: ignore[arg-type]
        case ["mas", version, of, device, "blob", digest, index] if (
            _DIGEST.fullmatch(digest) and index.isascii() and index.isdigit() and len(index) < 10
        ):
            place = Place(device=device, leaf="blob", digest=digest, index=int(index))
        case _:
            return None
    return place if (version, of) == (str(PROTOCOL), fleet) else None
