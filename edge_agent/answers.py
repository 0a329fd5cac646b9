"""What the worker's last word comes to, said to the orchestrator: an update, a refusal or a failure.

A worker that found something in the way before it trained (other code, damaged data, too little memory)
declines; one that broke on the way fails, and may be asked again. Values only: nothing is sent or kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mas_edge.edge_agent.conditions import AGAIN_S
from mas_edge.edge_agent.fit import in_words
from mas_edge.wire.messages import Declined, Failed, Profile, Update

if TYPE_CHECKING:
    from mas_edge.edge_agent.work import Broke, Done
    from mas_edge.wire.messages import Assign, BlobRef, Key, Shortage

NOTHING = Profile()
"""A bill without a row."""


def update(assign: Assign, done: Done, weights: BlobRef | None, profile: Profile) -> Update:
    """What the training brought."""
    return Update(
        key=assign.key,
        weights=weights,
        examples=done.examples,
        trained=done.trained,
        scores=done.scores,
        affinity=done.affinity,
        profile=profile,
        fit=done.fit,
    )


def too_large(key: Key, shortage: Shortage, profile: Profile) -> Declined:
    """The group does not fit this device's memory."""
    return Declined(key=key, reason="memory", detail=in_words(shortage), shortage=shortage, profile=profile)


def without_update(key: Key, broke: Broke, profile: Profile) -> Declined | Failed:
    """Why there is none, for every reason but memory."""
    kind = Declined if broke.reason in {"fingerprint", "data"} else Failed
    return kind(key=key, reason=broke.reason, detail=broke.detail, profile=profile)


def cannot_train(key: Key) -> Declined:
    """Torch is not installed: the device only infers."""
    remedy = "this device only infers; to train: pip install 'mas-edge[train]'"
    return Declined(key=key, reason="no-data", detail=f"torch is not installed: {remedy}")


def not_now(key: Key, detail: str, profile: Profile = NOTHING, *, again_s: float = AGAIN_S) -> Declined:
    """The device may not train now, and looks again."""
    return Declined(key=key, reason="not-now", detail=detail, profile=profile, again_s=again_s)
