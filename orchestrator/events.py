"""What happens in the rounds of a task group, and what a group can want done: facts and actions.

Facts are stored before anything is done about them, and a replay of them restores the orchestrator. What
depends on a clock, on who is there or on chance is decided once, outside, and its result is the fact
(``Selected``, ``Closed``, ``LeftOut``), so that a replay repeats the decision instead of taking it anew.
How facts fold and which actions a state owes is ``orchestrator.rounds``' business. Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mas_edge.profiling.ledger import LOST
from mas_edge.wire.messages import BlobRef, Key, Profile, Score, Shortage, Update


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value of the round's world."""


class Fact(Value, frozen=True, tag_field="kind", tag=str.lower):
    """Something that happened; stored before anything is done about it."""


class Carved(Fact, frozen=True):
    """The group's first weights were cut out of the weights that it starts from."""

    group: str
    weights: BlobRef


class Selected(Fact, frozen=True):
    """These devices are asked in a round; those that were asked and are not named are asked no more.

    ``call`` counts the selections of a round from 0. The round ends when ``wanted`` have answered, or
    ``deadline_s`` seconds from now (None: never) once ``needed`` have. ``missed`` had let an earlier deadline
    of the round pass.
    """

    group: str
    round: int
    devices: tuple[str, ...]
    wanted: int
    needed: int
    deadline_s: float | None = None
    call: int = 0
    missed: tuple[str, ...] = ()


class Closed(Fact, frozen=True):
    """A round's deadline passed with enough answers; ``missed`` had the assignment and did not answer."""

    group: str
    round: int
    missed: tuple[str, ...] = ()


class Heard(Fact, frozen=True):
    """A device's update arrived whole, with its weights on our disk and found sound.

    ``distance`` is that of its weights from those that it received (Euclidean norm); None: it has none.
    """

    update: Update
    distance: float | None = None


class GaveUp(Fact, frozen=True):
    """A device declined, broke, or sent something that was refused.

    ``again_s``: it did nothing wrong but may not train now, and says when it looks again.
    """

    key: Key
    reason: str
    detail: str = ""
    profile: Profile = Profile()
    shortage: Shortage | None = None
    again_s: float | None = None


class Lifted(Fact, frozen=True):
    """A device that might not train says that it may again, sooner than it had thought when it gave up."""

    device: str


class Late(Fact, frozen=True):
    """A device answered what is not wanted any more: its joules count, as lost, and nothing is merged."""

    key: Key
    examples: int = 0
    profile: Profile = Profile()

    @property
    def bill(self) -> Profile:
        """Its profile as what it is: spent on nothing that was used."""
        rows = tuple(msgspec.structs.replace(row, phase=LOST, examples=0) for row in self.profile.rows)
        return msgspec.structs.replace(self.profile, rows=rows)


class Absurd(Value, frozen=True):
    """A device whose update must not be merged, and why in words."""

    device: str
    reason: str


class LeftOut(Fact, frozen=True):
    """Updates that are sound by themselves and absurd beside those of the others; they are not merged."""

    group: str
    round: int
    updates: tuple[Absurd, ...]


class Merged(Fact, frozen=True):
    """The updates of a round became new weights."""

    group: str
    round: int
    weights: BlobRef


Event: TypeAlias = Carved | Selected | Closed | Heard | GaveUp | Lifted | Late | LeftOut | Merged


class Contribution(Value, frozen=True):
    """What aggregation needs to know of a device's update, and how far it went from the base.

    ``scores`` are held-out ones of the weights that the device received.
    """

    device: str
    weights: BlobRef | None
    examples: int
    trained: tuple[Score, ...]
    scores: tuple[Score, ...] = ()
    distance: float | None = None


class Ask(Value, frozen=True):
    """Owed: this device should train (or evaluate) this round under this key.

    The round waits until ``deadline_s`` (job time), or longer if too few answer by then.
    """

    key: Key
    tasks: tuple[str, ...]
    weights: BlobRef
    train: bool
    evaluate: bool
    measure: bool
    deadline_s: float | None = None


class Carve(Value, frozen=True):
    """Owed: cut the group's encoder and decoders out of these weights."""

    group: str
    tasks: tuple[str, ...]
    source: BlobRef


class Select(Value, frozen=True):
    """Owed: say who is asked in this round, or who else (``call`` > 0)."""

    group: str
    round: int
    call: int = 0


class Close(Value, frozen=True):
    """Owed: the deadline has passed and enough have answered; ``missing`` have not."""

    group: str
    round: int
    missing: tuple[str, ...] = ()


class LeaveOut(Value, frozen=True):
    """Owed: record that these updates are absurd beside those of the others."""

    group: str
    round: int
    updates: tuple[Absurd, ...]


class Merge(Value, frozen=True):
    """Owed: average these updates into the next weights."""

    group: str
    round: int
    base: BlobRef
    updates: tuple[Contribution, ...]


Action: TypeAlias = Ask | Carve | Select | Close | LeaveOut | Merge
