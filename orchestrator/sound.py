"""What a device may say: answers that can be merged, pooled, billed and replayed later.

An update came over the wire, and an event that cannot be folded would stop the orchestrator at every
start. So numbers that cannot be are refused before they are stored. Pure; whether an answer is expected
at all is ``orchestrator.rounds``' business, and what is inside weights is ``orchestrator.aggregate``'s.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator.events import Absurd
from mas_edge.wire.messages import Shortage, is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mas_edge.orchestrator.events import Ask, Contribution
    from mas_edge.wire.messages import Deployed, Profile, Score, Update

LARGEST, MOST = 1e100, 2**53
"""No honest sum and no honest count comes near; their squares and sums are still numbers."""

LONGEST_WORDS = 1000
"""Characters; what an agent says of a refusal has some hundreds."""


FARTHEST = 10.0
"""An update whose weights went so many times as far from the base as the others' usually did is not merged;
one of more examples than the others' made more steps and may go farther in proportion."""


class AnswerRefused(ValueError):
    """An update that is not what was asked for; the text says in what."""


def check(update: Update, ask: Ask) -> None:
    """Raises AnswerRefused for an update that could not be merged, pooled or reported later.

    It came over the wire; what is in its weights and affinities is not looked at here.
    """
    ref, given = update.weights, (update.weights is not None, update.affinity is not None)
    if given != (ask.train, ask.measure):
        raise AnswerRefused("weights and affinity: each if, and only if, it was asked for")
    if update.affinity and update.affinity.tasks != ask.tasks:
        raise AnswerRefused(f"affinities of {', '.join(update.affinity.tasks)}")
    if ref and not (is_digest(ref.digest) and ref.size_bytes <= 2 * ask.weights.size_bytes + (64 << 10)):
        raise AnswerRefused(f"weights {ref.digest[:12]!r} of {ref.size_bytes} bytes cannot be these tasks'")
    _check_examples(update, ask)
    if update.fit and any(abs(n) > MOST for n in msgspec.structs.astuple(update.fit) if n is not None):
        raise AnswerRefused("how it was made to fit holds a number that cannot be")
    for scores in (update.trained, update.scores):
        names = [score.task for score in scores]
        if len(set(names)) < len(names) or not set(names) <= set(ask.tasks):
            raise AnswerRefused(f"scores of {', '.join(names)}, asked for {', '.join(ask.tasks)}")
        for score in scores:
            if not _sound(score):
                raise AnswerRefused(f"the score of {score.task} holds a number that cannot be")


def _check_examples(update: Update, ask: Ask) -> None:
    """As many as can be, and as its own bill and scores say; a bill that says nothing is no witness."""
    key, examples = update.key, update.examples
    if not (1 if ask.train else 0) <= examples <= MOST:
        raise AnswerRefused(f"{examples} examples")
    rows = [row for row in update.profile.rows if (row.group, row.round) == (key.group, key.round)]
    billed = sum(row.examples for row in rows)
    if 0 < billed < examples:
        raise AnswerRefused(f"{examples} examples, of which its bill has {billed}")
    for score in update.trained:
        if score.count > examples:
            raise AnswerRefused(f"{score.count:g} examples of {score.task} among {examples}")


def absurd(updates: Sequence[Contribution]) -> tuple[Absurd, ...]:
    """Those whose weights went absurdly far from the base, with the reason; it takes three to tell.

    Each is held against the median distance of the others, which up to half of them cannot shift at will.
    This catches what is broken, not an attacker who stays below the bound.
    """
    known = [(each, each.distance) for each in updates if each.distance is not None]
    found = []
    for each, distance in known if len(known) > 2 else ():
        others = [(other, far) for other, far in known if other is not each]
        usual, examples = median(far for _, far in others), median(other.examples for other, _ in others)
        most = FARTHEST * max(1.0, each.examples / examples if examples else 1.0)
        if 0 < usual * most < distance:
            times = f"{distance / usual:.3g} times as far from the base as the others' usually did"
            found.append(Absurd(device=each.device, reason=f"its weights went {times}, {most:.3g} at most"))
    return tuple(found)


def _sound(score: Score) -> bool:
    sums = (score.loss_sum, score.constant_loss_sum or 0.0, score.metric_sum or 0.0)
    overlap = zip(score.intersection, score.union, strict=False)
    return (
        0 <= score.count <= MOST
        and all(abs(value) <= LARGEST for value in sums)
        and len(score.intersection) == len(score.union)
        and all(0 <= both <= either <= MOST for both, either in overlap)
    )


def sound_shortage(short: Shortage | None) -> Shortage | None:
    """The refusal's numbers, or one without if they cannot be: that the group does not fit is believed."""
    if short is None:
        return None
    named = (short.needed_bytes, short.allowed_bytes, short.encoder_bytes, short.peak_bytes)
    sizes = [size for size in (*named, *(each.bytes for each in short.decoders)) if size is not None]
    if all(-MOST <= size <= MOST for size in sizes):
        return short
    return Shortage(micro_batch=short.micro_batch, checkpointing=short.checkpointing)


def sound_bill(profile: Profile) -> bool:
    """Whether the bill can be added to others; one that cannot is not kept, and its joules are unknown."""
    trace = profile.trace
    rising = all(list(column) == sorted(column) for column in (trace.t_ns, trace.energy_j))
    used = [value for row in profile.rows for value in (row.wall_s, row.cpu_s, row.examples)]
    return (
        rising
        and len(trace.t_ns) == len(trace.energy_j) == len(trace.variance_j2)
        and all(abs(number) <= LARGEST for number in _numbers(msgspec.to_builtins(profile)))
        and all(value >= 0 for value in used)
    )


def unsound_inference(answer: Deployed) -> str:
    """What of a device's measurement of a model cannot be, in words; empty if it can."""
    profiles = [answer.profile, answer.running, answer.in_use.profile if answer.in_use else None]
    for profile in profiles:
        if profile is None:
            continue
        names = [score.task for score in profile.scores]
        if len(set(names)) < len(names) or not all(map(_sound, profile.scores)):
            return "its scores hold a number that cannot be"
        figures = msgspec.structs.astuple(profile)
        if not all(0 <= each <= LARGEST for each in figures if isinstance(each, int | float)):
            return "it holds a number that cannot be"
    return ""


def _numbers(value: object) -> Iterator[float]:
    """Every number in there, however deep."""
    match value:
        case int() | float():
            yield value
        case dict():
            yield from _numbers(tuple(value.values()))
        case list() | tuple():
            for each in value:
                yield from _numbers(each)


def sound_words(text: str) -> str:
    """A device's words as one line for logs and terminals: not endless, and without control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_WORDS])
