"""Trains what a folder lacks: one arm after the other, each kept as soon as it is done.

A point under a seed has a folder with its ``Book``, its merged weights and a file per arm; several processes
may be at different ones. A killed arm goes on with the round that it was at. What a finished arm says is its
report, and which trainings of which groups it took. When all arms are done, weights of rounds in between go.
"""

from __future__ import annotations

import platform
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from comparison.book import Book, ComparisonRefused, Setting
from comparison.data import place
from comparison.hands import Hands, run
from comparison.points import Arm, Point, clients, known, spec
from mas_edge.orchestrator.events import Carved, Heard, Merged
from mas_edge.orchestrator.job import Initialised
from mas_edge.orchestrator.report import Report, report
from mas_edge.wire.host import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mas_edge.orchestrator.job import Event, Job


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """How often a group was trained on a device for a round, ``measured`` by this method, or not."""

    tasks: tuple[str, ...]
    measured: str
    count: int


RULES = 3
"""Raised when the product decides otherwise or reports more: every arm is then run again from its book."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """An arm that is done. ``weights``: digests of those that its groups began and ended with."""

    rules: int
    point: str
    arm: str
    seed: int
    turns: tuple[Turns, ...]
    report: Report
    weights: tuple[str, ...] = ()


def train(folder: Path, point: Point, arms: Iterable[Arm], seed: int, *, say: Callable[[str], None]) -> None:
    """Train what the folder lacks of these arms of a point under a seed. Raises ComparisonRefused."""
    missing = [arm for arm in arms if known(arm) and finished(folder, point, arm, seed) is None]
    if not missing:
        return
    own = _own(folder, point, seed)
    own.mkdir(parents=True, exist_ok=True)
    setting = Setting(data=point.data, torch=str(torch.__version__), machine=platform.machine())
    shm = Path("/dev/shm")  # noqa: S108 - weights that live for seconds, which are synced to disk elsewhere
    with (
        tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as scratch,
        closing(Book(own / "book.jsonl", setting)) as book,
    ):
        hands = Hands(clients(point), book, own / "weights", Path(scratch), root=place(folder, point))
        for arm in missing:
            _one(folder, point, arm, seed, hands, say)
        hands.tidy({digest for arm in point.arms for digest in _weights(folder, point, arm, seed)})


def _one(folder: Path, point: Point, arm: Arm, seed: int, hands: Hands, say: Callable[[str], None]) -> None:
    wanted, named = spec(point, arm, seed), f"{point.name}, seed {seed}, {arm.name}"
    events = run(wanted, hands, lambda job: _tell(job, named, say))
    made = report(wanted, [(0.0, event) for event in events])
    if made.phase != "done":
        raise ComparisonRefused(f"{named}: the job {made.phase}: {made.reason}")
    done = Finished(
        rules=RULES,
        point=point.name,
        arm=arm.name,
        seed=seed,
        turns=turns(wanted.training.affinity, events),
        report=made,
        weights=ends(events),
    )
    write_atomic(_file(folder, point, arm, seed), msgspec.json.encode(done))
    say(f"{named}: {made.held_out_total:.4f}, {' | '.join(made.groups)}")


def _tell(job: Job, named: str, say: Callable[[str], None]) -> None:
    """A line every tenth round of a group."""
    for each in job.runs:
        if each.phase == "merging" and each.round % 10 == 0:
            say(f"{named}: round {each.round} of {each.group}")


def turns(method: str, events: Iterable[Event]) -> tuple[Turns, ...]:
    """What was trained, by group and by whether affinity was measured."""
    updates = [event.update for event in events if isinstance(event, Heard) and event.update.examples]
    found = Counter((each.key.group, method if each.affinity else "") for each in updates)
    return tuple(Turns(tasks=tuple(g.split("+")), measured=how, count=n) for (g, how), n in found.items())


def ends(events: Iterable[Event]) -> tuple[str, ...]:
    """Digests of the weights that groups began and ended with: what other policies may go on from."""
    begun, last = set[str](), dict[str, str]()
    for event in events:
        if isinstance(event, Initialised | Carved):
            begun.add(event.weights.digest)
        elif isinstance(event, Merged):
            last[event.group] = event.weights.digest
    return tuple(sorted({*begun, *last.values()}))


def _weights(folder: Path, point: Point, arm: Arm, seed: int) -> tuple[str, ...]:
    done = finished(folder, point, arm, seed)
    return done.weights if done else ()


def finished(folder: Path, point: Point, arm: Arm, seed: int) -> Finished | None:
    """What an arm brought, if it is done.

    None too for a file of other rules or with another report: the job is run again, its trainings are in the
    book.
    """
    try:
        done = msgspec.json.decode(_file(folder, point, arm, seed).read_bytes(), type=Finished)
    except (FileNotFoundError, msgspec.ValidationError):
        return None
    return done if done.rules == RULES else None


def _own(folder: Path, point: Point, seed: int) -> Path:
    return folder / f"{point.name}-seed-{seed}"


def _file(folder: Path, point: Point, arm: Arm, seed: int) -> Path:
    return _own(folder, point, seed) / f"{arm.name.replace(' ', '-')}.json"
