"""The published baselines whose groups may overlap: TAG and HOA.

Both know S_j(G), what any group G does for its task j, and take the groups that do most for all tasks
together (``orchestrator.overlap``), each trained from first weights. They differ in where S comes from::

    tag   affinities Z of a whole all-in-one training:    S_j(G) = mean over i in G, i not j, of Z[i, j]
    hoa   losses L of all pairs and of all single tasks:  S_j(G) = -mean over i of L_j({i, j}) / L_j({j})

With a number of groups there are at most so many, as published: one that serves nobody would be trained for
nothing. Without one, tag takes the fewest within one standard error of its best score (Breiman et al., 1984,
section 3.4.3), and hoa its best: each task's best pair, or the task alone, which are trained already.

Sources: TAG, Fifty et al., NeurIPS 2021, arXiv 2109.04617; HOA, the higher-order approximation of Standley et
al., ICML 2020, arXiv 1905.07553. What a task alone scores in tag is MAS's (``orchestrator.split``). Pure.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import overlap, split
from mas_edge.orchestrator.affinity import to_choose_by
from mas_edge.orchestrator.candidates import possible
from mas_edge.orchestrator.learning_curve import last_losses
from mas_edge.orchestrator.partitions import members
from mas_edge.orchestrator.split import MAX_TASKS, SplitImpossible
from mas_edge.orchestrator.terms import as_given

if TYPE_CHECKING:
    from mas_edge.orchestrator.decision import Decision, Groups
    from mas_edge.orchestrator.overlap import Cover
    from mas_edge.orchestrator.terms import Terms


PAIR = 2
"""Tasks of the largest groups that hoa compares, and has trained when it chooses."""


def tag(terms: Terms) -> Decision:
    """The groups by affinity; raises SplitImpossible or AffinityRefused where it has no say."""
    affinity, asked = to_choose_by(terms.given.affinities), terms.given.spec.groups
    if len(affinity.tasks) > MAX_TASKS:
        raise SplitImpossible(f"{len(affinity.tasks)} tasks: the exact search takes 1 to {MAX_TASKS}")
    found = overlap.covers(split.task_scores(affinity.mean), possible(terms))
    if not found:
        raise SplitImpossible("too few devices can train some task in any group")
    if asked != "auto":
        return untrained(_cover(terms, _most(found, asked), _at_most(asked, "affinity")), terms)
    top = found[-1]
    error = split.standard_error(affinity, split.share_of(affinity, *_names(top, affinity.tasks)))
    least = -math.inf if error is None else top.total - error * len(affinity.tasks)
    fewest = next(each for each in found if each.total >= least)
    return untrained(_cover(terms, fewest, "the fewest groups within one standard error of the best"), terms)


def hoa(terms: Terms) -> Decision:
    """The groups by what pairs and single tasks reached; these are not trained again."""
    tasks, asked = terms.given.spec.tasks, terms.given.spec.groups
    if len(tasks) > MAX_TASKS:
        return _alone(terms, f"the exact search takes 1 to {MAX_TASKS} tasks")
    known = {
        frozenset(at): {j: said[tasks[j]] for j in at if tasks[j] in said}
        for size in range(1, PAIR + 1)
        for at in combinations(range(len(tasks)), size)
        if (said := last_losses(terms.given.evaluated, tuple(tasks[j] for j in at)))
    }
    usable, sizes = possible(terms), members(len(tasks)).sum(axis=1)
    scores = overlap.by_pairs(known, len(tasks))
    compared = len(tasks) < PAIR or (scores[sizes == PAIR] > -math.inf).any()
    if asked == "auto":
        usable &= sizes <= PAIR
    found = overlap.covers(scores, usable)
    if not found or not compared:
        return _alone(terms, "too few losses are known")
    best, why = found[-1], "the best by losses of pairs; those and single tasks are trained already"
    if asked != "auto":
        best, why = _most(found, asked), _at_most(asked, "losses of pairs")
    return untrained(_cover(terms, best, why), terms)


def _alone(terms: Terms, why: str) -> Decision:
    singles = tuple((task,) for task in terms.given.spec.tasks)
    return untrained(as_given(terms, singles, f"{why}: every task stays alone"), terms)


def untrained(made: Decision, terms: Terms) -> Decision:
    """A decision for groups from first weights with the costs of those alone that are not trained already."""
    past = terms.given.spec.training.rounds - 1  # an evaluation at the start of the last round, or after it
    trained = {each.group for each in terms.given.evaluated if each.round >= past}
    fresh = tuple(group for group in made.groups if group not in trained)
    if fresh == made.groups:
        return made
    if not fresh:
        return msgspec.structs.replace(made, rounds=0, energy_j=None, time_s=None, notes=())
    bid, notes = terms.offer(fresh)
    return msgspec.structs.replace(made, energy_j=bid.energy_j, time_s=bid.time_s, notes=notes)


def _most(found: list[Cover], asked: int) -> Cover:
    """The best with at most so many groups, or the fewest that are possible."""
    return next((each for each in reversed(found) if len(each.groups) <= asked), found[0])


def _at_most(asked: int, by: str) -> str:
    return f"the best by {by} with at most {asked} group{'' if asked == 1 else 's'}"


def _cover(terms: Terms, cover: Cover, why: str) -> Decision:
    tasks = terms.given.spec.tasks
    groups, serves = _names(cover, tasks)
    made = as_given(terms, groups, why, serves=serves if serves != groups else ())
    return msgspec.structs.replace(made, score=cover.total / len(tasks))


def _names(cover: Cover, tasks: tuple[str, ...]) -> tuple[Groups, Groups]:
    """The groups and the tasks that each serves."""
    groups, serves = (
        tuple(tuple(task for i, task in enumerate(tasks) if mask >> i & 1) for mask in masks)
        for masks in (cover.groups, cover.serves)
    )
    return groups, serves
