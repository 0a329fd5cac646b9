"""The models that a device has for inference: in use and before, by group; and when a new one is worse.

One model is in use for a group of a workload; the one before it stays, so that a rollback needs nobody else.
Where groups of several jobs share a task, the model that was put in use last serves it. Values and questions
about them; ``deployment`` decides what becomes of a request, ``model_folder`` keeps them on disk.
"""

from __future__ import annotations

import math

import msgspec

from mas_edge.wire.messages import Deployed, InferenceProfile, InUse, Model, Score

REMEMBERED = 32
"""How many answers are kept, for requests that are repeated because the answer got lost."""


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is on disk: the models in use, the one put in use last at the end, and those before them."""

    in_use: tuple[InUse, ...] = ()
    before: tuple[InUse, ...] = ()
    answers: tuple[Deployed, ...] = ()

    @property
    def models(self) -> tuple[Model, ...]:
        """Those whose files are needed."""
        return tuple(each.model for each in (*self.in_use, *self.before))


def find(found: tuple[InUse, ...], workload: str, group: str) -> InUse | None:
    """The one of this group, if any."""
    return next((each for each in found if _group(each) == (workload, group)), None)


def put(kept: Kept, new: InUse, before: InUse | None) -> Kept:
    """Another model in use for its group, and what a rollback would bring back: nothing if None."""
    group = _group(new)
    old = () if before is None else (msgspec.structs.replace(before, previous=None),)
    return msgspec.structs.replace(
        kept,
        in_use=(*(each for each in kept.in_use if _group(each) != group), new),
        before=(*(each for each in kept.before if _group(each) != group), *old),
    )


def remember(kept: Kept, answer: Deployed) -> Kept:
    """With one more answer."""
    return msgspec.structs.replace(kept, answers=(*kept.answers, answer)[-REMEMBERED:])


def _group(each: InUse) -> tuple[str, str]:
    return each.model.workload, each.model.group


def loss(scores: tuple[Score, ...], tasks: frozenset[str]) -> float | None:
    """The sum over these tasks of the mean held-out losses; None if none of them has a valid example."""
    known = [each.loss_sum / each.count for each in scores if each.count and each.task in tasks]
    return math.fsum(known) if known else None


def worse(new: InferenceProfile, old: InferenceProfile, margin: float) -> str:
    """Why the new model is refused, with both numbers; empty if it is good enough.

    Worse: the sum over tasks of its mean held-out losses is greater than the old one's by more than the share
    ``margin``. Tasks that only one of them has count for neither.
    """
    judged = [frozenset(score.task for score in each.scores if score.count) for each in (new, old)]
    tasks = judged[0] & judged[1]
    after, before = loss(new.scores, tasks), loss(old.scores, tasks)
    if after is None or before is None or after <= before * (1 + margin):
        return ""
    return (
        f"its held-out loss here is {after:.4g}, that of the model in use {before:.4g}:"
        f" worse by more than {margin:.3g} of it"
    )
