"""Tables of all partitions that were made up so that the right answer is known."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
from study.records import Costs, Setting, Step, Trained
from study.sets import SETS, spec
from study.table import Table
from study.train import LONGER, groups

from mas_edge.wire.messages import AffinitySums

JOB, _ = spec(SETS["watch"], 1, quick=True)
TASKS = JOB.tasks
SETTING = Setting(name="watch", seed=1, spec="{}", data="", torch="", machine="")
HARM = {pair: 0.01 * 2**at for at, pair in enumerate(combinations(TASKS, 2))}


def alone(task):
    return 1.0 + TASKS.index(task)


def in_group(task, group):
    """Losses in which each other task of a group does a harm of its own: pairs say all there is to know."""
    others = [HARM[tuple(sorted((task, other), key=TASKS.index))] for other in group if other != task]
    return alone(task) + (sum(others) / len(others) if others else 0.0)


def trained(what, group, losses, *, steps=4, **more):
    """A training whose held-out losses fall to these, and whose unseen ones are twice as high."""
    rows = [
        Step(round=at, held_out={t: (v * (2 - (at + 1) / steps), 2.0) for t, v in losses.items()}, cpu_s=1.0)
        for at in range(steps)
    ]
    unseen = {task: (2 * value, 2.0) for task, value in losses.items()}
    return Trained(what=what, tasks=group, steps=tuple(rows), unseen=unseen, digest="", **more)


def made_up(loss=in_group):
    """A table with these losses, an encoder that costs 2 and decoders that cost 1."""
    made = [trained("group", group, {t: loss(t, group) for t in group}) for group in groups(TASKS)]
    whole = {t: loss(t, TASKS) for t in TASKS}
    made += [
        trained("longer", TASKS, {t: v / factor for t, v in whole.items()}, factor=factor)
        for factor in LONGER
    ]
    taken = tuple(2.0 + len(group) for group in groups(TASKS))
    costs = Costs(groups=tuple(groups(TASKS)), cpu_s=(taken, tuple(3 * s for s in taken), taken))
    return Table(SETTING, JOB, {each.name: each for each in made}, costs)


TABLE = made_up()
ONE_BY_ONE = tuple((task,) for task in TASKS)


def merged_like(losses):
    """The table, with merged rounds that have these losses by task."""
    steps = tuple(
        Step(round=at, held_out={task: (v, 2.0) for task, v in each.items()}, cpu_s=1.0)
        for at, each in enumerate(losses)
    )
    merged = Trained(what="merged", tasks=TASKS, steps=steps, method="gram", every=10)
    return dataclasses.replace(TABLE, trained={**TABLE.trained, merged.name: merged})


def merged_on(table, merged=4):
    """A table with so many merged rounds before its groups' four."""
    steps = tuple(Step(round=at, held_out={}, cpu_s=1.0) for at in range(merged))
    first = Trained(what="merged", tasks=TASKS, steps=steps, method="gram", every=10)
    return dataclasses.replace(table, trained={**table.trained, first.name: first})


def sums(z):
    """One measured batch of weight 1."""
    flat = tuple(map(float, np.ravel(z)))
    ones = (1.0,) * len(flat)
    squares = tuple(v * v for v in flat)
    return AffinitySums(tasks=TASKS, batches=(1,) * len(flat), w=ones, ww=ones, wz=flat, wzz=squares)
