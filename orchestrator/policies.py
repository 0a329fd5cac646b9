"""What each policy decides: into which groups a job's tasks go, at its start and at each later stage.

``R`` rounds, of which ``R0`` are merged; Z is the affinity measured in them, S_j(G) what the group G does for
its task j (``orchestrator.split``)::

    one-by-one     every task alone, R rounds
    all-in-one     all tasks together, R rounds
    fixed          together for R0 rounds, then the partition given
    mas            together for R0 rounds -> Z; then the partition of the best score from the merged weights,
                   into N groups, or into as many as pay for their energy; if none do, again R0/3 rounds on
    mas-verified   together for R0 rounds -> Z; "do not split" and the best partitions for a few rounds beside
                   each other, for the same energy; the one of least held-out loss goes on
    tag            together for R rounds -> Z; then groups that may overlap, by S_j(G), from first weights
    hoa            all pairs and all tasks alone, R rounds -> their losses; then groups that may overlap, by
                   S_j(G) as the pairs foretell it, from first weights; pairs and tasks are not trained again

Sources: MAS (Merge and Split), ICCV 2023, arXiv 2307.11285; TAG, Fifty et al., NeurIPS 2021, arXiv
2109.04617; HOA, the higher-order approximation of Standley et al., ICML 2020, arXiv 1905.07553;
mas-verified is our own.

``decide`` is pure and everything that it goes by is in its ``Situation``; the shell takes the decision once
and stores it, so that a replay repeats it. Words for people are made in ``orchestrator.explain``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from mas_edge.orchestrator import baselines, split
from mas_edge.orchestrator import trial as trials
from mas_edge.orchestrator.affinity import AffinityRefused, to_choose_by
from mas_edge.orchestrator.candidates import Market, by_number, choose
from mas_edge.orchestrator.cost_model import figure
from mas_edge.orchestrator.decision import Alternative, Decision, Groups, MoreRounds, Situation, Trial
from mas_edge.orchestrator.gain import Gains, losses
from mas_edge.orchestrator.learning_curve import carried_over, foretold, of_all, totals
from mas_edge.orchestrator.spec import FROM_SCRATCH, first_groups
from mas_edge.orchestrator.split import SplitImpossible
from mas_edge.orchestrator.terms import Terms, as_given, decided, named, settle

if TYPE_CHECKING:
    from mas_edge.orchestrator.candidates import Candidate, Chosen
    from mas_edge.orchestrator.spec import JobSpec


PAUSES = 3
"""Before it is decided again tasks go on together for one of so many parts of the merged rounds."""


def decide(given: Situation) -> Decision:
    """The decision; never raises: where nothing can be done, ``refused`` says what would be needed."""
    terms, spec = settle(given), given.spec
    if given.stage == "start":
        why = "the partition was given" if spec.policy == "fixed" and not spec.merge_rounds else ""
        return as_given(terms, first_groups(spec), why or f"policy {spec.policy}")
    by_policy = {"mas": _mas, "mas-verified": _mas_verified, "tag": baselines.tag, "hoa": baselines.hoa}
    try:
        if spec.policy in by_policy:
            return by_policy[spec.policy](terms)
    except (SplitImpossible, AffinityRefused) as error:
        whole = as_given(terms, (spec.tasks,), f"affinity has no say: {error}")
        return baselines.untrained(whole, terms) if spec.policy in FROM_SCRATCH else whole
    return as_given(terms, spec.partition, "the partition was given")


# --- mas --------------------------------------------------------------------------------------------


def _mas(terms: Terms) -> Decision:
    market, spec = _market(terms), terms.given.spec
    made = _chosen(market, choose(market, spec.groups))
    if spec.groups != "auto" or len(made.groups) > 1 or len(spec.tasks) == 1:
        return made
    return msgspec.structs.replace(made, again=_again(spec, terms.given.rounds))


def _again(spec: JobSpec, left: int) -> int:
    """After how many rounds it is decided again, with so many left; 0 if they are too few for a split."""
    pause = max(1, spec.merge_rounds // PAUSES)
    return spec.training.rounds - left + pause if left - pause >= spec.merge_rounds else 0


def _market(terms: Terms) -> Market:
    given, affinity = terms.given, to_choose_by(terms.given.affinities)
    gains = Gains(affinity, losses(affinity.tasks, given.evaluated), terms.energies())
    tasks = given.spec.tasks
    learnt, held_out = (totals(of_all(each, tasks), tasks) for each in (given.learnt, given.evaluated))
    return Market(terms, affinity, gains, carried_over(learnt, held_out))


def _chosen(market: Market, found: Chosen) -> Decision:
    taken = found.taken
    others = [each for each in found.rejected if each.bid.sound]
    runner = max(others, key=lambda each: each.partition.score, default=None)
    lead = split.lead(market.affinity, taken.partition, runner.partition)[1] if runner else None
    return msgspec.structs.replace(
        decided(market.terms, taken.bid, found.why),
        score=taken.partition.score,
        se=taken.partition.se,
        progress=taken.progress,
        carried=market.carried,
        more_rounds=_more_rounds(market, found.costlier),
        runner_up=runner.bid.groups if runner else (),
        runner_up_score=runner.partition.score if runner else None,
        lead_se=lead,
        rejected=tuple(_alternative(each) for each in found.rejected),
    )


def _alternative(each: Candidate) -> Alternative:
    return Alternative(
        groups=each.bid.groups,
        why=each.why,
        score=each.partition.score,
        se=each.partition.se,
        energy_j=each.bid.energy_j,
        time_s=each.bid.time_s,
        progress=each.progress,
    )


def _more_rounds(market: Market, groups: Groups) -> MoreRounds | None:
    """What the energy of a split is foretold to do as more rounds without one."""
    given = market.terms.given
    if len(groups) < 2 or not given.rounds:
        return None
    planned, more = given.spec.training.rounds, given.rounds * (market.gains.of(groups).energy - 1)
    tasks = given.spec.tasks
    lower_by = foretold(totals(of_all(given.evaluated, tasks), tasks), (planned + more) / planned)
    if lower_by is None or more <= 0:  # a fitted model may take a split for cheaper: then there is nothing
        return None
    rounds = round(given.rounds + more)
    return MoreRounds(groups=groups, planned=given.rounds, rounds=rounds, lower_by=lower_by)


# --- mas-verified -----------------------------------------------------------------------------------


def _mas_verified(terms: Terms) -> Decision:
    return _tried(terms) if terms.given.stage == "trial" else _verified(terms)


def _tried(terms: Terms) -> Decision:
    """Which partitions are tried for how long; without a trial, how the tasks go on."""
    market, spec = _market(terms), terms.given.spec
    asked, clients = spec.groups, spec.participation.clients
    if clients is not None and clients < len(spec.devices):
        return _untried(
            market,
            f"a round asks {clients} of {len(spec.devices)} devices, and others would judge what is tried",
        )
    found, ranked = by_number(market)
    sound = {len(each.bid.groups): each for each in found if each and each.bid.sound}
    numbers = [each for each in ((2, 3) if asked == "auto" else (asked,)) if each > 1 and each in sound]
    if 1 not in sound or asked == 1 or (asked == "auto" and not numbers):
        return _chosen(market, choose(market, asked))
    if not numbers:
        return _untried(market, f"no partition into {asked} groups that keeps to all limits could be tried")
    first, *others = [sound[number].bid.groups for number in numbers]
    second = [p.groups for p in ranked[numbers[0] - 1] if p.groups != first and terms.bid(p.groups).sound][:1]
    field = [sound[1].bid.groups, first, *second, *others]
    rounds = spec.training.rounds
    trial = trials.field(field, lambda groups: market.gains.of(groups).energy, rounds, terms.given.rounds)
    if trial is None:
        return _untried(market, _too_short(first, rounds))
    if not _affordable(terms, trial):
        return _untried(market, "what is left of the budget has no room for partitions on trial")
    return _on_trial(market, trial)


def _untried(market: Market, why: str) -> Decision:
    made = as_given(market.terms, (market.terms.given.spec.tasks,), f"{why}: not split")
    return msgspec.structs.replace(made, carried=market.carried)


def _too_short(groups: Groups, rounds: int) -> str:
    return (
        f"{trials.SHARE:.0%} of the energy of {rounds} rounds does not pay for {trials.LEAST} rounds of"
        f" {named(groups)} on trial, and fewer would tell nothing"
    )


def _affordable(terms: Terms, trial: Trial) -> bool:
    """Whether each of these partitions, were it chosen, keeps to the limits though the others cost as much as
    it did itself on trial.
    """
    limits, others = terms.limits, len(trial.partitions) - 1

    def whole_way(groups: Groups) -> Terms:
        rounds = limits.rounds + others * min(trial.lasted(group) for group in groups)
        return replace(terms, limits=replace(limits, rounds=rounds))

    return all(whole_way(groups).bid(groups).sound for groups in trial.partitions)


def _on_trial(market: Market, trial: Trial) -> Decision:
    """The trial as a decision: every group on the devices that would train it in its own partition."""
    bids = [market.terms.bid(groups) for groups in trial.partitions]
    by_group = {
        group: (bid.devices[at], bid.costs[at]) for bid in bids for at, group in enumerate(bid.groups)
    }
    made = decided(market.terms, bids[0], f"{len(bids)} partitions are tried for the same energy each")
    devices, costs = zip(*(by_group[group] for group in trial.groups), strict=True)
    everyone = market.terms.given.spec.devices
    return msgspec.structs.replace(
        made,
        groups=trial.groups,
        devices=devices if any(each != everyone for each in devices) else (),
        costs=costs,
        left_out=tuple({(e.device, e.group): e for bid in bids for e in bid.left_out}.values()),
        rounds=max(trial.rounds),
        energy_j=trials.energy([cost.energy_j for cost in costs], trial.rounds),
        time_s=None,
        trial=trial,
        carried=market.carried,
        rejected=(),
    )


def _verified(terms: Terms) -> Decision:
    """The partition whose trial ended with the least held-out loss; not splitting if nothing has one."""
    given, tasks = terms.given, terms.given.spec.tasks
    trial = next((each.trial for each in reversed(given.decided) if each.trial), None)
    if trial is None:
        return as_given(terms, (tasks,), "nothing was tried")
    begun = given.spec.training.rounds - given.rounds
    judged = trials.judged(trial, given.evaluated, begun, tasks)
    known = [(loss, len(groups), groups) for groups, loss in judged if loss is not None]
    if not known:
        return _as_tried(terms, trial, trial.partitions[0], "of what was tried no held-out loss is known")
    least, _, taken = min(known)
    return msgspec.structs.replace(
        _as_tried(terms, trial, taken, "of what was tried for the same energy it did best"),
        loss=least,
        rejected=tuple(
            Alternative(groups=groups, why=_lost(loss, least), loss=loss)
            for groups, loss in judged
            if groups != taken
        ),
    )


def _as_tried(terms: Terms, trial: Trial, groups: Groups, why: str) -> Decision:
    """The groups of a trial just as they were tried, with those of their tasks that were stopped since.

    If what is left of a group was on trial itself, and for longer, that goes on instead: the rest would come
    to its name, and to keys under which devices have answered already.
    """
    tasks = terms.given.spec.tasks
    done = min(trial.lasted(group) for group in groups)
    terms = replace(terms, limits=replace(terms.limits, rounds=max(terms.limits.rounds - done, 0)))
    parts = {group: tuple(task for task in group if task in tasks) for group in groups}
    left = tuple(part for part in parts.values() if part)
    made = as_given(terms, left, why)
    if made.groups == left == groups:
        return made
    longer = {part for group, part in parts.items() if _longer(trial, part, group)}
    going = tuple(part if part in longer else group for group, part in parts.items())
    return Decision(groups=going, why=why, rounds=made.rounds)


def _longer(trial: Trial, part: tuple[str, ...], group: tuple[str, ...]) -> bool:
    return part in trial.groups and trial.lasted(part) > trial.lasted(group)


def _lost(loss: float | None, least: float) -> str:
    if loss is None:
        return "its held-out loss is not known"
    return f"{figure(loss - least, 2)} more" if loss > least else "the same, with more groups"
