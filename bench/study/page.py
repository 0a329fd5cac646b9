"""The study's tables on choosing a partition, in markdown: is there a choice, who chooses well, and when."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from study import judge, methods
from study.markdown import slashed, spread, table
from study.sets import EVERY
from study.table import CRITERIA, HELD_OUT
from study.train import METHODS

if TYPE_CHECKING:
    from study.choices import Choices
    from study.table import Criterion, Table

    Tables = dict[str, list[Table]]


def noise(found: Tables, by: Criterion = HELD_OUT) -> str:
    """Whether partitions differ by more than chance."""
    rows = []
    for name, seeds in found.items():
        for groups in judge.COUNTS if len(seeds) > 1 else ():
            each = judge.noise(seeds, groups, by)
            among = [p for p in seeds[0].partitions if len(p) == groups]
            mean = [np.mean([one.loss(p, by) for one in seeds]) for p in among]
            rows.append(
                [
                    f"{name}, {groups} groups",
                    str(len(among)),
                    *(f"{value:.4f}" for value in (min(mean), np.mean(mean), max(mean))),
                    f"{each.spread:.2f} %",
                    f"{each.noise:.2f} %",
                    f"{each.seed_sd:.2f} %",
                    f"{each.p:.2g}",
                    f"{each.agreement:.2f}",
                ]
            )
    heads = ("", "partitions", "best", "mean", "worst", "spread", "noise", "seeds' sd", "p", "seeds agree")
    return table(heads, rows)


def regrets(choices: Choices) -> str:
    """By method and task set: rank, regret (2, 3, 4 groups), share of random's; what choosing took."""
    sets = choices.sets
    rows, random = [], defaultdict(list)
    for method in [name for name in choices.names if "every" not in name]:
        cells = defaultdict(list)
        for name, groups, stands in choices.standings(method):
            cells[name, groups].append(stands)
            random[name, groups].append(stands.random_regret)
        row = [slashed([[s.rank for s in cells[n, g]] for g in judge.COUNTS], 0) for n in sets]
        row += [slashed([[s.regret for s in cells[n, g]] for g in judge.COUNTS], 1) for n in sets]
        row += [spread(choices.of(name, choices.share(method))) for name in sets]
        wasted = np.mean([c.wasted for chosen in choices.picks for c in chosen.get(method, {}).values()])
        rows.append([method, *row, "–" if np.isnan(wasted) else f"{wasted:.1f}"])
    expected = [slashed([random[n, g] for g in judge.COUNTS], 1) for n in sets]
    rows.append(["random", *["8 / 13 / 5.5"] * len(sets), *expected, *["1.00"] * len(sets), "0.0"])
    heads = [f"{name}: {what}" for what in ("rank", "regret %", "share") for name in sets]
    return table(["", *heads, "energy"], rows)


def shares(choices: Choices) -> str:
    """The share of random's regret, averaged over task sets; the rank correlation of scores and losses."""
    rows = []
    for method in choices.names:
        found = [choices.share(method, by) for by in CRITERIA.values()]
        means = [np.nanmean([np.nanmean(known) for known in choices.by_set(values)]) for values in found]
        rho = [spread(choices.of(name, choices.correlations(method))) for name in choices.sets]
        rows.append([method, *(f"{mean:.2f}" for mean in means), *rho])
    return table(("", *CRITERIA, *(f"{name}: ρ" for name in choices.sets)), rows)


def pairs(choices: Choices) -> str:
    """Whether entries tell what a pair does to each other: rank correlation with the loss that i saves j."""
    rows = []
    for every, method, norm in product((EVERY, 1), METHODS, methods.NORMS):
        found = defaultdict(list)
        for name, one in choices.tables:
            measured = methods.affinity(one.measured(method, every), norm)
            found[name].append(judge.pair_agreement(one, measured))
        name = judge.affinity_name(method, norm, every)
        rows.append([name, *(spread(found[each]) for each in choices.sets)])
    return table(("", *choices.sets), rows)


def early(choices: Choices) -> str:
    """How soon after the merge losses tell which partition will be best."""
    rows = []
    for rounds in (1, 2, 4, 8, 16):
        agree, share = defaultdict(list), []
        for _, one in choices.tables:
            if rounds > len(one.group(one.tasks).steps):
                continue
            now = {p: -one.loss_after(p, rounds) for p in one.partitions}
            stands = [judge.standing(one, methods.pick(now, groups)) for groups in judge.COUNTS]
            share.append(sum(s.regret for s in stands) / sum(s.random_regret for s in stands))
            for groups in judge.COUNTS:
                agree[groups].append(judge.correlation(one, now, groups))
        if share:
            rows.append(
                [f"after {rounds}", *(spread(agree[groups]) for groups in judge.COUNTS), spread(share)]
            )
    return table(("rounds", *(f"{groups} groups" for groups in judge.COUNTS), "share of random's"), rows)


def agreement(choices: Choices) -> str:
    """How alike the matrices of the methods are, off the diagonal."""
    rows, off = [], ~np.eye(5, dtype=bool)
    for every in (EVERY, 1):
        for method in METHODS:
            cells = []
            for norm in ("raw", "self"):
                found = []
                for _, one in choices.tables:
                    full = methods.affinity(one.measured("lookahead", 1), norm).mean[off]
                    own = methods.affinity(one.measured(method, every), norm).mean[off]
                    known = ~np.isnan(full) & ~np.isnan(own)
                    found.append(judge.spearman(own[known], full[known]))
                cells.append(spread(found))
            rows.append([f"{method}, every {every}", *cells])
    return table(("", "raw", "self"), rows)


def measuring(choices: Choices) -> str:
    """How much must be measured, and when: share of random's regret by what is left of the measurements."""
    found, part = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    for name, one in choices.tables:
        every = methods.batches(one.measured("gram", 1))
        for what, ways in methods.windows(one).items():
            for norm in ("raw", "self"):
                shares = [judge.share(one, methods.affinity(way, norm)) for way in ways]
                found[what][name, norm].append(float(np.mean(shares)))
            part[what].append(float(np.mean([methods.batches(way) for way in ways])) / every)
    rows = [
        [what, f"{100 * np.mean(part[what]):.1f}", *(spread(each[n, norm]) for norm, n in _by_norm(choices))]
        for what, each in found.items()
    ]
    heads = [f"{norm}: {name}" for norm, name in _by_norm(choices)]
    return table(("", "batches per 100 merged", *heads), rows)


def _by_norm(choices: Choices) -> list[tuple[str, str]]:
    return list(product(("raw", "self"), choices.sets))
