"""What is compared: points of the map, and at each the arms, as jobs.

A *point* is a set of tasks on data with a network, a number of rounds and devices; an *arm* is a policy at
it, at the point's rounds or at a multiple of them (its own learning-rate schedule, and merged rounds in
proportion). Four points are the task sets of the headline; the others vary around ``sdnkt`` at the
published 100 rounds, of which 30 merged: one factor each, but those of 32 devices have four times the data,
too. Devices are the clients that train, dealt in turn as `mas demo` deals them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from letters import LETTERS

from comparison.book import ComparisonRefused
from mas_edge.models.tasks import find
from mas_edge.models.workloads.buildings.make import Size
from mas_edge.orchestrator.plan import DEVICE, JOB
from mas_edge.orchestrator.spec import POLICIES, JobSpec, Participation, check
from mas_edge.wire.messages import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

EVERY = 10
"""Every so many batches affinity is measured, as in the presets."""

HELD_OUT_SHARE = 0.2
"""Of each client's examples, as in the presets."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A policy, and for how many times the point's rounds. ``groups`` counts for those that ask for it."""

    policy: str
    groups: int | Literal["auto"] = "auto"
    factor: float = 1.0

    @property
    def name(self) -> str:
        """As tables and files call it."""
        groups = f" {self.groups}" if self.policy == "mas" or self.groups != "auto" else ""
        return f"{self.policy}{groups}" + (f" x{self.factor:g}" if self.factor != 1.0 else "")


ALL, ONE = Arm(policy="all-in-one"), Arm(policy="one-by-one")
MAS2, MAS3, AUTO = (Arm(policy="mas", groups=groups) for groups in (2, 3, "auto"))
VERIFIED = Arm(policy="mas-verified")
TAG, HOA = (Arm(policy=policy, groups=2) for policy in ("tag", "hoa"))


def longer(arm: Arm, *factors: float) -> tuple[Arm, ...]:
    """The same policy for other numbers of rounds."""
    return tuple(replace(arm, factor=factor) for factor in factors)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of the map. ``views`` of each of as many ``buildings``, 0 for what ships; ``mixed``: those
    that train are shuffled over the buildings. ``asked`` of the devices train in a round, None all.
    """

    name: str
    workload: str
    tasks: tuple[str, ...]
    arms: tuple[Arm, ...]
    what: str = ""
    network: str = "micro"
    rounds: int = 34
    merge_rounds: int = 10
    batch: int = 16
    lr: float = 0.1
    buildings: int = 8
    views: int = 96
    mixed: bool = False
    devices: int = 4
    asked: int | None = None
    seeds: tuple[int, ...] = (1, 2, 3)

    @property
    def data(self) -> str:
        """What is learnt from, in words that tell sets apart."""
        if not self.views:
            return "shipped"
        many = f"{self.buildings} " if self.buildings != Point.buildings else ""
        return f"{many}buildings of {self.views} views" + (", mixed" if self.mixed else "")

    @property
    def size(self) -> Size:
        """Of the buildings: those that train and two more; meaningless for data that ship."""
        return Size(self.buildings, 2, self.views, 32)


def _letters(text: str) -> tuple[str, ...]:
    return tuple(LETTERS[letter] for letter in text)


def _headline(name: str, *, alone: float, split: float, small: bool = True) -> Point:
    """A task set of the headline: every policy, and merging at several lengths.

    ``alone`` and ``split`` are the lengths at which all-in-one and two groups take about one-by-one's energy.
    """
    lengths = (*longer(ALL, 1.5, (1 + alone) / 2, alone), *longer(MAS2, 1.5, split))
    merged = (MAS2, MAS3, AUTO, VERIFIED, ALL, ONE, *lengths)
    arms = (*merged, TAG, HOA) if small else merged
    if name == "watch":
        tasks = tuple(task.name for task in find("watch").choose(None))
        return Point(name=name, workload=name, tasks=tasks, arms=arms, batch=32, lr=0.05, views=0)
    return Point(name=name, workload="buildings", tasks=_letters(name), arms=arms)


HEADLINE = (
    _headline("sdnkt", alone=3.1, split=2.3),
    _headline("watch", alone=4.2, split=2.8),
    _headline("erckt", alone=3.5, split=2.4),
    _headline("sdnkterca", alone=4.2, split=2.9, small=False),
)
BASE = Point(
    name="sdnkt-100",
    what="base: 100 rounds",
    workload="buildings",
    tasks=_letters("sdnkt"),
    arms=(MAS2, AUTO, VERIFIED, ALL, ONE, *longer(ALL, 1.5, 3.1), *longer(MAS2, 1.5, 2.3), *longer(ONE, 0.6)),
    rounds=100,
    merge_rounds=30,
    seeds=tuple(range(1, 9)),
)
"""Of the map, and of long trainings: three policies, merging at several lengths. Three seeds could not tell
two groups' loss from one-by-one's: five more were begun to decide that, and decide it alone, too.
"""

NINE = replace(
    BASE,
    name="sdnkterca-100",
    what="nine tasks",
    tasks=_letters("sdnkterca"),
    arms=(
        *(MAS2, MAS3, AUTO, VERIFIED, ALL, ONE),
        *(*longer(ALL, 1.5, 4.2), *longer(MAS2, 2.9), *longer(ONE, 0.6)),
    ),
    seeds=(1, 2, 3),
)
"""What the goals are set for."""

AROUND = replace(BASE, arms=(MAS2, AUTO, ALL, ONE, *longer(ALL, 1.5)), seeds=(1, 2, 3))

PUBLISHED = replace(
    NINE,
    name="sdnkterca-4-of-32",
    what="nine tasks, 4 of 32 devices a round",
    arms=(
        MAS2,
        MAS3,
        AUTO,
        VERIFIED,
        ALL,
        ONE,
        *longer(ALL, 1.5, 3, 4.4),
        *longer(MAS2, 2.9),
        *longer(AUTO, 3),
    ),
    buildings=32,
    devices=32,
    asked=4,
)
"""The published setting as far as it is known: 32 clients, one building each, and 100 rounds. That four of
them train in a round, for one local epoch, and that 30 rounds are merged was not seen in the paper itself.
"""

MAP = (
    BASE,
    NINE,
    PUBLISHED,
    replace(AROUND, name="sdnkt-200", what="200 rounds", rounds=200, merge_rounds=60),
    replace(AROUND, name="sdnkt-32-views", what="a third of the data", views=32),
    replace(AROUND, name="sdnkt-200-views", what="twice the data", views=200),
    replace(AROUND, name="sdnkt-mixed", what="devices alike", mixed=True),
    replace(AROUND, name="sdnkt-8-of-8", what="8 devices with half the data", devices=8),
    replace(AROUND, name="sdnkt-4-of-8", what="4 of 8 devices a round", devices=8, asked=4),
    replace(AROUND, name="sdnkt-4-of-32", what="4 of 32 devices a round", buildings=32, devices=32, asked=4),
    replace(
        AROUND,
        name="sdnkt-small",
        what="wider, deeper encoder, 34 rounds",
        network="small",
        rounds=34,
        merge_rounds=10,
    ),
    replace(
        AROUND,
        name="sdnkt-xception",
        what="the published network, 34 rounds",
        network="xception",
        rounds=34,
        merge_rounds=10,
    ),
)
POINTS = {point.name: point for point in (*HEADLINE, *MAP)}


def quick(point: Point) -> Point:
    """The quick half: one seed, all-in-one at several lengths, and no hoa, which trains every pair."""
    arms = tuple(
        arm for arm in point.arms if arm.policy == "all-in-one" or (arm.factor == 1.0 and arm.policy != "hoa")
    )
    return replace(point, arms=arms, seeds=(1,))


def chosen(names: Iterable[str]) -> tuple[Point, ...]:
    """The points of these names; raises ComparisonRefused."""
    wanted = list(names)
    if strange := [name for name in wanted if name not in POINTS]:
        raise ComparisonRefused(f"no point {strange[0]!r}; there are {', '.join(POINTS)}")
    return tuple(POINTS[name] for name in wanted)


def clients(point: Point) -> dict[str, tuple[str, ...]]:
    """The clients of each device, by its name."""
    workload = find(point.workload)
    everyone = point.size.clients if point.views else workload.clients
    seen = [client for client in everyone if client not in unseen(point)]
    return {DEVICE.format(n + 1): tuple(seen[n :: point.devices]) for n in range(point.devices)}


def unseen(point: Point) -> tuple[str, ...]:
    """The clients that no device has."""
    return point.size.clients[point.size.seen :] if point.views else find(point.workload).unseen


def known(arm: Arm) -> bool:
    """Whether the product has the arm's policy."""
    return arm.policy in POLICIES


def spec(point: Point, arm: Arm, seed: int) -> JobSpec:
    """The job of an arm of a ``known`` policy, named as `mas demo` does: chance depends on it."""
    workload = find(point.workload)
    merges = arm.policy.startswith("mas")
    training = Training(
        workload=point.workload,
        network=point.network,
        rounds=round(arm.factor * point.rounds),
        epochs=1,
        batch=point.batch,
        lr=point.lr,
        seed=seed,
        affinity_every=EVERY,
        held_out_share=HELD_OUT_SHARE,
        reproducible=point.asked is None,
    )
    asked = Participation(clients=point.asked, deadline_s=None)
    job = JobSpec(
        name=JOB,
        tasks=tuple(task.name for task in workload.choose(point.tasks)),
        training=training,
        policy=next(policy for policy in POLICIES if policy == arm.policy),
        devices=tuple(clients(point)),
        merge_rounds=round(arm.factor * point.merge_rounds) if merges else 0,
        groups=arm.groups,
        unseen=unseen(point),
        participation=Participation() if point.asked is None else asked,
    )
    return check(job)
