"""Where messages go: the topics of a fleet, and which names may stand in them.

A fleet's topics are ``mas/1/FLEET/DEVICE/LEAF``, so that an access list fences each device into its own
subtree plus what is addressed to all. Exported by ``mas_edge.wire.messages``; import from there.
"""

from __future__ import annotations

import re
from typing import Literal

from mas_edge.wire.values import Record

PROTOCOL = 1
"""Version of the contract; it stands in every topic."""

EVERYONE = "all"
"""The device name under which the orchestrator publishes what all may read; reserved."""

ORCHESTRATOR = "orchestrator"
"""The user name of the orchestrator, who may say what no device may; reserved."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class WireError(Exception):
    """Root of the errors of this room; the tree is drawn in ``mas_edge.wire``."""


class NameRefused(WireError, ValueError):
    """A fleet or device name that cannot stand in a topic."""


def is_name(name: str) -> bool:
    """Whether this can be the name of a fleet or device."""
    return name not in {EVERYONE, ORCHESTRATOR} and _NAME.fullmatch(name) is not None


def check_name(name: str, what: str = "device") -> str:
    """The name, if it can stand in a topic; raises NameRefused."""
    if not is_name(name):
        raise NameRefused(
            f"{what} name {name!r}: use 1 to 48 of a-z, 0-9 and '-', not starting with '-', "
            f"neither {EVERYONE!r} nor {ORCHESTRATOR!r}"
        )
    return name


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hex, and so safe as a topic level or a file name."""
    return _DIGEST.fullmatch(text) is not None


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


class Place(Record, frozen=True):
    """A parsed topic: who, which leaf, and for a chunk which blob and index."""

    device: str
    leaf: Literal["up", "down", "alive", "blob"]
    digest: str = ""
    index: int = 0


def parse_topic(fleet: str, name: str) -> Place | None:
    """What a topic of this fleet means; None if it is none of ours."""
    match name.split("/"):
        case ["mas", version, of, device, ("up" | "down" | "alive") as leaf]:
            place = Place(device=device, leaf=leaf)
        case ["mas", version, of, device, "blob", digest, index] if (
            is_digest(digest) and index.isascii() and index.isdigit() and len(index) < 10
        ):
            place = Place(device=device, leaf="blob", digest=digest, index=int(index))
        case _:
            return None
    return place if (version, of) == (str(PROTOCOL), fleet) else None
